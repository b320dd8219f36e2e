//! S3's own notifications
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html>).

use serde::Deserialize;

use super::entity::Entity;
use super::{Event, EventError, ObjectEvent, count, excerpt, from_json};
use crate::key;

const SHAPE: &str = "an S3 event notification";

#[derive(Deserialize)]
struct Notification {
    #[serde(rename = "Records")]
    records: Vec<Record>,
}

/// What S3 sends once when notifications are configured.
#[derive(Deserialize)]
struct Test {
    #[serde(rename = "Event")]
    event: String,
}

#[derive(Deserialize)]
struct Record {
    #[serde(rename = "eventName")]
    event_name: String,
    s3: Option<Entity>,
}

pub(super) fn parse(body: &str) -> Result<Event, EventError> {
    let Notification { records } = from_json(body, SHAPE)?;
    count(records.len(), "records")?;
    let objects = records.into_iter().filter_map(|record| record.object().transpose()).collect::<Result<_, _>>()?;
    Ok(Event::of(objects))
}

pub(super) fn parse_test(body: &str) -> Result<Event, EventError> {
    match from_json::<Test>(body, SHAPE)?.event.as_str() {
        "s3:TestEvent" => Ok(Event::Nothing("test event")),
        other => Err(EventError::Name(excerpt(other))),
    }
}

impl Record {
    /// The object to scan; `None` for a removal.
    fn object(self) -> Result<Option<ObjectEvent>, EventError> {
        let name = self.event_name.strip_prefix("s3:").unwrap_or(&self.event_name);
        match name.split(':').next() {
            // A restored object can be read again.
            Some("ObjectCreated") => {}
            Some("ObjectRestore") if name == "ObjectRestore:Completed" => {}
            Some("ObjectRemoved" | "LifecycleExpiration") => return Ok(None),
            _ => return Err(EventError::Name(excerpt(&self.event_name))),
        }
        let decode = |encoded: String| key::decode(&encoded).ok_or_else(|| EventError::Key(excerpt(&encoded)));
        self.s3.ok_or(EventError::Missing("s3"))?.event(decode).map(Some)
    }
}
