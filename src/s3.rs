//! What fetching and acting share about S3: which version of which object, what its headers say, what an error means.

use std::borrow::Cow;
use std::fmt;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::types::{ServerSideEncryption, StorageClass};
use aws_smithy_types::DateTime;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use time::OffsetDateTime;

use crate::aws;
use crate::key::{self, NULL_VERSION};

/// The longest key that S3 takes, in bytes.
pub const LONGEST_KEY: usize = 1024;

/// One state of one object: a version, or, in a bucket without versions, the content with one ETag.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectId {
    /// The bucket's name.
    pub bucket: String,
    /// The key, decoded.
    pub key: String,
    /// The version, if the bucket has versions. Never the `null` version, which can be overwritten.
    pub version_id: Option<String>,
    /// The ETag, without quotes.
    pub etag: Option<String>,
}

impl ObjectId {
    /// Whether this names one state for good, so that acting on it cannot hit another.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.version_id.is_some() || self.etag.is_some()
    }

    /// The ETag as a condition, for buckets without versions; a version needs none.
    #[must_use]
    pub fn if_match(&self) -> Option<String> {
        if self.version_id.is_some() { None } else { self.quoted_etag() }
    }

    /// Whether an answer about the object is about another state of it, as far as the answer says. AWS refuses to answer then; a store that is
    /// compatible may not know conditions.
    #[must_use]
    pub fn is_other_state(&self, info: &ObjectInfo) -> bool {
        let differs =
            |asked: &Option<String>, answered: &Option<String>| asked.is_some() && answered.is_some() && asked != answered;
        match &self.version_id {
            // Not every store repeats the version that it was asked for.
            Some(_) => differs(&self.version_id, &info.version_id),
            None => differs(&self.etag, &info.etag),
        }
    }

    /// The ETag in quotes, as HTTP wants it.
    #[must_use]
    pub fn quoted_etag(&self) -> Option<String> {
        self.etag.as_ref().map(|etag| format!("\"{etag}\""))
    }

    /// The value of `x-amz-copy-source`: bucket, key and version, percent-encoded.
    #[must_use]
    pub fn copy_source(&self) -> String {
        /// All but the unreserved characters of RFC 3986 and the slash between segments.
        const KEY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');
        let key = utf8_percent_encode(&self.key, KEY);
        match &self.version_id {
            Some(version) => format!("{}/{key}?versionId={}", self.bucket, utf8_percent_encode(version, NON_ALPHANUMERIC)),
            None => format!("{}/{key}", self.bucket),
        }
    }

    /// What [`ObjectId::copy_source`] wrote, without the ETag.
    #[must_use]
    pub fn from_copy_source(text: &str) -> Option<Self> {
        let decoded = |text| percent_decode_str(text).decode_utf8().ok().map(Cow::into_owned);
        let (path, version_id) = match text.split_once("?versionId=") {
            Some((path, version_id)) => (path, Some(decoded(version_id)?)),
            None => (text, None),
        };
        let (bucket, key) = path.split_once('/')?;
        let is_whole = !bucket.is_empty() && !key.is_empty();
        is_whole.then_some(Self { bucket: bucket.to_owned(), key: decoded(key)?, version_id, etag: None })
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, key::printable(&self.key))
    }
}

/// What S3 says about an object besides its content; a copy keeps all of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ObjectInfo {
    /// Size in bytes.
    pub size: u64,
    /// The ETag, without quotes.
    pub etag: Option<String>,
    /// The version, in a bucket with versions.
    pub version_id: Option<String>,
    /// When it was written.
    pub last_modified: Option<OffsetDateTime>,
    /// `Content-Type`
    pub content_type: Option<String>,
    /// `Content-Disposition`
    pub content_disposition: Option<String>,
    /// `Content-Encoding`
    pub content_encoding: Option<String>,
    /// `Content-Language`
    pub content_language: Option<String>,
    /// `Cache-Control`
    pub cache_control: Option<String>,
    /// `Expires`, as it was sent
    pub expires: Option<String>,
    /// `x-amz-website-redirect-location`
    pub website_redirect: Option<String>,
    /// `x-amz-meta-*`
    pub metadata: Vec<(String, String)>,
    /// The storage class; `None` for `STANDARD`.
    pub storage_class: Option<StorageClass>,
    /// Which key management encrypts it.
    pub encryption: Option<ServerSideEncryption>,
    /// The KMS key.
    pub kms_key_id: Option<String>,
    /// Whether an S3 bucket key is used with KMS.
    pub bucket_key: Option<bool>,
}

/// GetObject and HeadObject answer with the same headers in two types.
macro_rules! info_from {
    ($output:ty) => {
        impl From<&$output> for ObjectInfo {
            fn from(output: &$output) -> Self {
                let text = |value: Option<&str>| value.map(str::to_owned);
                let metadata = output.metadata().into_iter().flatten().map(|(name, value)| (name.clone(), value.clone()));
                Self {
                    size: output.content_length().and_then(|length| u64::try_from(length).ok()).unwrap_or(0),
                    etag: output.e_tag().map(|etag| etag.trim_matches('"').to_owned()),
                    version_id: text(output.version_id()).filter(|version| version != NULL_VERSION),
                    last_modified: output.last_modified().and_then(time_of),
                    content_type: text(output.content_type()),
                    content_disposition: text(output.content_disposition()),
                    content_encoding: text(output.content_encoding()),
                    content_language: text(output.content_language()),
                    cache_control: text(output.cache_control()),
                    expires: text(output.expires_string()),
                    website_redirect: text(output.website_redirect_location()),
                    metadata: metadata.collect(),
                    storage_class: output.storage_class().cloned(),
                    encryption: output.server_side_encryption().cloned(),
                    kms_key_id: text(output.ssekms_key_id()),
                    bucket_key: output.bucket_key_enabled(),
                }
            }
        }
    };
}
info_from!(GetObjectOutput);
info_from!(HeadObjectOutput);

/// S3's time.
#[must_use]
pub fn time_of(at: &DateTime) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(at.as_nanos()).ok()
}

/// The object's tags, name and value.
///
/// # Errors
///
/// [`S3Error`]
pub async fn tags(client: &Client, id: &ObjectId) -> Result<Vec<(String, String)>, S3Error> {
    let output = client
        .get_object_tagging()
        .bucket(&id.bucket)
        .key(&id.key)
        .set_version_id(id.version_id.clone())
        .send()
        .await
        .map_err(|error| S3Error::new("GetObjectTagging", &id.bucket, &id.key, &error))?;
    Ok(output.tag_set().iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect())
}

/// Looks an object up: that version, or that ETag.
///
/// # Errors
///
/// [`S3Error`]; [`S3ErrorKind::Replaced`] when the key holds another content now.
pub async fn head(client: &Client, id: &ObjectId) -> Result<ObjectInfo, S3Error> {
    let request = client.head_object().bucket(&id.bucket).key(&id.key);
    let request = request.set_version_id(id.version_id.clone()).set_if_match(id.if_match());
    let output = request.send().await.map_err(|error| S3Error::new("HeadObject", &id.bucket, &id.key, &error))?;
    let info = ObjectInfo::from(&output);
    if id.is_other_state(&info) { Err(S3Error::other_state("HeadObject", id)) } else { Ok(info) }
}

/// A request to S3 that failed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} of s3://{bucket}/{}: {message}", key::printable(.key))]
pub struct S3Error {
    /// S3's name of the operation.
    pub operation: &'static str,
    /// The bucket.
    pub bucket: String,
    /// The key; empty if the request was about the bucket.
    pub key: String,
    /// What it means.
    pub kind: S3ErrorKind,
    /// S3's code and text.
    pub message: String,
}

/// What a failed request means for the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum S3ErrorKind {
    /// The object, or this version of it, does not exist any more: nothing is left to do.
    Gone,
    /// The key holds another content now: its own event follows.
    Replaced,
    /// S3 cannot hand the content out: an archived storage class, or a key that only the customer has.
    Unsupported(&'static str),
    /// Access was denied. A later retry can help, once the permission is given.
    Denied,
    /// A HEAD was refused without saying why: it has no body. Most likely the object has a customer's key; a GET tells.
    NoDetails,
    /// A retry can help: throttling, a time-out, a broken connection, an error of S3's.
    Transient,
    /// A retry gives the same answer.
    Permanent,
}

impl S3Error {
    /// The store answered about another state of the object than it was asked about.
    #[must_use]
    pub fn other_state(operation: &'static str, id: &ObjectId) -> Self {
        let (bucket, key) = (id.bucket.clone(), id.key.clone());
        let message = "the store answered about another version or ETag than it was asked for".to_owned();
        // No event follows for a version that is not handed out.
        let kind = if id.version_id.is_some() { S3ErrorKind::Transient } else { S3ErrorKind::Replaced };
        Self { operation, bucket, key, kind, message }
    }

    /// From the SDK's error for `operation` on an object.
    pub fn new<E>(operation: &'static str, bucket: &str, key: &str, error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let status = error.raw_response().map(|response| response.status().as_u16());
        let message = match (error.code(), error.message()) {
            (Some(code), Some(text)) => format!("{code}: {text}"),
            (Some(code), None) => code.to_owned(),
            _ => aws::causes(error),
        };
        let kind = classify(status, error.code().unwrap_or(""), error.message().unwrap_or(""));
        Self { operation, bucket: bucket.to_owned(), key: key.to_owned(), kind, message }
    }
}

/// The meaning of S3's error codes
/// (<https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>).
fn classify(status: Option<u16>, code: &str, text: &str) -> S3ErrorKind {
    use S3ErrorKind::*;
    match (status, code) {
        (_, "NoSuchKey" | "NoSuchVersion" | "NotFound") => Gone,
        // HEAD has no body to carry a code. A missing bucket is no missing object: somebody has to look at that.
        (Some(404), "") => Gone,
        (Some(400), "") => NoDetails,
        // The version is a delete marker.
        (Some(405), _) => Gone,
        (Some(412), _) | (_, "PreconditionFailed") => Replaced,
        (_, "InvalidObjectState" | "ObjectNotInActiveTierError") => Unsupported("archived storage class"),
        (_, "InvalidRequest") if text.contains("Server Side Encryption") => Unsupported("customer-provided key (SSE-C)"),
        (
            _,
            "KeyTooLongError"
            | "EntityTooLarge"
            | "MetadataTooLarge"
            | "InvalidTag"
            | "BadRequest"
            | "InvalidArgument"
            | "NoSuchBucket"
            | "InvalidBucketName"
            | "InvalidStorageClass",
        ) => Permanent,
        (Some(403), _) | (_, "AccessDenied") => Denied,
        _ => Transient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_meanings() {
        use S3ErrorKind::*;
        let sse_c = "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to retrieve the object.";
        for (status, code, text, kind) in [
            (404, "NoSuchKey", "", Gone),
            (404, "NoSuchVersion", "", Gone),
            (404, "", "", Gone),
            (400, "", "", NoDetails),
            (404, "NoSuchBucket", "", Permanent),
            (405, "MethodNotAllowed", "", Gone),
            (412, "PreconditionFailed", "", Replaced),
            (409, "ConditionalRequestConflict", "", Transient),
            (403, "InvalidObjectState", "", Unsupported("archived storage class")),
            (400, "InvalidRequest", sse_c, Unsupported("customer-provided key (SSE-C)")),
            (403, "AccessDenied", "", Denied),
            (503, "SlowDown", "", Transient),
            (500, "InternalError", "", Transient),
            (400, "KeyTooLongError", "", Permanent),
        ] {
            assert_eq!(classify(Some(status), code, text), kind, "{status} {code}");
        }
        assert_eq!(classify(None, "", ""), Transient, "no answer at all");
    }

    #[test]
    fn a_copy_source_is_encoded() {
        let id =
            ObjectId {
                bucket: "b".into(), key: "a b/ü+%?.txt".into(), version_id: Some("v/1".into()), etag: Some("e".into())
            };
        assert_eq!(id.copy_source(), "b/a%20b/%C3%BC%2B%25%3F.txt?versionId=v%2F1");
        assert_eq!(id.if_match(), None);
        assert_eq!(ObjectId { version_id: None, ..id }.if_match().as_deref(), Some("\"e\""));
    }
}
