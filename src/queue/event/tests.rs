use serde_json::json;

use super::*;
use crate::queue::JobObject;
use crate::queue::job::{MOST_CUSTOM_BYTES, MOST_TRACE_ID};

fn record(name: &str, key: &str) -> String {
    format!(
        r#"{{"eventName":"{name}","s3":{{"bucket":{{"name":"b"}},"object":{{"key":"{key}","size":3,"eTag":"e","sequencer":"0A"}}}}}}"#
    )
}

fn message(records: &[String]) -> String {
    format!(r#"{{"Records":[{}]}}"#, records.join(","))
}

fn created(key: &str) -> String {
    message(&[record("ObjectCreated:Put", key)])
}

fn enveloped(message: &str) -> String {
    json!({"Type": "Notification", "MessageId": "m", "TopicArn": "arn:t", "Message": message, "Signature": "s"}).to_string()
}

fn bridged(detail_type: &str, key: &str) -> String {
    json!({
        "version": "0", "id": "i", "detail-type": detail_type, "source": "aws.s3", "account": "1", "resources": ["arn:aws:s3:::b"],
        "detail": {
            "version": "0", "bucket": {"name": "b"}, "reason": "PutObject",
            "object": {"key": key, "size": 5, "etag": "e", "version-id": "v", "sequencer": "0A"},
        },
    })
    .to_string()
}

fn objects(body: &str) -> Vec<ObjectEvent> {
    match Event::parse(body) {
        Ok(Event::Objects(objects)) => objects,
        other => panic!("{other:?} from {body}"),
    }
}

fn error(body: &str) -> String {
    match Event::parse(body) {
        Err(error) => error.to_string(),
        Ok(event) => panic!("{event:?} from {body}"),
    }
}

#[test]
fn keys_of_s3_are_decoded() {
    for (encoded, decoded) in [
        ("plain.txt", "plain.txt"),
        ("a+b%2Bc%25d", "a b+c%d"),
        ("caf%C3%A9/%F0%9F%90%9A", "café/🐚"),
        ("dir/", "dir/"),
        ("100%", "100%"),
        ("%2e%2e/%2e%2e/etc/passwd", "../../etc/passwd"),
    ] {
        assert_eq!(objects(&created(encoded))[0].key, decoded);
    }
    assert!(matches!(Event::parse(&created("%ff")), Err(EventError::Key(_))));
}

#[test]
fn keys_of_all_others_are_not() {
    let key = "a+b%2Bc%25d/é";
    for body in [
        bridged("Object Created", key),
        json!({"objects": [{"bucket": "b", "key": key}]}).to_string(),
        json!({"schema": "clamgate.job/1", "objects": [{"bucket": "b", "key": key}]}).to_string(),
    ] {
        assert_eq!(objects(&body)[0].key, key, "{body}");
        assert_eq!(objects(&enveloped(&body))[0].key, key, "{body}");
    }
}

#[test]
fn every_record_counts_and_removals_are_left_out() {
    let body = message(&[
        record("ObjectCreated:Put", "1"),
        record("ObjectRemoved:Delete", "2"),
        record("s3:ObjectCreated:CompleteMultipartUpload", "3"),
        record("ObjectRestore:Completed", "4"),
    ]);
    let found = objects(&body);
    assert_eq!(found.iter().map(|object| object.key.as_str()).collect::<Vec<_>>(), ["1", "3", "4"]);
    assert_eq!(found[0].etag.as_deref(), Some("e"));
    assert_eq!(found[0].size, Some(3));
    assert_eq!(found[0].sequencer.as_deref(), Some("0A"));
}

#[test]
fn what_needs_no_work() {
    let test = r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Time":"2026-11-21T00:00:00.000Z","Bucket":"b"}"#;
    let removed = |name| message(&[record(name, "k")]);
    for (body, why) in [
        (test.to_owned(), "test event"),
        (removed("ObjectRemoved:Delete"), "removal"),
        (removed("ObjectRemoved:DeleteMarkerCreated"), "removal"),
        (removed("LifecycleExpiration:Delete"), "removal"),
        (bridged("Object Deleted", "k"), "removal"),
    ] {
        assert_eq!(Event::parse(&body).ok(), Some(Event::Nothing(why)), "{body}");
        assert_eq!(Event::parse(&enveloped(&body)).ok(), Some(Event::Nothing(why)), "{body}");
    }
}

#[test]
fn an_envelope_changes_nothing() {
    for body in [
        created("k"),
        bridged("Object Created", "k"),
        bridged("Object Restore Completed", "k"),
        json!({"objects": [{"bucket": "b", "key": "k"}]}).to_string(),
        json!({"schema": "clamgate.job/1", "objects": [{"bucket": "b", "key": "k"}]}).to_string(),
    ] {
        let bare = objects(&body);
        assert_eq!(bare[0].key, "k");
        let once = enveloped(&body);
        let twice = enveloped(&once);
        assert_eq!(objects(&once), bare);
        assert_eq!(objects(&twice), bare);
        assert!(matches!(Event::parse(&enveloped(&twice)), Err(EventError::Nested)));
    }
}

#[test]
fn an_event_of_event_bridge_says_the_same_as_one_of_s3() {
    let found = objects(&bridged("Object Created", "k"));
    let expected = ObjectEvent {
        bucket: "b".into(),
        key: "k".into(),
        version_id: Some("v".into()),
        etag: Some("e".into()),
        size: Some(5),
        sequencer: Some("0A".into()),
        ..ObjectEvent::default()
    };
    assert_eq!(found, [expected]);
}

#[test]
fn jobs_of_bucketav() {
    let body = json!({"objects": [
        {"bucket": "b", "key": "1"},
        {"bucket": "b", "key": "2", "version": "v", "trace_id": "t", "custom_data": "{}", "something": "else"},
        {"bucket": "b", "key": "3", "version_id": "v"},
    ]});
    let found = objects(&body.to_string());
    assert_eq!(found.iter().map(|object| object.version_id.as_deref()).collect::<Vec<_>>(), [None, Some("v"), Some("v")]);
    assert_eq!(found[1].trace_id.as_deref(), Some("t"));
    assert_eq!(json!(found[1].custom), json!({"custom_data": "{}"}));
    assert_eq!(found[0].custom, None);
    assert!(found.iter().all(|object| object.must_exist));
}

#[test]
fn a_job_comes_out_as_it_went_in() -> serde_json::Result<()> {
    let custom = json!({"case": 17, "nested": {"a": [1, null]}});
    let job = Job::new(vec![
        JobObject::new("b", "plain"),
        JobObject {
            version_id: Some("v".into()),
            etag: Some("e".into()),
            size: Some(9),
            if_exists: true,
            trace_id: Some("t".repeat(MOST_TRACE_ID)),
            custom: custom.as_object().cloned(),
            ..JobObject::new("b", "full")
        },
    ]);
    let found = objects(&serde_json::to_string(&job)?);
    assert_eq!(found[0], ObjectEvent { bucket: "b".into(), key: "plain".into(), must_exist: true, ..ObjectEvent::default() });
    let JobObject { bucket, key, version_id, etag, size, if_exists: _, trace_id, custom } = job.objects[1].clone();
    assert_eq!(
        found[1],
        ObjectEvent { bucket, key, version_id, etag, size, sequencer: None, must_exist: false, trace_id, custom }
    );
    Ok(())
}

#[test]
fn the_null_version_is_no_version() {
    for body in [
        r#"{"Records":[{"eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"},"object":{"key":"k","versionId":"null","eTag":"\"e\""}}}]}"#,
        r#"{"detail-type":"Object Created","source":"aws.s3","detail":{"bucket":{"name":"b"},"object":{"key":"k","version-id":"null","etag":"e"}}}"#,
        r#"{"schema":"clamgate.job/1","objects":[{"bucket":"b","key":"k","version_id":"null","etag":"\"e\""}]}"#,
    ] {
        let found = objects(body);
        assert_eq!((found[0].version_id.as_deref(), found[0].etag.as_deref()), (None, Some("e")), "{body}");
    }
    // Nothing says which content is meant.
    for body in [
        r#"{"objects":[{"bucket":"b","key":"k","version":"null"}]}"#,
        r#"{"schema":"clamgate.job/1","objects":[{"bucket":"b","key":"k","version_id":"null"}]}"#,
    ] {
        assert!(matches!(Event::parse(body), Err(EventError::Invalid { field: "version_id", .. })), "{body}");
    }
}

#[test]
fn limits() {
    let many = |count: usize| message(&vec![record("ObjectCreated:Put", "k"); count]);
    assert_eq!(objects(&many(MOST_RECORDS)).len(), MOST_RECORDS);
    assert!(matches!(Event::parse(&many(MOST_RECORDS + 1)), Err(EventError::TooMany(1001))));

    let padded = |length: usize| format!("{}{}", created("k"), " ".repeat(length - created("k").len()));
    assert_eq!(objects(&padded(MOST_BODY_BYTES)).len(), 1);
    assert!(matches!(Event::parse(&padded(MOST_BODY_BYTES + 1)), Err(EventError::TooLarge(_))));

    let job = |field: &str, value: Value| {
        let object = json!({"bucket": "b", "key": "k", field: value});
        Event::parse(&json!({"schema": "clamgate.job/1", "objects": [object]}).to_string())
    };
    let custom = |bytes: usize| json!({"a": "x".repeat(bytes - r#"{"a":""}"#.len())});
    assert!(job("custom", custom(MOST_CUSTOM_BYTES)).is_ok());
    assert!(matches!(job("custom", custom(MOST_CUSTOM_BYTES + 1)), Err(EventError::Invalid { field: "custom", .. })));
    for trace_id in ["x".repeat(MOST_TRACE_ID + 1), "a\nb".to_owned(), "\u{7f}".to_owned()] {
        assert!(matches!(job("trace_id", json!(trace_id)), Err(EventError::Invalid { field: "trace_id", .. })), "{trace_id:?}");
    }
    assert!(job("trace_id", json!("é".repeat(MOST_TRACE_ID))).is_ok());

    // Nested as deeply as fits, where it is kept and where it is skipped.
    let deep = "[".repeat(500_000);
    assert!(error(&format!(r#"{{"objects":[],"x":{deep}"#)).contains("EOF"));
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    assert!(
        error(&format!(r#"{{"schema":"clamgate.job/1","objects":[{{"bucket":"b","key":"k","custom":{{"a":{deep}}}}}]}}"#))
            .contains("recursion limit")
    );
}

#[test]
fn anything_else_is_an_error_that_says_what_to_do() {
    let confirmation =
        r#"{"Type":"SubscriptionConfirmation","Token":"secret","TopicArn":"arn:t","SubscribeURL":"https://secret/"}"#;
    let elsewhere = bridged("Object Created", "k").replace("aws.s3", "my.app");
    let tagging = message(&[record("ObjectCreated:Put", "ok"), record("ObjectTagging:Put", "k")]);
    let unnamed = |bucket: &str, key: &str| {
        created("x")
            .replace(r#""name":"b""#, &format!(r#""name":"{bucket}""#))
            .replace(r#""key":"x""#, &format!(r#""key":"{key}""#))
    };
    for (body, says) in [
        ("", "not a JSON object"),
        ("hello", "not a JSON object"),
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
        (r#"[[{"eventName":"ObjectCreated:Put"}]]"#, "not a JSON object"),
        ("{", "not a JSON object"),
        ("{}", "no known kind of message"),
        (r#"{"hello":"world"}"#, "no known kind of message"),
        (r#"{"Records":null}"#, "not an S3 event notification"),
        // Each had been taken for the other shape: the mark that is null was not seen.
        (r#"{"schema":null,"objects":[{"bucket":"b","key":"k"}]}"#, "not a job of clamgate"),
        (r#"{"Records":null,"objects":[{"bucket":"b","key":"k"}]}"#, "several kinds"),
        (r#"{"Type":null,"Event":"s3:TestEvent"}"#, "several kinds"),
        (r#"{"Records":[],"objects":[]}"#, "several kinds"),
        (r#"{"Records":[],"Records":[]}"#, "duplicate field"),
        (r#"{"Records":[]}"#, "without records"),
        (r#"{"Records":{}}"#, "not an S3 event notification"),
        (r#"{"Event":"other"}"#, "unexpected event \"other\""),
        (r#"{"Records":[{"eventName":"ObjectCreated:Put"}]}"#, "without s3"),
        (&unnamed("", "k"), "without a bucket's name"),
        (&unnamed("b", ""), "without a key"),
        (&created("k").replace(":3", ":-1"), "not an S3 event notification"),
        (&tagging, r#"unexpected event "ObjectTagging:Put""#),
        (confirmation, r#"topic "arn:t": open its SubscribeURL"#),
        (r#"{"Type":"UnsubscribeConfirmation"}"#, "UnsubscribeConfirmation"),
        (r#"{"Type":"Notification"}"#, "without Message"),
        (&enveloped("hello"), "not a JSON object"),
        (&enveloped(&tagging), "ObjectTagging"),
        (&elsewhere, r#"source "my.app""#),
        (&bridged("Object Tags Added", "k"), r#"unexpected event "Object Tags Added""#),
        (&bridged("Object Restore Initiated", "k"), "Object Restore Initiated"),
        (&bridged("Object Created", ""), "without a key"),
        (
            r#"{"detail-type":"Object Created","source":"aws.s3","detail":{}}"#,
            "not an EventBridge event: missing field `bucket`",
        ),
        (r#"{"detail-type":"Object Created"}"#, "not an EventBridge event"),
        (r#"{"objects":[]}"#, "without objects"),
        (r#"{"objects":[{"bucket":"b"}]}"#, "not a bucketAV scan job"),
        (r#"{"objects":[{"bucket":"b","key":"k","version":"1","version_id":"2"}]}"#, "duplicate field"),
        // The condition was ignored.
        (r#"{"objects":[{"bucket":"b","key":"k","etag":"e"}]}"#, r#"etag belongs to a job with "schema""#),
        (r#"{"objects":[{"bucket":"b","key":"k","size":null}]}"#, "size belongs to a job"),
        (r#"{"objects":[{"bucket":"b","key":"k","custom":{}}]}"#, "custom belongs to a job"),
        // The last one won.
        (&bridged("Object Created", "k").replace(r#""key":"k""#, r#""key":"other","key":"k""#), "duplicate field `key`"),
        (&bridged("Object Created", "k").replace(r#""detail":"#, r#""detail":{},"detail":"#), "not an EventBridge event"),
        (&created("k").replace(r#""key":"k""#, r#""key":"other","key":"k""#), "duplicate field `key`"),
        (r#"{"schema":"clamgate.job/1"}"#, "missing field `objects`"),
        (r#"{"schema":"clamgate.job/1","objects":[]}"#, "without objects"),
        (r#"{"schema":"clamgate.job/2","objects":[{"bucket":"b","key":"k"}]}"#, "expected `clamgate.job/1`"),
        (r#"{"schema":"clamgate.job/1","objects":[{"bucket":"b","key":"k","version":"v"}]}"#, "unknown field `version`"),
        (r#"{"schema":"clamgate.job/1","objects":[{"bucket":"b","key":"k","custom":"text"}]}"#, "not a job of clamgate"),
        (r#"{"schema":"clamgate.job/1","objects":[{"bucket":"b","key":"k"}],"a\nb":1}"#, r"unknown field `a\nb`"),
    ] {
        let text = error(body);
        assert!(text.contains(says), "{text:?} instead of {says:?} from {body}");
        assert!(!text.contains("secret") && !text.contains(char::is_control), "{text:?}");
    }
    assert!(error(&bridged(&"x".repeat(10_000), "k")).len() < 500);
}
