//! What a copy in quarantine says in its metadata: where it came from, what was found, when.

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::dialect::detail;
use super::place;
use crate::engine::Verdict;
use crate::s3::ObjectId;

/// What the names of our metadata begin with, without `x-amz-meta-`.
const PREFIX: &str = "clamgate-";

/// The name of the verdict.
pub(super) const STATUS: &str = "clamgate-status";

/// The name of the scan's id.
pub(super) const SCAN_ID: &str = "clamgate-scan-id";

/// The name of what was found.
pub(super) const DETAIL: &str = "clamgate-detail";

/// The name of when that was.
pub(super) const SCANNED_AT: &str = "clamgate-scanned-at";

/// The name of which object in quarantine a copy is of.
const MARK: &str = "clamgate-from-quarantine";

/// The name of where the object was.
const SOURCE: &str = "clamgate-source";

/// What the source begins with.
const S3: &str = "s3://";

/// How much metadata S3 takes for an object, in bytes of names and values
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html#UserMetadata>).
const ROOM: usize = 2048;

/// What S3 may count for each name beside the name.
const NAME_PREFIX: usize = "x-amz-meta-".len();

/// The most characters of a detail.
const LONGEST_DETAIL: usize = 512;

/// As in the report.
const RFC3339_MS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Name and value.
type Pairs = Vec<(String, String)>;

/// What is said about a scan, the most important first.
pub(super) fn of_scan(verdict: &Verdict, scan_id: &str, scanned_at: OffsetDateTime) -> Pairs {
    let mut notes = vec![(STATUS.to_owned(), verdict.status.to_string()), (SCAN_ID.to_owned(), scan_id.to_owned())];
    if let Ok(at) = scanned_at.to_offset(time::UtcOffset::UTC).format(RFC3339_MS) {
        notes.push((SCANNED_AT.to_owned(), at));
    }
    notes.extend(detail(verdict).map(|detail| (DETAIL.to_owned(), header_value(&detail))));
    notes
}

/// The metadata of a copy: the object's own, and as many notes as there is room for. Where it came from is the last to be left out: without
/// that, nothing leads back.
pub(super) fn with_notes(own: &Pairs, id: &ObjectId, notes: &Pairs) -> Pairs {
    let mut metadata = without_notes(own);
    let mut room = ROOM.saturating_sub(metadata.iter().map(size).sum());
    let source = (SOURCE.to_owned(), format!("{S3}{}", id.copy_source()));
    for note in [source].into_iter().chain(notes.iter().cloned()) {
        if size(&note) <= room {
            room -= size(&note);
            metadata.push(note);
        }
    }
    metadata
}

/// What one of our notes says.
pub(super) fn note<'m>(metadata: &'m Pairs, name: &str) -> Option<&'m str> {
    metadata.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// Where a copy in quarantine came from.
pub(super) fn source(metadata: &Pairs) -> Option<ObjectId> {
    ObjectId::from_copy_source(note(metadata, SOURCE)?.strip_prefix(S3)?)
}

/// What tells a copy of this object in quarantine from anything else, however often it is scanned.
pub(super) fn mark(id: &ObjectId) -> String {
    place::uuid(id, None).to_string()
}

/// The metadata of a copy that comes out of quarantine: the object's own, and the mark, if there is room.
pub(super) fn with_mark(metadata: &Pairs, mark: &str) -> Pairs {
    let mut metadata = without_notes(metadata);
    let mark = (MARK.to_owned(), mark.to_owned());
    if metadata.iter().chain([&mark]).map(size).sum::<usize>() <= ROOM {
        metadata.push(mark);
    }
    metadata
}

/// Whether this is the metadata of such a copy.
pub(super) fn is_marked(metadata: &Pairs, mark: &str) -> bool {
    note(metadata, MARK) == Some(mark)
}

/// What S3 counts for an entry.
fn size((name, value): &(String, String)) -> usize {
    NAME_PREFIX + name.len() + value.len()
}

/// Metadata without what an uploader passed off as ours.
pub(super) fn without_notes(own: &Pairs) -> Pairs {
    own.iter().filter(|(name, _)| !is_note(name)).cloned().collect()
}

/// Whether a name is one of ours. S3 does not tell upper from lower case.
pub(super) fn is_note(name: &str) -> bool {
    name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

/// Whether this metadata is of a copy that was made after the same scan with the same result.
pub(super) fn are_of(metadata: &Pairs, notes: &Pairs) -> bool {
    let mut telling = notes.iter().filter(|(name, _)| name == STATUS || name == SCAN_ID).peekable();
    telling.peek().is_some() && telling.all(|note| metadata.contains(note))
}

/// A text that can stand in a header.
fn header_value(text: &str) -> String {
    text.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '_' }).take(LONGEST_DETAIL).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Reason, Status};

    fn pairs(pairs: &[(&str, &str)]) -> Pairs {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn of_a_scan() {
        let at = time::macros::datetime!(2026-10-14 17:46:40.120_456_789 +02:00);
        for (status, signatures, reason, detail, expected) in [
            (Status::Infected, vec!["A", "B{\n}é"], Some(Reason::Encrypted), None, Some("A B{_}_")),
            (Status::Unscannable, vec![], Some(Reason::Encrypted), Some("salary.xlsx"), Some("ENCRYPTED")),
            (Status::Unscannable, vec![], Some(Reason::LimitExceeded), Some("MaxFiles"), Some("LIMIT_EXCEEDED MaxFiles")),
            (Status::Clean, vec![], None, None, None),
        ] {
            let verdict = Verdict {
                status,
                signatures: signatures.into_iter().map(str::to_owned).collect(),
                allowed: Vec::new(),
                reason,
                detail: detail.map(str::to_owned),
            };
            let status = status.to_string();
            let mut notes = vec![
                ("clamgate-status", status.as_str()),
                ("clamgate-scan-id", "id"),
                ("clamgate-scanned-at", "2026-10-14T15:46:40.120Z"),
            ];
            notes.extend(expected.map(|detail| ("clamgate-detail", detail)));
            assert_eq!(of_scan(&verdict, "id", at), pairs(&notes));
        }
    }

    #[test]
    fn the_source_is_the_last_to_be_left_out() {
        let id = ObjectId { bucket: "b".into(), key: "ü k".into(), version_id: Some("v".into()), etag: None };
        let notes = pairs(&[("clamgate-status", "INFECTED"), ("clamgate-scan-id", "1")]);
        let from = ("clamgate-source", "s3://b/%C3%BC%20k?versionId=v");
        for (filling, expected) in [
            (10, vec![from, ("clamgate-status", "INFECTED"), ("clamgate-scan-id", "1")]),
            // Room for the source, for nothing else.
            (2048 - 12 - 55, vec![from]),
            (2048 - 12, vec![]),
            (9999, vec![]),
        ] {
            let own = pairs(&[("o", &"x".repeat(filling)), ("clamgate-source", "s3://forged"), ("Clamgate-Other", "x")]);
            let metadata = with_notes(&own, &id, &notes);
            assert_eq!(metadata[0], own[0]);
            assert_eq!(metadata[1..], pairs(&expected), "{filling}");
            assert_eq!(source(&metadata), (!expected.is_empty()).then(|| id.clone()));
        }
    }

    #[test]
    fn sources() {
        let id = |bucket: &str, key: &str, version: Option<&str>| {
            Some(ObjectId { bucket: bucket.into(), key: key.into(), version_id: version.map(str::to_owned), etag: None })
        };
        for (text, expected) in [
            ("s3://b/k", id("b", "k", None)),
            ("s3://b/a/%C3%BC%3FversionId%3Dx?versionId=3%2Fs", id("b", "a/ü?versionId=x", Some("3/s"))),
            ("s3://b//k", id("b", "/k", None)),
            ("b/k", None),
            ("s3://b", None),
            ("s3://b/", None),
            ("s3:///k", None),
            ("s3://b/%FF", None),
        ] {
            assert_eq!(source(&pairs(&[("Clamgate-Source", text)])), expected, "{text}");
            if let Some(id) = expected {
                assert_eq!(format!("s3://{}", id.copy_source()), text);
            }
        }
        assert_eq!(source(&pairs(&[("source", "s3://b/k")])), None);
    }

    #[test]
    fn a_copy_is_known_by_its_scan() {
        let notes = pairs(&[("clamgate-status", "INFECTED"), ("clamgate-scan-id", "1"), ("clamgate-scanned-at", "now")]);
        let (status, id, later) =
            (("clamgate-status", "INFECTED"), ("clamgate-scan-id", "1"), ("clamgate-scanned-at", "later"));
        for (metadata, expected) in [
            (vec![("a", "1"), id, later, status], true),
            (vec![id, ("clamgate-status", "UNSCANNABLE")], false),
            (vec![status, ("clamgate-scan-id", "2")], false),
            (vec![status], false),
            (vec![], false),
        ] {
            assert_eq!(are_of(&pairs(&metadata), &notes), expected, "{metadata:?}");
        }
    }
}
