//! Out of quarantine: what is clean after all, and what somebody lets out.

use std::collections::BTreeMap;
use std::fs;
use std::process::Output;
use std::sync::{Arc, Mutex};

use aws_sdk_s3::primitives::ByteStream;
use futures_util::FutureExt;
use serde_json::{Value, json};

use crate::aws::{self, Aws, Setup};
use crate::outcomes::versions;
use crate::proxy::{Answer, Proxy};
use crate::samples::eicar;
use crate::service::{Service, clamgate, signatures};
use crate::wait;
use crate::web::curl;

/// What one more signature matches, which only the service has.
const DUBIOUS: &[u8] = b"a dubious tool";

const KEYS: [&str; 4] = ["in/ü b.pdf", "in/malware", "in/taken", "in/ten"];

/// The buckets after a service has quarantined these, and stopped.
async fn quarantined(versioned: bool) -> Aws {
    let aws = Aws::with(Setup { versioned, receives: 5 }).await;
    let mut service = Service::new(&aws, &[("CLAMGATE_ACTIONS__QUARANTINE_TO", &quarantine_to(&aws))]);
    let hex: String = DUBIOUS.iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(service.database("own.ndb"), format!("False.Alarm:0:*:{hex}\n")).unwrap();
    let ten = (0..10).map(|n| format!("t{n}=v")).collect::<Vec<_>>().join("&");
    for key in KEYS {
        let body = if key == "in/malware" { eicar() } else { DUBIOUS.to_vec() };
        let put = aws.s3.put_object().bucket(&aws.uploads).key(key).body(ByteStream::from(body));
        let tags = if key == "in/ten" { &ten } else { "team=x&clamgate-status=CLEAN" };
        put.tagging(tags).metadata("owner", "somebody").content_type("text/x-own").send().await.unwrap();
    }
    service.spawn();
    aws.reports(KEYS.len()).await;
    aws.until_drained().await;
    // Killed in the middle of a poll, it would take the next message with it.
    service.signal("TERM");
    service.until_ended().await;
    assert_eq!(aws.keys(&aws.quarantine).await.len(), KEYS.len());
    aws.s3.put_object().bucket(&aws.clean).key("in/taken").body(ByteStream::from_static(b"other")).send().await.unwrap();
    aws
}

fn quarantine_to(aws: &Aws) -> String {
    format!("s3://{}/{{bucket}}/{{key}}", aws.quarantine)
}

fn at(aws: &Aws, key: &str) -> String {
    format!("{}/{key}", aws.uploads)
}

fn address(aws: &Aws, key: &str) -> String {
    format!("s3://{}/{}", aws.quarantine, at(aws, key))
}

/// Runs the program as an operator would, without the service's extra signature.
async fn run(aws: &Aws, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let scratch = tempfile::tempdir().unwrap();
    let mut command = tokio::process::Command::from(clamgate());
    command
        .args(arguments)
        .envs(aws::environment())
        .env("CLAMGATE_DEFINITIONS__DIR", signatures())
        .env("CLAMGATE_SCAN__SCRATCH_DIR", scratch.path())
        .env("CLAMGATE_ACTIONS__QUARANTINE_TO", quarantine_to(aws))
        .env("CLAMGATE_ACTIONS__PROMOTE_TO", format!("s3://{}", aws.clean))
        .env("CLAMGATE_QUEUE__URL", &aws.queue)
        .env("CLAMGATE_REPORT__QUEUE_URL", &aws.results)
        .envs(environment.iter().copied());
    command.output().await.unwrap()
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Content, status tag, the uploader's own tag and metadata.
async fn found(
    aws: &Aws,
    bucket: &str,
    key: &str,
) -> Option<(Vec<u8>, Option<String>, Option<String>, BTreeMap<String, String>)> {
    let stored = aws.get(bucket, key).await?;
    let head = aws.s3.head_object().bucket(bucket).key(key).send().await.unwrap();
    assert_eq!(head.content_type(), Some("text/x-own"));
    let mut metadata: BTreeMap<_, _> = head.metadata().unwrap().clone().into_iter().collect();
    assert!(metadata.remove("clamgate-from-quarantine").is_some_and(|mark| mark.len() == 36), "{metadata:?}");
    Some((stored.body.clone(), stored.status().map(str::to_owned), stored.tags.get("team").cloned(), metadata))
}

fn own() -> BTreeMap<String, String> {
    BTreeMap::from([("owner".to_owned(), "somebody".to_owned())])
}

#[tokio::test]
async fn what_is_clean_now_goes_to_its_place_with_versions() {
    what_is_clean_now_goes_to_its_place(true).await;
}

#[tokio::test]
async fn what_is_clean_now_goes_to_its_place_without_versions() {
    what_is_clean_now_goes_to_its_place(false).await;
}

async fn what_is_clean_now_goes_to_its_place(versioned: bool) {
    let aws = quarantined(versioned).await;
    let unknown = "by-hand";
    aws.s3
        .put_object()
        .bucket(&aws.quarantine)
        .key(at(&aws, unknown))
        .body(ByteStream::from_static(b"x"))
        .send()
        .await
        .unwrap();
    for (key, code, status, actions, is_out) in [
        ("in/ü b.pdf", 0, "CLEAN", "promote done", true),
        ("in/ten", 0, "CLEAN", "promote done, tag failed", true),
        ("in/malware", 1, "INFECTED", "tag done", false),
        ("in/taken", 0, "CLEAN", "promote skipped, tag done", false),
        (unknown, 0, "CLEAN", "tag done", false),
    ] {
        let output = run(&aws, &["rescan", "--format", "json", &address(&aws, key)], &[]).await;
        let report = json_of(&output);
        let done = report["actions"].as_array().unwrap().iter();
        let done: Vec<_> =
            done.map(|a| format!("{} {}", a["action"].as_str().unwrap(), a["outcome"].as_str().unwrap())).collect();
        assert_eq!((report["status"].as_str(), &*done.join(", ")), (Some(status), actions), "{key}");
        // That a tag has no room makes the command fail, as everywhere.
        let code = if actions.contains("failed") { 2 } else { code };
        assert_eq!(output.status.code(), Some(code), "{key}: {}", complaint(&output));
        let source = (key != unknown).then(|| (json!(aws.uploads), json!(key)));
        assert_eq!(report.get("source").map(|source| (source["bucket"].clone(), source["key"].clone())), source, "{key}");
        assert_eq!(aws.reports(1).await.remove(0)["scan_id"], report["scan_id"], "{key}: everybody is told");
        let in_quarantine = aws.get(&aws.quarantine, &at(&aws, key)).await;
        assert_eq!(in_quarantine.is_none(), is_out, "{key}");
        if versioned {
            assert_eq!(versions(&aws, &aws.quarantine, &at(&aws, key)).await, (usize::from(!is_out), 0), "{key}");
        }
        if let Some(stored) = in_quarantine {
            assert_eq!(stored.status(), Some(status), "{key}");
            assert_eq!(stored.tags.contains_key("clamgate-sequencer"), versioned && key != unknown, "{key}: {:?}", stored.tags);
        }
    }
    let (dubious, clean) = (DUBIOUS.to_vec(), Some("CLEAN".to_owned()));
    assert_eq!(found(&aws, &aws.clean, "in/ü b.pdf").await, Some((dubious, clean, Some("x".to_owned()), own())));
    let out = aws.get(&aws.clean, "in/ü b.pdf").await.unwrap();
    assert_eq!(out.tags.contains_key("clamgate-sequencer"), versioned, "an older version must not overwrite it");
    assert_eq!(aws.get(&aws.clean, "in/taken").await.unwrap().body, b"other", "nothing is overwritten");
    assert_eq!(aws.get(&aws.clean, "in/malware").await, None);
    // Only where objects are quarantined is the metadata believed.
    for target in [format!("s3://{}/in/x", aws.uploads), "/etc/hostname".to_owned()] {
        let output = run(&aws, &["rescan", &target], &[]).await;
        assert_eq!(output.status.code(), Some(64), "{target}");
        assert!(complaint(&output).contains("quarantine"), "{}", complaint(&output));
    }
}

/// An uploader who writes our metadata has no say in where the object goes.
#[tokio::test]
async fn a_source_that_an_uploader_claims_is_not_believed() {
    let aws = Aws::new().await;
    let forged = format!("s3://{}/admin/page.html", aws.uploads);
    let put = aws.s3.put_object().bucket(&aws.uploads).key("k").body(ByteStream::from_static(b"x"));
    put.metadata("clamgate-source", &forged).send().await.unwrap();
    let output = run(&aws, &["scan", "--act", "--format", "json", &format!("s3://{}/k", aws.uploads)], &[]).await;
    assert_eq!(json_of(&output).get("source"), None);
    assert_eq!(aws.keys(&aws.clean).await, ["k"]);
}

#[tokio::test]
async fn what_somebody_lets_out_with_versions() {
    what_somebody_lets_out(true).await;
}

#[tokio::test]
async fn what_somebody_lets_out_without_versions() {
    what_somebody_lets_out(false).await;
}

async fn what_somebody_lets_out(versioned: bool) {
    let aws = quarantined(versioned).await;
    let elsewhere = format!("s3://{}/released/{{date}}/{{key}}", aws.clean);
    for (key, flags, code, says) in [
        ("in/taken", vec![], 2, "something else is at the destination"),
        ("in/malware", vec!["--to", "s3://{uploads}/"], 2, "allowed_signatures"),
        ("in/malware", vec!["--to", "s3://{quarantine}/x/"], 2, "in quarantine"),
        ("in/malware", vec!["--to", "s3://{clean}/{sha256}"], 2, "is not read"),
        ("in/missing", vec![], 2, "no such object"),
        ("in/malware", vec!["--version-id", "null"], 64, "null"),
        ("in/malware", vec!["--to", "clean"], 64, "s3://bucket"),
        ("in/malware", vec![], 0, ""),
        ("in/malware", vec![], 2, "no such object"),
        ("in/taken", vec!["--to", &elsewhere], 0, ""),
        ("in/ten", vec!["--to", "s3://{uploads}/back/", "--allow-rescan"], 0, ""),
    ] {
        let filled = |flag: &str| {
            flag.replace("{uploads}", &aws.uploads).replace("{quarantine}", &aws.quarantine).replace("{clean}", &aws.clean)
        };
        let flags: Vec<String> = flags.into_iter().map(filled).collect();
        let object = address(&aws, key);
        let arguments: Vec<&str> = ["release", &object].into_iter().chain(flags.iter().map(String::as_str)).collect();
        let output = run(&aws, &arguments, &[]).await;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", complaint(&output));
        assert!(complaint(&output).contains(says), "{arguments:?}: {}", complaint(&output));
        if code != 0 {
            continue;
        }
        let released = json_of(&output);
        assert_eq!((&released["schema"], &released["from"]), (&json!("clamgate.release/1"), &json!(object)));
        assert_eq!(released["status"], "INFECTED");
        let (bucket, to) = released["to"].as_str().unwrap().strip_prefix("s3://").unwrap().split_once('/').unwrap();
        let body = if key == "in/malware" { eicar() } else { DUBIOUS.to_vec() };
        let (status, team) = match key {
            "in/ten" => (None, None),
            _ => (Some("RELEASED".to_owned()), Some("x".to_owned())),
        };
        assert_eq!(found(&aws, bucket, to).await, Some((body, status, team, own())), "{key}");
        assert_eq!(versions(&aws, &aws.quarantine, &at(&aws, key)).await, (0, 0), "{key}");
    }
    let mut keys = aws.keys(&aws.clean).await;
    keys.retain(|key| key != "in/taken" && key != "in/malware");
    assert!(keys.len() == 1 && keys[0].starts_with("released/20") && keys[0].ends_with("/in/taken"), "{keys:?}");
    assert_eq!(aws.keys(&aws.uploads).await, ["back/in/ten"]);
    let outside = run(&aws, &["release", &format!("s3://{}/back/in/ten", aws.uploads)], &[]).await;
    assert!(outside.status.code() == Some(2) && complaint(&outside).contains("none of the configured quarantines"));
}

/// The copy was made, and then S3 did not let the other one go: the second attempt does not take the copy for somebody else's.
#[tokio::test]
async fn a_release_that_broke_off_is_finished_by_the_next_one() {
    let aws = quarantined(true).await;
    let proxy = Proxy::start(|call| {
        let answer = if call.operation == "DeleteObject" { Answer::Deny } else { Answer::Forward };
        async move { answer }.boxed()
    })
    .await;
    let object = address(&aws, "in/malware");
    let output = run(&aws, &["release", &object], &[("AWS_ENDPOINT_URL_S3", &proxy.url)]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(complaint(&output).contains("is not removed"), "{}", complaint(&output));
    assert_eq!(aws.get(&aws.clean, "in/malware").await.unwrap().status(), Some("RELEASED"));
    let output = run(&aws, &["release", &object], &[]).await;
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
    assert_eq!(versions(&aws, &aws.clean, "in/malware").await, (1, 0), "copied once");
    assert_eq!(versions(&aws, &aws.quarantine, &at(&aws, "in/malware")).await, (0, 0));
}

/// The second scan had another id, and the first one's copy was taken for somebody else's: both stayed for ever.
#[tokio::test]
async fn a_rescan_that_broke_off_is_finished_by_one_with_other_definitions() {
    let aws = quarantined(true).await;
    let proxy = Proxy::start(|call| {
        let answer = if call.operation == "DeleteObject" { Answer::Deny } else { Answer::Forward };
        async move { answer }.boxed()
    })
    .await;
    for key in ["in/ü b.pdf", "in/ten"] {
        let object = address(&aws, key);
        let output = run(&aws, &["rescan", &object], &[("AWS_ENDPOINT_URL_S3", &proxy.url)]).await;
        assert_eq!(output.status.code(), Some(2), "{}", complaint(&output));
        assert!(aws.get(&aws.clean, key).await.is_some());
        let output = run(&aws, &["rescan", "--format", "json", &object], &[("CLAMGATE_LIMITS__MAX_FILES", "9999")]).await;
        assert_eq!(json_of(&output)["actions"][0]["outcome"], "done", "{}", complaint(&output));
        assert_eq!(versions(&aws, &aws.clean, key).await, (1, 0), "copied once");
        assert_eq!(versions(&aws, &aws.quarantine, &at(&aws, key)).await, (0, 0));
    }
}

/// S3 had made the copy, and refused the SDK's second attempt, because the key was not free any more.
#[tokio::test]
async fn a_copy_whose_answer_was_lost_was_taken_for_somebody_elses() {
    let aws = quarantined(true).await;
    let copies: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
    let proxy = Proxy::start(move |call| {
        let mut answer = Answer::Forward;
        if call.operation == "CopyObject" {
            assert!(call.only_if_free, "{call:?}");
            let mut copies = copies.lock().unwrap();
            let count = copies.entry(call.key).or_default();
            *count += 1;
            answer = if *count == 1 { Answer::Lose } else { Answer::Refuse };
        }
        async move { answer }.boxed()
    })
    .await;
    for (command, key) in [("release", "in/malware"), ("rescan", "in/ü b.pdf")] {
        let output = run(&aws, &[command, &address(&aws, key)], &[("AWS_ENDPOINT_URL_S3", &proxy.url)]).await;
        assert_eq!(output.status.code(), Some(0), "{command}: {}", complaint(&output));
        assert_eq!(versions(&aws, &aws.clean, key).await, (1, 0), "{command}");
        assert_eq!(versions(&aws, &aws.quarantine, &at(&aws, key)).await, (0, 0), "{command}");
    }
    // Here, something came to the destination in between.
    let refusing = Proxy::start(|call| {
        let answer = if call.operation == "CopyObject" { Answer::Refuse } else { Answer::Forward };
        async move { answer }.boxed()
    })
    .await;
    let output = run(&aws, &["release", &address(&aws, "in/ten")], &[("AWS_ENDPOINT_URL_S3", &refusing.url)]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(aws.get(&aws.quarantine, &at(&aws, "in/ten")).await.is_some());
}

/// As `clamgate enqueue` puts them on the queue.
#[tokio::test]
async fn the_service_rescans_what_is_on_the_queue() {
    let aws = quarantined(true).await;
    for key in KEYS {
        aws.send(&json!({"objects": [{"bucket": aws.quarantine, "key": at(&aws, key)}]}).to_string()).await;
    }
    let _service = Service::start(&aws, &[("CLAMGATE_ACTIONS__QUARANTINE_TO", &quarantine_to(&aws))]).await;
    let reports = aws.reports(KEYS.len()).await;
    aws.until_drained().await;
    assert!(reports.iter().all(|report| report["source"]["bucket"] == aws.uploads));
    let left: Vec<String> = ["in/malware", "in/taken"].map(|key| at(&aws, key)).into();
    assert_eq!(aws.keys(&aws.quarantine).await, left);
    assert_eq!(aws.keys(&aws.clean).await, ["in/taken", "in/ten", "in/ü b.pdf"]);
}

#[tokio::test]
async fn operators_use_http_with_a_token_of_their_own() {
    let aws = quarantined(false).await;
    let (token, admin) = ("0123456789abcdef", "fedcba9876543210");
    let settings = [
        ("CLAMGATE_ACTIONS__QUARANTINE_TO", quarantine_to(&aws)),
        ("CLAMGATE_HTTP__ENABLED", "true".to_owned()),
        ("CLAMGATE_HTTP__LISTEN", "127.0.0.1:0".to_owned()),
        ("CLAMGATE_HTTP__TOKENS", format!("['{token}']")),
        ("CLAMGATE_HTTP__ADMIN_TOKENS", format!("['{admin}']")),
    ];
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let service = Service::start(&aws, &settings).await;
    let url = wait::until("the API", || async { Some(service.http_address().await) }).await;
    let ask = async |what: &str, token: &str, body: Value| {
        let header = format!("Authorization: Bearer {token}");
        let url = format!("{url}/v1/quarantine/{what}");
        curl(&["-H", &header, "-H", "Content-Type: application/json", "-d", &body.to_string(), &url]).await
    };
    let object = |key: &str| json!({"bucket": aws.quarantine, "key": at(&aws, key)});
    for what in ["rescan", "release"] {
        assert_eq!(ask(what, token, object("in/malware")).await.error(), (401, "unauthorized".to_owned()), "{what}");
        assert_eq!(ask(what, admin, json!({"bucket": aws.uploads, "key": "k"})).await.error(), (403, "forbidden".to_owned()));
        assert_eq!(ask(what, admin, object("in/missing")).await.error(), (404, "not_found".to_owned()));
        assert_eq!(ask(what, admin, json!({"bucket": aws.quarantine})).await.status, 400);
    }
    let report = ask("rescan", admin, object("in/malware")).await.json();
    assert_eq!((&report["status"], &report["source"]["key"]), (&json!("INFECTED"), &json!("in/malware")));
    let report = ask("rescan", admin, object("in/ü b.pdf")).await.json();
    assert_eq!((&report["status"], &report["actions"][0]["action"]), (&json!("CLEAN"), &json!("promote")));
    assert_eq!(ask("release", admin, object("in/taken")).await.error(), (409, "stays".to_owned()));
    let released = ask("release", admin, object("in/malware")).await;
    assert_eq!((released.status, &released.json()["to"]), (200, &json!(format!("s3://{}/in/malware", aws.clean))));
    let logged = service.until_logged("object released from quarantine", 1).await.remove(0);
    assert_eq!((&logged["status"], &logged["level"]), (&json!("INFECTED"), &json!("WARN")));
    let log = service.log_text();
    assert!(!log.contains(admin), "tokens are not logged");
}

/// Without operators' tokens, not even the scans' tokens open these routes.
#[tokio::test]
async fn nobody_releases_by_default() {
    let (_service, url) = Service::start_http(&[]).await;
    for what in ["rescan", "release"] {
        let answer = curl(&["-d", r#"{"bucket":"b","key":"k"}"#, &format!("{url}/v1/quarantine/{what}")]).await;
        assert_eq!(answer.error(), (401, "unauthorized".to_owned()));
    }
}
