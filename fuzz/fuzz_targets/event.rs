//! `Event::parse` on arbitrary text: it never panics, and what it accepts names objects that can be acted on.

#![no_main]

use clamgate::queue::{Event, ObjectEvent};
use libfuzzer_sys::{Corpus, fuzz_target};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

fuzz_target!(|bytes: &[u8]| -> Corpus {
    // A message's body is text: the queue's client has refused anything else.
    let Ok(body) = std::str::from_utf8(bytes) else { return Corpus::Reject };
    match Event::parse(body) {
        Ok(Event::Objects(objects)) => {
            assert!(!objects.is_empty(), "nothing to scan, and no reason why");
            objects.iter().for_each(|object| check(object, body));
            // What was understood, written as S3 would write it, is understood as the same.
            let again = Event::parse(&notification(&objects)).unwrap_or_else(|error| panic!("{error} in {objects:?}"));
            assert_eq!(again, Event::Objects(objects));
        }
        Ok(Event::Nothing(why)) => assert!(["removal", "test event"].contains(&why), "{why}"),
        // The text goes to the log: a hostile body must not be able to forge a line there.
        Err(error) => assert!(!error.to_string().contains(char::is_control), "{error}"),
    }
    Corpus::Keep
});

fn check(object: &ObjectEvent, body: &str) {
    let ObjectEvent { bucket, key, version_id, etag, size: _, sequencer } = object;
    assert!(!bucket.is_empty() && !key.is_empty(), "no object is named: {object:?}");
    // S3's bound of 1,024 bytes is left to S3. The bound here is that decoding never makes anything longer.
    assert!(bucket.len() + key.len() <= body.len(), "longer than the message: {object:?}");
    // Each of these is used as soon as it is there, as a version to ask for or a condition to set: empty is absent.
    for text in [version_id, etag, sequencer].into_iter().flatten() {
        assert!(!text.is_empty(), "there, yet empty: {object:?}");
    }
    assert_ne!(version_id.as_deref(), Some("null"), "the null version is overwritten in place and pins nothing");
    assert!(!etag.as_ref().is_some_and(|etag| etag.starts_with('"') || etag.ends_with('"')), "quoted: {object:?}");
}

/// The notification that S3 would send of these objects.
fn notification(objects: &[ObjectEvent]) -> String {
    let record = |object: &ObjectEvent| -> Value {
        json!({"eventName": "ObjectCreated:Put", "s3": {
            "bucket": {"name": object.bucket},
            "object": {
                "key": utf8_percent_encode(&object.key, NON_ALPHANUMERIC).to_string(),
                "size": object.size,
                "eTag": object.etag,
                "versionId": object.version_id,
                "sequencer": object.sequencer,
            },
        }})
    };
    json!({ "Records": objects.iter().map(record).collect::<Vec<_>>() }).to_string()
}
