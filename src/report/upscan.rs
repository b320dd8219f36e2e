//! The callback of HMRC's upscan, for applications that understand it already
//! (<https://github.com/hmrc/upscan-initiate>; the form is `HttpNotificationService.scala` of <https://github.com/hmrc/upscan-notify>).

use std::io;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::presigning::PresigningConfig;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::encoded_word::decode;
use super::{Notice, ScanReport, SinkError, Target};
use crate::aws;
use crate::config::{TextTemplate, UpscanConfig};
use crate::engine::Status;

/// What a URL's path holds as it is.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Makes upscan's callbacks.
pub(super) struct Upscan {
    s3: Client,
    config: UpscanConfig,
    download_url: Option<TextTemplate>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Callback<'a> {
    reference: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    download_url: Option<String>,
    file_status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    upload_details: Option<UploadDetails<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_details: Option<FailureDetails>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UploadDetails<'a> {
    file_name: String,
    file_mime_type: &'a str,
    upload_timestamp: String,
    checksum: &'a str,
    size: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FailureDetails {
    failure_reason: &'static str,
    message: String,
}

impl Upscan {
    /// `s3` signs download addresses.
    ///
    /// # Errors
    ///
    /// When the configured address is no template; see `config`.
    pub(super) fn new(s3: Client, config: UpscanConfig) -> io::Result<Self> {
        let download_url = config.download_url.as_deref().map(TextTemplate::parse).transpose();
        let download_url = download_url.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok(Self { s3, config, download_url })
    }

    /// The JSON of a callback.
    ///
    /// # Errors
    ///
    /// When the download address cannot be signed.
    pub(super) async fn body(&self, notice: &Notice<'_>) -> Result<String, SinkError> {
        let (report, about) = (notice.report, notice.about);
        let key = report.target.name();
        let reference = about.metadata.get(&self.config.reference.to_lowercase()).map_or(key, String::as_str);
        let failure = failure(report);
        let callback = if failure.is_some() {
            Callback { reference, download_url: None, file_status: "FAILED", upload_details: None, failure_details: failure }
        } else {
            let file_name = about.metadata.get(&self.config.file_name.to_lowercase()).map(|name| decode(name));
            let uploaded = about.last_modified.unwrap_or(report.scanned_at);
            let details = UploadDetails {
                file_name: file_name.unwrap_or_else(|| key.rsplit('/').next().unwrap_or(key).into()).into_owned(),
                file_mime_type: about.content_type.as_deref().unwrap_or("application/octet-stream"),
                upload_timestamp: rfc3339(uploaded)?,
                checksum: report.sha256.as_deref().unwrap_or_default(),
                size: report.target.size(),
            };
            let download_url = self.download_url(report, reference).await?;
            Callback { reference, download_url, file_status: "READY", upload_details: Some(details), failure_details: None }
        };
        serde_json::to_string(&callback).map_err(|error| SinkError::permanent(error.to_string()))
    }

    async fn download_url(&self, report: &ScanReport, reference: &str) -> Result<Option<String>, SinkError> {
        let Some((bucket, key, version_id)) = place(report) else { return Ok(None) };
        if let Some(template) = &self.download_url {
            let encoded = |text| utf8_percent_encode(text, PATH).to_string();
            return Ok(Some(template.fill(|name| match name {
                "bucket" => encoded(bucket),
                "key" => encoded(key),
                _ => encoded(reference).replace('/', "%2F"),
            })));
        }
        let Some(secs) = self.config.download_url_secs else { return Ok(None) };
        let lasting = PresigningConfig::expires_in(Duration::from_secs(secs));
        let lasting = lasting.map_err(|error| SinkError::permanent(error.to_string()))?;
        let request = self.s3.get_object().bucket(bucket).key(key).set_version_id(version_id.map(str::to_owned));
        let signed = request.presigned(lasting).await;
        let signed = signed.map_err(|error| SinkError::transient(aws::causes(&error)))?;
        Ok(Some(signed.uri().to_owned()))
    }
}

/// Why the file is not ready; `None` if it is. It is not unless it is clean and is where a clean file belongs.
fn failure(report: &ScanReport) -> Option<FailureDetails> {
    let (failure_reason, message) = match report.status {
        Status::Clean => {
            let undone = report.actions.iter().find(|action| ["failed", "skipped"].contains(&&*action.outcome))?;
            ("UNKNOWN", format!("the file is clean, but {} {}", undone.action, undone.outcome))
        }
        Status::Infected | Status::Suspicious => ("QUARANTINE", report.signatures.join(", ")),
        Status::Unscannable => {
            let reason = report.reason.map_or_else(String::new, |reason| format!(": {reason}"));
            ("REJECTED", format!("the file could not be scanned completely{reason}"))
        }
        Status::Failed => ("UNKNOWN", "the file could not be scanned".to_owned()),
    };
    Some(FailureDetails { failure_reason, message })
}

/// Where the object is by now.
fn place(report: &ScanReport) -> Option<(&str, &str, Option<&str>)> {
    let moved = report.actions.iter().rev().find_map(|action| action.destination.as_deref());
    if let Some((bucket, key)) = moved.and_then(|place| place.strip_prefix("s3://")?.split_once('/')) {
        return Some((bucket, key, None));
    }
    match &report.target {
        Target::S3 { bucket, key, version_id, .. } => Some((bucket, key, version_id.as_deref())),
        Target::File { .. } | Target::Stream { .. } => None,
    }
}

fn rfc3339(at: OffsetDateTime) -> Result<String, SinkError> {
    at.to_offset(time::UtcOffset::UTC).format(&Rfc3339).map_err(|error| SinkError::permanent(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Reason;
    use crate::report::ActionReport;
    use crate::report::scan_report::example;

    #[test]
    fn only_what_is_clean_and_in_its_place_is_ready() {
        let actions = |outcome: &'static str| {
            vec![ActionReport { action: "promote".into(), outcome: outcome.into(), destination: None, detail: None }]
        };
        for (status, reason, outcome, expected) in [
            (Status::Clean, None, "done", None),
            (Status::Clean, None, "follows", None),
            (Status::Clean, None, "failed", Some(("UNKNOWN", "the file is clean, but promote failed"))),
            (Status::Clean, None, "skipped", Some(("UNKNOWN", "the file is clean, but promote skipped"))),
            (Status::Infected, None, "done", Some(("QUARANTINE", "Win.Test.EICAR_HDB-1"))),
            (Status::Suspicious, None, "done", Some(("QUARANTINE", "Win.Test.EICAR_HDB-1"))),
            (
                Status::Unscannable,
                Some(Reason::Encrypted),
                "done",
                Some(("REJECTED", "the file could not be scanned completely: ENCRYPTED")),
            ),
            (Status::Failed, None, "done", Some(("UNKNOWN", "the file could not be scanned"))),
        ] {
            let report = ScanReport { status, reason, actions: actions(outcome), ..example() };
            let found = failure(&report);
            assert_eq!(found.as_ref().map(|found| (found.failure_reason, found.message.as_str())), expected, "{status}");
        }
    }

    #[test]
    fn a_file_is_fetched_from_where_it_is_now() {
        let moved = ActionReport {
            action: "promote".into(),
            outcome: "done".into(),
            destination: Some("s3://clean/a/b".into()),
            detail: None,
        };
        assert_eq!(place(&ScanReport { actions: vec![moved], ..example() }), Some(("clean", "a/b", None)));
        assert_eq!(place(&example()), Some(("b", "k", Some("v"))));
    }
}
