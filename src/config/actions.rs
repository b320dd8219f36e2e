//! `[actions]`: what happens to an object.

use serde::{Deserialize, Serialize};

use super::{Destination, GIB, MIB, TagDialect};
use crate::engine::Status;

/// The longest text of a placeholder object, in bytes.
const LONGEST_PLACEHOLDER: usize = 64 * 1024;

/// `[actions]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ActionsConfig {
    /// Whether the verdict is written to the object's tags.
    pub tag: bool,
    /// What the names of our own tags begin with.
    pub tag_prefix: String,
    /// Whose tags are written: `clamgate` and those of other scanners, in the order in which they get the room that there is.
    pub tag_dialects: Vec<TagDialect>,
    /// Whether an object without a verdict is tagged as being scanned, in the dialects that have a word for it.
    pub tag_in_progress: bool,
    /// Where objects are promoted to: `s3://bucket/prefix/`, or a template such as `s3://bucket/{date}/{key}`; unset to leave them in place.
    pub promote_to: Option<Destination>,
    /// Where objects are quarantined, in the same form; unset to leave them in place.
    pub quarantine_to: Option<Destination>,
    /// What happens to `CLEAN` objects: `promote` or `leave`.
    pub clean: Disposal,
    /// What happens to `INFECTED` objects: anything but `promote`.
    pub infected: Disposal,
    /// What happens to `SUSPICIOUS` objects.
    pub suspicious: Disposal,
    /// What happens to `UNSCANNABLE` objects.
    pub unscannable: Disposal,
    /// The content of the objects that take the place of replaced ones. An object with this content is never scanned for itself.
    pub placeholder: String,
    /// Their content type.
    pub placeholder_content_type: String,
    /// The KMS key for copies and placeholder objects, instead of the object's own.
    pub kms_key_id: Option<String>,
    /// Objects above this size are copied in parts. S3's CopyObject ends at 5 GB.
    pub multipart_copy_bytes: u64,
    /// What is different for some objects. The first rule that is about an object counts, and no other.
    pub rules: Vec<RuleConfig>,
}

/// `[[actions.rules]]`: what is different for the objects of a bucket, or for keys that begin with a prefix. What is unset is as in `[actions]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuleConfig {
    /// The bucket that it is about; unset for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// What the keys begin with that it is about; unset for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Instead of `actions.tag`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<bool>,
    /// Instead of `actions.promote_to`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promote_to: Option<Destination>,
    /// Instead of `actions.quarantine_to`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantine_to: Option<Destination>,
    /// Instead of `actions.clean`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clean: Option<Disposal>,
    /// Instead of `actions.infected`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub infected: Option<Disposal>,
    /// Instead of `actions.suspicious`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspicious: Option<Disposal>,
    /// Instead of `actions.unscannable`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unscannable: Option<Disposal>,
}

/// What happens to an object beside its tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Disposal {
    /// To `quarantine_to`, if that is set.
    Quarantine,
    /// To `promote_to`, if that is set.
    Promote,
    /// What was scanned is deleted: that version, in a bucket with versions.
    Delete,
    /// A placeholder object takes its place.
    Replace,
    /// Stays where it is.
    Leave,
}

/// What counts for one object.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy<'a> {
    /// Whether the verdict is written to the object's tags.
    pub tag: bool,
    /// Where it is promoted to.
    pub promote_to: Option<&'a Destination>,
    /// Where it is quarantined.
    pub quarantine_to: Option<&'a Destination>,
    /// What happens when it is clean, infected, suspicious or unscannable.
    disposals: [Disposal; 4],
}

impl Policy<'_> {
    /// What happens to an object with this status. What is not known is left where it is.
    #[must_use]
    pub fn disposal(&self, status: Status) -> Disposal {
        let [clean, infected, suspicious, unscannable] = self.disposals;
        match status {
            Status::Clean => clean,
            Status::Infected => infected,
            Status::Suspicious => suspicious,
            Status::Unscannable => unscannable,
            Status::Failed => Disposal::Leave,
        }
    }
}

impl Default for ActionsConfig {
    fn default() -> Self {
        Self {
            tag: true,
            tag_prefix: "clamgate-".to_owned(),
            tag_dialects: vec![TagDialect::Clamgate],
            tag_in_progress: false,
            promote_to: None,
            quarantine_to: None,
            clean: Disposal::Promote,
            infected: Disposal::Quarantine,
            suspicious: Disposal::Quarantine,
            unscannable: Disposal::Quarantine,
            placeholder: "This file was removed because of a malware scan.\n".to_owned(),
            placeholder_content_type: "text/plain; charset=utf-8".to_owned(),
            kms_key_id: None,
            multipart_copy_bytes: 5_000_000_000,
            rules: Vec::new(),
        }
    }
}

impl RuleConfig {
    /// Whether it is about this object.
    fn is_about(&self, bucket: &str, key: &str) -> bool {
        self.bucket.as_deref().is_none_or(|ours| ours == bucket)
            && self.prefix.as_deref().is_none_or(|prefix| key.starts_with(prefix))
    }

    /// What cannot work; `which` says which rule it is.
    fn problems(&self, which: &str, defaults: &ActionsConfig) -> Vec<String> {
        let mut problems = Vec::new();
        let is_void = |text: &Option<String>| text.as_ref().is_some_and(String::is_empty);
        if (self.bucket.is_none() && self.prefix.is_none()) || is_void(&self.bucket) || is_void(&self.prefix) {
            problems.push(format!(
                "{which} needs a bucket or a prefix that is not empty; what is for all objects goes to [actions]"
            ));
        }
        let chosen = [self.clean, self.infected, self.suspicious, self.unscannable];
        let chosen = |disposal| chosen.contains(&Some(disposal));
        if chosen(Disposal::Promote) && self.promote_to.as_ref().or(defaults.promote_to.as_ref()).is_none() {
            problems.push(format!("{which} promotes, but there is no promote_to"));
        }
        if chosen(Disposal::Quarantine) && self.quarantine_to.as_ref().or(defaults.quarantine_to.as_ref()).is_none() {
            problems.push(format!("{which} quarantines, but there is no quarantine_to"));
        }
        problems.extend(impossible_disposals(which, self.clean, self.infected));
        problems
    }
}

/// Disposals that would make a verdict meaningless.
fn impossible_disposals(which: &str, clean: Option<Disposal>, infected: Option<Disposal>) -> Vec<String> {
    let mut problems = Vec::new();
    if !matches!(clean, None | Some(Disposal::Promote | Disposal::Leave)) {
        problems.push(format!("{which}.clean must be promote or leave"));
    }
    if infected == Some(Disposal::Promote) {
        problems.push(format!("{which}.infected must not be promote"));
    }
    problems
}

impl ActionsConfig {
    /// What counts for an object.
    #[must_use]
    pub fn policy(&self, bucket: &str, key: &str) -> Policy<'_> {
        self.policy_of(self.rules.iter().find(|rule| rule.is_about(bucket, key)))
    }

    fn policy_of<'a>(&'a self, rule: Option<&'a RuleConfig>) -> Policy<'a> {
        let disposal = |of: fn(&RuleConfig) -> Option<Disposal>, default| rule.and_then(of).unwrap_or(default);
        Policy {
            tag: rule.and_then(|rule| rule.tag).unwrap_or(self.tag),
            promote_to: rule.and_then(|rule| rule.promote_to.as_ref()).or(self.promote_to.as_ref()),
            quarantine_to: rule.and_then(|rule| rule.quarantine_to.as_ref()).or(self.quarantine_to.as_ref()),
            disposals: [
                disposal(|rule| rule.clean, self.clean),
                disposal(|rule| rule.infected, self.infected),
                disposal(|rule| rule.suspicious, self.suspicious),
                disposal(|rule| rule.unscannable, self.unscannable),
            ],
        }
    }

    /// All places that objects are promoted to.
    pub fn promotions(&self) -> impl Iterator<Item = &Destination> {
        self.promote_to.iter().chain(self.rules.iter().filter_map(|rule| rule.promote_to.as_ref()))
    }

    /// All places where objects are quarantined.
    pub fn quarantines(&self) -> impl Iterator<Item = &Destination> {
        self.quarantine_to.iter().chain(self.rules.iter().filter_map(|rule| rule.quarantine_to.as_ref()))
    }

    /// All places that objects are moved to.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        self.promotions().chain(self.quarantines())
    }

    /// Whether the disposal is used for any object.
    #[must_use]
    pub fn uses(&self, disposal: Disposal) -> bool {
        let policies = self.rules.iter().map(Some).chain([None]).map(|rule| self.policy_of(rule));
        policies.into_iter().any(|policy| policy.disposals.contains(&disposal))
    }

    /// Whether the original of any object is not there any more after its scan.
    #[must_use]
    pub fn removes(&self) -> bool {
        self.destinations().next().is_some() || self.uses(Disposal::Delete) || self.uses(Disposal::Replace)
    }

    /// What cannot work, one sentence each, with the field's name.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut require = |holds: bool, problem: &str| {
            if !holds {
                problems.push(problem.to_owned());
            }
        };
        require(
            self.multipart_copy_bytes >= 5 * MIB && self.multipart_copy_bytes <= 5 * GIB,
            "actions.multipart_copy_bytes must be between 5 MiB and 5 GiB (the bounds of S3's UploadPartCopy and CopyObject)",
        );
        let tag_alphabet = |c: char| c.is_ascii_alphanumeric() || " +-=._:/@".contains(c);
        require(
            (1..=64).contains(&self.tag_prefix.len())
                && !self.tag_prefix.starts_with("aws:")
                && self.tag_prefix.chars().all(tag_alphabet),
            "actions.tag_prefix must have 1 to 64 characters of A-Z a-z 0-9 + - = . _ : / @ or space, and must not begin with aws:",
        );
        require(
            (1..=LONGEST_PLACEHOLDER).contains(&self.placeholder.len()),
            "actions.placeholder must have 1 to 65536 bytes: an empty one could not be told from an empty upload",
        );
        require(
            (1..=256).contains(&self.placeholder_content_type.len())
                && self.placeholder_content_type.chars().all(|c| c == ' ' || c.is_ascii_graphic()),
            "actions.placeholder_content_type must be a content type such as text/plain",
        );
        let dialects = &self.tag_dialects;
        require(!dialects.is_empty(), "actions.tag_dialects is empty: to write no tags, say actions.tag = false");
        let keys: Vec<_> = dialects.iter().map(|dialect| dialect.status_key(&self.tag_prefix)).collect();
        let is_first = |(place, key)| keys.iter().position(|other| other == key) == Some(place);
        require(
            keys.iter().enumerate().all(is_first),
            "actions.tag_dialects has two that write one tag: name each once, and let no other's names \
             begin with actions.tag_prefix",
        );
        require(
            !self.tag_in_progress || (self.tag && dialects.iter().any(|dialect| dialect.knows_in_progress())),
            "actions.tag_in_progress needs actions.tag, and clamgate or cdk-serverless-clamscan in actions.tag_dialects",
        );
        problems.extend(impossible_disposals("actions", Some(self.clean), Some(self.infected)));
        for (number, rule) in self.rules.iter().enumerate() {
            problems.extend(rule.problems(&format!("actions.rules[{number}]"), self));
        }
        for promote in self.promotions() {
            for quarantine in self.quarantines().filter(|quarantine| quarantine.root().overlaps(&promote.root())) {
                problems.push(format!(
                    "actions: promote_to = \"{promote}\" and quarantine_to = \"{quarantine}\" must not lie one in the other: a key could \
                     choose its place"
                ));
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<ActionsConfig, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn the_first_rule_that_is_about_an_object_counts() -> Result<(), toml::de::Error> {
        let config = parsed(
            "quarantine_to = 's3://bad'
             suspicious = 'leave'
             [[rules]]
             bucket = 'a'
             prefix = 'in/'
             infected = 'delete'
             [[rules]]
             bucket = 'a'
             infected = 'replace'
             suspicious = 'quarantine'
             tag = false
             [[rules]]
             prefix = 'in/'
             quarantine_to = 's3://other/{uuid}'",
        )?;
        assert_eq!(config.problems(), Vec::<String>::new());
        for (bucket, key, infected, suspicious, tag, quarantine_to) in [
            ("a", "in/x", Disposal::Delete, Disposal::Leave, true, "s3://bad"),
            ("a", "inx", Disposal::Replace, Disposal::Quarantine, false, "s3://bad"),
            ("b", "in/x", Disposal::Quarantine, Disposal::Leave, true, "s3://other/{uuid}"),
            ("b", "x", Disposal::Quarantine, Disposal::Leave, true, "s3://bad"),
        ] {
            let policy = config.policy(bucket, key);
            assert_eq!(
                (policy.disposal(Status::Infected), policy.disposal(Status::Suspicious), policy.tag),
                (infected, suspicious, tag),
                "{bucket} {key}"
            );
            assert_eq!(policy.quarantine_to.map(ToString::to_string).as_deref(), Some(quarantine_to), "{bucket} {key}");
            assert_eq!(policy.disposal(Status::Failed), Disposal::Leave);
        }
        Ok(())
    }

    #[test]
    fn mistakes() {
        for (text, problem) in [
            ("", ""),
            ("clean = 'leave'\ninfected = 'replace'", ""),
            ("clean = 'delete'", "actions.clean must be promote or leave"),
            ("clean = 'burn'", "unknown variant"),
            ("infected = 'promote'", "actions.infected must not be promote"),
            ("placeholder = ''", "actions.placeholder must"),
            ("placeholder_content_type = \"a\\nb\"", "actions.placeholder_content_type must"),
            ("promote_to = 's3://b/{name}'", "{name} is none of"),
            ("promote_to = 's3://b/x/'\nquarantine_to = 's3://b/x/y/'", "must not lie one in the other"),
            ("promote_to = 's3://b/{date}/{key}'\nquarantine_to = 's3://b/bad/{key}'", "must not lie one in the other"),
            ("promote_to = 's3://b/a-{key}'\nquarantine_to = 's3://b/b-{key}'", ""),
            ("promote_to = 's3://b/x/'\n[[rules]]\nprefix = 'a'\nquarantine_to = 's3://b/'", "must not lie one in the other"),
            ("[[rules]]\ninfected = 'delete'", "actions.rules[0] needs a bucket or a prefix"),
            ("[[rules]]\nbucket = 'b'\n[[rules]]\nprefix = ''", "actions.rules[1] needs a bucket or a prefix"),
            ("[[rules]]\nbucket = 'b'\nclean = 'replace'", "actions.rules[0].clean must"),
            ("[[rules]]\nbucket = 'b'\ninfected = 'promote'\npromote_to = 's3://c'", "actions.rules[0].infected must not"),
            ("[[rules]]\nbucket = 'b'\nsuspicious = 'promote'", "there is no promote_to"),
            ("[[rules]]\nbucket = 'b'\nsuspicious = 'quarantine'", "there is no quarantine_to"),
            ("[[rules]]\nbucket = 'b'\ninfects = 'delete'", "unknown field"),
        ] {
            let found = parsed(text).map_or_else(|error| error.to_string(), |config| config.problems().join("\n"));
            assert_eq!(found.is_empty(), problem.is_empty(), "{text}: {found}");
            assert!(found.contains(problem), "{text}: {found}");
        }
    }

    #[test]
    fn originals_that_go() -> Result<(), toml::de::Error> {
        for (text, removes) in [
            ("", false),
            ("promote_to = 's3://b'", true),
            ("suspicious = 'delete'", true),
            ("[[rules]]\nbucket = 'b'\nunscannable = 'replace'", true),
            ("[[rules]]\nbucket = 'b'\nquarantine_to = 's3://b'", true),
        ] {
            assert_eq!(parsed(text)?.removes(), removes, "{text}");
        }
        Ok(())
    }
}
