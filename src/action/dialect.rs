//! What the tags of each scanner are called and what they say. Pure: nothing here talks to S3.
//!
//! The words are those that each scanner's source or documentation shows (`tests/data/dialects`, docs/ways-out/tags.md). Only
//! `CLEAN` is ever said to be clean. What a scanner has no word for is said by one that keeps readers out, or not at all.

use time::{OffsetDateTime, UtcOffset};

use super::ScannedWith;
use super::tag::Pairs;
use crate::config::{ActionsConfig, TagDialect};
use crate::engine::{Definitions, Reason, Status, Verdict};

/// The most characters of a tag's value that S3 takes.
const LONGEST_VALUE: usize = 256;

/// The names of bucket-antivirus-function's and MacPro's tags beside the status.
const AV_SIGNATURE: &str = "av-signature";
const AV_TIMESTAMP: &str = "av-timestamp";
const VIRUS_SCAN_TIMESTAMP: &str = "virusScanTimestamp";

/// A dialect's words for a status. `None`: it says nothing.
struct Words {
    clean: &'static str,
    infected: &'static str,
    suspicious: &'static str,
    unscannable: &'static str,
    failed: Option<&'static str>,
    skipped: Option<&'static str>,
    in_progress: Option<&'static str>,
}

/// A dialect's words.
const fn words(dialect: TagDialect) -> Words {
    match dialect {
        TagDialect::Clamgate => Words {
            clean: "CLEAN",
            infected: "INFECTED",
            suspicious: "SUSPICIOUS",
            unscannable: "UNSCANNABLE",
            failed: Some("FAILED"),
            skipped: Some("SKIPPED"),
            in_progress: Some("IN_PROGRESS"),
        },
        TagDialect::Guardduty => Words {
            clean: "NO_THREATS_FOUND",
            infected: "THREATS_FOUND",
            suspicious: "THREATS_FOUND",
            // "Password-protected, quotas, features of S3": what it does not scan, it calls skipped in its events.
            unscannable: "UNSUPPORTED",
            failed: Some("FAILED"),
            skipped: Some("UNSUPPORTED"),
            in_progress: None,
        },
        TagDialect::Bucketav | TagDialect::AwsS3Virusscan => Words {
            clean: "clean",
            infected: "infected",
            suspicious: "infected",
            unscannable: "no",
            failed: Some("no"),
            skipped: Some("no"),
            in_progress: None,
        },
        TagDialect::BucketAntivirusFunction => Words {
            clean: "CLEAN",
            infected: "INFECTED",
            suspicious: "INFECTED",
            // It fails without a tag. But one of the two policies that it recommends denies nothing but INFECTED.
            unscannable: "INFECTED",
            failed: None,
            skipped: None,
            in_progress: None,
        },
        TagDialect::CdkServerlessClamscan => Words {
            clean: "CLEAN",
            infected: "INFECTED",
            suspicious: "INFECTED",
            unscannable: "ERROR",
            failed: Some("ERROR"),
            skipped: None,
            in_progress: Some("IN PROGRESS"),
        },
        TagDialect::Macpro => Words {
            clean: "CLEAN",
            infected: "INFECTED",
            suspicious: "INFECTED",
            unscannable: "ERROR",
            failed: Some("ERROR"),
            skipped: Some("SKIPPED"),
            in_progress: None,
        },
    }
}

impl Words {
    fn status(&self, status: Status) -> Option<&'static str> {
        match status {
            Status::Clean => Some(self.clean),
            Status::Infected => Some(self.infected),
            Status::Suspicious => Some(self.suspicious),
            Status::Unscannable => Some(self.unscannable),
            Status::Failed => self.failed,
        }
    }

    /// Whether this word is only ever said of an object that was scanned.
    fn is_of_a_scan(&self, word: &str) -> bool {
        [self.clean, self.infected, self.suspicious, self.unscannable].contains(&word)
            && ![self.failed, self.skipped, self.in_progress].contains(&Some(word))
    }
}

/// The dialects in which tags are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dialects<'a> {
    prefix: &'a str,
    chosen: &'a [TagDialect],
}

impl<'a> Dialects<'a> {
    pub(crate) const fn new(prefix: &'a str, chosen: &'a [TagDialect]) -> Self {
        Self { prefix, chosen }
    }

    pub(crate) fn of(config: &'a ActionsConfig) -> Self {
        Self::new(&config.tag_prefix, &config.tag_dialects)
    }

    /// The tags that say a verdict, reached at that time: the status of every dialect first.
    pub(super) fn verdict(self, verdict: &Verdict, scan_id: &str, with: &Definitions, at: OffsetDateTime) -> Pairs {
        let mut tags = self.say(|words| words.status(verdict.status));
        for dialect in self.chosen {
            match dialect {
                TagDialect::Clamgate => tags.extend(self.details(verdict, scan_id, with)),
                // It tags nothing at all when it fails.
                TagDialect::BucketAntivirusFunction if verdict.status != Status::Failed => {
                    tags.push((AV_SIGNATURE.to_owned(), av_signature(verdict)));
                    tags.push((AV_TIMESTAMP.to_owned(), av_timestamp(at)));
                }
                TagDialect::Macpro => tags.push((VIRUS_SCAN_TIMESTAMP.to_owned(), epoch_ms(at))),
                _ => {}
            }
        }
        tags
    }

    /// The tags of an object that is not scanned.
    pub(super) fn skipped(self, why: &str) -> Pairs {
        let mut tags = self.say(|words| words.skipped);
        if self.chosen.contains(&TagDialect::Clamgate) {
            tags.push((format!("{}detail", self.prefix), tag_value(why)));
        }
        tags
    }

    /// The tags of an object that is being scanned.
    pub(super) fn in_progress(self) -> Pairs {
        self.say(|words| words.in_progress)
    }

    fn say(self, word: impl Fn(&Words) -> Option<&'static str>) -> Pairs {
        let said = |dialect: &TagDialect| Some((dialect.status_key(self.prefix), word(&words(*dialect))?.to_owned()));
        self.chosen.iter().filter_map(said).collect()
    }

    /// What our own tags say beside the status.
    fn details(self, verdict: &Verdict, scan_id: &str, with: &Definitions) -> Pairs {
        let prefix = self.prefix;
        let mut tags = Vec::new();
        if let Some(detail) = detail(verdict) {
            tags.push((format!("{prefix}detail"), tag_value(&detail)));
        }
        tags.push((self.scan_id_key(), scan_id.to_owned()));
        // What failed was not scanned with anything.
        if verdict.status != Status::Failed {
            let with = ScannedWith::new(with.version, &with.fingerprint);
            tags.push((ScannedWith::tag_name(prefix), with.to_string()));
        }
        tags
    }

    fn scan_id_key(self) -> String {
        format!("{}scan-id", self.prefix)
    }

    /// The name of the tag that keeps the versions of a key in order at their destination.
    pub(super) fn sequencer_key(self) -> String {
        format!("{}sequencer", self.prefix)
    }

    /// The tags, and the one that keeps versions in order. Next to the status: when room is short, that matters more than what explains.
    pub(super) fn in_order(self, tags: &Pairs, sequencer: Option<&str>) -> Pairs {
        let mut tags = tags.clone();
        if let Some(sequencer) = sequencer {
            tags.insert(self.statuses(&tags).min(tags.len()), (self.sequencer_key(), sequencer.to_owned()));
        }
        tags
    }

    /// How many of these tags say a status: the first ones.
    pub(super) fn statuses(self, tags: &Pairs) -> usize {
        tags.iter().filter(|(name, _)| self.chosen.iter().any(|dialect| dialect.status_key(self.prefix) == *name)).count()
    }

    /// Whether a scan writes a tag of this name.
    pub(super) fn owns(self, name: &str) -> bool {
        let is_written = |dialect: &TagDialect| {
            let is_detail = match dialect {
                TagDialect::Clamgate => {
                    let rest = name.strip_prefix(self.prefix);
                    rest.is_some_and(|rest| matches!(rest, "detail" | "scan-id" | "definitions"))
                }
                TagDialect::BucketAntivirusFunction => matches!(name, AV_SIGNATURE | AV_TIMESTAMP),
                TagDialect::Macpro => name == VIRUS_SCAN_TIMESTAMP,
                _ => false,
            };
            is_detail || name == dialect.status_key(self.prefix)
        };
        name == self.sequencer_key() || self.chosen.iter().any(is_written)
    }

    /// Whether a tag of this name says when a scan was: a second scan of the same says another time.
    pub(super) fn is_time(name: &str) -> bool {
        matches!(name, AV_TIMESTAMP | VIRUS_SCAN_TIMESTAMP)
    }

    /// Whether one of the tags says a status, other than that the object is being scanned.
    pub(super) fn has_status(self, tags: &Pairs) -> bool {
        self.chosen.iter().any(|dialect| self.is_final(*dialect, tags))
    }

    fn is_final(self, dialect: TagDialect, tags: &Pairs) -> bool {
        self.word(dialect, tags).is_some_and(|word| Some(word) != words(dialect).in_progress)
    }

    fn word(self, dialect: TagDialect, tags: &Pairs) -> Option<&str> {
        let key = dialect.status_key(self.prefix);
        tags.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str())
    }

    /// Whether the tags say in every dialect that the object was scanned. Words that some dialects also have for an object
    /// which failed or was skipped do not say so, unless our own tags do.
    pub(crate) fn are_of_a_scan(self, tags: &Pairs) -> bool {
        let says_so = |dialect: &TagDialect| self.word(*dialect, tags).is_some_and(|word| words(*dialect).is_of_a_scan(word));
        let all_are_final = self.chosen.iter().all(|dialect| self.is_final(*dialect, tags));
        let ours = &TagDialect::Clamgate;
        all_are_final && if self.chosen.contains(ours) { says_so(ours) } else { self.chosen.iter().all(says_so) }
    }

    /// Whether the tags found are those of the very scan that `ours` are of, but for the time. Only our own name the scan:
    /// others may be of another version of the object.
    pub(super) fn are_of_one_scan(self, found: &Pairs, ours: &Pairs) -> bool {
        let scan_id = self.scan_id_key();
        ours.iter().any(|(name, _)| *name == scan_id) && ours.iter().all(|tag| Self::is_time(&tag.0) || found.contains(tag))
    }
}

/// What was found, or else why not everything was looked at.
pub(super) fn detail(verdict: &Verdict) -> Option<String> {
    if !verdict.signatures.is_empty() {
        return Some(verdict.signatures.join(" "));
    }
    match (verdict.reason?, &verdict.detail) {
        // Other details can name what is inside a private document.
        (reason @ Reason::LimitExceeded, Some(limit)) => Some(format!("{reason} {limit}")),
        (reason, _) => Some(reason.to_string()),
    }
}

/// The signature as clamdscan prints it, which bucket-antivirus-function copies; `OK` if there is none, and `UNKNOWN` if it
/// does not know it.
fn av_signature(verdict: &Verdict) -> String {
    match (verdict.status, verdict.signatures.first()) {
        (Status::Clean, _) => "OK".to_owned(),
        (_, Some(name)) => tag_value(&format!("{name} FOUND")),
        (_, None) => "UNKNOWN".to_owned(),
    }
}

/// `%Y/%m/%d %H:%M:%S UTC`
fn av_timestamp(at: OffsetDateTime) -> String {
    let at = at.to_offset(UtcOffset::UTC);
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second) = at.to_hms();
    format!("{year:04}/{:02}/{day:02} {hour:02}:{minute:02}:{second:02} UTC", u8::from(month))
}

/// Milliseconds since 1970.
fn epoch_ms(at: OffsetDateTime) -> String {
    (at.unix_timestamp_nanos() / 1_000_000).to_string()
}

/// A text in the alphabet that all AWS services take in tag values, and no longer than S3 takes
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html>).
fn tag_value(text: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || " +-=._:/@".contains(c);
    text.chars().map(|c| if allowed(c) { c } else { '_' }).take(LONGEST_VALUE).collect()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const ALL: [TagDialect; 7] = [
        TagDialect::Clamgate,
        TagDialect::Guardduty,
        TagDialect::Bucketav,
        TagDialect::AwsS3Virusscan,
        TagDialect::BucketAntivirusFunction,
        TagDialect::CdkServerlessClamscan,
        TagDialect::Macpro,
    ];

    fn verdict(status: Status, signatures: &[&str]) -> Verdict {
        let signatures = signatures.iter().map(|&name| name.to_owned()).collect();
        Verdict { status, signatures, allowed: Vec::new(), reason: None, detail: None }
    }

    fn said(dialects: &[TagDialect], verdict: &Verdict) -> Pairs {
        let with = Definitions { version: 27500, built_at: None, signatures: 1, fingerprint: "0123456789abcdef0123".into() };
        Dialects::new("p-", dialects).verdict(verdict, "id", &with, datetime!(2026-11-21 13:04:05.678 +01:00))
    }

    /// Statuses × dialects.
    #[test]
    fn the_words_of_each_dialect() {
        let nothing = "";
        for (status, expected) in [
            (Status::Clean, ["CLEAN", "NO_THREATS_FOUND", "clean", "clean", "CLEAN", "CLEAN", "CLEAN"]),
            (Status::Infected, ["INFECTED", "THREATS_FOUND", "infected", "infected", "INFECTED", "INFECTED", "INFECTED"]),
            (Status::Suspicious, ["SUSPICIOUS", "THREATS_FOUND", "infected", "infected", "INFECTED", "INFECTED", "INFECTED"]),
            (Status::Unscannable, ["UNSCANNABLE", "UNSUPPORTED", "no", "no", "INFECTED", "ERROR", "ERROR"]),
            (Status::Failed, ["FAILED", "FAILED", "no", "no", nothing, "ERROR", "ERROR"]),
        ] {
            let found = ALL.map(|dialect| {
                let tags = said(&[dialect], &verdict(status, &[]));
                let key = dialect.status_key("p-");
                tags.into_iter().find(|(name, _)| *name == key).map(|(_, value)| value).unwrap_or_default()
            });
            assert_eq!(found, expected, "{status}");
        }
        let values = |tags: fn(Dialects<'_>) -> Pairs| {
            ALL.map(|dialect| {
                let tags = tags(Dialects::new("p-", &[dialect]));
                tags.into_iter().next().map(|(_, value)| value).unwrap_or_default()
            })
        };
        let skipped = values(|dialects| dialects.skipped("rule"));
        assert_eq!(skipped, ["SKIPPED", "UNSUPPORTED", "no", "no", nothing, nothing, "SKIPPED"]);
        let in_progress = values(|dialects| dialects.in_progress());
        assert_eq!(in_progress, ["IN_PROGRESS", nothing, nothing, nothing, nothing, "IN PROGRESS", nothing]);
        for (dialect, word) in ALL.into_iter().zip(in_progress) {
            assert_eq!(dialect.knows_in_progress(), !word.is_empty(), "{dialect:?}");
        }
    }

    #[test]
    fn nothing_but_clean_is_called_clean() {
        for dialect in ALL {
            let clean = words(dialect).clean;
            let words = words(dialect);
            let others = [words.infected, words.suspicious, words.unscannable].map(Some);
            assert!(!others.contains(&Some(clean)), "{dialect:?}");
            assert!(![words.failed, words.skipped, words.in_progress].contains(&Some(clean)), "{dialect:?}");
        }
    }

    #[test]
    fn details() {
        let tags = said(&ALL, &verdict(Status::Infected, &["A{1}", "B"]));
        let value = |name: &str| tags.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
        assert_eq!(value("av-signature"), Some("A_1_ FOUND"));
        assert_eq!(value("av-timestamp"), Some("2026/11/21 12:04:05 UTC"));
        assert_eq!(value("virusScanTimestamp"), Some("1795262645678"));
        assert_eq!(value("p-scan-id"), Some("id"));
        let dialects = Dialects::new("p-", &ALL);
        assert_eq!(dialects.statuses(&tags), ALL.len());
        assert_eq!(dialects.statuses(&tags[..ALL.len()].to_vec()), ALL.len(), "the statuses come first");
        assert!(tags.iter().all(|(name, _)| dialects.owns(name)), "{tags:?}");
        assert!(!dialects.owns("team") && !dialects.owns("p-other"));
        let failed = said(&[TagDialect::BucketAntivirusFunction], &verdict(Status::Failed, &[]));
        assert!(failed.is_empty(), "{failed:?}");
        for (status, expected) in [(Status::Clean, "OK"), (Status::Unscannable, "UNKNOWN")] {
            assert_eq!(av_signature(&verdict(status, &[])), expected);
        }
    }

    #[test]
    fn what_says_that_an_object_was_scanned() {
        use TagDialect::{CdkServerlessClamscan, Clamgate, Guardduty};
        for (chosen, tags, is_final, is_scanned) in [
            (&[Clamgate][..], &[("p-status", "IN_PROGRESS")][..], false, false),
            (&[Clamgate], &[("p-status", "FAILED")], true, false),
            (&[Clamgate], &[("p-status", "UNSCANNABLE")], true, true),
            (&[Clamgate], &[("p-status", "whatever")], true, false),
            (&[CdkServerlessClamscan], &[("scan-status", "IN PROGRESS")], false, false),
            (&[CdkServerlessClamscan], &[("scan-status", "ERROR")], true, false),
            (&[CdkServerlessClamscan], &[("scan-status", "CLEAN")], true, true),
            // A dialect that was added since.
            (&[Clamgate, Guardduty], &[("p-status", "CLEAN")], true, false),
            (&[Clamgate, Guardduty], &[("p-status", "CLEAN"), ("GuardDutyMalwareScanStatus", "NO_THREATS_FOUND")], true, true),
            (&[Clamgate, CdkServerlessClamscan], &[("p-status", "UNSCANNABLE"), ("scan-status", "ERROR")], true, true),
            (&[Clamgate, CdkServerlessClamscan], &[("p-status", "FAILED"), ("scan-status", "ERROR")], true, false),
            (&[Guardduty], &[("GuardDutyMalwareScanStatus", "UNSUPPORTED")], true, false),
            (&[Guardduty], &[("p-status", "CLEAN")], false, false),
        ] {
            let tags = tags.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
            let dialects = Dialects::new("p-", chosen);
            assert_eq!((dialects.has_status(&tags), dialects.are_of_a_scan(&tags)), (is_final, is_scanned), "{tags:?}");
        }
    }

    /// Without our own tags, those of the copy of an older version looked like those of the copy to be made: it was not made,
    /// and the original removed.
    #[test]
    fn tags_that_do_not_name_the_scan_prove_nothing() {
        use TagDialect::{Clamgate, Macpro};
        let clean = verdict(Status::Clean, &[]);
        let later = |tags: Pairs| -> Pairs {
            tags.into_iter()
                .map(|(name, value)| if name == VIRUS_SCAN_TIMESTAMP { (name, "9".into()) } else { (name, value) })
                .collect()
        };
        for (chosen, expected) in [(&[Clamgate][..], true), (&[Clamgate, Macpro], true), (&[Macpro], false)] {
            let ours = said(chosen, &clean);
            assert_eq!(Dialects::new("p-", chosen).are_of_one_scan(&later(ours.clone()), &ours), expected, "{chosen:?}");
        }
        let ours = said(&[Clamgate], &clean);
        assert!(!Dialects::new("p-", &[Clamgate]).are_of_one_scan(&said(&[Clamgate], &verdict(Status::Infected, &[])), &ours));
        assert!(!Dialects::new("p-", &[Clamgate]).are_of_one_scan(&ours, &Vec::new()));
    }

    #[test]
    fn tag_values_are_tamed() {
        assert_eq!(tag_value("a<b>\n{é}"), "a_b_____");
        assert_eq!(tag_value(&"x".repeat(999)).len(), LONGEST_VALUE);
    }
}
