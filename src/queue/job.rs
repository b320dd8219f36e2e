//! Our own message: objects to scan, with what the sender wants to find in the report.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::event::{EventError, ObjectEvent, count, from_json};

/// The most characters of a trace id.
pub const MOST_TRACE_ID: usize = 256;

/// The most bytes of custom data for one object, as compact JSON.
pub const MOST_CUSTOM_BYTES: usize = 8 * 1024;

/// A message that asks for scans. `clamgate enqueue` writes it, and so can you.
///
/// ```
/// use clamgate::queue::{Event, Job, JobObject};
///
/// let object = JobObject { trace_id: Some("case-17".into()), ..JobObject::new("uploads", "a b.pdf") };
/// let body = serde_json::to_string(&Job::new(vec![object]))?;
/// assert_eq!(body, r#"{"schema":"clamgate.job/1","objects":[{"bucket":"uploads","key":"a b.pdf","trace_id":"case-17"}]}"#);
/// let Event::Objects(objects) = Event::parse(&body)? else { panic!("a job names objects") };
/// assert_eq!(objects[0].key, "a b.pdf");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    schema: Schema,
    /// What to scan: 1 to [`MOST_RECORDS`](super::MOST_RECORDS) objects.
    pub objects: Vec<JobObject>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Schema {
    #[serde(rename = "clamgate.job/1")]
    V1,
}

/// One object of a [`Job`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobObject {
    /// The bucket's name.
    pub bucket: String,
    /// The key as it is, not encoded.
    pub key: String,
    /// The version to scan; without one, what the key holds when the scan begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
    /// The ETag that the object must have. If it has another by then, it is not scanned: an event of its own is expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// The size in bytes, of that version or ETag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Whether it is all right when the object does not exist any more, as for one that was listed and may be moved
    /// meanwhile. Otherwise that is reported as `FAILED`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub if_exists: bool,
    /// Comes back in the report: at most [`MOST_TRACE_ID`] characters, none of them a control character.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Comes back in the report: any JSON object of at most [`MOST_CUSTOM_BYTES`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom: Option<Map<String, Value>>,
}

impl Job {
    /// A job for these objects.
    #[must_use]
    pub fn new(objects: Vec<JobObject>) -> Self {
        Self { schema: Schema::V1, objects }
    }

    /// Reads a message's body. Unknown fields are errors: a misspelt `version_id` would have another object scanned.
    pub(super) fn parse(body: &str) -> Result<Vec<ObjectEvent>, EventError> {
        let Self { schema: Schema::V1, objects } = from_json(body, "a job of clamgate")?;
        count(objects.len(), "objects")?;
        objects.into_iter().map(JobObject::event).collect()
    }
}

impl JobObject {
    /// What the key holds when the scan begins.
    pub fn new(bucket: impl Into<String>, key: impl Into<String>) -> Self {
        Self { bucket: bucket.into(), key: key.into(), ..Self::default() }
    }

    fn event(self) -> Result<ObjectEvent, EventError> {
        let Self { bucket, key, version_id, etag, size, if_exists, trace_id, custom } = self;
        if let Some(trace_id) = &trace_id {
            check_trace_id(trace_id)?;
        }
        if let Some(custom) = &custom {
            check_custom(custom)?;
        }
        refuse_null_version(version_id.as_deref(), etag.as_deref())?;
        let must_exist = !if_exists;
        ObjectEvent { bucket, key, version_id, etag, size, sequencer: None, must_exist, trace_id, custom }.checked()
    }
}

/// Refuses the null version without an ETag: it is overwritten in place, so that nothing would say which content is meant.
///
/// # Errors
///
/// [`EventError::Invalid`] with the rule.
pub(super) fn refuse_null_version(version_id: Option<&str>, etag: Option<&str>) -> Result<(), EventError> {
    if version_id == Some("null") && etag.is_none_or(str::is_empty) {
        let rule = "cannot be null without an ETag; leave it out for what the key holds now";
        return Err(EventError::Invalid { field: "version_id", rule });
    }
    Ok(())
}

/// Checks a trace id.
///
/// # Errors
///
/// [`EventError::Invalid`] with the rule.
pub fn check_trace_id(trace_id: &str) -> Result<(), EventError> {
    if trace_id.chars().count() <= MOST_TRACE_ID && !trace_id.contains(char::is_control) {
        return Ok(());
    }
    Err(EventError::Invalid { field: "trace_id", rule: "must have at most 256 characters, and no control characters" })
}

/// Checks custom data.
///
/// # Errors
///
/// [`EventError::Invalid`] with the rule.
pub fn check_custom(custom: &Map<String, Value>) -> Result<(), EventError> {
    if serde_json::to_vec(custom).is_ok_and(|text| text.len() <= MOST_CUSTOM_BYTES) {
        return Ok(());
    }
    Err(EventError::Invalid { field: "custom", rule: "must have at most 8 KiB as compact JSON" })
}
