//! Verdicts in the tags of other scanners, several at once, and what happens when they do not fit.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{Tag, Tagging};
use serde_json::{Value, json};

use crate::aws::{Aws, Setup};
use crate::samples::{self, EICAR_NAME, eicar};
use crate::service::Service;
use crate::wait;

/// Every dialect, in the order of `tests/data/dialects`.
const ALL: [&str; 7] =
    ["aws-s3-virusscan", "bucket-antivirus-function", "bucketav", "cdk-serverless-clamscan", "clamgate", "guardduty", "macpro"];

/// Objects stay where they are.
const STAY: [(&str, &str); 2] = [("CLAMGATE_ACTIONS__PROMOTE_TO", ""), ("CLAMGATE_ACTIONS__QUARANTINE_TO", "")];

/// What the scanner is known to write; the file names its source.
fn recorded(dialect: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/dialects/{dialect}.json"));
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn with(extra: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    STAY.iter().chain(extra).copied().collect()
}

async fn put(aws: &Aws, key: &str, body: Vec<u8>, tagging: &str) {
    let request = aws.s3.put_object().bucket(&aws.uploads).key(key).body(ByteStream::from(body));
    request.set_tagging(Some(tagging.to_owned()).filter(|text| !text.is_empty())).send().await.unwrap();
}

async fn tags(aws: &Aws, key: &str) -> BTreeMap<String, String> {
    aws.get(&aws.uploads, key).await.unwrap().tags
}

/// What may vary, as what it is: times, names of signatures, our own ids.
fn shape(tags: BTreeMap<String, String>) -> Value {
    let shape_of = |name: &str, value: String| match name {
        "av-timestamp" => {
            let digits = |c: char| if c.is_ascii_digit() { '0' } else { c };
            value.chars().map(digits).collect()
        }
        "virusScanTimestamp" => {
            assert!(value.parse::<u64>().is_ok_and(|ms| (1_600_000_000_000..10_000_000_000_000).contains(&ms)), "{value}");
            "milliseconds".to_owned()
        }
        "clamgate-scan-id" | "clamgate-definitions" => "ours".to_owned(),
        _ => value.replace(EICAR_NAME, "SIGNATURE"),
    };
    tags.into_iter()
        .map(|(name, value)| (name.clone(), Value::String(shape_of(&name, value))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[tokio::test]
async fn each_dialect_says_what_its_scanner_says() {
    for dialect in ALL {
        let aws = Aws::new().await;
        let chosen = format!("[\"{dialect}\"]");
        let mut settings = STAY.to_vec();
        settings.push(("CLAMGATE_ACTIONS__TAG_DIALECTS", &chosen));
        let _service = Service::start(&aws, &settings).await;
        for (status, body) in
            [("CLEAN", b"hello world".to_vec()), ("INFECTED", eicar()), ("UNSCANNABLE", samples::encrypted_zip("a", b"x"))]
        {
            put(&aws, status, body, "").await;
        }
        aws.until_drained().await;
        let recorded = recorded(dialect);
        for status in ["CLEAN", "INFECTED", "UNSCANNABLE"] {
            assert_eq!(shape(tags(&aws, status).await), recorded[status], "{dialect} {status}");
        }
        assert_eq!(aws.reports(3).await.len(), 3);
    }
}

#[test]
fn every_example_names_its_source() {
    for dialect in ALL {
        let recorded = recorded(dialect);
        assert!(recorded["source"].as_str().is_some_and(|source| source.len() > 10), "{dialect}");
    }
}

/// A rescan replaces what was said before, in every dialect that is configured, and nothing else.
#[tokio::test]
async fn several_at_once_beside_the_objects_own() {
    for versioned in [false, true] {
        let aws = Aws::with(Setup { versioned, receives: 5 }).await;
        let settings = with(&[("CLAMGATE_ACTIONS__TAG_DIALECTS", r#"["guardduty", "macpro", "clamgate"]"#)]);
        let _service = Service::start(&aws, &settings).await;
        let earlier = "team=a%20b&GuardDutyMalwareScanStatus=NO_THREATS_FOUND&virusScanStatus=CLEAN&virusScanTimestamp=1&\
             clamgate-status=CLEAN&clamgate-detail=x&av-status=CLEAN";
        put(&aws, "k", eicar(), earlier).await;
        aws.until_drained().await;
        let expected = json!({
            "team": "a b",
            "av-status": "CLEAN",
            "GuardDutyMalwareScanStatus": "THREATS_FOUND",
            "virusScanStatus": "INFECTED",
            "virusScanTimestamp": "milliseconds",
            "clamgate-status": "INFECTED",
            "clamgate-detail": "SIGNATURE",
            "clamgate-scan-id": "ours",
            "clamgate-definitions": "ours",
        });
        let first = tags(&aws, "k").await;
        assert_eq!(first["clamgate-scan-id"], aws.reports(1).await[0]["scan_id"].as_str().unwrap());
        assert_eq!(shape(first), expected);
        let rescan = format!(r#"{{"objects":[{{"bucket":"{}","key":"k"}}]}}"#, aws.uploads);
        aws.send(&rescan).await;
        assert_eq!(aws.reports(1).await[0]["actions"], json!([{"action": "tag", "outcome": "done"}]));
        aws.until_drained().await;
        assert_eq!(shape(tags(&aws, "k").await), expected);
    }
}

#[tokio::test]
async fn a_status_without_room_is_a_failed_step_and_no_stale_clean_stays() {
    let aws = Aws::new().await;
    let settings = with(&[("CLAMGATE_ACTIONS__TAG_DIALECTS", r#"["clamgate", "guardduty", "bucketav"]"#)]);
    let _service = Service::start(&aws, &settings).await;
    let own = |number: usize| (0..number).map(|n| format!("t{n}=v")).collect::<Vec<_>>().join("&");
    put(&aws, "fits", eicar(), &own(7)).await;
    put(&aws, "does not fit", eicar(), &format!("{}&bucketav=clean&GuardDutyMalwareScanStatus=NO_THREATS_FOUND", own(8))).await;
    put(&aws, "full", b"hello world".to_vec(), &own(10)).await;
    let reports = aws.reports(3).await;
    aws.until_drained().await;
    for (key, own, said) in [
        (
            "fits",
            7,
            &[("clamgate-status", "INFECTED"), ("GuardDutyMalwareScanStatus", "THREATS_FOUND"), ("bucketav", "infected")][..],
        ),
        ("does not fit", 8, &[("clamgate-status", "INFECTED"), ("GuardDutyMalwareScanStatus", "THREATS_FOUND")]),
        ("full", 10, &[]),
    ] {
        let mut expected: BTreeMap<_, _> = said.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        expected.extend((0..own).map(|n| (format!("t{n}"), "v".to_owned())));
        assert_eq!(tags(&aws, key).await, expected, "{key}");
        let report = reports.iter().find(|report| report["target"]["key"] == key).unwrap();
        let step = &report["actions"][0];
        assert_eq!(step["outcome"], if key == "fits" { "done" } else { "failed" }, "{report}");
        if key != "fits" {
            let detail = step["detail"].as_str().unwrap();
            assert!(detail.contains(&format!("{own} tags of its own, 3 more are needed")), "{detail}");
            assert!(detail.contains("actions.tag_dialects"), "{detail}");
        }
    }
}

/// An object that is full of tags is quarantined all the same, and the report says what its copy lacks.
#[tokio::test]
async fn a_copy_without_room_for_its_status_is_told() {
    let aws = Aws::new().await;
    let _service = Service::start(&aws, &[]).await;
    let own: Vec<_> = (0..10).map(|n| format!("t{n}=v")).collect();
    put(&aws, "k", eicar(), &own.join("&")).await;
    let report = aws.reports(1).await.remove(0);
    aws.until_drained().await;
    assert_eq!(aws.get(&aws.quarantine, "k").await.unwrap().tags.len(), 10);
    let steps: Vec<_> = report["actions"].as_array().unwrap().iter().map(|step| (&step["action"], &step["outcome"])).collect();
    assert_eq!(steps, [(&json!("quarantine"), &json!("done")), (&json!("tag"), &json!("failed"))]);
}

#[tokio::test]
async fn an_object_is_tagged_as_being_scanned_until_it_is_judged() {
    for versioned in [false, true] {
        let aws = Aws::with(Setup { versioned, receives: 5 }).await;
        let settings = with(&[
            ("CLAMGATE_ACTIONS__TAG_IN_PROGRESS", "true"),
            ("CLAMGATE_ACTIONS__TAG_DIALECTS", r#"["clamgate", "cdk-serverless-clamscan", "guardduty"]"#),
            // Both have the same content.
            ("CLAMGATE_SCAN__CACHED_VERDICTS", "0"),
        ]);
        let service = Service::start(&aws, &settings).await;
        put(&aws, "new", samples::slow(16), "team=a").await;
        put(&aws, "judged", samples::slow(16), "clamgate-status=INFECTED").await;
        wait::until("two scans under way", || async { service.health().await.filter(|health| health.scans > 1) }).await;
        let in_progress = json!({"team": "a", "clamgate-status": "IN_PROGRESS", "scan-status": "IN PROGRESS"});
        assert_eq!(json!(tags(&aws, "new").await), in_progress);
        assert_eq!(json!(tags(&aws, "judged").await), json!({"clamgate-status": "INFECTED"}));
        aws.until_drained().await;
        for (key, team) in [("new", Some("a")), ("judged", None)] {
            let tags = tags(&aws, key).await;
            let value = |name: &str| tags.get(name).map(String::as_str);
            assert_eq!(value("clamgate-status"), Some("CLEAN"), "{key}");
            assert_eq!(value("scan-status"), Some("CLEAN"), "{key}");
            assert_eq!(value("GuardDutyMalwareScanStatus"), Some("NO_THREATS_FOUND"), "{key}");
            assert_eq!(value("team"), team, "{key}");
        }
    }
}

/// When no delivery comes to a verdict, nobody waits for ever; what an earlier scan said stays.
#[tokio::test]
async fn being_scanned_becomes_failed_in_the_end() {
    let aws = Aws::with(Setup { versioned: false, receives: 2 }).await;
    let settings = with(&[
        ("CLAMGATE_ACTIONS__TAG_IN_PROGRESS", "true"),
        ("CLAMGATE_ACTIONS__TAG_DIALECTS", r#"["clamgate", "cdk-serverless-clamscan"]"#),
    ]);
    let _service = Service::start_after(&aws, &settings, "ulimit -f 1024; trap '' XFSZ").await;
    let too_large = samples::zip(&[("padding", &samples::noise(3_000_000))]);
    put(&aws, "new", too_large.clone(), "").await;
    put(&aws, "judged", too_large, "clamgate-status=CLEAN&scan-status=CLEAN").await;
    // Between the deliveries it is still being scanned.
    wait::until("being scanned", || async {
        (tags(&aws, "new").await.get("clamgate-status").map(String::as_str) == Some("IN_PROGRESS")).then_some(())
    })
    .await;
    wait::until("two dead letters", || async { (aws.depth(&aws.dead_letters).await.0 == 2).then_some(()) }).await;
    assert!(aws.reports(2).await.iter().all(|report| report["status"] == "FAILED"));
    let failed = tags(&aws, "new").await;
    let value = |name: &str| failed.get(name).map(String::as_str);
    assert_eq!((value("clamgate-status"), value("scan-status")), (Some("FAILED"), Some("ERROR")));
    assert_eq!(json!(tags(&aws, "judged").await), json!({"clamgate-status": "CLEAN", "scan-status": "CLEAN"}));
}

/// A rule that skips an object takes being scanned for no verdict, and says so in the words that there are.
#[tokio::test]
async fn what_is_skipped_is_said_in_each_dialect() {
    let aws = Aws::new().await;
    let settings = with(&[
        ("CLAMGATE_ACTIONS__TAG_DIALECTS", r#"["clamgate", "macpro", "guardduty", "cdk-serverless-clamscan"]"#),
        ("CLAMGATE_QUEUE__FILTERS", r#"[{ name = "thumbs", skip = { prefix = "t/" }, tag = true }]"#),
    ]);
    let _service = Service::start(&aws, &settings).await;
    put(&aws, "t/new", eicar(), "scan-status=IN%20PROGRESS").await;
    put(&aws, "t/judged", eicar(), "virusScanStatus=INFECTED").await;
    aws.until_drained().await;
    let skipped = json!({
        "clamgate-status": "SKIPPED",
        "clamgate-detail": "thumbs",
        "virusScanStatus": "SKIPPED",
        "GuardDutyMalwareScanStatus": "UNSUPPORTED",
    });
    assert_eq!(json!(tags(&aws, "t/new").await), skipped);
    assert_eq!(json!(tags(&aws, "t/judged").await), json!({"virusScanStatus": "INFECTED"}));
}

/// Versions are scanned in any order. Without our own tags, which name the scan, the tags at the destination looked like
/// those of the copy to be made: it was not made, and the original removed.
#[tokio::test]
async fn a_second_clean_version_was_lost_behind_the_first_ones_tags() {
    let aws = Aws::with(Setup { versioned: true, receives: 5 }).await;
    let _service = Service::start(&aws, &[("CLAMGATE_ACTIONS__TAG_DIALECTS", r#"["guardduty"]"#)]).await;
    for body in ["first", "second"] {
        aws.upload("k", body).await;
        aws.until_drained().await;
        let stored = aws.get(&aws.clean, "k").await.unwrap();
        assert_eq!(stored.body, body.as_bytes());
        assert_eq!(stored.tags["GuardDutyMalwareScanStatus"], "NO_THREATS_FOUND");
    }
}

/// `enqueue --untagged` looks at the configured tags.
#[tokio::test]
async fn what_lacks_a_verdict_in_a_new_dialect_is_enqueued() {
    let aws = Aws::new().await;
    let (bucket, source) = aws.existing(["new", "ours", "both", "in progress"].map(str::to_owned)).await;
    for (key, tags) in [
        ("ours", &[("clamgate-status", "CLEAN")][..]),
        ("both", &[("clamgate-status", "CLEAN"), ("scan-status", "CLEAN")]),
        ("in progress", &[("clamgate-status", "IN_PROGRESS"), ("scan-status", "IN PROGRESS")]),
    ] {
        let set = tags.iter().map(|&(name, value)| Tag::builder().key(name).value(value).build().unwrap()).collect();
        let tagging = Tagging::builder().set_tag_set(Some(set)).build().unwrap();
        aws.s3.put_object_tagging().bucket(&bucket).key(key).tagging(tagging).send().await.unwrap();
    }
    for (dialects, expected) in
        [(r#"["clamgate"]"#, 2), (r#"["clamgate", "cdk-serverless-clamscan"]"#, 3), (r#"["cdk-serverless-clamscan"]"#, 3)]
    {
        let mut command = crate::service::clamgate();
        command.envs(crate::aws::environment()).env("CLAMGATE_ACTIONS__TAG_DIALECTS", dialects);
        command.args(["enqueue", &source, "--queue-url", &aws.queue, "--untagged"]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let messages = aws.take_all().await;
        let objects = |body: &String| serde_json::from_str::<Value>(body).unwrap()["objects"].as_array().unwrap().len();
        assert_eq!(messages.iter().map(objects).sum::<usize>(), expected, "{dialects}");
    }
}
