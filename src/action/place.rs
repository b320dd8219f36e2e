//! The key of an object at its destination.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::ScannedObject;
use crate::config::{Destination, Placeholder, Values};
use crate::s3::{ObjectId, ObjectInfo};

/// The key, or why there is none. It is the same whenever the same state of an object is worked on, whatever the definitions: a redelivery must
/// find the copy that the first delivery made.
pub(super) fn key(destination: &Destination, object: &ScannedObject<'_>, info: &ObjectInfo) -> Result<String, String> {
    // What was in quarantine goes where it would have gone from its own place.
    let id = object.source.unwrap_or(object.id);
    let uuid = uuid(id, object.sha256).to_string();
    let date = info.last_modified.map(|at| at.to_offset(time::UtcOffset::UTC).date().to_string());
    if date.is_none() && destination.uses(Placeholder::Date) {
        return Err("S3 does not say when the object was written, and the destination's key needs its date".to_owned());
    }
    // What was too large to be read has no digest, but must not stay in place for that.
    let sha256 = object.sha256.map_or_else(|| format!("unread-{uuid}"), str::to_owned);
    Ok(destination.key(&Values {
        bucket: &id.bucket,
        key: &id.key,
        date: date.as_deref().unwrap_or_default(),
        sha256: &sha256,
        uuid: &uuid,
    }))
}

/// A UUID of version 8: the beginning of a digest of bucket, key and version, or else ETag and content.
pub(super) fn uuid(id: &ObjectId, sha256: Option<&str>) -> Uuid {
    let mut digest = Sha256::new();
    let mut add = |part: &str| {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part.as_bytes());
    };
    add(&id.bucket);
    add(&id.key);
    if let Some(version) = &id.version_id {
        add(version);
    } else {
        add(id.etag.as_deref().unwrap_or(""));
        // Two contents can share an ETag.
        add(sha256.unwrap_or(""));
    }
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(digest.finalize()).for_each(|(to, from)| *to = from);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(bucket: &str, key: &str, version: Option<&str>, etag: &str) -> ObjectId {
        ObjectId { bucket: bucket.into(), key: key.into(), version_id: version.map(str::to_owned), etag: Some(etag.into()) }
    }

    #[test]
    fn one_state_has_one_uuid() {
        let first = uuid(&id("b", "k", Some("v"), "e"), Some("1"));
        assert_eq!(first.to_string(), "6a6ba39b-e033-85fd-97a9-06b1ea9aaed2");
        assert_eq!(first, uuid(&id("b", "k", Some("v"), "other"), None), "a version is the identity");
        for other in [id("bk", "", Some("v"), "e"), id("b", "k", Some("w"), "e"), id("b", "k", None, "e")] {
            assert_ne!(first, uuid(&other, Some("1")), "{other:?}");
        }
        let unversioned = id("b", "k", None, "e");
        assert_ne!(uuid(&unversioned, Some("1")), uuid(&unversioned, Some("2")), "one MD5, two contents");
    }

    #[test]
    fn keys() -> Result<(), String> {
        let id = id("b", "a/k", Some("v"), "e");
        let late =
            ObjectInfo { last_modified: Some(time::macros::datetime!(2026-11-22 00:30 +01:00)), ..ObjectInfo::default() };
        let uuid = uuid(&id, None);
        for (template, sha256, info, expected) in [
            ("s3://c/{bucket}/{date}/{key}", None, &late, Ok("b/2026-11-21/a/k".to_owned())),
            ("s3://c/{sha256}", Some("5a"), &late, Ok("5a".to_owned())),
            ("s3://c/{sha256}", None, &late, Ok(format!("unread-{uuid}"))),
            ("s3://c/x/{uuid}.bin", Some("5a"), &ObjectInfo::default(), Ok(format!("x/{uuid}.bin"))),
            ("s3://c/{date}/{key}", None, &ObjectInfo::default(), Err("does not say when")),
        ] {
            let object = ScannedObject { sha256, ..ScannedObject::unread(&id, false) };
            match (key(&template.parse()?, &object, info), expected) {
                (Err(problem), Err(expected)) => assert!(problem.contains(expected), "{problem}"),
                (found, expected) => assert_eq!(found, expected.map_err(str::to_owned), "{template}"),
            }
        }
        Ok(())
    }
}
