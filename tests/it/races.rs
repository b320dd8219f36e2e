//! Who else has a say in what becomes of an object: an overwrite or a delete at each step, a missing permission at each call, Object Lock, a
//! redelivery in the midst of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::ObjectLockMode;
use futures_util::FutureExt;

use crate::aws::{Aws, Setup};
use crate::outcomes::versions;
use crate::proxy::{Answer, Proxy};
use crate::samples::eicar;
use crate::service::Service;
use crate::wait;

/// A rule for each disposal of what is infected.
const RULES: &str = r#"[
    {prefix = "quarantine/", infected = "quarantine"},
    {prefix = "untagged/", infected = "quarantine", tag = false},
    {prefix = "delete/", infected = "delete"},
    {prefix = "replace/", infected = "replace"},
    {prefix = "leave/", infected = "leave"},
    {prefix = "sse-c/", unscannable = "delete", tag = false},
]"#;

const PLACEHOLDER: &str = "removed";

fn settings(proxy: &Proxy) -> [(&'static str, &str); 3] {
    [
        ("AWS_ENDPOINT_URL_S3", proxy.url.as_str()),
        ("CLAMGATE_ACTIONS__RULES", RULES),
        ("CLAMGATE_ACTIONS__PLACEHOLDER", PLACEHOLDER),
    ]
}

/// What a content is, and its status tag.
async fn at(aws: &Aws, bucket: &str, key: &str) -> String {
    let Some(stored) = aws.get(bucket, key).await else { return "nothing".to_owned() };
    let content = match stored.body.as_slice() {
        body if body == PLACEHOLDER.as_bytes() => "placeholder",
        body if body == eicar() => "malware",
        _ => "harmless",
    };
    format!("{content} {}", stored.status().unwrap_or("untagged"))
}

#[tokio::test]
async fn an_overwrite_or_a_delete_at_any_step_with_versions() {
    an_overwrite_or_a_delete_at_any_step(true).await;
}

#[tokio::test]
async fn an_overwrite_or_a_delete_at_any_step_without_versions() {
    an_overwrite_or_a_delete_at_any_step(false).await;
}

/// Whatever happens to the key while the object is worked on: only what was scanned is acted on, and what took its place is scanned for itself.
async fn an_overwrite_or_a_delete_at_any_step(versioned: bool) {
    // Every call that is made for an infected object.
    let mut steps = Vec::new();
    for (disposal, calls) in [
        ("quarantine", &["GetObject", "GetObjectTagging", "CopyObject", "DeleteObject"][..]),
        ("delete", &["GetObject", "GetObjectTagging", "PutObjectTagging", "DeleteObject"]),
        ("replace", &["GetObject", "GetObjectTagging", "PutObjectTagging", "PutObject"]),
        ("leave", &["GetObject", "GetObjectTagging", "PutObjectTagging"]),
    ] {
        for call in calls {
            steps.extend(["overwrite", "delete"].map(|event| format!("{disposal}/{call}/{event}")));
        }
    }
    let aws = Aws::with(Setup { versioned, receives: 5 }).await;
    let happened: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let (s3, uploads, log) = (aws.s3.clone(), aws.uploads.clone(), Arc::clone(&happened));
    let proxy = Proxy::start(move |call| {
        let (s3, uploads, log) = (s3.clone(), uploads.clone(), Arc::clone(&log));
        async move {
            let mut words = call.key.split('/').skip(1);
            let is_its_step = words.next() == Some(call.operation);
            if is_its_step && log.lock().unwrap().insert(call.key.clone()) {
                if words.next() == Some("overwrite") {
                    let body = ByteStream::from_static(b"the newer one");
                    s3.put_object().bucket(uploads).key(call.key).body(body).send().await.unwrap();
                } else {
                    s3.delete_object().bucket(uploads).key(call.key).send().await.unwrap();
                }
            }
            Answer::Forward
        }
        .boxed()
    })
    .await;
    let _service = Service::start(&aws, &settings(&proxy)).await;
    for key in &steps {
        aws.upload(key, eicar()).await;
    }
    wait::until("every event", || async { (happened.lock().unwrap().len() == steps.len()).then_some(()) }).await;
    aws.until_drained().await;

    let mut wrong = Vec::new();
    for key in &steps {
        let [disposal, call, event]: [&str; 3] = key.split('/').collect::<Vec<_>>().try_into().unwrap();
        let clean = if event == "overwrite" { "harmless CLEAN" } else { "nothing" };
        // The local S3 denies that a version below a delete marker has tags; S3 shows them, and goes on as in the last steps.
        let is_unseen = versioned && event == "delete" && (call.ends_with("Tagging") || call == "GetObject");
        // A copy of what was scanned, if it was made before the event, or of the version.
        let is_copied = disposal == "quarantine" && ((versioned && !is_unseen) || call == "DeleteObject");
        let quarantine = if is_copied { "malware INFECTED" } else { "nothing" };
        // The scanned version goes by its id; one that is only tagged stays below the delete marker, or below the newer one, which is promoted.
        let left = match (versioned, disposal, event) {
            (true, "leave", "overwrite") => (1, 0),
            (true, "leave", _) => (1, 1),
            (true, ..) if is_unseen => (1, 1),
            (true, _, "delete") => (0, 1),
            _ => (0, 0),
        };
        let uploads = if left == (1, 0) { "malware INFECTED" } else { "nothing" };
        let found = (
            at(&aws, &aws.clean, key).await,
            at(&aws, &aws.quarantine, key).await,
            at(&aws, &aws.uploads, key).await,
            versions(&aws, &aws.uploads, key).await,
        );
        let expected = (clean.to_owned(), quarantine.to_owned(), uploads.to_owned(), left);
        // The newer version may have been promoted and gone before: then the scanned one is the latest again, and is replaced.
        let is_latest_again = versioned && disposal == "replace" && event == "overwrite";
        let replaced = (clean.to_owned(), quarantine.to_owned(), "placeholder INFECTED".to_owned(), (1, 0));
        if found != expected && !(is_latest_again && found == replaced) {
            wrong.push(format!("{key}: expected {expected:?}, found {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), steps.len(), wrong.join("\n"));
}

/// Who may not do one of the calls; what the last report says; what is at the key and at its destination then. The message is in the dead-letter
/// queue then, unless the call is not needed.
type Denial = (&'static str, &'static str, &'static str, &'static str);

const DENIED: [Denial; 19] = [
    ("leave/GetObject", "FAILED: tag done", "malware FAILED", "nothing"),
    ("leave/GetObjectTagging", "INFECTED: tag failed", "malware untagged", "nothing"),
    ("leave/PutObjectTagging", "INFECTED: tag failed", "malware untagged", "nothing"),
    ("delete/GetObject", "FAILED: tag done", "malware FAILED", "nothing"),
    ("delete/PutObjectTagging", "INFECTED: tag failed, delete failed", "malware untagged", "nothing"),
    ("delete/DeleteObject", "INFECTED: tag done, delete follows", "malware INFECTED", "nothing"),
    ("replace/GetObjectTagging", "INFECTED: tag failed, replace failed", "malware untagged", "nothing"),
    ("replace/PutObjectTagging", "INFECTED: tag failed, replace failed", "malware untagged", "nothing"),
    ("replace/PutObject", "INFECTED: tag done, replace follows", "malware INFECTED", "nothing"),
    ("quarantine/GetObject", "FAILED: tag done", "malware FAILED", "nothing"),
    ("quarantine/GetObjectTagging", "INFECTED: tag failed, quarantine failed", "malware untagged", "nothing"),
    ("quarantine/CopyObject", "INFECTED: tag done, quarantine failed", "malware INFECTED", "nothing"),
    ("quarantine/DeleteObject", "INFECTED: quarantine done", "malware INFECTED", "malware INFECTED"),
    ("quarantine/PutObjectTagging", "INFECTED: quarantine done", "nothing", "malware INFECTED"),
    ("promote/GetObject", "FAILED: tag done", "harmless FAILED", "nothing"),
    ("promote/GetObjectTagging", "CLEAN: tag failed, promote failed", "harmless untagged", "nothing"),
    ("promote/CopyObject", "CLEAN: tag done, promote failed", "harmless CLEAN", "nothing"),
    ("promote/DeleteObject", "CLEAN: promote done", "harmless CLEAN", "harmless CLEAN"),
    ("promote/PutObjectTagging", "CLEAN: promote done", "nothing", "harmless CLEAN"),
];

/// What is different with versions: the second look at the ETag is not needed, and a replaced version is deleted by its id.
const DENIED_WITH_VERSIONS: [Denial; 2] = [
    ("leave/HeadObject", "INFECTED: tag done", "malware INFECTED", "nothing"),
    ("replace/DeleteObject", "INFECTED: tag done, replace follows", "placeholder INFECTED", "nothing"),
];

const DENIED_WITHOUT_VERSIONS: [Denial; 2] = [
    ("leave/HeadObject", "INFECTED: tag failed", "malware untagged", "nothing"),
    ("replace/DeleteObject", "INFECTED: tag done, replace follows", "placeholder INFECTED", "nothing"),
];

#[tokio::test]
async fn a_missing_permission_at_any_call_with_versions() {
    // Not needed: they are done at the first delivery.
    let done = ["leave/HeadObject", "quarantine/PutObjectTagging", "promote/PutObjectTagging"];
    a_missing_permission_at_any_call(true, &[&DENIED[..], &DENIED_WITH_VERSIONS].concat(), &done).await;
}

#[tokio::test]
async fn a_missing_permission_at_any_call_without_versions() {
    let done = ["replace/DeleteObject", "quarantine/PutObjectTagging", "promote/PutObjectTagging"];
    a_missing_permission_at_any_call(false, &[&DENIED[..], &DENIED_WITHOUT_VERSIONS].concat(), &done).await;
}

async fn a_missing_permission_at_any_call(versioned: bool, rows: &[Denial], done: &[&str]) {
    let aws = Aws::with(Setup { versioned, receives: 2 }).await;
    let proxy = Proxy::start(|call| {
        let is_denied = !call.operation.is_empty() && call.key.split('/').nth(1) == Some(call.operation);
        async move { if is_denied { Answer::Deny } else { Answer::Forward } }.boxed()
    })
    .await;
    let _service = Service::start(&aws, &settings(&proxy)).await;
    let is_promoted = |key: &str| key.starts_with("promote/");
    for (key, ..) in rows {
        aws.upload(key, if is_promoted(key) { b"harmless".to_vec() } else { eicar() }).await;
    }
    wait::until("everything done or given up", || async {
        let dead = usize::try_from(aws.depth(&aws.dead_letters).await.0).unwrap();
        (aws.depth(&aws.queue).await == (0, 0) && dead == rows.len() - done.len()).then_some(())
    })
    .await;
    // Whatever is said again is said in the same words.
    let mut said: BTreeMap<String, BTreeSet<(String, String)>> = BTreeMap::new();
    for report in aws.reports(aws.depth(&aws.results).await.0.try_into().unwrap()).await {
        let actions = report["actions"].as_array().unwrap().iter();
        let actions =
            actions.map(|action| format!("{} {}", action["action"].as_str().unwrap(), action["outcome"].as_str().unwrap()));
        let line = format!("{}: {}", report["status"].as_str().unwrap(), actions.collect::<Vec<_>>().join(", "));
        let key = report["target"]["key"].as_str().unwrap().to_owned();
        said.entry(key).or_default().insert((report["scan_id"].as_str().unwrap().to_owned(), line));
    }
    let mut wrong = Vec::new();
    for (key, report, uploads, moved) in rows {
        let all = &said[*key];
        let destination = if is_promoted(key) { &aws.clean } else { &aws.quarantine };
        let (key, line) = (*key, all.first().unwrap().1.as_str());
        let found = (all.len(), line, &*at(&aws, &aws.uploads, key).await, &*at(&aws, destination, key).await);
        let expected = (1, *report, *uploads, *moved);
        if found != expected {
            wrong.push(format!("{key}: expected {expected:?}, found {found:?}"));
        }
        if versioned {
            let left = versions(&aws, &aws.uploads, key).await;
            let expected = usize::from(*uploads != "nothing") + usize::from(key == "replace/DeleteObject");
            assert_eq!(left, (expected, 0), "{key}");
            let copies = versions(&aws, destination, key).await;
            assert_eq!(copies, (usize::from(*moved != "nothing"), 0), "{key}: a second copy");
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

/// A version under Object Lock stays, with the verdict on it, whatever the policy wants, and its message is for the operator.
#[tokio::test]
async fn an_object_under_object_lock_stays_and_is_tagged() {
    let aws = Aws::with(Setup { versioned: true, receives: 2 }).await;
    let bucket = format!("{}-locked", aws.uploads);
    aws.s3.create_bucket().bucket(&bucket).object_lock_enabled_for_bucket(true).send().await.unwrap();
    aws.notify(&bucket).await;
    let proxy = Proxy::start(|_| async { Answer::Forward }.boxed()).await;
    let _service = Service::start(&aws, &settings(&proxy)).await;
    let tomorrow = std::time::SystemTime::now() + std::time::Duration::from_hours(24);
    for key in ["quarantine/k", "delete/k", "replace/k", "leave/k"] {
        let put = aws.s3.put_object().bucket(&bucket).key(key).body(ByteStream::from(eicar()));
        let put = put.object_lock_mode(ObjectLockMode::Compliance).object_lock_retain_until_date(DateTime::from(tomorrow));
        put.send().await.unwrap();
    }
    wait::until("dead letters", || async {
        (aws.depth(&aws.queue).await == (0, 0) && aws.depth(&aws.dead_letters).await.0 == 3).then_some(())
    })
    .await;
    for (key, now, version_count, copies, puts) in [
        ("quarantine/k", "malware INFECTED", 1, 1, 0),
        ("delete/k", "malware INFECTED", 1, 0, 0),
        // Tried again at the second delivery, and refused there: the key holds the placeholder.
        ("replace/k", "placeholder INFECTED", 2, 0, 2),
        ("leave/k", "malware INFECTED", 1, 0, 0),
    ] {
        assert_eq!(at(&aws, &bucket, key).await, now, "{key}");
        assert_eq!(versions(&aws, &bucket, key).await, (version_count, 0), "{key}");
        assert_eq!(versions(&aws, &aws.quarantine, key).await, (copies, 0), "{key}");
        assert_eq!(proxy.count("PutObject", key), puts, "{key}");
        let listed = aws.s3.list_object_versions().bucket(&bucket).prefix(key).send().await.unwrap();
        for version in listed.versions() {
            let tags = aws.s3.get_object_tagging().bucket(&bucket).key(key).version_id(version.version_id().unwrap());
            let tags = tags.send().await.unwrap();
            assert!(tags.tag_set().iter().any(|tag| tag.value() == "INFECTED"), "{key}: {tags:?}");
        }
    }
}

/// The original cannot be removed at the first delivery: the second one ends where the first one would have, and says the same.
#[tokio::test]
async fn a_redelivery_before_the_end_ends_in_the_same_place() {
    let aws = Aws::with(Setup { versioned: true, receives: 5 }).await;
    // Four attempts of the SDK's at each delivery.
    let attempts: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
    let proxy = Proxy::start(move |call| {
        let is_failing = call.operation == "DeleteObject" && {
            let mut attempts = attempts.lock().unwrap();
            let count = attempts.entry(call.key).or_default();
            *count += 1;
            *count <= 4
        };
        async move { if is_failing { Answer::Fail } else { Answer::Forward } }.boxed()
    })
    .await;
    let _service = Service::start(&aws, &settings(&proxy)).await;
    let put = async |key: &str, tags: &str| {
        let put = aws.s3.put_object().bucket(&aws.uploads).key(key).body(ByteStream::from(eicar())).tagging(tags);
        put.send().await.unwrap();
    };
    let ten: Vec<String> = (0..10).map(|n| format!("t{n}=v")).collect();
    put("quarantine/k", "").await;
    put("quarantine/ten-tags", &ten.join("&")).await;
    put("untagged/k", "").await;
    put("delete/k", "").await;
    put("replace/k", "").await;
    // One report for each delivery.
    let reports = aws.reports(10).await;
    aws.until_drained().await;
    for (key, uploads, quarantine, left, copies) in [
        ("quarantine/k", "nothing", "malware INFECTED", 0, 1),
        ("quarantine/ten-tags", "nothing", "malware untagged", 0, 1),
        ("untagged/k", "nothing", "malware untagged", 0, 1),
        ("delete/k", "nothing", "nothing", 0, 0),
        ("replace/k", "placeholder INFECTED", "nothing", 1, 0),
    ] {
        assert_eq!(at(&aws, &aws.uploads, key).await, uploads, "{key}");
        assert_eq!(at(&aws, &aws.quarantine, key).await, quarantine, "{key}");
        assert_eq!(versions(&aws, &aws.uploads, key).await, (left, 0), "{key}");
        assert_eq!(versions(&aws, &aws.quarantine, key).await, (copies, 0), "{key}: a second copy");
        let said = reports.iter().filter(|report| report["target"]["key"] == key);
        let said: Vec<_> = said.map(|report| (&report["scan_id"], &report["actions"])).collect();
        assert!(said.len() == 2 && said[0] == said[1], "{key}: {said:?}");
    }
}

/// A bucket that nothing tells of, with malware that S3 does not hand out.
async fn with_a_customers_key(aws: &Aws, key: &str) -> String {
    let bucket = aws.silent_bucket().await;
    let put = aws.s3.put_object().bucket(&bucket).key(key).body(ByteStream::from(eicar()));
    let put = put.sse_customer_algorithm("AES256").sse_customer_key("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=");
    put.sse_customer_key_md5("KYvwGXoFFJ42a2u2GDWhwQ==").send().await.unwrap();
    bucket
}

/// With a customer's key, S3 tells neither version nor ETag: what is there when it would be deleted could be another object.
#[tokio::test]
async fn what_is_not_known_for_sure_is_not_deleted() {
    let aws = Aws::new().await;
    let bucket = with_a_customers_key(&aws, "sse-c/k").await;
    let proxy = Proxy::start(|_| async { Answer::Forward }.boxed()).await;
    let _service = Service::start(&aws, &settings(&proxy)).await;
    let object = format!(r#"{{"bucket":{{"name":"{bucket}"}},"object":{{"key":"sse-c/k"}}}}"#);
    aws.send(&format!(r#"{{"Records":[{{"eventName":"ObjectCreated:Put","s3":{object}}}]}}"#)).await;
    let report = aws.reports(1).await.remove(0);
    assert_eq!((&report["status"], &report["actions"][0]["outcome"]), (&"UNSCANNABLE".into(), &"skipped".into()), "{report}");
    aws.until_drained().await;
    assert_eq!(versions(&aws, &bucket, "sse-c/k").await, (1, 0));
    assert_eq!(proxy.count("DeleteObject", ""), 0);
}

/// It was taken for an object that is replaced again and again, and went to the dead-letter queue.
#[tokio::test]
async fn an_object_with_a_customers_key_that_is_named_without_its_etag() {
    let aws = Aws::new().await;
    let bucket = with_a_customers_key(&aws, "leave/k").await;
    let proxy = Proxy::start(|_| async { Answer::Forward }.boxed()).await;
    let settings = [("AWS_ENDPOINT_URL_S3", proxy.url.as_str()), ("CLAMGATE_ACTIONS__UNSCANNABLE", "leave")];
    let _service = Service::start(&aws, &settings).await;
    aws.send(&format!(r#"{{"schema":"clamgate.job/1","objects":[{{"bucket":"{bucket}","key":"leave/k"}}]}}"#)).await;
    let report = aws.reports(1).await.remove(0);
    assert_eq!((&report["status"], &report["actions"][0]["outcome"]), (&"UNSCANNABLE".into(), &"skipped".into()), "{report}");
    aws.until_drained().await;
    assert_eq!(aws.depth(&aws.results).await, (0, 0), "said once");
}
