//! From a verdict to a plan. Pure: nothing here talks to S3.

use super::ScannedWith;
use crate::config::{ActionsConfig, Disposal};
use crate::engine::{Definitions, Reason, Status, Verdict};
use crate::s3::ObjectId;

/// What is to be done with one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The tags that say the verdict, names included; empty when tagging is off.
    pub tags: Vec<(String, String)>,
    /// Where the object goes; `None` to leave it.
    pub destination: Option<Move>,
}

/// Where an object goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Whether as clean or as not clean.
    pub kind: Kind,
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
}

/// The two kinds of destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// To where clean objects go.
    Promote,
    /// To where all others go.
    Quarantine,
}

impl Kind {
    /// The name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Quarantine => "quarantine",
        }
    }
}

/// The most characters of a tag's value that S3 takes.
const LONGEST_VALUE: usize = 256;

/// What the configuration wants done after this verdict.
#[must_use]
pub fn plan(config: &ActionsConfig, id: &ObjectId, verdict: &Verdict, scan_id: &str, with: &Definitions) -> Plan {
    let disposal = match verdict.status {
        Status::Clean => Disposal::Promote,
        Status::Infected => Disposal::Quarantine,
        Status::Suspicious => config.suspicious,
        Status::Unscannable => config.unscannable,
        // What is not known is not moved.
        Status::Failed => Disposal::Leave,
    };
    let place = match disposal {
        Disposal::Promote => config.promote_to.as_ref().map(|place| (Kind::Promote, place)),
        Disposal::Quarantine => config.quarantine_to.as_ref().map(|place| (Kind::Quarantine, place)),
        Disposal::Leave => None,
    };
    Plan {
        tags: if config.tag { tags(&config.tag_prefix, verdict, scan_id, with) } else { Vec::new() },
        destination: place
            // What lies there already is not moved deeper; and to copy it onto itself and then to remove the original would lose it.
            .filter(|(_, place)| place.bucket != id.bucket || !id.key.starts_with(&place.prefix))
            .map(|(kind, place)| Move { kind, bucket: place.bucket.clone(), key: format!("{}{}", place.prefix, id.key) }),
    }
}

fn tags(prefix: &str, verdict: &Verdict, scan_id: &str, with: &Definitions) -> Vec<(String, String)> {
    let mut tags = vec![(format!("{prefix}status"), verdict.status.to_string())];
    let detail = if verdict.signatures.is_empty() {
        match (verdict.reason, &verdict.detail) {
            // Other details can name what is inside a private document.
            (Some(reason @ Reason::LimitExceeded), Some(limit)) => Some(format!("{reason} {limit}")),
            (Some(reason), _) => Some(reason.to_string()),
            (None, _) => None,
        }
    } else {
        Some(verdict.signatures.join(" "))
    };
    if let Some(detail) = detail {
        tags.push((format!("{prefix}detail"), tag_value(&detail)));
    }
    tags.push((format!("{prefix}scan-id"), scan_id.to_owned()));
    // What failed was not scanned with anything.
    if verdict.status != Status::Failed {
        let with = ScannedWith::new(with.version, &with.fingerprint);
        tags.push((ScannedWith::tag_name(prefix), with.to_string()));
    }
    tags
}

/// The tags of an object that is not scanned.
pub(super) fn skipped_tags(prefix: &str, why: &str) -> Vec<(String, String)> {
    vec![(format!("{prefix}status"), "SKIPPED".to_owned()), (format!("{prefix}detail"), tag_value(why))]
}

/// A text in the alphabet that all AWS services take in tag values, and no longer than S3 takes
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html>).
fn tag_value(text: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || " +-=._:/@".contains(c);
    text.chars().map(|c| if allowed(c) { c } else { '_' }).take(LONGEST_VALUE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Location;

    fn verdict(status: Status, signatures: &[&str], reason: Option<Reason>, detail: Option<&str>) -> Verdict {
        Verdict {
            status,
            signatures: signatures.iter().map(|&name| name.to_owned()).collect(),
            allowed: Vec::new(),
            reason,
            detail: detail.map(str::to_owned),
        }
    }

    fn location(bucket: &str, prefix: &str) -> Option<Location> {
        Some(Location { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }

    fn config() -> ActionsConfig {
        ActionsConfig { promote_to: location("clean", "in/"), quarantine_to: location("bad", ""), ..ActionsConfig::default() }
    }

    #[test]
    fn plans() {
        let id = ObjectId { bucket: "up".into(), key: "a/k".into(), version_id: None, etag: Some("e".into()) };
        let leave = ActionsConfig { suspicious: Disposal::Leave, unscannable: Disposal::Promote, ..config() };
        let encrypted = verdict(Status::Unscannable, &[], Some(Reason::Encrypted), Some("salary.xlsx"));
        let with = Definitions { version: 27500, built_at: None, signatures: 1, fingerprint: "0123456789abcdef0123".into() };
        for (config, verdict, place, detail) in [
            (config(), verdict(Status::Clean, &[], None, None), Some("promote clean/in/a/k"), None),
            (config(), verdict(Status::Infected, &["A", "B{1}"], None, None), Some("quarantine bad/a/k"), Some("A B_1_")),
            (config(), verdict(Status::Suspicious, &["PUA.X"], None, None), Some("quarantine bad/a/k"), Some("PUA.X")),
            (config(), encrypted.clone(), Some("quarantine bad/a/k"), Some("ENCRYPTED")),
            (leave.clone(), verdict(Status::Suspicious, &["PUA.X"], None, None), None, Some("PUA.X")),
            (leave, encrypted, Some("promote clean/in/a/k"), Some("ENCRYPTED")),
            (
                ActionsConfig::default(),
                verdict(Status::Unscannable, &[], Some(Reason::LimitExceeded), Some("MaxFiles")),
                None,
                Some("LIMIT_EXCEEDED MaxFiles"),
            ),
            (ActionsConfig { promote_to: location("up", ""), ..config() }, verdict(Status::Clean, &[], None, None), None, None),
            (
                ActionsConfig { promote_to: location("up", "a/"), ..config() },
                verdict(Status::Clean, &[], None, None),
                None,
                None,
            ),
            (config(), verdict(Status::Failed, &[], None, None), None, None),
        ] {
            let plan = plan(&config, &id, &verdict, "id", &with);
            let found = plan.destination.map(|to| format!("{} {}/{}", to.kind.name(), to.bucket, to.key));
            assert_eq!(found.as_deref(), place, "{verdict:?}");
            let tag = |name: &str| plan.tags.iter().find(|(tag, _)| tag == name).map(|(_, value)| value.as_str());
            assert_eq!(tag("clamgate-status"), Some(verdict.status.to_string().as_str()));
            assert_eq!(tag("clamgate-detail"), detail);
            assert_eq!(tag("clamgate-scan-id"), Some("id"));
            let is_known = verdict.status != Status::Failed;
            assert_eq!(tag("clamgate-definitions"), is_known.then_some("27500 0123456789abcdef"));
        }
        let silent = ActionsConfig { tag: false, ..config() };
        assert!(plan(&silent, &id, &verdict(Status::Clean, &[], None, None), "id", &with).tags.is_empty());
    }

    #[test]
    fn tag_values_are_tamed() {
        assert_eq!(tag_value("a<b>\n{é}"), "a_b_____");
        assert_eq!(tag_value(&"x".repeat(999)).len(), LONGEST_VALUE);
    }
}
