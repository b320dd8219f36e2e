//! Objects in S3.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::get_object::{GetObjectError, GetObjectOutput};
use aws_sdk_s3::primitives::ByteStream;
use tokio::sync::Semaphore;

use super::{FetchError, ObjectStore, Sink};
use crate::s3::{self, ObjectId, ObjectInfo, S3Error, S3ErrorKind};

/// How many requests for ranges are under way at once, over all objects; the first one of each object is not counted. This
/// bounds connections.
const ALL_RANGES: usize = 32;

/// Fetches from S3 by version, or on the condition that the ETag is the event's.
#[derive(Debug, Clone)]
pub struct S3Store {
    pub(super) client: Client,
    pub(super) range_bytes: u64,
    pub(super) turns: Arc<Semaphore>,
}

impl S3Store {
    /// A store on an S3 client. Objects of more than `range_bytes` are fetched in several requests at once, each for so many
    /// bytes at most.
    #[must_use]
    pub fn new(client: Client, range_bytes: u64) -> Self {
        Self { client, range_bytes: range_bytes.max(1), turns: Arc::new(Semaphore::new(ALL_RANGES)) }
    }

    /// Asks for the object or, if `range` is given, for a part of it.
    pub(super) async fn get(
        &self,
        id: &ObjectId,
        range: Option<&Range<u64>>,
    ) -> Result<GetObjectOutput, SdkError<GetObjectError>> {
        self.client
            .get_object()
            .bucket(&id.bucket)
            .key(&id.key)
            .set_version_id(id.version_id.clone())
            .set_if_match(id.if_match())
            .set_range(range.map(|range| format!("bytes={}-{}", range.start, range.end.saturating_sub(1))))
            .send()
            .await
    }
}

impl ObjectStore for S3Store {
    async fn head(&self, id: &ObjectId) -> Result<ObjectInfo, S3Error> {
        s3::head(&self.client, id).await
    }

    async fn tags(&self, id: &ObjectId) -> Result<Vec<(String, String)>, S3Error> {
        s3::tags(&self.client, id).await
    }

    async fn fetch(&self, id: &ObjectId, size: u64, sink: &mut Sink<'_>) -> Result<ObjectInfo, FetchError> {
        // Without version and ETag, nothing would tie the parts together.
        if size > self.range_bytes
            && id.is_pinned()
            && let Some(info) = self.fetch_ranges(id, size, sink).await?
        {
            return Ok(info);
        }
        let output = self.get(id, None).await.map_err(|error| refused(id, &error))?;
        let info = ObjectInfo::from(&output);
        if id.is_other_state(&info) {
            return Err(S3Error::other_state("GetObject", id).into());
        }
        if output.content_length().is_none() {
            return Err(broken(
                id,
                "the answer does not say how long it is, so nobody knows whether it is complete".to_owned(),
            )
            .into());
        }
        pour(id, output.body, &mut (0..info.size), sink).await?;
        Ok(info)
    }
}

/// Hands a body to the sink; `range` is what it should hold, and begins with what is missing afterwards.
pub(super) async fn pour(
    id: &ObjectId,
    mut body: ByteStream,
    range: &mut Range<u64>,
    sink: &mut (dyn FnMut(u64, &[u8]) -> io::Result<()> + Send),
) -> Result<(), FetchError> {
    let asked = range.clone();
    while let Some(chunk) = body.next().await {
        let at = range.start;
        let chunk =
            chunk.map_err(|error| broken(id, format!("the body of bytes {asked:?} broke off at byte {at}: {error}")))?;
        let end = at + chunk.len() as u64;
        if end > range.end {
            return Err(broken(id, format!("the body of bytes {asked:?} has at least {end} bytes")).into());
        }
        sink(at, &chunk).map_err(|error| FetchError::Sink { id: id.clone(), error })?;
        range.start = end;
    }
    if range.is_empty() {
        Ok(())
    } else {
        Err(broken(id, format!("the body of bytes {asked:?} ended at byte {}", range.start)).into())
    }
}

/// S3's error as ours.
pub(super) fn refused(id: &ObjectId, error: &SdkError<GetObjectError>) -> S3Error {
    S3Error::new("GetObject", &id.bucket, &id.key, error)
}

/// An answer that cannot be right, or was not complete: another attempt may get a better one.
pub(super) fn broken(id: &ObjectId, message: String) -> S3Error {
    S3Error { operation: "GetObject", bucket: id.bucket.clone(), key: id.key.clone(), kind: S3ErrorKind::Transient, message }
}
