//! The objects of a bucket, or all of their versions, page by page.

use aws_sdk_s3::Client;
use aws_sdk_s3::types::{EncodingType, Object, ObjectVersion};
use aws_smithy_types::DateTime;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use time::OffsetDateTime;

use crate::config::Location;
use crate::key::{self, NULL_VERSION};
use crate::s3::{S3Error, S3ErrorKind};

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
    let first = if versions {
        Next::Versions { key: start_after, version_id: None }
    } else {
        Next::Objects { start_after, token: None }
    };
    let pages = stream::try_unfold(first, move |next| async move {
        Ok::<_, S3Error>(match next {
            Next::Objects { start_after, token } => Some(page_of_objects(client, source, start_after, token).await?),
            Next::Versions { key, version_id } => Some(page_of_versions(client, source, key, version_id).await?),
            Next::End => None,
        })
    });
    pages.map_ok(|page| stream::iter(page).map(Ok)).try_flatten()
}

type Page = (Vec<Listed>, Next);

async fn page_of_objects(
    client: &Client,
    source: &Location,
    start_after: Option<String>,
    token: Option<String>,
) -> Result<Page, S3Error> {
    let operation = "ListObjectsV2";
    let output = client
        .list_objects_v2()
        .bucket(&source.bucket)
        .prefix(&source.prefix)
        // A page follows on its token alone.
        .set_start_after(start_after.filter(|_| token.is_none()))
        .set_continuation_token(token)
        // XML cannot hold every character that a key can.
        .encoding_type(EncodingType::Url)
        .send()
        .await
        .map_err(|error| S3Error::new(operation, &source.bucket, &source.prefix, &error))?;
    let encoded = output.encoding_type() == Some(&EncodingType::Url);
    let listed = |object: &Object| {
        Ok(Listed {
            key: decoded(operation, source, object.key(), encoded)?,
            which: Which::Latest,
            etag: unquoted(object.e_tag()),
            size: object.size().and_then(|size| u64::try_from(size).ok()),
            last_modified: time_of(object.last_modified()),
        })
    };
    let page = output.contents().iter().map(listed).collect::<Result<_, _>>()?;
    let next = match (output.is_truncated(), output.next_continuation_token) {
        (Some(true), None) => return Err(broken(operation, source, "more is to follow, but it is not said where")),
        (Some(true), token) => Next::Objects { start_after: None, token },
        _ => Next::End,
    };
    Ok((page, next))
}

async fn page_of_versions(
    client: &Client,
    source: &Location,
    key: Option<String>,
    version_id: Option<String>,
) -> Result<Page, S3Error> {
    let operation = "ListObjectVersions";
    let output = client
        .list_object_versions()
        .bucket(&source.bucket)
        .prefix(&source.prefix)
        .set_key_marker(key)
        .set_version_id_marker(version_id)
        .encoding_type(EncodingType::Url)
        .send()
        .await
        .map_err(|error| S3Error::new(operation, &source.bucket, &source.prefix, &error))?;
    let encoded = output.encoding_type() == Some(&EncodingType::Url);
    let listed = |version: &ObjectVersion| {
        let which = match version.version_id() {
            Some(id) if id != NULL_VERSION => Which::Version(id.to_owned()),
            _ if version.is_latest() == Some(true) => Which::Latest,
            _ => Which::Unpinned,
        };
        Ok(Listed {
            key: decoded(operation, source, version.key(), encoded)?,
            which,
            etag: unquoted(version.e_tag()),
            size: version.size().and_then(|size| u64::try_from(size).ok()),
            last_modified: time_of(version.last_modified()),
        })
    };
    // Delete markers come in a list of their own.
    let page = output.versions().iter().map(listed).collect::<Result<_, _>>()?;
    let next = match output.is_truncated() {
        Some(true) => Next::Versions {
            key: Some(decoded(operation, source, output.next_key_marker(), encoded)?),
            version_id: output.next_version_id_marker,
        },
        _ => Next::End,
    };
    Ok((page, next))
}

fn decoded(operation: &'static str, source: &Location, key: Option<&str>, encoded: bool) -> Result<String, S3Error> {
    let key = key.ok_or_else(|| broken(operation, source, "an entry without a key"))?;
    if !encoded {
        return Ok(key.to_owned());
    }
    key::decode(key).ok_or_else(|| broken(operation, source, "a key that does not decode to UTF-8"))
}

fn broken(operation: &'static str, source: &Location, message: &str) -> S3Error {
    S3Error {
        operation,
        bucket: source.bucket.clone(),
        key: source.prefix.clone(),
        kind: S3ErrorKind::Permanent,
        message: message.to_owned(),
    }
}

fn unquoted(etag: Option<&str>) -> Option<String> {
    etag.map(|etag| etag.trim_matches('"').to_owned())
}

fn time_of(at: Option<&DateTime>) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(at?.as_nanos()).ok()
}
