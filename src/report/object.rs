//! Reports as objects in S3, one for each scan.

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use time::macros::format_description;

use super::{Notice, ScanReport, Sink, SinkError, Target};
use crate::config::{ObjectSinkConfig, Template};
use crate::s3::{LONGEST_KEY, S3Error, S3ErrorKind};

/// Writes each report's JSON to its place. A later report overwrites an earlier one there.
#[derive(Debug, Clone)]
pub struct ObjectSink {
    client: Client,
    to: Template,
}

impl ObjectSink {
    /// A sink with places as configured.
    #[must_use]
    pub fn new(client: Client, config: ObjectSinkConfig) -> Self {
        Self { client, to: config.to }
    }

    async fn put(&self, report: &ScanReport) -> Result<(), SinkError> {
        let key = key(&self.to, report)?;
        self.client
            .put_object()
            .bucket(&self.to.bucket)
            .key(&key)
            .content_type("application/json")
            .metadata("status", report.status.to_string())
            .metadata("scan-id", &report.scan_id)
            .body(ByteStream::from(report.to_json()?.into_bytes()))
            .send()
            .await
            .map(drop)
            .map_err(|error| {
                let error = S3Error::new("PutObject", &self.to.bucket, &key, &error);
                let can_retry = error.kind == S3ErrorKind::Transient;
                SinkError { can_retry, ..SinkError::transient(error.to_string()) }
            })
    }
}

impl Sink for ObjectSink {
    fn deliver<'a>(&'a self, notice: &'a Notice<'a>) -> BoxFuture<'a, Result<(), SinkError>> {
        self.put(notice.report).boxed()
    }
}

/// The place of a report.
fn key(to: &Template, report: &ScanReport) -> Result<String, SinkError> {
    let bucket = match &report.target {
        Target::S3 { bucket, .. } => bucket.as_str(),
        Target::File { .. } | Target::Stream { .. } => "",
    };
    let utc = report.scanned_at.to_offset(time::UtcOffset::UTC);
    let date =
        utc.format(format_description!("[year]-[month]-[day]")).map_err(|error| SinkError::permanent(error.to_string()))?;
    let status = report.status.to_string();
    let values = [
        ("bucket", bucket),
        ("key", report.target.name()),
        ("scan_id", report.scan_id.as_str()),
        ("status", status.as_str()),
        ("date", date.as_str()),
    ];
    let key = to.key(&values).ok_or_else(|| SinkError::permanent(format!("{to} has an unknown placeholder")))?;
    if key.len() > LONGEST_KEY {
        let bytes = key.len();
        return Err(SinkError::permanent(format!(
            "the report's key would have {bytes} bytes, and S3 takes {LONGEST_KEY}; use {{scan_id}} instead of {{key}}"
        )));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::super::scan_report::example;
    use super::*;

    #[test]
    fn places() -> Result<(), Box<dyn std::error::Error>> {
        let report = example();
        for (to, expected) in [
            ("s3://r/{bucket}/{key}.json", "b/k.json".to_owned()),
            ("s3://r/{date}/{status}/{scan_id}", format!("2026-10-14/INFECTED/{}", report.scan_id)),
        ] {
            assert_eq!(key(&to.parse()?, &report)?, expected);
        }
        for (bytes, fits) in [(LONGEST_KEY - 5, true), (LONGEST_KEY - 4, false)] {
            let target = Target::S3 { bucket: "b".into(), key: "k".repeat(bytes), version_id: None, etag: None, size: 1 };
            let placed = key(&"s3://r/{key}.json".parse()?, &ScanReport { target, ..example() });
            assert_eq!(placed.is_ok(), fits, "{bytes}");
        }
        Ok(())
    }

    #[test]
    fn every_placeholder_of_the_configuration_has_a_value() -> Result<(), Box<dyn std::error::Error>> {
        for name in ObjectSinkConfig::PLACEHOLDERS {
            key(&format!("s3://r/{{{name}}}").parse()?, &example())?;
        }
        Ok(())
    }
}
