//! Copies an object elsewhere with all that belongs to it, and removes the original.

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{self, StalledStreamProtectionConfig};
use aws_sdk_s3::types::{
    ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, MetadataDirective, ServerSideEncryption, TaggingDirective,
};
use aws_smithy_types::DateTime;
use aws_smithy_types::base64;
use aws_smithy_types::date_time::Format;

use super::tag::{self, Pairs};
use crate::engine::hex;
use crate::s3::{ObjectId, ObjectInfo, S3Error, S3ErrorKind};

/// The most parts that an upload can have.
const MOST_PARTS: u64 = 10_000;

/// The least size of a part but the last.
const LEAST_PART: u64 = 5 * 1024 * 1024;

/// The size of a part, unless the object needs larger ones.
const PART: u64 = 512 * 1024 * 1024;

/// How long an attempt to copy may take.
const COPY: Duration = Duration::from_mins(15);

/// Removes the scanned version, or the object if its ETag is the scanned one
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-deletes.html>). One that is gone or replaced is left.
pub(super) async fn remove(client: &Client, id: &ObjectId) -> Result<(), S3Error> {
    let deleted = client
        .delete_object()
        .bucket(&id.bucket)
        .key(&id.key)
        .set_version_id(id.version_id.clone())
        .set_if_match(id.if_match())
        .send()
        .await
        .map_err(|error| S3Error::new("DeleteObject", &id.bucket, &id.key, &error));
    match deleted {
        Err(S3Error { kind: S3ErrorKind::Gone | S3ErrorKind::Replaced, .. }) => {
            tracing::info!(bucket = id.bucket, key = id.key, "the original was removed or replaced by somebody else");
            Ok(())
        }
        deleted => deleted.map(|_| ()),
    }
}

/// One copy, conditional on what was scanned.
pub(super) struct Copy<'a> {
    pub(super) id: &'a ObjectId,
    pub(super) info: &'a ObjectInfo,
    /// The SHA-256 of what was scanned, in hexadecimal digits.
    pub(super) sha256: Option<&'a str>,
    /// The bucket that it goes to.
    pub(super) bucket: &'a str,
    /// Its key there.
    pub(super) key: &'a str,
    pub(super) tags: &'a Pairs,
    /// The copy's metadata, if it is not just the object's own.
    pub(super) metadata: Option<&'a Pairs>,
    /// Whether it must not overwrite anything.
    pub(super) only_if_free: bool,
    pub(super) kms_key_id: Option<&'a str>,
    pub(super) in_parts_above: u64,
}

impl Copy<'_> {
    pub(super) async fn run(&self, client: &Client) -> Result<(), S3Error> {
        if self.info.size > self.in_parts_above { self.in_parts(client).await } else { self.at_once(client).await }
    }

    /// The condition on the source, for buckets without versions.
    fn condition(&self) -> Option<String> {
        self.id.if_match()
    }

    /// The condition on the destination.
    fn if_none_match(&self) -> Option<String> {
        self.only_if_free.then(|| "*".to_owned())
    }

    /// Which encryption the copy gets: the configured key, else the object's own; S3's default for everything else.
    fn encryption(&self) -> (Option<ServerSideEncryption>, Option<String>) {
        let own = self.info.encryption.clone().filter(|kind| *kind != ServerSideEncryption::Aes256);
        match self.kms_key_id {
            Some(key) => (Some(own.unwrap_or(ServerSideEncryption::AwsKms)), Some(key.to_owned())),
            None => {
                let key = own.as_ref().and(self.info.kms_key_id.clone());
                (own, key)
            }
        }
    }

    /// `Expires`, if it is a time.
    fn expires(&self) -> Option<DateTime> {
        self.info.expires.as_deref().and_then(|text| DateTime::from_str(text, Format::HttpDate).ok())
    }

    /// CopyObject takes metadata and content headers along by itself, unless it is given other metadata: then everything has to be said again.
    async fn at_once(&self, client: &Client) -> Result<(), S3Error> {
        let (encryption, key) = self.encryption();
        // An ETag can be an MD5, and two contents can be made to have the same: the copy's SHA-256 tells them apart.
        let expected = if self.id.version_id.is_none() { self.sha256 } else { None };
        let mut request = client.copy_object();
        if let Some(metadata) = self.metadata {
            request = request
                .metadata_directive(MetadataDirective::Replace)
                .set_metadata(Some(metadata.iter().cloned().collect()))
                .set_content_type(self.info.content_type.clone())
                .set_content_disposition(self.info.content_disposition.clone())
                .set_content_encoding(self.info.content_encoding.clone())
                .set_content_language(self.info.content_language.clone())
                .set_cache_control(self.info.cache_control.clone())
                .set_expires(self.expires());
        }
        let copied = request
            .set_checksum_algorithm(expected.map(|_| ChecksumAlgorithm::Sha256))
            .copy_source(self.id.copy_source())
            .set_copy_source_if_match(self.condition())
            .set_if_none_match(self.if_none_match())
            .bucket(self.bucket)
            .key(self.key)
            .tagging_directive(TaggingDirective::Replace)
            .tagging(tag::header(self.tags))
            .set_storage_class(self.info.storage_class.clone())
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(key)
            .set_bucket_key_enabled(self.info.bucket_key)
            .set_website_redirect_location(self.info.website_redirect.clone())
            .customize()
            .config_override(patient(COPY))
            .send()
            .await
            .map_err(|error| S3Error::new("CopyObject", &self.id.bucket, &self.id.key, &error))?;
        let found = copied.copy_object_result().and_then(|result| result.checksum_sha256());
        match (expected, found) {
            (Some(expected), Some(found)) if is_another(expected, found) => self.undo(client, copied.version_id()).await,
            _ => Ok(()),
        }
    }

    /// Removes a copy that is not of what was scanned.
    async fn undo(&self, client: &Client, version_id: Option<&str>) -> Result<(), S3Error> {
        let copy = ObjectId {
            bucket: self.bucket.to_owned(),
            key: self.key.to_owned(),
            version_id: version_id.map(str::to_owned),
            etag: None,
        };
        remove(client, &copy).await?;
        Err(S3Error {
            operation: "CopyObject",
            bucket: self.id.bucket.clone(),
            key: self.id.key.clone(),
            kind: S3ErrorKind::Replaced,
            message: "another content with the same ETag took the object's place".to_owned(),
        })
    }

    /// A multipart upload starts from nothing: everything has to be said again.
    async fn in_parts(&self, client: &Client) -> Result<(), S3Error> {
        let (bucket, key) = (self.bucket, self.key);
        let (encryption, kms_key) = self.encryption();
        let info = self.info;
        let upload = client
            .create_multipart_upload()
            .bucket(bucket)
            .key(key)
            .tagging(tag::header(self.tags))
            .set_content_type(info.content_type.clone())
            .set_content_disposition(info.content_disposition.clone())
            .set_content_encoding(info.content_encoding.clone())
            .set_content_language(info.content_language.clone())
            .set_cache_control(info.cache_control.clone())
            .set_expires(self.expires())
            .set_website_redirect_location(info.website_redirect.clone())
            .set_metadata(Some(self.metadata.unwrap_or(&info.metadata).iter().cloned().collect()))
            .set_storage_class(info.storage_class.clone())
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(kms_key)
            .set_bucket_key_enabled(info.bucket_key)
            .send()
            .await
            .map_err(|error| S3Error::new("CreateMultipartUpload", bucket, key, &error))?;
        let upload_id = upload.upload_id().unwrap_or_default();
        let copied = self.parts(client, upload_id).await;
        if copied.is_err() {
            // Parts of an unfinished upload cost money until they are removed.
            let aborted = client.abort_multipart_upload().bucket(bucket).key(key).upload_id(upload_id).send().await;
            if let Err(error) = aborted {
                let error = S3Error::new("AbortMultipartUpload", bucket, key, &error);
                tracing::warn!(%error, "an unfinished upload is left; a lifecycle rule can remove it");
            }
        }
        copied
    }

    async fn parts(&self, client: &Client, upload_id: &str) -> Result<(), S3Error> {
        let (bucket, key) = (self.bucket, self.key);
        let mut parts = Vec::new();
        for (number, (first, last)) in (1..).zip(ranges(self.info.size, PART.min(self.in_parts_above))) {
            let output = client
                .upload_part_copy()
                .copy_source(self.id.copy_source())
                .set_copy_source_if_match(self.condition())
                .copy_source_range(format!("bytes={first}-{last}"))
                .bucket(bucket)
                .key(key)
                .upload_id(upload_id)
                .part_number(number)
                .customize()
                .config_override(patient(COPY))
                .send()
                .await
                .map_err(|error| S3Error::new("UploadPartCopy", &self.id.bucket, &self.id.key, &error))?;
            let etag = output.copy_part_result().and_then(|result| result.e_tag()).map(str::to_owned);
            parts.push(CompletedPart::builder().part_number(number).set_e_tag(etag).build());
        }
        let completed = client
            .complete_multipart_upload()
            .bucket(bucket)
            .key(key)
            .upload_id(upload_id)
            .set_if_none_match(self.if_none_match())
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build())
            .customize()
            .config_override(patient(COPY))
            .send()
            .await
            .map_err(|error| S3Error::new("CompleteMultipartUpload", bucket, key, &error))?;
        // Servers other than S3 may ignore the tags that CreateMultipartUpload was given.
        let version_id = completed.version_id;
        let copy = ObjectId { bucket: bucket.to_owned(), key: key.to_owned(), version_id, etag: None };
        match tag::put(client, &copy, self.tags).await {
            // Somebody has taken it from there already.
            Err(S3Error { kind: S3ErrorKind::Gone, .. }) => Ok(()),
            tagged => tagged,
        }
    }
}

/// Whether S3's checksum of a copy shows another content than was scanned. A checksum of checksums (`…-3`) shows nothing.
fn is_another(scanned_hex: &str, copied_base64: &str) -> bool {
    base64::decode(copied_base64).is_ok_and(|copied| hex(&copied) != scanned_hex)
}

/// S3 can begin to answer these requests at once, and end when it has copied everything, which takes minutes for large objects: a stream that
/// stalls, but not for ever.
fn patient(within: Duration) -> config::Builder {
    config::Builder::new()
        .timeout_config(TimeoutConfig::builder().read_timeout(within).operation_attempt_timeout(within).build())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
}

/// The first and last byte of each part.
fn ranges(size: u64, part: u64) -> impl Iterator<Item = (u64, u64)> {
    let part = part.max(size.div_ceil(MOST_PARTS)).max(LEAST_PART);
    (0..size.div_ceil(part)).map(move |index| (index * part, ((index + 1) * part).min(size) - 1))
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::error::SdkError;
    use tokio::net::TcpListener;

    use super::*;
    use crate::aws;
    use crate::aws::tests::{answered, one_attempt};

    /// S3 began to answer and nobody closed the connection: the object's place among those in flight was taken for good.
    #[tokio::test]
    async fn a_copy_whose_answer_stopped_halfway_was_waited_for() -> Result<(), Box<dyn std::error::Error>> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let client = aws::s3(&one_attempt(&listener)?);
        let request = client.copy_object().bucket("b").key("k").copy_source("a/k").customize();
        let copied = request.config_override(patient(Duration::from_secs(5))).send();
        let server = answered(&listener, b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n<?xml");
        // The connection stays open.
        let both = async { tokio::join!(copied, server) };
        let (copied, connection) = tokio::time::timeout(Duration::from_secs(60), both).await?;
        drop(connection?);
        assert!(matches!(copied, Err(SdkError::TimeoutError(_))), "{copied:?}");
        Ok(())
    }

    /// Two contents can be made to have one MD5: by ETag alone, the second took the first one's verdict.
    #[test]
    fn a_second_content_with_the_same_etag_was_promoted() {
        let scanned = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert!(!is_another(scanned, "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="));
        assert!(is_another(scanned, "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="));
        assert!(!is_another(scanned, "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=-3"));
    }

    #[test]
    fn parts_cover_everything_once() {
        const MIB: u64 = 1024 * 1024;
        assert_eq!(
            ranges(12 * MIB, 5 * MIB).collect::<Vec<_>>(),
            [(0, 5 * MIB - 1), (5 * MIB, 10 * MIB - 1), (10 * MIB, 12 * MIB - 1)]
        );
        assert_eq!(ranges(10 * MIB, 5 * MIB).count(), 2);
        assert_eq!(ranges(50_000 * 1024 * MIB, PART).count() as u64, MOST_PARTS);
    }
}
