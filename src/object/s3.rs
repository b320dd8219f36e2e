//! Objects in S3.

use std::io;

use aws_sdk_s3::Client;

use super::{FetchError, ObjectStore};
use crate::s3::{self, ObjectId, ObjectInfo, S3Error, S3ErrorKind};

/// Fetches from S3 by version, or on the condition that the ETag is the event's.
#[derive(Debug, Clone)]
pub struct S3Store {
    client: Client,
}

impl S3Store {
    /// A store on an S3 client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

impl ObjectStore for S3Store {
    async fn head(&self, id: &ObjectId) -> Result<ObjectInfo, S3Error> {
        s3::head(&self.client, id).await
    }

    async fn tags(&self, id: &ObjectId) -> Result<Vec<(String, String)>, S3Error> {
        s3::tags(&self.client, id).await
    }

    async fn fetch(
        &self,
        id: &ObjectId,
        sink: &mut (dyn FnMut(&[u8]) -> io::Result<()> + Send),
    ) -> Result<ObjectInfo, FetchError> {
        let mut output = self
            .client
            .get_object()
            .bucket(&id.bucket)
            .key(&id.key)
            .set_version_id(id.version_id.clone())
            .set_if_match(id.if_match())
            .send()
            .await
            .map_err(|error| S3Error::new("GetObject", &id.bucket, &id.key, &error))?;
        let info = ObjectInfo::from(&output);
        let mut received = 0_u64;
        let broken = |message: String| S3Error {
            operation: "GetObject",
            bucket: id.bucket.clone(),
            key: id.key.clone(),
            kind: S3ErrorKind::Transient,
            message,
        };
        while let Some(chunk) = output.body.next().await {
            let chunk = chunk.map_err(|error| broken(format!("the body broke off after {received} bytes: {error}")))?;
            received += chunk.len() as u64;
            sink(&chunk).map_err(|error| FetchError::Sink { id: id.clone(), error })?;
        }
        if received != info.size {
            return Err(broken(format!("the body has {received} bytes instead of {}", info.size)).into());
        }
        Ok(info)
    }
}
