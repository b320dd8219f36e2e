//! The objects of a bucket, or all of their versions, page by page.

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::types::{EncodingType, Object, ObjectVersion};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use time::OffsetDateTime;

use crate::config::Location;
use crate::key::{self, NULL_VERSION};
use crate::s3::{S3Error, S3ErrorKind, time_of};

/// One object, or one version of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The key, decoded.
    pub key: String,
    /// Which state of it.
    pub which: Which,
    /// The ETag, without quotes.
    pub etag: Option<String>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// When it was written.
    pub last_modified: Option<OffsetDateTime>,
}

/// Which state of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// What it holds now.
    Latest,
    /// This version.
    Version(String),
    /// A `null` version behind newer ones. It can be overwritten in place, and cannot be asked for on the condition of its ETag.
    Unpinned,
}

/// Where the next page begins.
enum Next {
    Objects { start_after: Option<String>, token: Option<String> },
    Versions { key: Option<String>, version_id: Option<String> },
    End,
}

/// Everything in `source` after a key, in the order of the keys (as UTF-8), the latest version of each first. A page is in memory at a time.
/// The stream ends after its first error.
pub fn list<'a>(
    client: &'a Client,
    source: &'a Location,
    versions: bool,
    start_after: Option<String>,
) -> impl Stream<Item = Result<Listed, S3Error>> + 'a {
    let (operation, first) = if versions {
        ("ListObjectVersions", Next::Versions { key: start_after, version_id: None })
    } else {
        ("ListObjectsV2", Next::Objects { start_after, token: None })
    };
    let listing = Listing { client, source, operation };
    let pages = stream::try_unfold(first, move |next| async move {
        Ok::<_, S3Error>(match next {
            Next::Objects { start_after, token } => Some(listing.objects(start_after, token).await?),
            Next::Versions { key, version_id } => Some(listing.versions(key, version_id).await?),
            Next::End => None,
        })
    });
    pages.map_ok(|page| stream::iter(page).map(Ok)).try_flatten()
}

type Page = (Vec<Listed>, Next);

/// What is listed, and by which of S3's operations.
#[derive(Clone, Copy)]
struct Listing<'a> {
    client: &'a Client,
    source: &'a Location,
    operation: &'static str,
}

/// An entry of a list: an `Object` and an `ObjectVersion` say the same in two types.
macro_rules! listed {
    ($entry:ident, $key:expr, $which:expr) => {
        Listed {
            key: $key,
            which: $which,
            etag: $entry.e_tag().map(|etag| etag.trim_matches('"').to_owned()),
            size: $entry.size().and_then(|size| u64::try_from(size).ok()),
            last_modified: $entry.last_modified().and_then(time_of),
        }
    };
}

// XML cannot hold every character that a key can: both operations are asked for encoded keys.
impl Listing<'_> {
    async fn objects(self, start_after: Option<String>, token: Option<String>) -> Result<Page, S3Error> {
        let request = self.client.list_objects_v2().bucket(&self.source.bucket).prefix(&self.source.prefix);
        // A page follows on its token alone.
        let request = request.set_start_after(start_after.filter(|_| token.is_none())).set_continuation_token(token);
        let output = request.encoding_type(EncodingType::Url).send().await.map_err(|error| self.failed(&error))?;
        let encoding = output.encoding_type();
        let listed = |object: &Object| Ok(listed!(object, self.key(object.key(), encoding)?, Which::Latest));
        let page = output.contents().iter().map(listed).collect::<Result<_, _>>()?;
        let next = match (output.is_truncated(), output.next_continuation_token) {
            (Some(true), None) => return Err(self.broken("more is to follow, but it is not said where")),
            (Some(true), token) => Next::Objects { start_after: None, token },
            _ => Next::End,
        };
        Ok((page, next))
    }

    async fn versions(self, key: Option<String>, version_id: Option<String>) -> Result<Page, S3Error> {
        let request = self.client.list_object_versions().bucket(&self.source.bucket).prefix(&self.source.prefix);
        let request = request.set_key_marker(key).set_version_id_marker(version_id);
        let output = request.encoding_type(EncodingType::Url).send().await.map_err(|error| self.failed(&error))?;
        let encoding = output.encoding_type();
        let listed = |version: &ObjectVersion| {
            let which = match version.version_id() {
                Some(id) if id != NULL_VERSION => Which::Version(id.to_owned()),
                _ if version.is_latest() == Some(true) => Which::Latest,
                _ => Which::Unpinned,
            };
            Ok(listed!(version, self.key(version.key(), encoding)?, which))
        };
        // Delete markers come in a list of their own.
        let page = output.versions().iter().map(listed).collect::<Result<_, _>>()?;
        let next = match output.is_truncated() {
            Some(true) => Next::Versions {
                key: Some(self.key(output.next_key_marker(), encoding)?),
                version_id: output.next_version_id_marker.clone(),
            },
            _ => Next::End,
        };
        Ok((page, next))
    }

    fn key(self, key: Option<&str>, encoding: Option<&EncodingType>) -> Result<String, S3Error> {
        let key = key.ok_or_else(|| self.broken("an entry without a key"))?;
        if encoding != Some(&EncodingType::Url) {
            return Ok(key.to_owned());
        }
        key::decode(key).ok_or_else(|| self.broken("a key that does not decode to UTF-8"))
    }

    fn failed<E: ProvideErrorMetadata + std::error::Error + 'static>(self, error: &SdkError<E>) -> S3Error {
        S3Error::new(self.operation, &self.source.bucket, &self.source.prefix, error)
    }

    fn broken(self, message: &str) -> S3Error {
        let Location { bucket, prefix } = self.source.clone();
        S3Error { operation: self.operation, bucket, key: prefix, kind: S3ErrorKind::Permanent, message: message.to_owned() }
    }
}
