//! What a message says: which objects are to be scanned.
//!
//! One parser for every shape, one file a shape. A message is understood as a whole or not at all.

mod bucketav;
mod entity;
mod event_bridge;
mod notification;
mod sns;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::job::Job;
use crate::key::NULL_VERSION;

/// The longest message that SQS takes, in bytes
/// (<https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>).
pub const MOST_BODY_BYTES: usize = 1024 * 1024;

/// The most objects that one message may name.
pub const MOST_RECORDS: usize = 1000;

/// The most SNS envelopes around a message: a topic can deliver to another through a queue or a function, but not for ever.
const MOST_ENVELOPES: usize = 2;

/// What to do about a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Objects to scan, one or more.
    Objects(Vec<ObjectEvent>),
    /// Nothing to do, and why: S3's test event, or removals alone.
    Nothing(&'static str),
}

/// One object to scan.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ObjectEvent {
    /// The bucket's name.
    pub bucket: String,
    /// The key, decoded.
    pub key: String,
    /// The version, in a bucket with versions. Never the `null` version, which pins nothing.
    pub version_id: Option<String>,
    /// The ETag, without quotes.
    pub etag: Option<String>,
    /// The size in bytes, as the event has it.
    pub size: Option<u64>,
    /// Orders the events of one key: greater, compared as hexadecimal numbers, is later.
    pub sequencer: Option<String>,
    /// Whether somebody named it and wants to hear that it does not exist. An event's object may be gone: there was one.
    pub must_exist: bool,
    /// What whoever sent the job wants to find in the report. At most [`MOST_TRACE_ID`](super::job::MOST_TRACE_ID) characters,
    /// none of them a control character.
    pub trace_id: Option<String>,
    /// Data that goes into the report as it is.
    pub custom: Option<Map<String, Value>>,
}

/// Why a message cannot be understood. It stays on the queue, whose redrive policy moves it to the dead-letter queue.
///
/// The texts are safe to log: names from outside are quoted, escaped and cut.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// More than [`MOST_BODY_BYTES`].
    #[error("{0} bytes, and the most is {MOST_BODY_BYTES}")]
    TooLarge(usize),
    /// More than [`MOST_RECORDS`].
    #[error("{0} objects in one message, and the most is {MOST_RECORDS}: send several messages")]
    TooMany(usize),
    /// Not JSON, or not as its shape wants it.
    #[error("not {shape}: {error}")]
    Shape {
        /// What it was taken for.
        shape: &'static str,
        /// What is wrong, and where.
        error: String,
    },
    /// JSON without anything that is known, or with the marks of two shapes.
    #[error("{0}: send S3, SNS or EventBridge notifications or jobs")]
    Unknown(&'static str),
    /// Envelopes in envelopes.
    #[error("more than {MOST_ENVELOPES} SNS envelopes around the message: turn on raw message delivery")]
    Nested,
    /// SNS wants the subscription to be confirmed.
    #[error(
        "a request of SNS to confirm the subscription to topic {0:?}: open its SubscribeURL if you expect it, or subscribe \
         from the account of the queue, and delete this message"
    )]
    Confirmation(String),
    /// Another kind of SNS message.
    #[error("an SNS message of type {0:?} instead of Notification")]
    SnsType(String),
    /// An EventBridge event of another service.
    #[error("an EventBridge event of source {0:?}: let the rule match \"source\": [\"aws.s3\"] alone")]
    Source(String),
    /// An event that is neither a creation nor a removal.
    #[error("unexpected event {0:?}: subscribe to s3:ObjectCreated:* (S3, SNS) or \"Object Created\" (EventBridge) alone")]
    Name(String),
    /// A key that is not percent-encoded UTF-8.
    #[error("the key {0:?} does not decode to UTF-8")]
    Key(String),
    /// A record that does not say which object it is about.
    #[error("a record without {0}")]
    Missing(&'static str),
    /// A field of a job that breaks its rule.
    #[error("{field} {rule}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What it must be.
        rule: &'static str,
    },
}

/// What tells the shapes apart. Everything else is skipped without being kept.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Marks {
    schema: Present,
    objects: Present,
    #[serde(rename = "Records")]
    records: Present,
    #[serde(rename = "Event")]
    event: Present,
    #[serde(rename = "Type")]
    sns: Present,
    #[serde(rename = "detail-type")]
    event_bridge: Present,
}

/// Whether a field is there, whatever its value is: null, too.
#[derive(Default)]
struct Present(bool);

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self(true))
    }
}

impl Event {
    /// Reads a message's body.
    ///
    /// # Errors
    ///
    /// [`EventError`], when any part of the message is not understood: then none of it is acted on.
    pub fn parse(body: &str) -> Result<Self, EventError> {
        if body.len() > MOST_BODY_BYTES {
            return Err(EventError::TooLarge(body.len()));
        }
        parse(body, 0)
    }

    /// Of the objects that a message names.
    fn of(objects: Vec<ObjectEvent>) -> Self {
        if objects.is_empty() { Self::Nothing("removal") } else { Self::Objects(objects) }
    }
}

/// Reads a body that was in so many envelopes.
fn parse(body: &str, envelopes: usize) -> Result<Event, EventError> {
    let marks: Marks = from_json(body, "a JSON object")?;
    let shapes = [marks.records, marks.event, marks.sns, marks.event_bridge, marks.objects, marks.schema];
    match shapes.map(|Present(is_present)| is_present) {
        [true, false, false, false, false, false] => notification::parse(body),
        [false, true, false, false, false, false] => notification::parse_test(body),
        [false, false, true, false, false, false] => sns::parse(body, envelopes),
        [false, false, false, true, false, false] => event_bridge::parse(body),
        [false, false, false, false, true, false] => bucketav::parse(body),
        [false, false, false, false, _, true] => Job::parse(body).map(Event::Objects),
        [false, false, false, false, false, false] => Err(EventError::Unknown("no known kind of message")),
        _ => Err(EventError::Unknown("the marks of several kinds of message in one")),
    }
}

/// Reads JSON that must be an object; `shape` is what it should be.
pub(super) fn from_json<T: DeserializeOwned>(body: &str, shape: &'static str) -> Result<T, EventError> {
    // serde reads a struct from an array, too.
    if !body.trim_start().starts_with('{') {
        return Err(EventError::Shape { shape, error: "it does not begin with {".to_owned() });
    }
    // The error can hold a name from the message.
    let text = |error: serde_json::Error| error.to_string().escape_debug().take(300).collect();
    serde_json::from_str(body).map_err(|error| EventError::Shape { shape, error: text(error) })
}

/// A name from outside, short enough for an error.
fn excerpt(name: &str) -> String {
    name.chars().take(200).collect()
}

/// Refuses more objects than a message may name, and none.
pub(super) fn count(objects: usize, name: &'static str) -> Result<(), EventError> {
    match objects {
        0 => Err(EventError::Missing(name)),
        1..=MOST_RECORDS => Ok(()),
        _ => Err(EventError::TooMany(objects)),
    }
}

impl ObjectEvent {
    /// Checks that an object is named, and leaves out what is there but says nothing.
    pub(super) fn checked(self) -> Result<Self, EventError> {
        if self.bucket.is_empty() {
            return Err(EventError::Missing("a bucket's name"));
        }
        if self.key.is_empty() {
            return Err(EventError::Missing("a key"));
        }
        let known = |value: Option<String>| value.filter(|text| !text.is_empty());
        Ok(Self {
            // The null version of a bucket whose versioning is suspended is overwritten in place: only its ETag pins it.
            version_id: known(self.version_id).filter(|version| version != NULL_VERSION),
            etag: known(self.etag.map(|etag| etag.trim_matches('"').to_owned())),
            sequencer: known(self.sequencer),
            trace_id: known(self.trace_id),
            ..self
        })
    }
}

#[cfg(test)]
mod tests;
