//! From a verdict to a plan. Pure: nothing here talks to S3.

use time::OffsetDateTime;

use super::dialect::Dialects;
use crate::config::{ActionsConfig, Disposal};
use crate::engine::{Definitions, Status, Verdict};
use crate::s3::ObjectId;

/// What is to be done with one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The tags that say the verdict, names included, the status of every dialect first; empty when tagging is off.
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

/// What the configuration wants done after this verdict, reached at that time.
#[must_use]
pub fn plan(
    config: &ActionsConfig,
    id: &ObjectId,
    verdict: &Verdict,
    scan_id: &str,
    with: &Definitions,
    at: OffsetDateTime,
) -> Plan {
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
        tags: if config.tag { Dialects::of(config).verdict(verdict, scan_id, with, at) } else { Vec::new() },
        destination: place
            // What lies there already is not moved deeper; and to copy it onto itself and then to remove the original would lose it.
            .filter(|(_, place)| place.bucket != id.bucket || !id.key.starts_with(&place.prefix))
            .map(|(kind, place)| Move { kind, bucket: place.bucket.clone(), key: format!("{}{}", place.prefix, id.key) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Location;
    use crate::engine::Reason;

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
            let plan = plan(&config, &id, &verdict, "id", &with, OffsetDateTime::UNIX_EPOCH);
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
        let clean = verdict(Status::Clean, &[], None, None);
        assert!(plan(&silent, &id, &clean, "id", &with, OffsetDateTime::UNIX_EPOCH).tags.is_empty());
    }
}
