//! What can stand in a message.

use serde_json::json;

use crate::aws::{Aws, Setup};
use crate::samples::eicar;
use crate::service::Service;
use crate::wait;

fn record(bucket: &str, key: &str, rest: &str) -> String {
    format!(r#"{{"eventName":"ObjectCreated:Put","s3":{{"bucket":{{"name":"{bucket}"}},"object":{{"key":"{key}"{rest}}}}}}}"#)
}

#[tokio::test]
async fn all_records_of_a_message_are_worked_on() {
    let aws = Aws::new().await;
    // Uploaded to a bucket without notifications, so that this message alone tells of them.
    let bucket = aws.silent_bucket().await;
    let mut records = Vec::new();
    for n in 0..25 {
        let body = if n % 5 == 0 { eicar() } else { format!("clean {n}").into_bytes() };
        aws.s3.put_object().bucket(&bucket).key(format!("a b/{n}")).body(body.into()).send().await.unwrap();
        // Neither size nor ETag nor version: they are looked up.
        records.push(record(&bucket, &format!("a+b%2F{n}"), ""));
    }
    records.push(r#"{"eventName":"ObjectRemoved:Delete","s3":{"bucket":{"name":"b"},"object":{"key":"k"}}}"#.to_owned());
    aws.send(&format!(r#"{{"Records":[{}]}}"#, records.join(","))).await;
    let _service = Service::start(&aws, &[]).await;
    aws.until_drained().await;
    assert_eq!(aws.keys(&aws.clean).await.len(), 20);
    assert_eq!(aws.keys(&aws.quarantine).await.len(), 5);
    assert!(aws.keys(&bucket).await.is_empty());
}

#[tokio::test]
async fn what_is_not_understood_goes_to_the_dead_letter_queue_and_is_logged_once() {
    let aws = Aws::with(Setup { versioned: false, receives: 3 }).await;
    let service = Service::start(&aws, &[]).await;
    let tagging = r#"{"Records":[{"eventName":"ObjectTagging:Put","s3":{"bucket":{"name":"b"},"object":{"key":"k"}}}]}"#;
    let confirmation = r#"{"Type":"SubscriptionConfirmation","TopicArn":"arn:t","SubscribeURL":"https://secret/"}"#;
    let misspelt = r#"{"schema":"clamgate.job/1","objects":[{"bucket":"b","key":"k","version":"v"}]}"#;
    let bad = ["hello", "{}", r#"{"Records":[]}"#, tagging, confirmation, misspelt];
    for body in bad {
        aws.send(body).await;
    }
    aws.upload("good", b"hello world".to_vec()).await;
    wait::until("the dead letters", || async { (aws.depth(&aws.dead_letters).await.0 as usize == bad.len()).then_some(()) })
        .await;
    assert_eq!(service.logged("message not understood; left for the dead-letter queue").len(), bad.len());
    wait::until("the good one", || async { aws.get(&aws.clean, "good").await }).await;
}

#[tokio::test]
async fn test_events_and_removals_are_acknowledged() {
    let aws = Aws::new().await;
    // Configuring the notification sent a test event.
    aws.upload("k", b"hello world".to_vec()).await;
    aws.s3.delete_object().bucket(&aws.uploads).key("k").send().await.unwrap();
    let service = Service::start(&aws, &[]).await;
    aws.until_drained().await;
    assert!(service.logged("message not understood; left for the dead-letter queue").is_empty());
}

#[tokio::test]
async fn the_same_message_twice_changes_nothing() {
    let aws = Aws::new().await;
    let places = [("CLAMGATE_ACTIONS__PROMOTE_TO", ""), ("CLAMGATE_ACTIONS__QUARANTINE_TO", "")];
    let _service = Service::start(&aws, &places).await;
    aws.upload("k", eicar()).await;
    aws.until_drained().await;
    let first = aws.get(&aws.uploads, "k").await.unwrap();
    let etag = aws.s3.head_object().bucket(&aws.uploads).key("k").send().await.unwrap().e_tag.unwrap().replace('"', "");
    let again = record(&aws.uploads, "k", &format!(r#","size":68,"eTag":"{etag}""#));
    aws.send(&format!(r#"{{"Records":[{again}]}}"#)).await;
    let reports = aws.reports(2).await;
    assert_eq!(reports[0]["scan_id"], reports[1]["scan_id"]);
    aws.until_drained().await;
    assert_eq!(aws.get(&aws.uploads, "k").await.unwrap(), first);
}

#[tokio::test]
async fn a_failing_message_does_not_hold_up_others() {
    let aws = Aws::new().await;
    let _service = Service::start(&aws, &[]).await;
    // A bucket that does not exist: somebody has to look at that.
    aws.send(&format!(r#"{{"Records":[{}]}}"#, record("no-such-bucket", "k", r#","size":3,"eTag":"e""#))).await;
    aws.upload("good", b"hello world".to_vec()).await;
    wait::until("the good one", || async { aws.get(&aws.clean, "good").await }).await;
    wait::until("the failing message alone to be kept", || async {
        let (waiting, in_flight) = aws.depth(&aws.queue).await;
        (waiting + in_flight == 1).then_some(())
    })
    .await;
}

/// Both were acknowledged: the one as gone, because HEAD cannot tell, and the other after a scan of what the key holds now.
#[tokio::test]
async fn a_missing_bucket_and_a_null_version_went_unnoticed() {
    let aws = Aws::with(Setup { versioned: false, receives: 1 }).await;
    let _service = Service::start(&aws, &[]).await;
    for object in [r#"{"bucket":"no-such-bucket","key":"k"}"#, r#"{"bucket":"b","key":"k","version_id":"null"}"#] {
        aws.send(&format!(r#"{{"schema":"clamgate.job/1","objects":[{object}]}}"#)).await;
    }
    wait::until("the dead letters", || async { (aws.depth(&aws.dead_letters).await.0 == 2).then_some(()) }).await;
}

/// The job was acknowledged, and whoever sent it waited for ever. Unlike an event's, its object may never have been there.
#[tokio::test]
async fn a_job_for_a_misspelt_key_vanished() {
    let aws = Aws::new().await;
    let bucket = aws.silent_bucket().await;
    aws.fill(&bucket, ["replaced".to_owned()]).await;
    let version =
        r#"{"schema":"clamgate.job/1","objects":[{"bucket":"B","key":"v","version_id":"none","size":3,"trace_id":"v"}]}"#;
    let ours = r#"{"schema":"clamgate.job/1","objects":[{"bucket":"B","key":"o","trace_id":"o"},{"bucket":"B","key":"p"}]}"#;
    let theirs = r#"{"objects":[{"bucket":"B","key":"t","trace_id":"t"}]}"#;
    let listed = r#"{"schema":"clamgate.job/1","objects":[{"bucket":"B","key":"listed","if_exists":true}]}"#;
    let replaced = r#"{"schema":"clamgate.job/1","objects":[{"bucket":"B","key":"replaced","etag":"e"}]}"#;
    let event = format!(r#"{{"Records":[{}]}}"#, record(&bucket, "event", ""));
    for body in [version, ours, theirs, listed, replaced, &event] {
        aws.send(&body.replace(r#""B""#, &format!("{bucket:?}"))).await;
    }
    let service = Service::start(&aws, &[]).await;
    let mut reports = aws.reports(4).await;
    aws.until_drained().await;
    assert_eq!(aws.depth(&aws.results).await, (0, 0), "nobody asked for the others by name");
    reports.sort_by_key(|report| report["target"]["key"].to_string());
    for (report, (key, trace_id)) in reports.iter().zip([("o", Some("o")), ("p", None), ("t", Some("t")), ("v", Some("v"))]) {
        assert_eq!((report["target"]["key"].as_str(), report["trace_id"].as_str()), (Some(key), trace_id), "{report}");
        assert_eq!((report["status"].as_str(), &report["actions"]), (Some("FAILED"), &json!([])), "{report}");
        assert!(report["detail"].as_str().unwrap().contains("NoSuch"), "{report}");
    }
    let warned = service.logged("the object that a job names does not exist");
    assert!(warned.len() == 4 && warned.iter().all(|line| line["level"] == "WARN"), "{warned:?}");
    assert_eq!(service.logged("object gone or replaced; nothing to scan").len(), 3);
}

/// A message that comes again after its object was moved and reported must not say now that the object failed.
#[tokio::test]
async fn a_job_whose_object_was_moved_before_is_not_reported_again() {
    let aws = Aws::new().await;
    let bucket = aws.silent_bucket().await;
    aws.send(&format!(r#"{{"schema":"clamgate.job/1","objects":[{{"bucket":"{bucket}","key":"k"}}]}}"#)).await;
    // The first delivery, to somebody who did the work and crashed.
    let receive = aws.sqs.receive_message().queue_url(&aws.queue).visibility_timeout(0).max_number_of_messages(10);
    wait::until("the first delivery", || async {
        let messages = receive.clone().send().await.unwrap().messages.unwrap_or_default();
        messages.iter().find(|message| message.body().is_some_and(|body| body.contains("clamgate.job/1"))).map(drop)
    })
    .await;
    let service = Service::start(&aws, &[]).await;
    aws.until_drained().await;
    service.until_logged("the object that a job names does not exist", 1).await;
    assert_eq!(aws.depth(&aws.results).await, (0, 0));
}

/// SQS refuses some characters that JSON need not escape: the verdict was never told, and the object stayed.
#[tokio::test]
async fn a_key_with_a_character_that_sqs_refuses_was_not_reported() {
    let aws = Aws::new().await;
    let _service = Service::start(&aws, &[]).await;
    aws.upload("x\u{ffff}", eicar()).await;
    assert_eq!(aws.reports(1).await[0]["target"]["key"], "x\u{ffff}");
}

/// What was infected when it could be scanned must not look merely failed.
#[tokio::test]
async fn a_failure_was_written_over_a_verdict() {
    let aws = Aws::with(Setup { versioned: false, receives: 1 }).await;
    let bucket = aws.silent_bucket().await;
    let put = aws.s3.put_object().bucket(&bucket).key("k").body(eicar().into()).tagging("clamgate-status=INFECTED");
    let etag = put.send().await.unwrap().e_tag.unwrap().replace('"', "");
    let _service = Service::start(&aws, &[]).await;
    let wrong_size = record(&bucket, "k", &format!(r#","size":3,"eTag":"{etag}""#));
    aws.send(&format!(r#"{{"Records":[{wrong_size}]}}"#)).await;
    assert_eq!(aws.reports(1).await[0]["status"], "FAILED");
    assert_eq!(aws.get(&bucket, "k").await.unwrap().status(), Some("INFECTED"));
}
