//! `Event::parse` on arbitrary text: it never panics, and what it accepts names objects that can be acted on.

#![no_main]

use clamgate::queue::job::check_custom;
use clamgate::queue::{Event, Job, JobObject, MOST_BODY_BYTES, MOST_RECORDS, ObjectEvent};
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
            assert!(objects.len() <= MOST_RECORDS, "{} objects", objects.len());
            // What was understood, written in each of the shapes that can say it, is understood as the same.
            let same = |text: &str, expected: Vec<ObjectEvent>| {
                // Escaping can make a message longer than the longest.
                if text.len() <= MOST_BODY_BYTES {
                    let again = Event::parse(text).unwrap_or_else(|error| panic!("{error} in {text}"));
                    assert_eq!(again, Event::Objects(expected));
                }
            };
            let plain =
                |object: &ObjectEvent| ObjectEvent { must_exist: false, trace_id: None, custom: None, ..object.clone() };
            let notification = notification(&objects);
            same(&notification, objects.iter().map(plain).collect());
            same(&enveloped(&notification), objects.iter().map(plain).collect());
            same(&event_bridge(&objects[0]), vec![plain(&objects[0])]);
            if objects.iter().all(fits_a_job) {
                let unordered = |object: &ObjectEvent| ObjectEvent { sequencer: None, ..object.clone() };
                same(&job(&objects), objects.iter().map(unordered).collect());
            }
        }
        Ok(Event::Nothing(why)) => assert!(["removal", "test event"].contains(&why), "{why}"),
        // The text goes to the log: a hostile body must not be able to forge a line there.
        Err(error) => assert!(!error.to_string().contains(char::is_control), "{error}"),
    }
    Corpus::Keep
});

fn check(object: &ObjectEvent, body: &str) {
    let ObjectEvent { bucket, key, version_id, etag, size: _, sequencer, must_exist: _, trace_id, custom: _ } = object;
    assert!(!bucket.is_empty() && !key.is_empty(), "no object is named: {object:?}");
    // S3's bound of 1,024 bytes is left to S3. The bound here is that decoding never makes anything longer.
    assert!(bucket.len() + key.len() <= body.len(), "longer than the message: {object:?}");
    // Each of these is used as soon as it is there, as a version to ask for or a condition to set: empty is absent.
    for text in [version_id, etag, sequencer, trace_id].into_iter().flatten() {
        assert!(!text.is_empty(), "there, yet empty: {object:?}");
    }
    assert_ne!(version_id.as_deref(), Some("null"), "the null version is overwritten in place and pins nothing");
    assert!(!etag.as_ref().is_some_and(|etag| etag.starts_with('"') || etag.ends_with('"')), "quoted: {object:?}");
    assert!(!trace_id.as_ref().is_some_and(|id| id.contains(char::is_control) || id.chars().count() > 256), "{trace_id:?}");
}

/// bucketAV passes more through than our own jobs do.
fn fits_a_job(object: &ObjectEvent) -> bool {
    object.custom.as_ref().is_none_or(|custom| check_custom(custom).is_ok())
}

fn job(objects: &[ObjectEvent]) -> String {
    let object = |object: &ObjectEvent| {
        let ObjectEvent { bucket, key, version_id, etag, size, sequencer: _, must_exist, trace_id, custom } = object.clone();
        JobObject { bucket, key, version_id, etag, size, if_exists: !must_exist, trace_id, custom }
    };
    serde_json::to_string(&Job::new(objects.iter().map(object).collect())).unwrap()
}

fn enveloped(message: &str) -> String {
    json!({"Type": "Notification", "Message": message}).to_string()
}

/// The event that EventBridge would deliver of this object.
fn event_bridge(object: &ObjectEvent) -> String {
    let ObjectEvent { bucket, key, version_id, etag, size, sequencer, .. } = object;
    json!({"source": "aws.s3", "detail-type": "Object Created", "detail": {
        "bucket": {"name": bucket},
        "object": {"key": key, "size": size, "etag": etag, "version-id": version_id, "sequencer": sequencer},
    }})
    .to_string()
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
