//! Reports as objects in S3, one for each scan.

use std::collections::HashMap;

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use time::macros::format_description;

use super::{Notice, ScanReport, Sink, SinkError, Target};
use crate::config::{ObjectSinkConfig, Template};
use crate::s3::{LONGEST_KEY, S3Error, S3ErrorKind};

/// The most bytes of an ETag or a version ID in metadata, which is ASCII and has 2 KB in all
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html#UserMetadata>).
const LONGEST_IDENTITY: usize = 900;

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
            .set_metadata(Some(metadata(report)))
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

/// What a HEAD shows: the status, and what it is about. Reports on other states of the object come to the same place, in any order.
fn metadata(report: &ScanReport) -> HashMap<String, String> {
    let (etag, version_id) = match &report.target {
        Target::S3 { etag, version_id, .. } => (etag.as_deref(), version_id.as_deref()),
        Target::File { .. } | Target::Stream { .. } => (None, None),
    };
    // Somebody's own event or job can name anything. What is left out equals nothing that a reader has uploaded.
    let safe = |text: &&str| (1..=LONGEST_IDENTITY).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic());
    let status = report.status.to_string();
    let pairs = [
        ("status", Some(status.as_str())),
        ("scan-id", Some(report.scan_id.as_str())),
        ("etag", etag.filter(safe)),
        ("version-id", version_id.filter(safe)),
    ];
    pairs.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect()
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
    fn metadata_is_plain_and_short() {
        let long = "v".repeat(LONGEST_IDENTITY);
        for (text, is_shown) in
            [("e-1", true), (&*long, true), (&format!("{long}v"), false), ("", false), ("é", false), ("a\r\nb: c", false)]
        {
            let target = Target::S3 {
                bucket: "b".into(),
                key: "k".into(),
                version_id: Some(text.into()),
                etag: Some(text.into()),
                size: 1,
            };
            let found = metadata(&ScanReport { target, ..example() });
            for name in ["etag", "version-id"] {
                assert_eq!(found.get(name).map(String::as_str), is_shown.then_some(text), "{name} {text:?}");
            }
            assert!(found.iter().map(|(name, value)| "x-amz-meta-".len() + name.len() + value.len()).sum::<usize>() <= 2048);
        }
        let target = Target::S3 { bucket: "b".into(), key: "k".into(), version_id: None, etag: None, size: 1 };
        let mut names: Vec<String> = metadata(&ScanReport { target, ..example() }).into_keys().collect();
        names.sort();
        assert_eq!(names, ["scan-id", "status"]);
    }

    #[test]
    fn every_placeholder_of_the_configuration_has_a_value() -> Result<(), Box<dyn std::error::Error>> {
        for name in ObjectSinkConfig::PLACEHOLDERS {
            key(&format!("s3://r/{{{name}}}").parse()?, &example())?;
        }
        Ok(())
    }
}
