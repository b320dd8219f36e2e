//! Each report is written down before anybody is told, so that work which a crash cut short is told again in the same words.

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use sha2::{Digest, Sha256};

use super::{ScanReport, SinkError};
use crate::config::Location;
use crate::engine::hex;
use crate::s3::{S3Error, S3ErrorKind};

/// The name under which its errors are reported.
const NAME: &str = "the outbox";

/// Where reports are written down, each once.
#[derive(Debug, Clone)]
pub struct Outbox {
    client: Client,
    location: Location,
}

impl Outbox {
    /// An outbox in a bucket of one's own: who can write there can put words into this service's mouth.
    #[must_use]
    pub fn new(client: Client, location: Location) -> Self {
        Self { client, location }
    }

    /// Writes a report down, unless one on the same work with the same result is there already; returns what is there.
    ///
    /// # Errors
    ///
    /// [`SinkError`]
    pub async fn keep(&self, report: ScanReport) -> Result<ScanReport, SinkError> {
        let (bucket, key) = (&self.location.bucket, format!("{}{}.json", self.location.prefix, name(&report)?));
        let written = self
            .client
            .put_object()
            .bucket(bucket)
            .key(&key)
            .if_none_match("*")
            .content_type("application/json")
            .body(ByteStream::from(report.to_json()?.into_bytes()))
            .send()
            .await
            .map_err(|error| S3Error::new("PutObject", bucket, &key, &error));
        match written {
            Ok(_) => return Ok(report),
            Err(S3Error { kind: S3ErrorKind::Replaced, .. }) => {}
            Err(error) => return Err(failed(&error)),
        }
        let found = self.client.get_object().bucket(bucket).key(&key).send().await;
        let found = found.map_err(|error| failed(&S3Error::new("GetObject", bucket, &key, &error)))?;
        let body = found
            .body
            .collect()
            .await
            .map_err(|error| SinkError { sink: NAME.into(), ..SinkError::transient(error.to_string()) })?;
        let found: Option<ScanReport> = serde_json::from_slice(&body.into_bytes()).ok();
        found
            .filter(|found| found.scan_id == report.scan_id && found.status == report.status && found.target == report.target)
            .ok_or_else(|| SinkError {
                sink: NAME.into(),
                ..SinkError::permanent(format!("s3://{bucket}/{key} is not what this service wrote; remove it"))
            })
    }
}

/// The same work with the same result has the same name. What a sender added to its job comes back to that sender alone.
pub(super) fn name(report: &ScanReport) -> Result<String, SinkError> {
    let work = (&report.scan_id, report.status, &report.trace_id, &report.custom);
    // The same scan of what is in quarantine can end in another way, when its place has become free.
    let outcomes = || report.actions.iter().map(|action| (&action.action, &action.outcome)).collect::<Vec<_>>();
    let work = match &report.source {
        Some(_) => serde_json::to_vec(&(work, outcomes())),
        None => serde_json::to_vec(&work),
    };
    let work = work.map_err(|error| SinkError::permanent(error.to_string()))?;
    Ok(hex(&Sha256::digest(work)[..16]))
}

fn failed(error: &S3Error) -> SinkError {
    let can_retry = error.kind == S3ErrorKind::Transient;
    SinkError { sink: NAME.into(), can_retry, ..SinkError::transient(error.to_string()) }
}
