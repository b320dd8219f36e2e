//! Scan jobs as bucketAV takes them on its queue (<https://bucketav.com/help/developer/>), so that whoever sends them need not
//! change. Keys are not encoded.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Event, EventError, ObjectEvent, Present, count, from_json};
use crate::queue::job::{check_trace_id, refuse_null_version};

/// What bucketAV passes through, in bytes.
const MOST_CUSTOM_DATA: usize = 16 * 1024;

#[derive(Deserialize)]
struct Job {
    objects: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    bucket: String,
    key: String,
    #[serde(alias = "version_id")]
    version: Option<String>,
    trace_id: Option<String>,
    custom_data: Option<String>,
    // What our own jobs have and bucketAV's have not: whoever writes it forgot the schema, and would not get what it asks for.
    #[serde(default)]
    etag: Present,
    #[serde(default)]
    size: Present,
    #[serde(default)]
    if_exists: Present,
    #[serde(default)]
    custom: Present,
}

pub(super) fn parse(body: &str) -> Result<Event, EventError> {
    let Job { objects } = from_json(body, "a bucketAV scan job")?;
    count(objects.len(), "objects")?;
    Ok(Event::of(objects.into_iter().map(Object::event).collect::<Result<_, _>>()?))
}

impl Object {
    fn event(self) -> Result<ObjectEvent, EventError> {
        let Self { bucket, key, version, trace_id, custom_data, etag, size, if_exists, custom } = self;
        for (field, Present(is_present)) in [("etag", etag), ("size", size), ("if_exists", if_exists), ("custom", custom)] {
            if is_present {
                let rule = r#"belongs to a job with "schema": "clamgate.job/1", and bucketAV's jobs have none"#;
                return Err(EventError::Invalid { field, rule });
            }
        }
        refuse_null_version(version.as_deref(), None)?;
        if let Some(trace_id) = &trace_id {
            check_trace_id(trace_id)?;
        }
        if custom_data.as_ref().is_some_and(|data| data.len() > MOST_CUSTOM_DATA) {
            return Err(EventError::Invalid { field: "custom_data", rule: "must have at most 16 KiB" });
        }
        // A text there, an object here: it keeps its name.
        let custom = custom_data.map(|data| Map::from_iter([("custom_data".to_owned(), Value::String(data))]));
        ObjectEvent { bucket, key, version_id: version, must_exist: true, trace_id, custom, ..ObjectEvent::default() }.checked()
    }
}
