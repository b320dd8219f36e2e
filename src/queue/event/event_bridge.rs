//! What EventBridge makes of S3's events (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html>).
//!
//! S3 sends every kind of event there; the rule chooses. Unlike in S3's own notifications, the key is not encoded.

use serde::Deserialize;
use serde_json::Value;

use super::{Event, EventError, ObjectEvent, excerpt, from_json, shape_error};

const SHAPE: &str = "an EventBridge event";

#[derive(Deserialize)]
struct Envelope {
    source: String,
    #[serde(rename = "detail-type")]
    detail_type: String,
    detail: Value,
}

#[derive(Deserialize)]
struct Detail {
    bucket: Bucket,
    object: Object,
}

#[derive(Deserialize)]
struct Bucket {
    name: String,
}

#[derive(Deserialize)]
struct Object {
    key: String,
    size: Option<u64>,
    etag: Option<String>,
    #[serde(rename = "version-id")]
    version_id: Option<String>,
    sequencer: Option<String>,
}

pub(super) fn parse(body: &str) -> Result<Event, EventError> {
    let Envelope { source, detail_type, detail } = from_json(body, SHAPE)?;
    if source != "aws.s3" {
        return Err(EventError::Source(excerpt(&source)));
    }
    // https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-mapping-troubleshooting.html
    match detail_type.as_str() {
        "Object Created" | "Object Restore Completed" => {}
        "Object Deleted" => return Ok(Event::Nothing("removal")),
        other => return Err(EventError::Name(excerpt(other))),
    }
    let Detail { bucket, object } = serde_json::from_value(detail).map_err(|error| shape_error(SHAPE, &error))?;
    let Object { key, size, etag, version_id, sequencer } = object;
    let event = ObjectEvent { bucket: bucket.name, key, version_id, etag, size, sequencer, ..ObjectEvent::default() };
    Ok(Event::of(vec![event.checked()?]))
}
