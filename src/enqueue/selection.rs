//! Which objects are enqueued. Pure: nothing here talks to S3.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::action::{Dialects, ScannedWith, Tags};
use crate::config::TagDialect;

/// Which objects are enqueued: those that meet every rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// Last modified then or later.
    #[serde(with = "time::serde::rfc3339::option")]
    pub since: Option<OffsetDateTime>,
    /// What their tags say.
    pub tags: TagRule,
    /// What the names of our own tags begin with.
    pub tag_prefix: String,
    /// Whose tags say the verdict.
    #[serde(default = "ours_alone")]
    pub tag_dialects: Vec<TagDialect>,
}

/// What a state file means that does not say it: there were no others when it was written.
fn ours_alone() -> Vec<TagDialect> {
    vec![TagDialect::Clamgate]
}

/// What an object's tags say about its last scan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TagRule {
    /// Anything: they are not looked at.
    Any,
    /// No verdict in the words of each of the dialects.
    Untagged,
    /// No verdict, or not that it was reached with these definitions or newer ones.
    OlderThan(ScannedWith),
}

impl Selection {
    /// Whether the time of the last change is right. If it is not known, it is.
    pub(super) fn by_age(&self, last_modified: Option<OffsetDateTime>) -> bool {
        match (self.since, last_modified) {
            (Some(since), Some(at)) => at >= since,
            _ => true,
        }
    }

    pub(super) fn needs_tags(&self) -> bool {
        self.tags != TagRule::Any
    }

    /// Whether the tags are right.
    pub(super) fn by_tags(&self, tags: &Tags) -> bool {
        let is_scanned = Dialects::new(&self.tag_prefix, &self.tag_dialects).are_of_a_scan(tags);
        match &self.tags {
            TagRule::Any => true,
            TagRule::Untagged => !is_scanned,
            TagRule::OlderThan(current) => {
                let name = ScannedWith::tag_name(&self.tag_prefix);
                let with = tags.iter().find(|(found, _)| *found == name).and_then(|(_, tag)| tag.parse::<ScannedWith>().ok());
                !is_scanned || with.is_none_or(|with| with.is_older_than(current))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn age() {
        let since = |since| Selection { since, tags: TagRule::Any, tag_prefix: String::new(), tag_dialects: Vec::new() };
        let noon = datetime!(2026-11-21 12:00 UTC);
        assert!(since(None).by_age(Some(noon)));
        assert!(since(Some(noon)).by_age(Some(noon)));
        assert!(since(Some(noon)).by_age(Some(datetime!(2026-11-21 13:30 +01:00))));
        assert!(!since(Some(noon)).by_age(Some(datetime!(2026-11-21 11:59:59 UTC))));
        assert!(since(Some(noon)).by_age(None), "unknown");
    }

    #[test]
    fn tags() {
        let current = ScannedWith::new(27500, "0123456789abcdef");
        let rules = [TagRule::Any, TagRule::Untagged, TagRule::OlderThan(current)];
        for (tags, expected) in [
            (vec![], [true, true, true]),
            (vec![("team", "a")], [true, true, true]),
            (vec![("other-status", "CLEAN")], [true, true, true]),
            (vec![("p-status", "SKIPPED")], [true, true, true]),
            (vec![("p-status", "FAILED")], [true, true, true]),
            (vec![("p-status", "IN_PROGRESS")], [true, true, true]),
            // By a version that did not say with what.
            (vec![("p-status", "CLEAN")], [true, false, true]),
            (vec![("p-status", "CLEAN"), ("p-definitions", "27499 0123456789abcdef")], [true, false, true]),
            (vec![("p-status", "INFECTED"), ("p-definitions", "27500 0123456789abcdef")], [true, false, false]),
            (vec![("p-status", "CLEAN"), ("p-definitions", "27501 ffff")], [true, false, false]),
            (vec![("p-status", "CLEAN"), ("p-definitions", "what?")], [true, false, true]),
            (vec![("p-definitions", "27500 0123456789abcdef")], [true, true, true]),
        ] {
            let tags: Tags = tags.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
            let found = rules.clone().map(|rule| {
                let tag_dialects = vec![TagDialect::Clamgate];
                Selection { since: None, tags: rule, tag_prefix: "p-".into(), tag_dialects }.by_tags(&tags)
            });
            assert_eq!(found, expected, "{tags:?}");
        }
    }
}
