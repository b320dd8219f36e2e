//! From a verdict to a plan. Pure: nothing here talks to S3.

use time::OffsetDateTime;

use super::dialect::Dialects;
use super::notes;
use crate::config::{ActionsConfig, Destination, Disposal};
use crate::engine::{Definitions, Status, Verdict};
use crate::s3::ObjectId;

/// What is to be done with one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The tags that say the verdict, names included, the status of every dialect first; empty when tagging is off.
    pub tags: Vec<(String, String)>,
    /// What becomes of the object beside that.
    pub fate: Fate,
    /// The scan.
    pub scan_id: String,
    /// What a copy in quarantine and a placeholder object say about the scan in their metadata.
    pub notes: Vec<(String, String)>,
}

/// What becomes of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Fate {
    /// It stays.
    #[default]
    Leave,
    /// It goes elsewhere.
    Move(Move),
    /// It is deleted.
    Delete,
    /// A placeholder object takes its place.
    Replace,
}

impl Fate {
    /// The action's name in reports, if there is one.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        match self {
            Self::Leave => None,
            Self::Move(to) => Some(to.kind.name()),
            Self::Delete => Some("delete"),
            Self::Replace => Some("replace"),
        }
    }
}

/// Where an object goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Whether as clean or as not clean.
    pub kind: Kind,
    /// The place.
    pub destination: Destination,
}

/// The two kinds of destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// To where clean objects go.
    Promote,
    /// To where all others go.
    Quarantine,
    /// Out of quarantine, because somebody says so.
    Release,
}

impl Kind {
    /// The name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Quarantine => "quarantine",
            Self::Release => "release",
        }
    }
}

/// What the configuration wants done after this verdict, reached at that time. For a copy in quarantine, `source` is where it was before,
/// whose policy counts.
#[must_use]
pub fn plan(
    config: &ActionsConfig,
    id: &ObjectId,
    source: Option<&ObjectId>,
    verdict: &Verdict,
    scan_id: &str,
    with: &Definitions,
    scanned_at: OffsetDateTime,
) -> Plan {
    let origin = source.unwrap_or(id);
    let policy = config.policy(&origin.bucket, &origin.key);
    let lies_in = |place: &Destination| place.holds(&id.bucket, &id.key);
    let is_quarantined = config.quarantines().any(lies_in);
    let to = |kind, place: Option<&Destination>| {
        place.map_or(Fate::Leave, |place| Fate::Move(Move { kind, destination: place.clone() }))
    };
    // What lies at its destination is not moved deeper; and to copy it onto itself and then to remove the original would lose it. What lies
    // in quarantine, under whatever rule it came there, is kept; unless it is clean, and it is known where it came from: what
    // a busy machine could not scan to the end today may have been malware yesterday.
    let fate = match policy.disposal(verdict.status) {
        Disposal::Promote if is_quarantined && (source.is_none() || verdict.status != Status::Clean) => Fate::Leave,
        Disposal::Promote if !config.promotions().any(lies_in) => to(Kind::Promote, policy.promote_to),
        Disposal::Quarantine if !is_quarantined => to(Kind::Quarantine, policy.quarantine_to),
        Disposal::Delete if !is_quarantined => Fate::Delete,
        Disposal::Replace if !is_quarantined => Fate::Replace,
        Disposal::Promote | Disposal::Quarantine | Disposal::Delete | Disposal::Replace | Disposal::Leave => Fate::Leave,
    };
    Plan {
        tags: if policy.tag { Dialects::of(config).verdict(verdict, scan_id, with, scanned_at) } else { Vec::new() },
        fate,
        scan_id: scan_id.to_owned(),
        notes: notes::of_scan(verdict, scan_id, scanned_at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    fn place(text: &str) -> Option<Destination> {
        text.parse().ok()
    }

    fn config() -> ActionsConfig {
        ActionsConfig { promote_to: place("s3://clean/in/"), quarantine_to: place("s3://bad/"), ..ActionsConfig::default() }
    }

    #[test]
    fn plans() {
        let id = ObjectId { bucket: "up".into(), key: "a/k".into(), version_id: None, etag: Some("e".into()) };
        let leave = ActionsConfig { suspicious: Disposal::Leave, unscannable: Disposal::Promote, ..config() };
        let encrypted = verdict(Status::Unscannable, &[], Some(Reason::Encrypted), Some("salary.xlsx"));
        let with = Definitions { version: 27500, built_at: None, signatures: 1, fingerprint: "0123456789abcdef0123".into() };
        for (config, verdict, place, detail) in [
            (config(), verdict(Status::Clean, &[], None, None), Some("promote s3://clean/in/"), None),
            (config(), verdict(Status::Infected, &["A", "B{1}"], None, None), Some("quarantine s3://bad/"), Some("A B_1_")),
            (config(), verdict(Status::Suspicious, &["PUA.X"], None, None), Some("quarantine s3://bad/"), Some("PUA.X")),
            (config(), encrypted.clone(), Some("quarantine s3://bad/"), Some("ENCRYPTED")),
            (leave.clone(), verdict(Status::Suspicious, &["PUA.X"], None, None), None, Some("PUA.X")),
            (leave, encrypted, Some("promote s3://clean/in/"), Some("ENCRYPTED")),
            (
                ActionsConfig::default(),
                verdict(Status::Unscannable, &[], Some(Reason::LimitExceeded), Some("MaxFiles")),
                None,
                Some("LIMIT_EXCEEDED MaxFiles"),
            ),
            (ActionsConfig { promote_to: place("s3://up/"), ..config() }, verdict(Status::Clean, &[], None, None), None, None),
            (
                ActionsConfig { promote_to: place("s3://up/a/"), ..config() },
                verdict(Status::Clean, &[], None, None),
                None,
                None,
            ),
            (config(), verdict(Status::Failed, &[], None, None), None, None),
        ] {
            let plan = plan(&config, &id, None, &verdict, "id", &with, OffsetDateTime::UNIX_EPOCH);
            let found = match &plan.fate {
                Fate::Move(to) => Some(format!("{} {}", to.kind.name(), to.destination)),
                fate => fate.name().map(str::to_owned),
            };
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
        assert!(plan(&silent, &id, None, &clean, "id", &with, OffsetDateTime::UNIX_EPOCH).tags.is_empty());
    }

    /// What has reached its place, by whichever rule, is not moved on, and what is in quarantine is kept.
    #[test]
    fn what_is_in_its_place_stays_there() -> Result<(), Box<dyn std::error::Error>> {
        let with = Definitions { version: 1, built_at: None, signatures: 1, fingerprint: "f".into() };
        let config: ActionsConfig = toml::from_str(
            "promote_to = 's3://clean/in-{uuid}'
             quarantine_to = 's3://bad/'
             infected = 'delete'
             suspicious = 'replace'
             unscannable = 'promote'
             [[rules]]
             bucket = 'up'
             prefix = 'kept/'
             infected = 'quarantine'
             quarantine_to = 's3://bad-too/{date}/{key}'
             [[rules]]
             prefix = 'left/'
             clean = 'leave'",
        )?;
        for (bucket, key, source, status, name) in [
            ("up", "k", None, Status::Clean, Some("promote")),
            ("up", "k", None, Status::Infected, Some("delete")),
            ("up", "k", None, Status::Suspicious, Some("replace")),
            ("up", "k", None, Status::Failed, None),
            ("up", "kept/k", None, Status::Infected, Some("quarantine")),
            ("clean", "in-k", None, Status::Clean, None),
            ("clean", "other", None, Status::Clean, Some("promote")),
            ("clean", "in-k", None, Status::Infected, Some("delete")),
            ("bad", "k", None, Status::Clean, None),
            ("bad", "k", Some("k"), Status::Clean, Some("promote")),
            ("bad", "k", Some("left/k"), Status::Clean, None),
            ("bad", "k", Some("k"), Status::Infected, None),
            ("up", "k", None, Status::Unscannable, Some("promote")),
            ("bad", "k", Some("k"), Status::Unscannable, None),
            ("bad", "k", None, Status::Infected, None),
            ("bad-too", "2026-11-22/k", None, Status::Infected, None),
            ("bad-too", "2026-11-22/k", None, Status::Suspicious, None),
            ("bad-too", "2026-11-22/k", None, Status::Unscannable, None),
        ] {
            let id = ObjectId { bucket: bucket.into(), key: key.into(), version_id: None, etag: Some("e".into()) };
            let source = source.map(|key| ObjectId { bucket: "up".into(), key: key.into(), ..id.clone() });
            let verdict = verdict(status, &["A"], None, None);
            let plan = plan(&config, &id, source.as_ref(), &verdict, "id", &with, OffsetDateTime::UNIX_EPOCH);
            assert_eq!(plan.fate.name(), name, "{bucket}/{key} {status}");
        }
        Ok(())
    }
}
