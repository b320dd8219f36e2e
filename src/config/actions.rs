//! `[actions]`: what happens to an object.

use serde::{Deserialize, Serialize};

use super::{GIB, Location, MIB, TagDialect};

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
    /// Where clean objects are moved to (`s3://bucket/prefix/`); unset to leave them in place.
    pub promote_to: Option<Location>,
    /// Where objects that are not clean are moved to; unset to leave them in place.
    pub quarantine_to: Option<Location>,
    /// What happens to `SUSPICIOUS` objects.
    pub suspicious: Disposal,
    /// What happens to `UNSCANNABLE` objects.
    pub unscannable: Disposal,
    /// The KMS key for copies, instead of the object's own.
    pub kms_key_id: Option<String>,
    /// Objects above this size are copied in parts. S3's CopyObject ends at 5 GB.
    pub multipart_copy_bytes: u64,
}

/// What happens to an object that is neither clean nor infected for certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Disposal {
    /// As `INFECTED`: to `quarantine_to`, if that is set.
    Quarantine,
    /// As `CLEAN`: to `promote_to`, if that is set.
    Promote,
    /// Stays where it is.
    Leave,
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
            suspicious: Disposal::Quarantine,
            unscannable: Disposal::Quarantine,
            kms_key_id: None,
            multipart_copy_bytes: 5_000_000_000,
        }
    }
}

impl ActionsConfig {
    /// Whether any object is moved: its original is not there any more after that.
    #[must_use]
    pub fn moves(&self) -> bool {
        self.promote_to.is_some() || self.quarantine_to.is_some()
    }

    /// What cannot work, one sentence each, with the field's name.
    pub(super) fn problems(&self) -> Vec<&'static str> {
        let mut problems = Vec::new();
        let mut require = |holds: bool, problem| {
            if !holds {
                problems.push(problem);
            }
        };
        require(
            self.multipart_copy_bytes >= 5 * MIB && self.multipart_copy_bytes <= 5 * GIB,
            "actions.multipart_copy_bytes must be between 5 MiB and 5 GiB (the bounds of S3's UploadPartCopy and CopyObject)",
        );
        let nested = match (&self.promote_to, &self.quarantine_to) {
            (Some(promote), Some(quarantine)) => promote.overlaps(quarantine),
            _ => false,
        };
        require(
            !nested,
            "actions.promote_to and actions.quarantine_to must not lie one in the other: a key could choose its place",
        );
        let tag_alphabet = |c: char| c.is_ascii_alphanumeric() || " +-=._:/@".contains(c);
        require(
            (1..=64).contains(&self.tag_prefix.len())
                && !self.tag_prefix.starts_with("aws:")
                && self.tag_prefix.chars().all(tag_alphabet),
            "actions.tag_prefix must have 1 to 64 characters of A-Z a-z 0-9 + - = . _ : / @ or space, and must not begin with aws:",
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
        problems
    }
}
