//! `s3://bucket/prefix/` or `s3://bucket/{date}/{key}`: where objects go.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Location;
use super::pieces::{Piece, pieces};

/// A bucket, and how keys in it are made.
///
/// Without a placeholder, what follows the bucket is a prefix, which the object's key is put behind. With one, it is the whole key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Destination {
    /// As it was written.
    text: String,
    bucket: String,
    parts: Vec<Part>,
}

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Part {
    Literal(String),
    Placeholder(Placeholder),
}

/// What is filled in for each object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Placeholder {
    /// `{bucket}`: the bucket that it was uploaded to.
    Bucket,
    /// `{key}`: its key there.
    Key,
    /// `{date}`: the day, in UTC, on which it was written, `2026-11-22`.
    Date,
    /// `{sha256}`: the SHA-256 of its content, in hexadecimal digits.
    Sha256,
    /// `{uuid}`: a UUID of bucket, key and version.
    Uuid,
}

/// What the placeholders stand for. All of it is the same whenever the same state of an object is worked on.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    /// For [`Placeholder::Bucket`]
    pub bucket: &'a str,
    /// For [`Placeholder::Key`]
    pub key: &'a str,
    /// For [`Placeholder::Date`]
    pub date: &'a str,
    /// For [`Placeholder::Sha256`]
    pub sha256: &'a str,
    /// For [`Placeholder::Uuid`]
    pub uuid: &'a str,
}

impl Placeholder {
    const ALL: [Self; 5] = [Self::Bucket, Self::Key, Self::Date, Self::Sha256, Self::Uuid];

    fn name(self) -> &'static str {
        match self {
            Self::Bucket => "bucket",
            Self::Key => "key",
            Self::Date => "date",
            Self::Sha256 => "sha256",
            Self::Uuid => "uuid",
        }
    }
}

impl Destination {
    /// The bucket's name.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Where everything lies that can be put here: the text before the first placeholder, which no object has a say in.
    #[must_use]
    pub fn root(&self) -> Location {
        let prefix = match self.parts.first() {
            Some(Part::Literal(text)) => text.clone(),
            _ => String::new(),
        };
        Location { bucket: self.bucket.clone(), prefix }
    }

    /// Whether an object lies where this puts objects.
    #[must_use]
    pub fn holds(&self, bucket: &str, key: &str) -> bool {
        let root = self.root();
        root.bucket == bucket && key.starts_with(&root.prefix)
    }

    /// Whether a key here depends on this.
    #[must_use]
    pub fn uses(&self, placeholder: Placeholder) -> bool {
        self.parts.contains(&Part::Placeholder(placeholder))
    }

    /// Whether the versions of an object come to one place, one over the other.
    #[must_use]
    pub fn is_shared_by_versions(&self) -> bool {
        !self.uses(Placeholder::Uuid) && !self.uses(Placeholder::Sha256)
    }

    /// The key for an object.
    #[must_use]
    pub fn key(&self, values: &Values<'_>) -> String {
        let mut key = String::new();
        for part in &self.parts {
            key.push_str(match part {
                Part::Literal(text) => text,
                Part::Placeholder(Placeholder::Bucket) => values.bucket,
                Part::Placeholder(Placeholder::Key) => values.key,
                Part::Placeholder(Placeholder::Date) => values.date,
                Part::Placeholder(Placeholder::Sha256) => values.sha256,
                Part::Placeholder(Placeholder::Uuid) => values.uuid,
            });
        }
        key
    }
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("s3://").unwrap_or(text);
        let (bucket, template) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.contains(['{', '}']) {
            return Err(format!(
                "{text:?}: placeholders cannot stand in the bucket's name, which must be the same for all objects"
            ));
        }
        if !template.contains(['{', '}']) {
            let Location { bucket, prefix } = text.parse()?;
            let literal = (!prefix.is_empty()).then_some(Part::Literal(prefix));
            let parts = literal.into_iter().chain([Part::Placeholder(Placeholder::Key)]).collect();
            return Ok(Self { text: text.to_owned(), bucket, parts });
        }
        let Location { bucket, .. } = text.strip_suffix(template).unwrap_or(text).parse()?;
        let parts = parts(template).map_err(|problem| format!("{text:?}: {problem}"))?;
        Ok(Self { text: text.to_owned(), bucket, parts })
    }
}

/// The pieces of a template that gives each object a place of its own.
fn parts(template: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    for piece in pieces(template) {
        let name = match piece? {
            Piece::Literal(text) => {
                parts.push(Part::Literal(text.to_owned()));
                continue;
            }
            Piece::Placeholder(name) => name,
        };
        let known = Placeholder::ALL.into_iter().find(|placeholder| placeholder.name() == name);
        let placeholder =
            known.ok_or_else(|| format!("{{{name}}} is none of {{bucket}}, {{key}}, {{date}}, {{sha256}} and {{uuid}}"))?;
        if parts.contains(&Part::Placeholder(placeholder)) {
            return Err(format!("{{{name}}} stands there twice"));
        }
        parts.push(Part::Placeholder(placeholder));
    }
    let has = |placeholder| parts.contains(&Part::Placeholder(placeholder));
    if !has(Placeholder::Key) && !has(Placeholder::Sha256) && !has(Placeholder::Uuid) {
        return Err("without {key}, {sha256} or {uuid}, one object would overwrite the other".to_owned());
    }
    // Else bucket `a` with key `b/c` and bucket `a-b` with key `c` could share a place.
    if has(Placeholder::Bucket) && has(Placeholder::Key) && !template.split('/').any(|segment| segment == "{bucket}") {
        return Err("{bucket} must stand alone between slashes, or a key could pass for one of another bucket".to_owned());
    }
    Ok(parts)
}

impl TryFrom<String> for Destination {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Destination> for String {
    fn from(destination: Destination) -> Self {
        destination.text
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: Values<'_> = Values { bucket: "up", key: "../a/{uuid}", date: "2026-11-22", sha256: "5a", uuid: "6e8bc430" };

    #[test]
    fn keys_and_where_they_can_lie() -> Result<(), String> {
        for (text, root, key) in [
            ("s3://b", "s3://b/", "../a/{uuid}"),
            ("s3://b/", "s3://b/", "../a/{uuid}"),
            ("s3://b/in/", "s3://b/in/", "in/../a/{uuid}"),
            ("s3://b/in/{key}", "s3://b/in/", "in/../a/{uuid}"),
            ("s3://b/{bucket}/{date}/{key}", "s3://b/", "up/2026-11-22/../a/{uuid}"),
            ("s3://b/in-{sha256}/{uuid}.bin", "s3://b/in-", "in-5a/6e8bc430.bin"),
            ("s3://b/{uuid}-{bucket}", "s3://b/", "6e8bc430-up"),
            ("s3://b/x/{key}/{bucket}", "s3://b/x/", "x/../a/{uuid}/up"),
        ] {
            let destination: Destination = text.parse()?;
            assert_eq!((destination.root().to_string().as_str(), destination.key(&VALUES).as_str()), (root, key), "{text}");
            assert_eq!(destination.to_string(), text);
            assert!(destination.holds("b", key), "{text}");
            assert!(!destination.holds("c", key), "{text}");
        }
        Ok(())
    }

    #[test]
    fn mistakes() {
        for (text, problem) in [
            ("b/{key}", "is not of the form"),
            ("s3:///{key}", "names no bucket"),
            ("s3://b/x", "must end in /"),
            ("s3://{bucket}/{key}", "in the bucket's name"),
            ("s3://b-{key}", "in the bucket's name"),
            ("s3://b/{name}", "{name} is none of"),
            ("s3://b/{Key}", "{Key} is none of"),
            ("s3://b/{{key}}", "{{key} is none of"),
            ("s3://b/{}", "{} is none of"),
            ("s3://b/{key", "a brace without its counterpart"),
            ("s3://b/key}", "a brace without its counterpart"),
            ("s3://b/{date}/{bucket}/", "overwrite"),
            ("s3://b/{key}/{key}", "twice"),
            ("s3://b/{bucket}-{key}", "alone between slashes"),
            ("s3://b/{key}{bucket}", "alone between slashes"),
        ] {
            let found = text.parse::<Destination>().err().unwrap_or_default();
            assert!(found.contains(problem), "{text}: {found:?}");
        }
    }

    /// Two objects of different buckets or keys never share a place, whatever their uploaders call them.
    #[test]
    fn no_key_passes_for_another() -> Result<(), String> {
        let names = ["a", "b", "a-b", "a.b"];
        let keys = ["a", "b", "/", "a/b", "b/a", "/a", "a/", "a/b/a", "b/a/b", "2026-11-22/a", "a/2026-11-22"];
        for text in
            ["{bucket}/{key}", "{key}/{bucket}", "x/{date}/{bucket}/{key}", "{bucket}/{key}/{date}", "{key}{date}/{bucket}"]
        {
            let destination: Destination = format!("s3://b/{text}").parse()?;
            let all = names.iter().flat_map(|bucket| keys.iter().map(move |key| (*bucket, *key)));
            let places = all.clone().map(|(bucket, key)| destination.key(&Values { bucket, key, ..VALUES }));
            assert_eq!(places.collect::<std::collections::BTreeSet<_>>().len(), all.count(), "{text}");
        }
        Ok(())
    }
}
