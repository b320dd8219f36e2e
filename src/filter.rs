//! Whether an object of the queue is scanned at all. Pure, but for looking up what a rule asks for.

use std::borrow::Cow;

use crate::config::{Condition, FilterConfig};
use crate::object::ObjectStore;
use crate::s3::{ObjectId, ObjectInfo, S3Error, S3ErrorKind};

/// What the rules look at.
struct Facts<'a> {
    key: &'a str,
    size: u64,
    content_type: &'a str,
    tags: Vec<(String, String)>,
}

/// The rule of `filters` that skips the object, if one does. Asks `store` only for what the rules of the object's bucket need
/// and `info`, what HEAD has told already, does not say.
///
/// # Errors
///
/// [`S3Error`], when that could not be looked up.
pub async fn skipping<'rules, S: ObjectStore>(
    filters: &'rules [FilterConfig],
    id: &ObjectId,
    size: u64,
    info: Option<&ObjectInfo>,
    store: &S,
) -> Result<Option<&'rules FilterConfig>, S3Error> {
    let rules: Vec<_> = filters.iter().filter(|rule| rule.bucket.as_ref().is_none_or(|bucket| *bucket == id.bucket)).collect();
    let (mut content_type, mut tags) = (false, false);
    for condition in rules.iter().flat_map(|rule| [&rule.skip, &rule.only]).flatten() {
        condition.each(&mut |part| match part {
            Condition::ContentType(_) => content_type = true,
            Condition::Tag { .. } => tags = true,
            _ => {}
        });
    }
    let info = match info {
        Some(info) => Cow::Borrowed(info),
        None if content_type => match store.head(id).await {
            // Only its owner has the key (SSE-C): what is not known is no ground for skipping it.
            Err(S3Error { kind: S3ErrorKind::NoDetails, .. }) => return Ok(None),
            info => Cow::Owned(info?),
        },
        None => Cow::Owned(ObjectInfo::default()),
    };
    let facts = Facts {
        key: &id.key,
        size,
        content_type: info.content_type.as_deref().unwrap_or_default(),
        tags: if tags { store.tags(id).await? } else { Vec::new() },
    };
    Ok(rules.into_iter().find(|rule| {
        rule.skip.as_ref().is_some_and(|condition| holds(condition, &facts))
            || rule.only.as_ref().is_some_and(|condition| !holds(condition, &facts))
    }))
}

fn holds(condition: &Condition, facts: &Facts<'_>) -> bool {
    match condition {
        Condition::All(parts) => parts.iter().all(|part| holds(part, facts)),
        Condition::Any(parts) => parts.iter().any(|part| holds(part, facts)),
        Condition::Not(part) => !holds(part, facts),
        Condition::Prefix(prefix) => facts.key.starts_with(prefix),
        Condition::Suffix(suffix) => facts.key.ends_with(suffix),
        Condition::MinBytes(bytes) => facts.size >= *bytes,
        Condition::MaxBytes(bytes) => facts.size <= *bytes,
        Condition::ContentType(wanted) => is_type(facts.content_type, wanted),
        Condition::Tag { key, value } => {
            facts.tags.iter().any(|(name, found)| name == key && value.as_ref().is_none_or(|value| value == found))
        }
    }
}

/// Whether a `Content-Type` header is of a media type (RFC 9110, section 8.3.1: names are case-insensitive, parameters follow a semicolon).
fn is_type(header: &str, wanted: &str) -> bool {
    let found = header.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let wanted = wanted.to_ascii_lowercase();
    match wanted.strip_suffix("/*") {
        Some(kind) => found.split('/').next() == Some(kind),
        None => found == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions() -> Result<(), toml::de::Error> {
        let facts = Facts {
            key: "in/a.PDF",
            size: 100,
            content_type: "Image/PNG; q=1",
            tags: vec![("team".to_owned(), "a".to_owned())],
        };
        for (text, expected) in [
            (r#"prefix = "in/""#, true),
            (r#"suffix = ".pdf""#, false),
            (r#"suffix = ".PDF""#, true),
            ("min_bytes = 100", true),
            ("min_bytes = 101", false),
            ("max_bytes = 100", true),
            ("max_bytes = 99", false),
            (r#"content_type = "image/png""#, true),
            (r#"content_type = "image/*""#, true),
            (r#"content_type = "imag/*""#, false),
            (r#"content_type = "text/plain""#, false),
            (r#"tag = { key = "team" }"#, true),
            (r#"tag = { key = "team", value = "b" }"#, false),
            (r#"all = [{ prefix = "in/" }, { max_bytes = 99 }]"#, false),
            (r#"any = [{ prefix = "in/" }, { max_bytes = 99 }]"#, true),
            (r#"not = { any = [{ prefix = "out/" }, { max_bytes = 99 }] }"#, true),
        ] {
            let condition: Condition = toml::from_str(text)?;
            assert_eq!(holds(&condition, &facts), expected, "{text}");
        }
        Ok(())
    }
}
