//! What EventBridge makes of S3's events (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html>).
//!
//! S3 sends every kind of event there; the rule chooses. Unlike in S3's own notifications, the key is not encoded.

use serde::Deserialize;

use super::entity::Entity;
use super::{Event, EventError, excerpt, from_json};

const SHAPE: &str = "an EventBridge event";

#[derive(Deserialize)]
struct Envelope {
    source: String,
    #[serde(rename = "detail-type")]
    detail_type: String,
}

/// Only events about an object that is there have this.
#[derive(Deserialize)]
struct Created {
    detail: Entity,
}

pub(super) fn parse(body: &str) -> Result<Event, EventError> {
    let Envelope { source, detail_type } = from_json(body, SHAPE)?;
    if source != "aws.s3" {
        return Err(EventError::Source(excerpt(&source)));
    }
    // https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-mapping-troubleshooting.html
    match detail_type.as_str() {
        "Object Created" | "Object Restore Completed" => {}
        "Object Deleted" => return Ok(Event::Nothing("removal")),
        other => return Err(EventError::Name(excerpt(other))),
    }
    let Created { detail } = from_json(body, SHAPE)?;
    Ok(Event::of(vec![detail.event(Ok)?]))
}
