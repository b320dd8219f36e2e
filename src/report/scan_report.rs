//! The one JSON that every outlet gets.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use utoipa::ToSchema;

use super::SinkError;
use crate::engine::{Definitions, Reason, Status, hex};
use crate::s3::ObjectId;
use crate::scan::Scanned;

/// The name and version of the report's form. Fields may be added; those that exist keep their meaning.
pub const SCHEMA: &str = "clamgate.scan/1";

/// One scan of one target. What was written is read again as the same (`outbox`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ScanReport {
    /// [`SCHEMA`]
    pub schema: Cow<'static, str>,
    /// The same work always has the same id; see [`scan_id`].
    pub scan_id: String,
    /// The verdict.
    pub status: Status,
    /// All signatures that matched, sorted.
    pub signatures: Vec<String>,
    /// Signatures that matched and are allowed by the configuration, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<String>,
    /// Why the scan was not complete.
    pub reason: Option<Reason>,
    /// More about the reason: which limit, which member.
    pub detail: Option<String>,
    /// What was scanned.
    pub target: Target,
    /// Where it was uploaded, if the target is its copy in quarantine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The SHA-256 of the content; `None` when it was not read.
    pub sha256: Option<String>,
    /// What it was scanned with.
    pub definitions: Arc<Definitions>,
    /// The programs' versions.
    pub engine: EngineVersions,
    /// When the scan ended: RFC 3339, UTC, milliseconds.
    #[serde(serialize_with = "rfc3339_ms", deserialize_with = "from_rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub scanned_at: OffsetDateTime,
    /// Whether the verdict is from an earlier scan of the same content with the same definitions; `scanned_at` is when it was looked up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cached: bool,
    /// Where the time went.
    pub timings_ms: Timings,
    /// What was done with the object.
    pub actions: Vec<ActionReport>,
    /// The sender's own name for the work, as the job had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// The sender's own data, as the job had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub custom: Option<serde_json::Map<String, serde_json::Value>>,
}

impl ScanReport {
    /// The report on `scanned`.
    #[must_use]
    pub fn new(target: Target, scanned: Scanned, timings_ms: Timings, actions: Vec<ActionReport>) -> Self {
        let Scanned { verdict, with, sha256, scanned_at, cached, .. } = scanned;
        Self {
            schema: SCHEMA.into(),
            scan_id: scan_id(&target, sha256.as_deref(), &with.definitions.fingerprint, &with.options_digest),
            status: verdict.status,
            signatures: verdict.signatures,
            allowed: verdict.allowed,
            reason: verdict.reason,
            detail: verdict.detail,
            target,
            source: None,
            sha256,
            definitions: with.definitions,
            engine: EngineVersions::current(),
            scanned_at,
            cached,
            timings_ms,
            actions,
            trace_id: None,
            custom: None,
        }
    }

    /// The JSON that every outlet gets.
    ///
    /// # Errors
    ///
    /// [`SinkError`], never seen.
    pub fn to_json(&self) -> Result<String, SinkError> {
        serde_json::to_string(self).map_err(|error| SinkError::permanent(error.to_string()))
    }
}

/// What was scanned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Target {
    /// An object in S3.
    S3 {
        /// The bucket.
        bucket: String,
        /// The key, decoded.
        key: String,
        /// The version, in a bucket with versions.
        version_id: Option<String>,
        /// The ETag, without quotes.
        etag: Option<String>,
        /// Size in bytes.
        size: u64,
    },
    /// A local file.
    File {
        /// Its path; bytes that are not UTF-8 are replaced.
        path: String,
        /// Size in bytes.
        size: u64,
    },
    /// A stream, such as standard input.
    Stream {
        /// The name it was given.
        name: String,
        /// Size in bytes.
        size: u64,
    },
}

/// Where an object was before it came to quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Source {
    /// The bucket.
    pub bucket: String,
    /// The key, decoded.
    pub key: String,
    /// The version, in a bucket with versions.
    pub version_id: Option<String>,
}

impl From<&ObjectId> for Source {
    fn from(id: &ObjectId) -> Self {
        Self { bucket: id.bucket.clone(), key: id.key.clone(), version_id: id.version_id.clone() }
    }
}

impl Target {
    /// The key, path or name, for the log.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::S3 { key: name, .. } | Self::File { path: name, .. } | Self::Stream { name, .. } => name,
        }
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::S3 { size, .. } | Self::File { size, .. } | Self::Stream { size, .. } => *size,
        }
    }
}

/// The programs' versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EngineVersions {
    /// libclamav's, at run time.
    pub libclamav: String,
    /// This program's.
    pub clamgate: Cow<'static, str>,
}

impl EngineVersions {
    /// The versions in this process.
    #[must_use]
    pub fn current() -> Self {
        Self { libclamav: crate::engine::libclamav_version(), clamgate: env!("CARGO_PKG_VERSION").into() }
    }
}

/// Where the time went, in milliseconds with three decimals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Timings {
    /// From the message's sending to its work beginning.
    #[serde(serialize_with = "milliseconds", deserialize_with = "from_milliseconds")]
    #[schema(value_type = f64)]
    pub queued: Duration,
    /// Fetching the object, waiting for memory included.
    #[serde(serialize_with = "milliseconds", deserialize_with = "from_milliseconds")]
    #[schema(value_type = f64)]
    pub fetch: Duration,
    /// Scanning, waiting for a scan thread included.
    #[serde(serialize_with = "milliseconds", deserialize_with = "from_milliseconds")]
    #[schema(value_type = f64)]
    pub scan: Duration,
    /// Tagging and copying.
    #[serde(serialize_with = "milliseconds", deserialize_with = "from_milliseconds")]
    #[schema(value_type = f64)]
    pub act: Duration,
    /// The sum.
    #[serde(serialize_with = "milliseconds", deserialize_with = "from_milliseconds")]
    #[schema(value_type = f64)]
    pub total: Duration,
}

impl Timings {
    /// The parts and their sum.
    #[must_use]
    pub fn new(queued: Duration, fetch: Duration, scan: Duration, act: Duration) -> Self {
        Self { queued, fetch, scan, act, total: queued + fetch + scan + act }
    }
}

/// One thing that was done with the object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ActionReport {
    /// `tag`, `promote`, `quarantine`, `delete` or `replace`.
    pub action: Cow<'static, str>,
    /// `done`; `follows`, when it is done right after everybody has been told; `skipped` or `failed` with a detail.
    pub outcome: Cow<'static, str>,
    /// Where the object is now, when it was moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Why it was skipped or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A digest of what was scanned (bucket, key, version, or else ETag and content), with which definitions and options, in 32 hexadecimal digits.
#[must_use]
pub fn scan_id(target: &Target, sha256: Option<&str>, fingerprint: &str, options_digest: &str) -> String {
    let mut digest = Sha256::new();
    let mut add = |part: &str| {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part.as_bytes());
    };
    match target {
        Target::S3 { bucket, key, version_id, etag, .. } => {
            add("s3");
            add(bucket);
            add(key);
            match (version_id, etag) {
                (Some(version), _) => add(version),
                // An ETag can be an MD5, which two contents can share.
                (None, etag) => {
                    add(etag.as_deref().unwrap_or(""));
                    add(sha256.unwrap_or(""));
                }
            }
        }
        Target::File { path, .. } => {
            add("file");
            add(path);
            add(sha256.unwrap_or(""));
        }
        Target::Stream { name, .. } => {
            add("stream");
            add(name);
            add(sha256.unwrap_or(""));
        }
    }
    add(fingerprint);
    add(options_digest);
    hex(&digest.finalize()[..16])
}

const RFC3339_MS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

fn rfc3339_ms<S: Serializer>(at: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
    let text = at.to_offset(time::UtcOffset::UTC).format(RFC3339_MS).map_err(serde::ser::Error::custom)?;
    serializer.serialize_str(&text)
}

fn from_rfc3339<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OffsetDateTime, D::Error> {
    let text = Cow::<str>::deserialize(deserializer)?;
    OffsetDateTime::parse(&text, &Rfc3339).map_err(serde::de::Error::custom)
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e3)
}

fn from_milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Duration::try_from_secs_f64(f64::deserialize(deserializer)? / 1e3).map_err(serde::de::Error::custom)
}

/// A report for tests.
#[cfg(test)]
pub(super) fn example() -> ScanReport {
    let target =
        Target::S3 { bucket: "b".into(), key: "k".into(), version_id: Some("v".into()), etag: Some("e".into()), size: 68 };
    ScanReport {
        schema: SCHEMA.into(),
        scan_id: scan_id(&target, None, "f", "o"),
        status: Status::Infected,
        signatures: vec!["Win.Test.EICAR_HDB-1".into()],
        allowed: Vec::new(),
        reason: None,
        detail: None,
        target,
        source: None,
        sha256: Some("00".into()),
        definitions: Arc::new(Definitions { version: 27500, built_at: None, signatures: 8, fingerprint: "f".into() }),
        engine: EngineVersions { libclamav: "1.4.6".into(), clamgate: "0.1.0".into() },
        scanned_at: time::macros::datetime!(2026-10-14 17:46:40.123_456_789 UTC),
        cached: false,
        timings_ms: Timings::new(
            Duration::from_millis(12),
            Duration::from_nanos(3_141_592),
            Duration::from_millis(21),
            Duration::ZERO,
        ),
        actions: vec![ActionReport { action: "tag".into(), outcome: "done".into(), destination: None, detail: None }],
        trace_id: None,
        custom: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_is_the_contract() -> Result<(), serde_json::Error> {
        assert_eq!(
            serde_json::to_string(&example())?,
            r#"{"schema":"clamgate.scan/1","scan_id":"ID","status":"INFECTED","signatures":["Win.Test.EICAR_HDB-1"],"reason":null,"detail":null,"target":{"kind":"s3","bucket":"b","key":"k","version_id":"v","etag":"e","size":68},"sha256":"00","definitions":{"version":27500,"built_at":null,"signatures":8,"fingerprint":"f"},"engine":{"libclamav":"1.4.6","clamgate":"0.1.0"},"scanned_at":"2026-10-14T17:46:40.123Z","timings_ms":{"queued":12.0,"fetch":3.142,"scan":21.0,"act":0.0,"total":36.142},"actions":[{"action":"tag","outcome":"done"}]}"#
                .replace("ID", &example().scan_id)
        );
        Ok(())
    }

    #[test]
    fn what_was_written_is_read_again() -> Result<(), Box<dyn std::error::Error>> {
        let custom = serde_json::from_str(r#"{"a":[1.5,null]}"#)?;
        let report =
            ScanReport { trace_id: Some("t".into()), custom: Some(custom), reason: Some(Reason::Crashed), ..example() };
        let json = report.to_json()?;
        assert_eq!(serde_json::from_str::<ScanReport>(&json)?.to_json()?, json);
        Ok(())
    }

    #[test]
    fn the_id_is_of_the_work() {
        let s3 = |bucket: &str, key: &str, version: Option<&str>, etag: &str| Target::S3 {
            bucket: bucket.into(),
            key: key.into(),
            version_id: version.map(Into::into),
            etag: Some(etag.into()),
            size: 1,
        };
        let id = |target: &Target| scan_id(target, None, "f", "o");
        let first = id(&s3("b", "k", Some("v"), "e"));
        assert_eq!(first.len(), 32);
        assert_eq!(first, id(&s3("b", "k", Some("v"), "other")), "a version is the identity");
        for other in
            [s3("b", "k", Some("w"), "e"), s3("b", "kv", None, "e"), s3("bk", "", Some("v"), "e"), s3("b", "k", None, "e")]
        {
            assert_ne!(first, id(&other), "{other:?}");
        }
        let unversioned = s3("b", "k", None, "e");
        assert_ne!(
            scan_id(&unversioned, Some("1"), "f", "o"),
            scan_id(&unversioned, Some("2"), "f", "o"),
            "one MD5, two contents"
        );
        assert_ne!(first, scan_id(&s3("b", "k", Some("v"), "e"), None, "f2", "o"));
        assert_ne!(first, scan_id(&s3("b", "k", Some("v"), "e"), None, "f", "o2"));
    }
}
