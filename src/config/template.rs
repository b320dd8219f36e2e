//! `s3://bucket/{placeholder}/…`, as a configuration value.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Location;
use super::pieces::{Piece, pieces};

/// A bucket, and a key with placeholders in braces. Which placeholders there are is up to its user, who asks for
/// [`Template::unknown`] when the configuration is checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    /// The bucket's name, without placeholders.
    pub bucket: String,
    key: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Part {
    Literal(String),
    Placeholder(String),
}

impl Template {
    /// The first placeholder that is not among these.
    #[must_use]
    pub fn unknown(&self, known: &[&str]) -> Option<&str> {
        self.placeholders().find(|name| !known.contains(name))
    }

    /// Whether the key has this placeholder.
    #[must_use]
    pub fn has(&self, placeholder: &str) -> bool {
        self.placeholders().any(|name| name == placeholder)
    }

    /// Everything that it can name: the bucket, and what all its keys begin with, which need not end in `/`.
    #[must_use]
    pub fn location(&self) -> Location {
        let prefix = match self.key.first() {
            Some(Part::Literal(text)) => text.clone(),
            _ => String::new(),
        };
        Location { bucket: self.bucket.clone(), prefix }
    }

    /// The key with these values in it; `None` if one is missing.
    #[must_use]
    pub fn key(&self, values: &[(&str, &str)]) -> Option<String> {
        let value = |part: &Part| match part {
            Part::Literal(text) => Some(text.clone()),
            Part::Placeholder(name) => values.iter().find(|(known, _)| known == name).map(|&(_, value)| value.to_owned()),
        };
        self.key.iter().map(value).collect()
    }

    fn placeholders(&self) -> impl Iterator<Item = &str> {
        self.key.iter().filter_map(|part| match part {
            Part::Placeholder(name) => Some(name.as_str()),
            Part::Literal(_) => None,
        })
    }
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("s3://").ok_or_else(|| format!("{text:?} is not of the form s3://bucket/key"))?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() || bucket.contains(['{', '}']) {
            return Err(format!("{text:?} must name its bucket without placeholders"));
        }
        if key.is_empty() {
            return Err(format!("{text:?} has no key"));
        }
        let part = |piece| match piece {
            Piece::Literal(text) => Ok(Part::Literal(text.to_owned())),
            Piece::Placeholder(name) if name.is_empty() || name.contains('{') => {
                Err(format!("{text:?} has {{{name}}}, which is no placeholder"))
            }
            Piece::Placeholder(name) => Ok(Part::Placeholder(name.to_owned())),
        };
        let pieces = pieces(key).map(|piece| piece.map_err(|problem| format!("{text:?} has {problem}")));
        let key = pieces.map(|piece| piece.and_then(part)).collect::<Result<_, _>>()?;
        Ok(Self { bucket: bucket.to_owned(), key })
    }
}

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.to_string()
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/", self.bucket)?;
        self.key.iter().try_for_each(|part| match part {
            Part::Literal(text) => f.write_str(text),
            Part::Placeholder(name) => write!(f, "{{{name}}}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Template;

    #[test]
    fn templates() -> Result<(), String> {
        let values = [("bucket", "in"), ("key", "a/{date}.pdf"), ("date", "2026-11-21")];
        for (text, prefix, key) in [
            ("s3://r/all.json", "all.json", Some("all.json")),
            ("s3://r/{bucket}/{key}.json", "", Some("in/a/{date}.pdf.json")),
            ("s3://r/by-{date}/{key}", "by-", Some("by-2026-11-21/a/{date}.pdf")),
            ("s3://r/{key}{key}", "", Some("a/{date}.pdfa/{date}.pdf")),
            ("s3://r/{other}", "", None),
        ] {
            let template: Template = text.parse()?;
            assert_eq!(template.to_string(), text);
            assert_eq!((template.location().bucket.as_str(), template.location().prefix.as_str()), ("r", prefix), "{text}");
            assert_eq!(template.key(&values).as_deref(), key, "{text}");
            assert_eq!(template.unknown(&["bucket", "key", "date"]).is_some(), key.is_none(), "{text}");
        }
        for wrong in [
            "r/{key}",
            "s3://r",
            "s3://r/",
            "s3://{bucket}/k",
            "s3:///k",
            "s3://r/{key",
            "s3://r/key}",
            "s3://r/{}",
            "s3://r/{{key}}",
        ] {
            assert!(wrong.parse::<Template>().is_err(), "{wrong}");
        }
        Ok(())
    }
}
