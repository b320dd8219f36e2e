//! `[[queue.filters]]`: which objects of the queue are not scanned.

use serde::{Deserialize, Serialize};

/// A rule that lets objects by without a scan. Whoever uploads chooses key, content type and tags: filter by what only trusted programs write.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterConfig {
    /// What the rule is called in the log, in metrics and in the tag.
    pub name: String,
    /// The bucket that it is about; unset for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// Objects for which this holds are skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<Condition>,
    /// Objects for which this does not hold are skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<Condition>,
    /// Whether a skipped object is tagged `SKIPPED`, unless an earlier verdict is on it.
    #[serde(default)]
    pub tag: bool,
}

/// Something that holds for an object or not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Condition {
    /// All of these hold.
    All(Vec<Condition>),
    /// At least one of these holds.
    Any(Vec<Condition>),
    /// This does not hold.
    Not(Box<Condition>),
    /// The key begins with this.
    Prefix(String),
    /// The key ends with this, upper and lower case being different.
    Suffix(String),
    /// The object has at least as many bytes.
    MinBytes(u64),
    /// The object has at most as many bytes.
    MaxBytes(u64),
    /// Its content type, without parameters: `image/png`, or `image/*`.
    ContentType(String),
    /// It has a tag of this name, and with this value if one is given.
    Tag {
        /// The name.
        key: String,
        /// The value.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<String>,
    },
}

impl FilterConfig {
    /// What cannot work.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let conditions = [&self.skip, &self.only];
        if conditions.iter().filter(|condition| condition.is_some()).count() != 1 {
            problems.push(format!("queue.filters: {:?} needs either skip or only", self.name));
        }
        if self.name.is_empty() || self.name.len() > 64 || self.name.chars().any(char::is_control) {
            problems.push(format!("queue.filters: the name {:?} must have 1 to 64 characters", self.name));
        }
        for condition in conditions.into_iter().flatten() {
            condition.each(&mut |part| {
                let is_void = match part {
                    Condition::All(parts) | Condition::Any(parts) => parts.is_empty(),
                    Condition::Prefix(text) | Condition::Suffix(text) => text.is_empty(),
                    Condition::ContentType(text) => {
                        let (kind, sub) = text.split_once('/').unwrap_or_default();
                        kind.is_empty() || sub.is_empty() || kind.contains('*') || (sub.contains('*') && sub != "*")
                    }
                    Condition::Tag { key, .. } => key.is_empty(),
                    Condition::MinBytes(bytes) => *bytes == 0,
                    Condition::MaxBytes(_) | Condition::Not(_) => false,
                };
                if is_void {
                    problems.push(format!("queue.filters: {:?} has a condition that means nothing: {part:?}", self.name));
                }
            });
        }
        problems
    }
}

impl Condition {
    /// Visits this condition and all those in it.
    pub fn each(&self, visit: &mut impl FnMut(&Self)) {
        visit(self);
        match self {
            Self::All(parts) | Self::Any(parts) => {
                for part in parts {
                    part.each(visit);
                }
            }
            Self::Not(part) => part.each(visit),
            _ => {}
        }
    }
}
