//! What a message says: S3 event notifications.

use percent_encoding::percent_decode_str;
use serde::Deserialize;

/// The version of an object that was written while versions were off or suspended, as S3 writes it.
const NULL_VERSION: &str = "null";

/// What to do about a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Objects to scan, one or more.
    Objects(Vec<ObjectEvent>),
    /// Nothing to do, and why: S3's test event, or removals alone.
    Nothing(&'static str),
}

/// One object that was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectEvent {
    /// The bucket's name.
    pub bucket: String,
    /// The key, decoded.
    pub key: String,
    /// The version, in a bucket with versions.
    pub version_id: Option<String>,
    /// The ETag, without quotes.
    pub etag: Option<String>,
    /// The size in bytes, as the event has it.
    pub size: Option<u64>,
    /// Orders the events of one key: greater, compared as hexadecimal numbers, is later.
    pub sequencer: Option<String>,
    /// The sender's own name for the work; it comes back in the report.
    pub trace_id: Option<String>,
    /// The sender's own data; it comes back in the report.
    pub custom: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Why a message cannot be understood. It stays on the queue, whose redrive policy moves it to the dead-letter queue.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// Not JSON, or JSON of another shape.
    #[error("not an S3 event notification: {0}")]
    Shape(#[from] serde_json::Error),
    /// JSON without anything that is known.
    #[error("neither S3 records nor S3's test event")]
    Unknown,
    /// An event that is neither a creation nor a removal.
    #[error("unexpected event {0:?}: subscribe the queue to s3:ObjectCreated:* alone")]
    Name(String),
    /// A key that is not percent-encoded UTF-8.
    #[error("the key {0:?} does not decode to UTF-8")]
    Key(String),
    /// A record that does not say which object it is about.
    #[error("a record without {0}")]
    Missing(&'static str),
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html>
#[derive(Deserialize)]
struct Notification {
    #[serde(rename = "Records")]
    records: Option<Vec<Record>>,
    /// `s3:TestEvent`, which S3 sends once when notifications are configured.
    #[serde(rename = "Event")]
    event: Option<String>,
}

#[derive(Deserialize)]
struct Record {
    #[serde(rename = "eventName")]
    event_name: String,
    s3: Option<Entity>,
}

#[derive(Deserialize)]
struct Entity {
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
    #[serde(rename = "eTag")]
    etag: Option<String>,
    #[serde(rename = "versionId")]
    version_id: Option<String>,
    sequencer: Option<String>,
}

impl Event {
    /// Reads a message's body.
    ///
    /// # Errors
    ///
    /// [`EventError`], when any part of the message is not understood: then none of it is acted on.
    pub fn parse(body: &str) -> Result<Self, EventError> {
        let notification: Notification = serde_json::from_str(body)?;
        let Some(records) = notification.records else {
            return match notification.event.as_deref() {
                Some("s3:TestEvent") => Ok(Self::Nothing("test event")),
                _ => Err(EventError::Unknown),
            };
        };
        if records.is_empty() {
            return Err(EventError::Missing("records"));
        }
        let objects: Vec<_> = records.into_iter().filter_map(|record| record.object().transpose()).collect::<Result<_, _>>()?;
        Ok(if objects.is_empty() { Self::Nothing("removal") } else { Self::Objects(objects) })
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
            _ => return Err(EventError::Name(self.event_name)),
        }
        let Entity { bucket, object } = self.s3.ok_or(EventError::Missing("s3"))?;
        if bucket.name.is_empty() {
            return Err(EventError::Missing("bucket.name"));
        }
        let key = decode(&object.key)?;
        if key.is_empty() {
            return Err(EventError::Missing("object.key"));
        }
        let known = |value: Option<String>| value.filter(|text| !text.is_empty());
        Ok(Some(ObjectEvent {
            bucket: bucket.name,
            key,
            // The null version of a bucket whose versioning is suspended is overwritten in place: only its ETag pins it.
            version_id: known(object.version_id).filter(|version| version != NULL_VERSION),
            etag: known(object.etag.map(|etag| etag.trim_matches('"').to_owned())),
            size: object.size,
            sequencer: known(object.sequencer),
            trace_id: None,
            custom: None,
        }))
    }
}

/// Keys come as form data: a plus is a space, and everything unusual is percent-encoded.
fn decode(key: &str) -> Result<String, EventError> {
    let spaced = key.replace('+', " ");
    match percent_decode_str(&spaced).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(EventError::Key(key.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, key: &str) -> String {
        format!(
            r#"{{"eventName":"{name}","s3":{{"bucket":{{"name":"b"}},"object":{{"key":"{key}","size":3,"eTag":"e","sequencer":"0A"}}}}}}"#
        )
    }

    fn message(records: &[String]) -> String {
        format!(r#"{{"Records":[{}]}}"#, records.join(","))
    }

    #[test]
    fn keys_are_decoded() {
        for (encoded, decoded) in [
            ("plain.txt", "plain.txt"),
            ("a+b%2Bc%25d", "a b+c%d"),
            ("caf%C3%A9/%F0%9F%90%9A", "café/🐚"),
            ("dir/", "dir/"),
            ("100%", "100%"),
            ("%2e%2e/%2e%2e/etc/passwd", "../../etc/passwd"),
        ] {
            let Ok(Event::Objects(objects)) = Event::parse(&message(&[record("ObjectCreated:Put", encoded)])) else {
                panic!("{encoded}");
            };
            assert_eq!(objects[0].key, decoded);
        }
        assert!(matches!(Event::parse(&message(&[record("ObjectCreated:Put", "%ff")])), Err(EventError::Key(_))));
    }

    #[test]
    fn every_record_counts_and_removals_are_left_out() {
        let body = message(&[
            record("ObjectCreated:Put", "1"),
            record("ObjectRemoved:Delete", "2"),
            record("s3:ObjectCreated:CompleteMultipartUpload", "3"),
            record("ObjectRestore:Completed", "4"),
        ]);
        let Ok(Event::Objects(objects)) = Event::parse(&body) else { panic!() };
        assert_eq!(objects.iter().map(|object| object.key.as_str()).collect::<Vec<_>>(), ["1", "3", "4"]);
        assert_eq!(objects[0].etag.as_deref(), Some("e"));
        assert_eq!(objects[0].size, Some(3));
        assert_eq!(objects[0].sequencer.as_deref(), Some("0A"));
    }

    #[test]
    fn what_needs_no_work() {
        let test = r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Time":"2026-11-21T00:00:00.000Z","Bucket":"b"}"#;
        assert_eq!(Event::parse(test).unwrap(), Event::Nothing("test event"));
        for name in ["ObjectRemoved:Delete", "ObjectRemoved:DeleteMarkerCreated", "LifecycleExpiration:Delete"] {
            assert_eq!(Event::parse(&message(&[record(name, "k")])).unwrap(), Event::Nothing("removal"), "{name}");
        }
    }

    #[test]
    fn the_null_version_is_no_version() {
        let body = r#"{"Records":[{"eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"},"object":{"key":"k","versionId":"null","eTag":"\"e\""}}}]}"#;
        let Ok(Event::Objects(objects)) = Event::parse(body) else { panic!() };
        assert_eq!((objects[0].version_id.as_deref(), objects[0].etag.as_deref()), (None, Some("e")));
    }

    #[test]
    fn anything_else_is_an_error() {
        let tagging = message(&[record("ObjectCreated:Put", "ok"), record("ObjectTagging:Put", "k")]);
        for body in [
            "",
            "hello",
            "{}",
            "[]",
            "null",
            r#"{"Records":[]}"#,
            r#"{"Records":{}}"#,
            r#"{"Event":"other"}"#,
            r#"{"Records":[{"eventName":"ObjectCreated:Put"}]}"#,
            r#"{"Records":[{"eventName":"ObjectCreated:Put","s3":{"bucket":{"name":""},"object":{"key":"k"}}}]}"#,
            r#"{"Records":[{"eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"},"object":{"key":""}}}]}"#,
            r#"{"Records":[{"eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"},"object":{"key":"k","size":-1}}}]}"#,
            &tagging,
        ] {
            assert!(Event::parse(body).is_err(), "{body}");
        }
    }
}
