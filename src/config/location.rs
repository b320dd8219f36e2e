//! `s3://bucket/prefix/`, as a configuration value.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A bucket and what keys in it begin with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Location {
    /// The bucket's name.
    pub bucket: String,
    /// The prefix, empty or ending in `/`.
    pub prefix: String,
}

impl Location {
    /// Whether a key can lie in both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let nested = self.prefix.starts_with(&other.prefix) || other.prefix.starts_with(&self.prefix);
        self.bucket == other.bucket && nested
    }
}

impl FromStr for Location {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("s3://").ok_or_else(|| format!("{text:?} is not of the form s3://bucket/prefix/"))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(format!("{text:?} names no bucket"));
        }
        if !prefix.is_empty() && !prefix.ends_with('/') {
            return Err(format!("{text:?} must end in /, or keys would run into the prefix"));
        }
        Ok(Self { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl TryFrom<String> for Location {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Location> for String {
    fn from(location: Location) -> Self {
        location.to_string()
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::Location;

    #[test]
    fn overlaps() -> Result<(), String> {
        for (one, other, overlap) in [
            ("s3://b", "s3://b/x/", true),
            ("s3://b/x/", "s3://b/y/", false),
            ("s3://b/x/", "s3://b/x/y/", true),
            ("s3://a", "s3://b", false),
        ] {
            assert_eq!(one.parse::<Location>()?.overlaps(&other.parse()?), overlap, "{one} {other}");
        }
        Ok(())
    }

    #[test]
    fn locations() {
        let parsed = |text: &str| text.parse::<Location>().map(|location| (location.bucket, location.prefix));
        let pair = |bucket: &str, prefix: &str| Ok((bucket.to_owned(), prefix.to_owned()));
        assert_eq!(parsed("s3://b"), pair("b", ""));
        assert_eq!(parsed("s3://b/"), pair("b", ""));
        assert_eq!(parsed("s3://b/a/c/"), pair("b", "a/c/"));
        for wrong in ["b", "s3://", "s3:///x/", "s3://b/x", "http://b/"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
