//! Verdict tags, beside the object's own.

use aws_sdk_s3::Client;
use aws_sdk_s3::types::{Tag, Tagging};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::ScannedObject;
use super::dialect::Dialects;
use crate::s3::{self, ObjectId, S3Error, S3ErrorKind};

/// The most tags that S3 keeps for an object.
const MOST_TAGS: usize = 10;

/// Name and value.
pub(crate) type Pairs = Vec<(String, String)>;

/// Tags as they shall be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Merged {
    pub(super) tags: Pairs,
    /// Why not every status is among them, if so.
    pub(super) no_room: Option<String>,
}

/// Writes the tags beside those that the object has, to the version that was scanned, and says why not every status found room,
/// if so.
///
/// S3 knows no condition for tags. In a bucket without versions the ETag is looked at before and after; if the object was
/// replaced in between, the new one loses the tags again, which say nothing about it. So it does on a redelivery, for the
/// case that the earlier one got no further.
pub(super) async fn apply(
    client: &Client,
    object: &ScannedObject<'_>,
    tags: &Pairs,
    dialects: Dialects<'_>,
) -> Result<Option<String>, S3Error> {
    let id = object.id;
    if id.version_id.is_some() {
        let merged = renew(&s3::tags(client, id).await?, tags, dialects);
        put(client, id, &merged.tags).await?;
        return Ok(merged.no_room);
    }
    let (is_unchanged, own) = tokio::join!(unchanged(client, id), s3::tags(client, id));
    if let Err(error) = is_unchanged {
        if error.kind == S3ErrorKind::Replaced && object.redelivered {
            take_back(client, id, tags, dialects).await?;
        }
        return Err(error);
    }
    let merged = renew(&own?, tags, dialects);
    put(client, id, &merged.tags).await?;
    if let Err(error) = unchanged(client, id).await {
        if error.kind == S3ErrorKind::Replaced {
            take_back(client, id, tags, dialects).await?;
        }
        return Err(error);
    }
    Ok(merged.no_room)
}

/// [`merge`], where the object stays. At a destination, a new verdict must not take away what keeps the versions there in order; anywhere else it
/// means nothing.
fn renew(own: &Pairs, ours: &Pairs, dialects: Dialects<'_>) -> Merged {
    let key = dialects.sequencer_key();
    let sequencer = own.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str());
    merge(own, &dialects.in_order(ours, sequencer), dialects)
}

/// The object's own tags and as many of ours as there is room for, the first ones first; nothing of an earlier scan stays.
pub(super) fn merge(own: &Pairs, ours: &Pairs, dialects: Dialects<'_>) -> Merged {
    let mut tags = without(own, dialects);
    // Not twice: S3 would refuse all of them.
    tags.retain(|(name, _)| !ours.iter().any(|(other, _)| other == name));
    let (kept, needed) = (tags.len(), dialects.statuses(ours));
    let room = MOST_TAGS.saturating_sub(kept);
    let no_room = (room < needed).then(|| {
        format!(
            "the object has {kept} tags of its own, {needed} more are needed to say its status, and S3 keeps {MOST_TAGS}: \
             remove some from the object and scan it again, or take dialects out of actions.tag_dialects"
        )
    });
    tags.extend(ours.iter().take(room).cloned());
    Merged { tags, no_room }
}

/// The tags without those that a scan wrote.
fn without(tags: &Pairs, dialects: Dialects<'_>) -> Pairs {
    tags.iter().filter(|(name, _)| !dialects.owns(name)).cloned().collect()
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
    match s3::head(client, id).await {
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
async fn take_back(client: &Client, id: &ObjectId, tags: &Pairs, dialects: Dialects<'_>) -> Result<(), S3Error> {
    tracing::info!(bucket = id.bucket, key = id.key, "replaced while it was tagged: taking the tags back");
    let found = match s3::tags(client, id).await {
        Err(S3Error { kind: S3ErrorKind::Gone, .. }) => return Ok(()),
        found => found?,
    };
    if are_ours(&found, tags) { put(client, id, &without(&found, dialects)).await } else { Ok(()) }
}

/// Whether the verdict's tags among `found` are these: not all need be there, for there may have been no room, but none may
/// say otherwise. Times may: an earlier delivery wrote its own.
fn are_ours(found: &Pairs, tags: &Pairs) -> bool {
    let value = |name: &str| found.iter().find(|(other, _)| other == name).map(|(_, value)| value);
    tags.first().is_some_and(|status| found.contains(status))
        && tags.iter().all(|(name, ours)| Dialects::is_time(name) || value(name).is_none_or(|value| value == ours))
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
    use crate::config::TagDialect;

    fn pairs(tags: &[(&str, &str)]) -> Pairs {
        tags.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    const BOTH: Dialects<'_> = Dialects::new("p-", &[TagDialect::Clamgate, TagDialect::Macpro]);

    #[test]
    fn own_tags_stay_and_earlier_verdicts_go() {
        let own = pairs(&[
            ("team", "a b"),
            ("p-status", "CLEAN"),
            ("virusScanStatus", "CLEAN"),
            ("virusScanTimestamp", "1"),
            ("p-detail", "x"),
            ("p-definitions", "1 a"),
            ("p-other", "kept"),
            // Of a dialect that is not configured: somebody else's.
            ("av-status", "CLEAN"),
        ]);
        let ours = pairs(&[("p-status", "INFECTED"), ("virusScanStatus", "INFECTED"), ("p-scan-id", "1")]);
        let kept = pairs(&[("team", "a b"), ("p-other", "kept"), ("av-status", "CLEAN")]);
        assert_eq!(merge(&own, &ours, BOTH), Merged { tags: [kept, ours].concat(), no_room: None });
    }

    /// A version that was found again in quarantine lost its place among the others, and an older one overwrote it later.
    #[test]
    fn a_second_verdict_took_the_versions_order_away() {
        let own = pairs(&[("team", "a"), ("p-status", "INFECTED"), ("p-sequencer", "55"), ("p-scan-id", "1")]);
        let ours = pairs(&[("p-status", "CLEAN"), ("virusScanStatus", "CLEAN"), ("p-scan-id", "2")]);
        let expected =
            [("team", "a"), ("p-status", "CLEAN"), ("virusScanStatus", "CLEAN"), ("p-sequencer", "55"), ("p-scan-id", "2")];
        assert_eq!(renew(&own, &ours, BOTH).tags, pairs(&expected));
    }

    /// With eight tags of the object's own, not all of ours fitted; none was taken back from the object that replaced it.
    #[test]
    fn tags_that_had_no_room_kept_the_others_in_place() {
        let ours =
            pairs(&[("p-status", "CLEAN"), ("virusScanStatus", "CLEAN"), ("virusScanTimestamp", "5"), ("p-scan-id", "1")]);
        for (found, expected) in [
            (vec![("p-status", "CLEAN"), ("virusScanStatus", "CLEAN"), ("virusScanTimestamp", "5"), ("p-scan-id", "1")], true),
            (vec![("team", "a"), ("p-status", "CLEAN"), ("virusScanStatus", "CLEAN")], true),
            (vec![("p-status", "CLEAN")], true),
            // The delivery before this one scanned at another time.
            (vec![("p-status", "CLEAN"), ("virusScanStatus", "CLEAN"), ("virusScanTimestamp", "4"), ("p-scan-id", "1")], true),
            (vec![("p-status", "INFECTED"), ("p-scan-id", "1")], false),
            (vec![("p-status", "CLEAN"), ("virusScanStatus", "ERROR")], false),
            (vec![("p-status", "CLEAN"), ("p-scan-id", "2")], false),
            (vec![("p-scan-id", "1")], false),
            (vec![], false),
        ] {
            assert_eq!(are_ours(&pairs(&found), &ours), expected, "{found:?}");
        }
    }

    #[test]
    fn no_more_than_ten_and_every_status_or_a_complaint() {
        let ours =
            pairs(&[("p-status", "CLEAN"), ("virusScanStatus", "CLEAN"), ("virusScanTimestamp", "5"), ("p-scan-id", "1")]);
        let own = |own: usize| -> Pairs { (0..own).map(|n| (format!("t{n}"), String::new())).collect() };
        for (number, fit) in [(6, 4), (7, 3), (8, 2), (9, 1), (10, 0)] {
            // Whatever an earlier scan said does not stay.
            let earlier = pairs(&[("virusScanStatus", "CLEAN"), ("p-status", "CLEAN")]);
            let found = own(number).into_iter().chain(earlier).take(10).collect();
            let merged = merge(&found, &ours, BOTH);
            assert_eq!(merged.tags, [own(number), ours[..fit].to_vec()].concat());
            assert_eq!(merged.no_room.is_some(), fit < 2);
        }
        let infected = pairs(&[("p-status", "INFECTED"), ("virusScanStatus", "INFECTED")]);
        let found = [own(9), pairs(&[("virusScanStatus", "CLEAN")])].concat();
        let merged = merge(&found, &infected, BOTH);
        assert_eq!(merged.tags, [own(9), infected[..1].to_vec()].concat(), "no stale CLEAN, though not all fits");
        assert!(merged.no_room.is_some());
        let no_room = merge(&own(10), &ours, BOTH).no_room.unwrap_or_default();
        assert!(no_room.contains("10 tags of its own, 2 more are needed"), "{no_room}");
        assert!(no_room.contains("actions.tag_dialects"), "{no_room}");
    }

    #[test]
    fn the_header_is_a_query_string() {
        assert_eq!(header(&pairs(&[("a b", "c&d="), ("é", "")])), "a%20b=c%26d%3D&%C3%A9=");
    }
}
