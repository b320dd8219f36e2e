//! Without versions, a verdict is written on whatever the key holds at that moment. Here it is another object by then, one that has been judged
//! before: its own verdict must be the last word.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use aws_sdk_s3::primitives::ByteStream;
use futures_util::FutureExt;
use tokio::sync::Semaphore;

use crate::aws::Aws;
use crate::proxy::{Answer, Proxy};
use crate::samples::eicar;
use crate::service::Service;
use crate::wait;

const KEY: &str = "k";

/// The first tags of harmless content are held back until malware has taken its place and has its verdict, which needs so many looks at the key.
/// The look after that waits for the gate.
async fn late_tags(aws: &Aws, most_looks: usize) -> (Proxy, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let (waits_at, s3, uploads) = (Arc::clone(&gate), aws.s3.clone(), aws.uploads.clone());
    let (is_overwritten, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let proxy = Proxy::start(move |call| {
        let (gate, s3, uploads) = (Arc::clone(&waits_at), s3.clone(), uploads.clone());
        let (is_overwritten, looks) = (Arc::clone(&is_overwritten), Arc::clone(&looks));
        async move {
            match call.operation {
                "PutObjectTagging" if !is_overwritten.swap(true, Ordering::Relaxed) => {
                    let malware = ByteStream::from(eicar());
                    s3.put_object().bucket(uploads).key(KEY).body(malware).send().await.unwrap();
                    // One more is the harmless object's.
                    let looked = || async { (looks.load(Ordering::Relaxed) == 1 + most_looks).then_some(()) };
                    wait::until("the other verdict", looked).await;
                }
                "HeadObject" if looks.fetch_add(1, Ordering::Relaxed) == 1 + most_looks => {
                    let _open = gate.acquire().await.unwrap();
                }
                _ => {}
            }
            Answer::Forward
        }
        .boxed()
    })
    .await;
    (proxy, gate)
}

fn settings<'a>(proxy: &'a Proxy, tag_in_progress: &'a str, filters: &'a str) -> [(&'static str, &'a str); 6] {
    [
        ("AWS_ENDPOINT_URL_S3", proxy.url.as_str()),
        ("CLAMGATE_ACTIONS__CLEAN", "leave"),
        ("CLAMGATE_ACTIONS__INFECTED", "leave"),
        ("CLAMGATE_ACTIONS__TAG_IN_PROGRESS", tag_in_progress),
        ("CLAMGATE_QUEUE__FILTERS", filters),
        ("CLAMGATE_QUEUE__VISIBILITY_TIMEOUT_SECS", "10"),
    ]
}

async fn status(aws: &Aws) -> Option<String> {
    aws.get(&aws.uploads, KEY).await.unwrap().status().map(str::to_owned)
}

/// The tags were taken back, and the infected object had none any more.
#[tokio::test]
async fn an_overwritten_verdict_was_taken_back_and_not_said_again() {
    // That it is being scanned takes two looks, and its verdict two more.
    for (tag_in_progress, most_looks) in [("false", 2), ("true", 4)] {
        let aws = Aws::new().await;
        let (proxy, gate) = late_tags(&aws, most_looks).await;
        gate.add_permits(1);
        let _service = Service::start(&aws, &settings(&proxy, tag_in_progress, "[]")).await;
        aws.upload(KEY, "harmless").await;
        wait::until("all looks", || async { (proxy.count("HeadObject", KEY) >= most_looks + 2).then_some(()) }).await;
        aws.until_drained().await;
        assert_eq!(status(&aws).await.as_deref(), Some("INFECTED"), "tag_in_progress = {tag_in_progress}");
    }
}

/// The redelivery found another object and went no further: the infected one kept the tag that it is clean.
#[tokio::test]
async fn a_verdict_on_another_object_stayed_after_a_crash() {
    // With the filter, the other object is not scanned at first.
    for (filters, before) in [("[]", "INFECTED"), (r#"[{ name = "large", skip = { min_bytes = 50 }, tag = true }]"#, "SKIPPED")]
    {
        let aws = Aws::new().await;
        let (proxy, gate) = late_tags(&aws, 2).await;
        let mut service = Service::start(&aws, &settings(&proxy, "false", filters)).await;
        aws.upload(KEY, "harmless").await;
        wait::until("the second look", || async { (proxy.count("HeadObject", KEY) == 4).then_some(()) }).await;
        let is_done = || async { (aws.depth(&aws.queue).await == (0, 1)).then_some(()) };
        wait::until("the other message to be done", is_done).await;
        assert_eq!(status(&aws).await.as_deref(), Some("CLEAN"), "what is to be mended; {before} before");
        service.signal("KILL");
        service.until_ended().await;
        gate.add_permits(1);
        service.spawn();
        service.until_ready().await;
        aws.until_drained().await;
        assert_eq!(status(&aws).await.as_deref(), Some("INFECTED"), "{before} before");
    }
}
