//! Large objects, fetched in several requests at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_s3::primitives::ByteStream;
use futures_util::FutureExt;
use sha2::{Digest, Sha256};

use crate::aws::{Aws, Setup};
use crate::proxy::{Answer, Proxy};
use crate::samples::{self, noise};
use crate::service::Service;
use crate::wait;

/// The least that can be set.
const PART: usize = 64 * 1024;

/// Wherever it stands in an object, the object is infected.
const MALWARE: &[u8] = b"clamgate's own test malware";
const SIGNATURE: &str = "Test.Anywhere:0:*:636c616d676174652773206f776e2074657374206d616c77617265\n";

fn settings(proxy: &Proxy) -> [(&'static str, &str); 3] {
    [
        ("AWS_ENDPOINT_URL_S3", proxy.url.as_str()),
        ("CLAMGATE_SCAN__RANGED_FETCH_BYTES", "65536"),
        ("CLAMGATE_SCAN__IN_MEMORY_MAX_BYTES", "250000"),
    ]
}

/// A service that finds [`MALWARE`].
async fn start(aws: &Aws, settings: &[(&str, &str)]) -> Service {
    let mut service = Service::new(aws, settings);
    std::fs::write(service.database("anywhere.ndb"), SIGNATURE).unwrap();
    service.spawn();
    service.until_ready().await;
    service
}

/// Noise with the malware at a place.
fn infected(length: usize, at: usize) -> Vec<u8> {
    let mut body = noise(length);
    body[at..at + MALWARE.len()].copy_from_slice(MALWARE);
    body
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn objects_of_any_size_are_fetched_whole_without_versions() {
    objects_of_any_size_are_fetched_whole(false).await;
}

#[tokio::test]
async fn objects_of_any_size_are_fetched_whole_with_versions() {
    objects_of_any_size_are_fetched_whole(true).await;
}

/// Below and above each bound, in memory and on disk; the malware where two parts meet.
async fn objects_of_any_size_are_fetched_whole(versioned: bool) {
    let aws = Aws::with(Setup { versioned, receives: 5 }).await;
    let proxy = Proxy::start(|_| async { Answer::Forward }.boxed()).await;
    let _service = start(&aws, &settings(&proxy)).await;
    let sizes = [0, 1, PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 1, 3 * PART + 17, 250_000, 250_001, 10 * PART, 2_000_000];
    let mut expected = BTreeMap::new();
    for size in sizes {
        let parts = size.div_ceil(PART).max(1);
        let step = size.div_ceil(parts);
        let mut bodies = vec![("clean", noise(size))];
        if parts > 1 {
            bodies.push(("infected", infected(size, step.min(size - MALWARE.len()) - MALWARE.len() / 2)));
        }
        for (status, body) in bodies {
            let key = format!("{status}-{size}");
            expected.insert(key.clone(), (status.to_uppercase(), sha256(&body), size, parts));
            aws.upload(&key, body).await;
        }
    }
    for report in aws.reports(expected.len()).await {
        let key = report["target"]["key"].as_str().unwrap();
        let (status, sha256, size, parts) = &expected[key];
        assert_eq!(
            (&report["status"], &report["sha256"]),
            (&status.as_str().into(), &sha256.as_str().into()),
            "{key}: {report}"
        );
        assert_eq!(report["target"]["size"], *size);
        let calls = proxy.calls("GetObject", key);
        assert_eq!(calls.len(), *parts, "{key}: {calls:?}");
        assert!(calls.iter().all(|call| call.range.is_some() == (*parts > 1)), "{key}: {calls:?}");
    }
    aws.until_drained().await;
}

/// Both contents are infected, and a mixture of them would be clean.
#[tokio::test]
async fn a_mixture_of_two_contents_is_never_judged() {
    for stores_heed_conditions in [true, false] {
        let old = infected(5 * PART, 4 * PART + 100);
        let new = infected(5 * PART, 100);
        let aws = Aws::new().await;
        let (s3, uploads, newer) = (aws.s3.clone(), aws.uploads.clone(), new.clone());
        let asked = Arc::new(AtomicUsize::new(0));
        let proxy = Proxy::start(move |call| {
            let (s3, uploads, newer, asked) = (s3.clone(), uploads.clone(), newer.clone(), Arc::clone(&asked));
            async move {
                if call.operation != "GetObject" {
                    return Answer::Forward;
                }
                // Overwritten after the first part has been handed out; the others come when that is done.
                let number = asked.fetch_add(1, Ordering::SeqCst);
                if number == 1 {
                    s3.put_object().bucket(uploads).key(call.key).body(ByteStream::from(newer)).send().await.unwrap();
                    asked.fetch_add(100, Ordering::SeqCst);
                } else if number > 0 {
                    wait::until("the newer content", || async { (asked.load(Ordering::SeqCst) >= 100).then_some(()) }).await;
                }
                if stores_heed_conditions || number == 0 { Answer::Forward } else { Answer::Without("if-match") }
            }
            .boxed()
        })
        .await;
        let service = start(&aws, &settings(&proxy)).await;
        aws.upload("k", old).await;
        let report = aws.reports(1).await.remove(0);
        assert_eq!((&report["status"], &report["sha256"]), (&"INFECTED".into(), &sha256(&new).into()), "{report}");
        let stored = wait::until("the newer one in its place", || aws.get(&aws.quarantine, "k")).await;
        assert!(stored.body == new, "only the newer content was there to be moved");
        assert_eq!(aws.get(&aws.clean, "k").await, None);
        if stores_heed_conditions {
            aws.until_drained().await;
            assert_eq!(service.logged("object gone or replaced; nothing to scan").len(), 1);
        } else {
            let failed = service.logged("object not done; its message will be delivered again, or was for the last time");
            assert!(failed.iter().any(|line| line["error"].to_string().contains("another state")), "{:?}", service.log());
        }
        assert_eq!(aws.depth(&aws.results).await, (0, 0), "one verdict, about one content");
    }
}

/// What becomes of the second part.
#[tokio::test]
async fn answers_that_are_wrong_or_break_off_are_no_content() {
    // The key begins with what the proxy does, once or always.
    let answers: &[(&str, Answer, usize)] = &[
        ("half-once", Answer::Half, 1),
        ("half-always", Answer::Half, usize::MAX),
        ("fails-once", Answer::Fail, 1),
        ("other-place", Answer::Saying("content-range", "bytes 0-65535/327680"), 1),
        ("other-size", Answer::Saying("content-range", "bytes 65536-131071/327681"), 1),
        ("other-etag", Answer::Saying("etag", "\"00000000000000000000000000000000\""), 1),
        ("other-time", Answer::Saying("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT"), 1),
        ("whole", Answer::Without("range"), 1),
    ];
    let aws = Aws::with(Setup { versioned: false, receives: 2 }).await;
    let done: Arc<std::sync::Mutex<BTreeMap<String, usize>>> = Arc::default();
    let proxy = Proxy::start(move |call| {
        let answer = answers.iter().find(|(name, ..)| call.key == *name);
        let begins =
            call.range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.split_once('-')?.0.parse::<usize>().ok());
        let is_second = begins.is_some_and(|begins| (PART..2 * PART).contains(&begins));
        let answer = match answer {
            Some((name, answer, times)) if call.operation == "GetObject" && is_second => {
                let mut done = done.lock().unwrap();
                let count = done.entry((*name).to_owned()).or_default();
                *count += 1;
                if *count <= *times { *answer } else { Answer::Forward }
            }
            _ => Answer::Forward,
        };
        async move { answer }.boxed()
    })
    .await;
    let service = start(&aws, &settings(&proxy)).await;
    let body = infected(5 * PART, PART + PART / 2 - 5);
    for (key, ..) in answers {
        aws.upload(key, body.clone()).await;
    }
    for report in aws.reports(answers.len()).await {
        let key = report["target"]["key"].as_str().unwrap();
        let (status, sha256) = if key == "half-always" { ("FAILED", None) } else { ("INFECTED", Some(sha256(&body))) };
        assert_eq!((report["status"].as_str(), report["sha256"].as_str()), (Some(status), sha256.as_deref()), "{report}");
        // What broke off is asked for again, from there on, and nothing else is.
        let calls = proxy.calls("GetObject", key);
        let from_half = calls.iter().filter(|call| call.range.as_deref() == Some("bytes=98304-131071")).count();
        match key {
            "half-once" => assert_eq!((calls.len(), from_half), (6, 1), "{calls:?}"),
            "fails-once" => assert_eq!(calls.len(), 6, "{calls:?}"),
            "half-always" => assert!((6..=20).contains(&calls.len()), "{calls:?}"),
            _ => assert_eq!(from_half, 0, "{key}: {calls:?}"),
        }
    }
    assert!(aws.keys(&aws.clean).await.is_empty());
    let refused = service.logged("object not done; its message will be delivered again, or was for the last time");
    for (key, ..) in answers {
        let times = refused.iter().filter(|line| line["key"] == *key).count();
        let expected = if key.ends_with("once") {
            0
        } else if *key == "half-always" {
            2
        } else {
            1
        };
        assert_eq!(times, expected, "{key}: {refused:?}");
    }
}

/// Some stores know no ranges, and some events have the wrong size.
#[tokio::test]
async fn what_cannot_be_had_in_parts_is_fetched_whole() {
    let aws = Aws::with(Setup { versioned: false, receives: 2 }).await;
    let bucket = aws.silent_bucket().await;
    let proxy = Proxy::start(|call| {
        let ignores_ranges = call.range.is_some() && call.key.starts_with("no-ranges");
        async move { if ignores_ranges { Answer::Without("range") } else { Answer::Forward } }.boxed()
    })
    .await;
    let _service = start(&aws, &settings(&proxy)).await;
    let body = infected(5 * PART, 3 * PART - 5);
    // The key, the content, the size that its event says, the verdict, how often it is asked for.
    let cases = [
        ("no-ranges-1", &body[..], body.len(), "INFECTED", 1),
        ("no-ranges-2", &body[..4 * PART], body.len(), "INFECTED", 2),
        ("smaller-3", &body[..4 * PART], body.len(), "INFECTED", 4),
        ("smaller-4", &body[..100], body.len(), "CLEAN", 1),
        ("empty-5", &body[..0], body.len(), "CLEAN", 2),
        ("larger-6", &body[..], body.len() - 1, "FAILED", 2),
    ];
    let mut records = Vec::new();
    for (key, content, size, ..) in cases {
        let put = aws.s3.put_object().bucket(&bucket).key(key).body(ByteStream::from(content.to_vec()));
        let etag = put.send().await.unwrap().e_tag.unwrap().replace('"', "");
        let object = format!(r#"{{"key":"{key}","size":{size},"eTag":"{etag}"}}"#);
        records
            .push(format!(r#"{{"eventName":"ObjectCreated:Put","s3":{{"bucket":{{"name":"{bucket}"}},"object":{object}}}}}"#));
    }
    for record in records {
        aws.send(&format!(r#"{{"Records":[{record}]}}"#)).await;
    }
    for report in aws.reports(cases.len()).await {
        let case = cases.iter().find(|case| report["target"]["key"] == case.0).unwrap();
        let (key, content, _, status, calls) = case;
        assert_eq!(report["status"], *status, "{report}");
        if *status != "FAILED" {
            assert_eq!(report["sha256"], sha256(content), "{report}");
        }
        assert_eq!(proxy.count("GetObject", key), *calls, "{key}: {:?}", proxy.calls("GetObject", key));
    }
}

/// Neither objects whose content does not come, nor large ones that wait for room, keep others from being scanned.
#[tokio::test]
async fn while_large_objects_are_slow_others_are_scanned() {
    let aws = Aws::new().await;
    let (proxy, gate) = Proxy::gated("GetObject", "large").await;
    let mut settings = settings(&proxy).to_vec();
    // Room for one of the large ones at a time.
    settings.extend([("CLAMGATE_SCAN__SPOOL_BYTES", "500000"), ("CLAMGATE_LIMITS__MAX_FILE_SIZE_BYTES", "450000")]);
    let _service = start(&aws, &settings).await;
    for n in 0..4 {
        aws.upload(&format!("large-{n}"), infected(450_000 - n, 100_000)).await;
    }
    wait::until("a large object's request", || async { (proxy.count("GetObject", "") > 0).then_some(()) }).await;
    aws.fill(&aws.uploads, (0..50).map(|n| format!("small-{n}"))).await;
    let small = aws.reports(50).await;
    assert!(small.iter().all(|report| report["status"] == "CLEAN"));
    assert!(aws.keys(&aws.quarantine).await.is_empty(), "no large one has been scanned");
    gate.add_permits(1000);
    let large = aws.reports(4).await;
    assert!(large.iter().all(|report| report["status"] == "INFECTED"), "{large:?}");
    aws.until_drained().await;
}

/// What is to be scanned next is there before a thread is free.
#[tokio::test]
async fn objects_are_fetched_while_all_threads_scan() {
    let aws = Aws::new().await;
    let proxy = Proxy::start(|_| async { Answer::Forward }.boxed()).await;
    let service = Service::start(&aws, &[("AWS_ENDPOINT_URL_S3", &proxy.url)]).await;
    for n in 0..2 {
        aws.upload(&format!("slow-{n}"), samples::slow(400 - n)).await;
    }
    wait::until("two scans", || async { service.health().await.filter(|health| health.scans == 2) }).await;
    aws.fill(&aws.uploads, (0..20).map(|n| format!("next-{n}"))).await;
    wait::until("the next ones' fetches", || async { (proxy.count("GetObject", "") == 22).then_some(()) }).await;
    assert_eq!(aws.depth(&aws.results).await, (0, 0), "no thread has been free");
}
