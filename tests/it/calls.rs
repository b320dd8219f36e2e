//! How many calls to SQS the work takes.

use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt, stream};

use crate::aws::Aws;
use crate::proxy::{Answer, Proxy};
use crate::service::Service;
use crate::wait;

#[tokio::test]
async fn ten_messages_are_received_and_deleted_in_a_call() {
    const MESSAGES: usize = 200;
    let aws = Aws::new().await;
    // What needs no work is done at once, however slow the machine is.
    let event = r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"b"}"#;
    stream::iter(0..MESSAGES).for_each_concurrent(16, |_| aws.send(event)).await;
    let proxy = Proxy::start(|_| async { Answer::Forward }.boxed()).await;
    let _service = Service::start(&aws, &[("AWS_ENDPOINT_URL_SQS", &proxy.url)]).await;
    aws.until_drained().await;
    let (receives, deletes) = (proxy.count("ReceiveMessage", ""), proxy.count("DeleteMessageBatch", ""));
    let least = MESSAGES / 10;
    assert!((least..=least * 2).contains(&receives), "{receives} calls for {MESSAGES} messages");
    assert!((least..=least * 2).contains(&deletes), "{deletes} calls for {MESSAGES} messages");
}

#[tokio::test]
async fn reports_of_the_same_time_are_sent_ten_in_a_call() {
    const OBJECTS: usize = 22;
    let aws = Aws::new().await;
    let (proxy, gate) = Proxy::gated("SendMessageBatch", "").await;
    let _service = Service::start(&aws, &[("AWS_ENDPOINT_URL_SQS", &proxy.url)]).await;
    aws.fill(&aws.uploads, (0..OBJECTS).map(|n| n.to_string())).await;
    // While the first call is under way, no more than ten wait for its end.
    wait::until("a second call", || async { (proxy.count("SendMessageBatch", "") > 1).then_some(()) }).await;
    gate.add_permits(1000);
    assert_eq!(aws.reports(OBJECTS).await.len(), OBJECTS);
    let calls = proxy.count("SendMessageBatch", "");
    assert!(calls <= 5, "{calls} calls for {OBJECTS} reports");
}

/// For as long as S3 keeps the service waiting.
#[tokio::test]
async fn messages_are_kept_hidden_ten_in_a_call() {
    const OBJECTS: usize = 12;
    let aws = Aws::new().await;
    let (proxy, gate) = Proxy::gated("GetObject", "").await;
    let settings = [
        ("AWS_ENDPOINT_URL_SQS", proxy.url.as_str()),
        ("AWS_ENDPOINT_URL_S3", proxy.url.as_str()),
        ("CLAMGATE_QUEUE__VISIBILITY_TIMEOUT_SECS", "10"),
    ];
    let began = Instant::now();
    let _service = Service::start(&aws, &settings).await;
    aws.fill(&aws.uploads, (0..OBJECTS).map(|n| n.to_string())).await;
    // Longer than the visibility.
    wait::until("some heartbeats", || async {
        let beats = proxy.count("ChangeMessageVisibilityBatch", "");
        (beats >= 6 && began.elapsed() > Duration::from_secs(15)).then_some(())
    })
    .await;
    let (beats, periods) = (proxy.count("ChangeMessageVisibilityBatch", ""), began.elapsed().as_millis() / 3333 + 1);
    assert!(beats as u128 <= periods * 2, "{beats} calls in {periods} periods");
    assert_eq!(proxy.count("GetObject", ""), OBJECTS, "no message came again");
    gate.add_permits(1000);
    aws.reports(OBJECTS).await;
    aws.until_drained().await;
    assert_eq!(aws.depth(&aws.results).await, (0, 0));
    assert_eq!(proxy.count("ChangeMessageVisibility", ""), 0);
}
