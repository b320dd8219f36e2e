//! Puts a placeholder object where an object was removed.

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ServerSideEncryption;
use sha2::{Digest, Sha256};

use super::tag::Pairs;
use super::{relocate, tag};
use crate::config::{ActionsConfig, Disposal};
use crate::engine::hex;
use crate::s3::{ObjectId, S3Error, S3ErrorKind};

/// The SHA-256 of the placeholder objects' content, in hexadecimal digits; `None` if there are none.
pub(super) fn digest(config: &ActionsConfig) -> Option<String> {
    config.uses(Disposal::Replace).then(|| hex(&Sha256::digest(config.placeholder.as_bytes())))
}

/// A placeholder for one object.
pub(super) struct Placeholder<'a> {
    pub(super) id: &'a ObjectId,
    /// The ETag of what was scanned, in quotes.
    pub(super) etag: String,
    pub(super) tags: &'a Pairs,
    pub(super) notes: &'a Pairs,
    pub(super) config: &'a ActionsConfig,
}

impl Placeholder<'_> {
    /// Puts the placeholder there if the key still holds what was scanned, and removes the scanned version, if there are versions.
    ///
    /// Doing it again does the rest: the key holds the placeholder then, or what somebody else put there, and only the version goes.
    pub(super) async fn put(&self, client: &Client) -> Result<(), S3Error> {
        let key = self.config.kms_key_id.clone();
        let put = client
            .put_object()
            .bucket(&self.id.bucket)
            .key(&self.id.key)
            .if_match(&self.etag)
            .content_type(&self.config.placeholder_content_type)
            .set_metadata(Some(self.notes.iter().cloned().collect()))
            .tagging(tag::header(self.tags))
            .set_server_side_encryption(key.as_ref().map(|_| ServerSideEncryption::AwsKms))
            .set_ssekms_key_id(key)
            .body(ByteStream::from(self.config.placeholder.clone().into_bytes()))
            .send()
            .await
            .map_err(|error| S3Error::new("PutObject", &self.id.bucket, &self.id.key, &error));
        match put {
            Err(S3Error { kind: S3ErrorKind::Gone | S3ErrorKind::Replaced, .. }) => {
                tracing::info!(
                    bucket = self.id.bucket,
                    key = self.id.key,
                    "the key holds something else by now: no placeholder"
                );
            }
            put => {
                put?;
            }
        }
        // Without versions, the original is gone with the PUT.
        if self.id.version_id.is_some() { relocate::remove(client, self.id).await } else { Ok(()) }
    }
}
