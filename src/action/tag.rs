//! Verdict tags, beside the object's own.

use aws_sdk_s3::Client;
use aws_sdk_s3::types::{Tag, Tagging};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::ActionError;
use super::policy::Move;
use crate::s3::{ObjectId, S3Error, S3ErrorKind};

/// The most tags that S3 keeps for an object.
const MOST_TAGS: usize = 10;

/// Tags that do not fit.
#[derive(Debug, thiserror::Error)]
#[error("the object has {own} tags of its own; with {added} more there would be more than S3's {MOST_TAGS}")]
pub struct TagError {
    own: usize,
    added: usize,
}

/// Name and value.
pub(super) type Pairs = Vec<(String, String)>;

/// Writes the tags beside those that the object has, to the version that was scanned.
///
/// S3 knows no condition for tags. In a bucket without versions the ETag is looked at before and after; if the object was
/// replaced in between, the new one loses the tags again, which say nothing about it.
pub(super) async fn apply(client: &Client, id: &ObjectId, tags: &Pairs, prefix: &str) -> Result<(), ActionError> {
    let has_versions = id.version_id.is_some();
    if !has_versions {
        unchanged(client, id).await?;
    }
    let own = of(client, id).await?;
    put(client, id, &merge(&own, tags, prefix)?).await?;
    if !has_versions && let Err(error) = unchanged(client, id).await {
        if error.kind == S3ErrorKind::Replaced {
            take_back(client, id, tags, prefix).await?;
        }
        return Err(error.into());
    }
    Ok(())
}

/// The object's own tags and ours, ours instead of those of an earlier scan.
pub(super) fn merge(own: &Pairs, ours: &Pairs, prefix: &str) -> Result<Pairs, TagError> {
    let mut tags = without(own, prefix);
    let kept = tags.len();
    tags.extend(ours.iter().cloned());
    if tags.len() > MOST_TAGS { Err(TagError { own: kept, added: ours.len() }) } else { Ok(tags) }
}

/// The tags without those that a scan wrote.
fn without(tags: &Pairs, prefix: &str) -> Pairs {
    let is_ours = |name: &str| name.strip_prefix(prefix).is_some_and(|rest| matches!(rest, "status" | "detail" | "scan-id"));
    tags.iter().filter(|(name, _)| !is_ours(name)).cloned().collect()
}

/// Whether the destination already has an object with all of these tags: the copy that an earlier delivery made.
pub(super) async fn stand_on(client: &Client, destination: &Move, tags: &Pairs) -> Result<bool, S3Error> {
    if tags.is_empty() {
        return Ok(false);
    }
    let id = ObjectId { bucket: destination.bucket.clone(), key: destination.key.clone(), version_id: None, etag: None };
    match of(client, &id).await {
        Ok(found) => Ok(tags.iter().all(|tag| found.contains(tag))),
        // Without permission to look, the copy is simply made again.
        Err(S3Error { kind: S3ErrorKind::Gone | S3ErrorKind::Denied, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The object's tags.
pub(super) async fn of(client: &Client, id: &ObjectId) -> Result<Pairs, S3Error> {
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

/// Replaces the object's tags.
pub(super) async fn put(client: &Client, id: &ObjectId, tags: &Pairs) -> Result<(), S3Error> {
    let invalid = |message: String| S3Error {
        operation: "PutObjectTagging",
        bucket: id.bucket.clone(),
        key: id.key.clone(),
        kind: S3ErrorKind::Permanent,
        message,
    };
    let set = tags
        .iter()
        .map(|(name, value)| Tag::builder().key(name).value(value).build())
        .collect::<Result<Vec<_>, _>>()
        .and_then(|set| Tagging::builder().set_tag_set(Some(set)).build())
        .map_err(|error| invalid(error.to_string()))?;
    client
        .put_object_tagging()
        .bucket(&id.bucket)
        .key(&id.key)
        .set_version_id(id.version_id.clone())
        .tagging(set)
        .send()
        .await
        .map(|_| ())
        .map_err(|error| S3Error::new("PutObjectTagging", &id.bucket, &id.key, &error))
}

/// Fails with [`S3ErrorKind::Replaced`] or [`S3ErrorKind::Gone`] when the key no longer holds what was scanned.
async fn unchanged(client: &Client, id: &ObjectId) -> Result<(), S3Error> {
    let head = client.head_object().bucket(&id.bucket).key(&id.key).set_if_match(id.if_match()).send().await;
    match head.map_err(|error| S3Error::new("HeadObject", &id.bucket, &id.key, &error)) {
        Err(S3Error { kind: S3ErrorKind::NoDetails, .. }) => listed_unchanged(client, id).await,
        head => head.map(|_| ()),
    }
}

/// The same from the bucket's list, for objects that S3 does not even show the head of without their key (SSE-C).
async fn listed_unchanged(client: &Client, id: &ObjectId) -> Result<(), S3Error> {
    let listed = client.list_objects_v2().bucket(&id.bucket).prefix(&id.key).max_keys(1).send().await;
    let listed = listed.map_err(|error| S3Error::new("ListObjectsV2", &id.bucket, &id.key, &error))?;
    // The key itself comes before all others that begin with it.
    let found = listed.contents().first().filter(|object| object.key() == Some(&id.key));
    let changed = |kind| S3Error {
        operation: "ListObjectsV2",
        bucket: id.bucket.clone(),
        key: id.key.clone(),
        kind,
        message: "not the object that was scanned".to_owned(),
    };
    match found {
        None => Err(changed(S3ErrorKind::Gone)),
        Some(object) if object.e_tag() == id.quoted_etag().as_deref() => Ok(()),
        Some(_) => Err(changed(S3ErrorKind::Replaced)),
    }
}

/// Removes our tags from an object that replaced the scanned one, unless a scan of its own has tagged it since.
async fn take_back(client: &Client, id: &ObjectId, tags: &Pairs, prefix: &str) -> Result<(), S3Error> {
    tracing::info!(object = %id, "replaced while it was tagged: taking the tags back");
    let found = match of(client, id).await {
        Err(S3Error { kind: S3ErrorKind::Gone, .. }) => return Ok(()),
        found => found?,
    };
    if tags.iter().all(|tag| found.contains(tag)) { put(client, id, &without(&found, prefix)).await } else { Ok(()) }
}

/// The tags as `x-amz-tagging` wants them: a query string.
pub(super) fn header(tags: &Pairs) -> String {
    let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    let pairs: Vec<String> = tags.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(tags: &[(&str, &str)]) -> Pairs {
        tags.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn own_tags_stay_and_earlier_verdicts_go() {
        let own = pairs(&[("team", "a b"), ("p-status", "CLEAN"), ("p-detail", "x"), ("p-other", "kept")]);
        let merged = merge(&own, &pairs(&[("p-status", "INFECTED"), ("p-scan-id", "1")]), "p-").unwrap();
        assert_eq!(merged, pairs(&[("team", "a b"), ("p-other", "kept"), ("p-status", "INFECTED"), ("p-scan-id", "1")]));
    }

    #[test]
    fn the_eleventh_tag_is_a_clear_error() {
        let own: Pairs = (0..9).map(|n| (format!("t{n}"), String::new())).collect();
        assert!(merge(&own, &pairs(&[("p-status", "CLEAN")]), "p-").is_ok());
        let error = merge(&own, &pairs(&[("p-status", "CLEAN"), ("p-scan-id", "1")]), "p-").unwrap_err();
        assert_eq!(error.to_string(), "the object has 9 tags of its own; with 2 more there would be more than S3's 10");
    }

    #[test]
    fn the_header_is_a_query_string() {
        assert_eq!(header(&pairs(&[("a b", "c&d="), ("é", "")])), "a%20b=c%26d%3D&%C3%A9=");
    }
}
