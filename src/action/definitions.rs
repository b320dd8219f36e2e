//! The tag that says which definitions an object was scanned with, so that it can be found again when there are newer ones.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How much of the fingerprint a tag holds: enough to tell two sets of definitions apart.
const DIGITS: usize = 16;

/// Definitions, as a tag says them: the version of the daily database and the beginning of the fingerprint, `27500 9f86d081884c7d65`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ScannedWith {
    version: u32,
    fingerprint: String,
}

impl ScannedWith {
    /// Of definitions with this version and fingerprint ([`Definitions`](crate::engine::Definitions)).
    #[must_use]
    pub fn new(version: u32, fingerprint: &str) -> Self {
        Self { version, fingerprint: fingerprint.chars().take(DIGITS).collect() }
    }

    /// The name of the tag.
    #[must_use]
    pub fn tag_name(prefix: &str) -> String {
        format!("{prefix}definitions")
    }

    /// Whether `current` may know more: it is newer, or is another set of the same version. Signatures of one's own have no
    /// version, so that nothing else tells which of the two is newer.
    #[must_use]
    pub fn is_older_than(&self, current: &Self) -> bool {
        self.version < current.version || (self.version == current.version && self.fingerprint != current.fingerprint)
    }
}

impl fmt::Display for ScannedWith {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.version, self.fingerprint)
    }
}

impl FromStr for ScannedWith {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once(' ').and_then(|(version, fingerprint)| Some((version.parse().ok()?, fingerprint)));
        let (version, fingerprint) =
            parts.ok_or("definitions are a version and a fingerprint, as in 27500 9f86d081884c7d65")?;
        Ok(Self { version, fingerprint: fingerprint.to_owned() })
    }
}

impl TryFrom<String> for ScannedWith {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ScannedWith> for String {
    fn from(with: ScannedWith) -> Self {
        with.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::ScannedWith;

    #[test]
    fn older() {
        let current = ScannedWith::new(27500, "0123456789abcdef0123456789abcdef");
        assert_eq!(current.to_string(), "27500 0123456789abcdef");
        for (tag, older) in [
            ("27500 0123456789abcdef", Some(false)),
            ("27499 0123456789abcdef", Some(true)),
            ("27500 ffff456789abcdef", Some(true)),
            // A worker was ahead of this machine.
            ("27501 ffff456789abcdef", Some(false)),
            ("9 0123456789abcdef", Some(true)),
            ("27500", None),
            ("new 0123", None),
            ("", None),
        ] {
            assert_eq!(tag.parse::<ScannedWith>().ok().map(|with| with.is_older_than(&current)), older, "{tag}");
        }
    }
}
