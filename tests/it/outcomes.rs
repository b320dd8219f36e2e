//! What becomes of an object: each verdict, each disposal, with versions and without.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{Mutex, OnceLock};

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ServerSideEncryption, ServerSideEncryptionByDefault, ServerSideEncryptionConfiguration, ServerSideEncryptionRule,
};
use futures_util::FutureExt;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::aws::{Aws, Setup};
use crate::proxy::{Answer, Proxy};
use crate::samples::{self, EICAR_NAME, eicar};
use crate::service::Service;
use crate::wait;

/// One rule a disposal; the place in quarantine is made by a template.
const RULES: &str = r#"[
    {prefix = "promote/", suspicious = "promote", unscannable = "promote"},
    {prefix = "quarantine/", suspicious = "quarantine", unscannable = "quarantine"},
    {prefix = "delete/", infected = "delete", suspicious = "delete", unscannable = "delete"},
    {prefix = "replace/", infected = "replace", suspicious = "replace", unscannable = "replace"},
    {prefix = "leave/", clean = "leave", infected = "leave", suspicious = "leave", unscannable = "leave"},
]"#;

const PLACEHOLDER: &str = "removed";

/// The disposal and the verdict; where the object is then; its metadata; versions left where it was uploaded; what the report says.
///
/// Metadata: `untouched` is what the uploader wrote, forged notes included; `own` is the same without these; `noted` has true notes instead;
/// `notes` is nothing else than notes. `CLEAN` is never anything but promoted or left, `INFECTED` is never promoted.
const OUTCOMES: [(&str, &str, &str, &str, usize, &str); 21] = [
    ("promote", "CLEAN", "clean", "own", 0, "promote done"),
    ("promote", "SUSPICIOUS", "clean", "own", 0, "promote done"),
    ("promote", "UNSCANNABLE", "clean", "own", 0, "promote done"),
    ("promote", "FAILED", "uploads", "untouched", 1, "tag done"),
    ("quarantine", "INFECTED", "quarantine", "noted", 0, "quarantine done"),
    ("quarantine", "SUSPICIOUS", "quarantine", "noted", 0, "quarantine done"),
    ("quarantine", "UNSCANNABLE", "quarantine", "noted", 0, "quarantine done"),
    ("quarantine", "FAILED", "uploads", "untouched", 1, "tag done"),
    ("delete", "INFECTED", "nowhere", "", 0, "tag done, delete follows"),
    ("delete", "SUSPICIOUS", "nowhere", "", 0, "tag done, delete follows"),
    ("delete", "UNSCANNABLE", "nowhere", "", 0, "tag done, delete follows"),
    ("delete", "FAILED", "uploads", "untouched", 1, "tag done"),
    ("replace", "INFECTED", "placeholder", "notes", 1, "tag done, replace follows"),
    ("replace", "SUSPICIOUS", "placeholder", "notes", 1, "tag done, replace follows"),
    ("replace", "UNSCANNABLE", "placeholder", "notes", 1, "tag done, replace follows"),
    ("replace", "FAILED", "uploads", "untouched", 1, "tag done"),
    ("leave", "CLEAN", "uploads", "untouched", 1, "tag done"),
    ("leave", "INFECTED", "uploads", "untouched", 1, "tag done"),
    ("leave", "SUSPICIOUS", "uploads", "untouched", 1, "tag done"),
    ("leave", "UNSCANNABLE", "uploads", "untouched", 1, "tag done"),
    ("leave", "FAILED", "uploads", "untouched", 1, "tag done"),
];

/// A content with each verdict, and the detail in tags and notes. `FAILED` is what cannot be fetched.
fn content(status: &str) -> (Vec<u8>, Option<&'static str>) {
    static ZIP: OnceLock<Vec<u8>> = OnceLock::new();
    match status {
        "INFECTED" => (eicar(), Some(EICAR_NAME)),
        "SUSPICIOUS" => (b"a dubious tool".to_vec(), Some("PUA.Tool.UNOFFICIAL")),
        // Encrypted in another way each time.
        "UNSCANNABLE" => (ZIP.get_or_init(|| samples::encrypted_zip("salaries", b"x")).clone(), Some("ENCRYPTED")),
        _ => (b"harmless".to_vec(), None),
    }
}

#[tokio::test]
async fn each_object_ends_in_its_place_with_versions() {
    each_object_ends_in_its_place(true).await;
}

#[tokio::test]
async fn each_object_ends_in_its_place_without_versions() {
    each_object_ends_in_its_place(false).await;
}

async fn each_object_ends_in_its_place(versioned: bool) {
    let aws = Aws::with(Setup { versioned, receives: 2 }).await;
    let proxy = Proxy::start(|call| {
        let is_denied = call.operation == "GetObject" && call.key.ends_with("FAILED");
        async move { if is_denied { Answer::Deny } else { Answer::Forward } }.boxed()
    })
    .await;
    let settings = [
        ("AWS_ENDPOINT_URL_S3", proxy.url.as_str()),
        ("CLAMGATE_ACTIONS__QUARANTINE_TO", &format!("s3://{}/{{bucket}}/{{key}}", aws.quarantine)),
        ("CLAMGATE_ACTIONS__PLACEHOLDER", PLACEHOLDER),
        ("CLAMGATE_ACTIONS__PLACEHOLDER_CONTENT_TYPE", "text/x-removed"),
        ("CLAMGATE_ACTIONS__RULES", RULES),
        ("CLAMGATE_DEFINITIONS__PUA", "true"),
    ];
    let mut service = Service::new(&aws, &settings);
    let hex: String = b"a dubious tool".iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(service.database("own.ndb"), format!("PUA.Tool:0:*:{hex}\n")).unwrap();
    for (disposal, status, ..) in OUTCOMES {
        let put = aws.s3.put_object().bucket(&aws.uploads).key(format!("{disposal}/{status}"));
        let put = put.body(ByteStream::from(content(status).0)).content_type("text/x-own").tagging("team=x");
        put.metadata("owner", "somebody").metadata("clamgate-source", "s3://forged/k").send().await.unwrap();
    }
    service.spawn();
    service.until_ready().await;
    let reports = aws.reports(OUTCOMES.len()).await;
    let failed = OUTCOMES.iter().filter(|outcome| outcome.1 == "FAILED").count();
    wait::until("everything done or given up", || async {
        let dead = usize::try_from(aws.depth(&aws.dead_letters).await.0).unwrap();
        (aws.depth(&aws.queue).await == (0, 0) && dead == failed).then_some(())
    })
    .await;
    // The placeholders' own events.
    service.until_logged("object skipped", 3).await;
    assert_eq!(aws.depth(&aws.results).await, (0, 0), "a placeholder was reported");

    let mut wrong = Vec::new();
    for (disposal, status, place, metadata, versions, actions) in OUTCOMES {
        let key = format!("{disposal}/{status}");
        let report = reports.iter().find(|report| report["target"]["key"] == *key).unwrap();
        let expected = Outcome::expected(&aws, report, place, metadata, versions, actions);
        let found = Outcome::found(&aws, report, place).await;
        if found != expected {
            wrong.push(format!("{key}: expected {expected:#?}\nfound {found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}

/// Originals cannot be removed at their first delivery: the second one must find the copies, whatever their names are made of.
#[tokio::test]
async fn templates_name_one_place_for_each_object_at_each_delivery() {
    let aws = Aws::with(Setup { versioned: true, receives: 5 }).await;
    let attempts: Mutex<BTreeMap<String, u32>> = Mutex::default();
    let proxy = Proxy::start(move |call| {
        // Four attempts of the SDK's.
        let is_failing = call.operation == "DeleteObject" && {
            let mut attempts = attempts.lock().unwrap();
            let count = attempts.entry(call.key).or_default();
            *count += 1;
            *count <= 4
        };
        async move { if is_failing { Answer::Fail } else { Answer::Forward } }.boxed()
    })
    .await;
    let rule = |prefix: &str, template: &str| {
        let [promote, quarantine] = [&aws.clean, &aws.quarantine].map(|bucket| format!("s3://{bucket}/{template}"));
        format!("{{prefix = '{prefix}', promote_to = '{promote}', quarantine_to = '{quarantine}'}}")
    };
    let rules = [rule("date/", "d/{date}/{key}"), rule("sha256/", "s/{sha256}.bin"), rule("uuid/", "u/{uuid}")];
    let rules = format!("[{}]", rules.join(", "));
    let mut service =
        Service::new(&aws, &[("AWS_ENDPOINT_URL_S3", proxy.url.as_str()), ("CLAMGATE_ACTIONS__RULES", rules.as_str())]);
    for key in ["date/bad", "sha256/bad", "uuid/bad", "uuid/other"] {
        aws.upload(key, eicar()).await;
    }
    for key in ["date/good", "sha256/good", "uuid/good"] {
        aws.upload(key, b"harmless".to_vec()).await;
    }
    let head = aws.s3.head_object().bucket(&aws.uploads).key("date/good").send().await.unwrap();
    let date = head.last_modified().unwrap().to_string()[..10].to_owned();
    service.spawn();
    service.until_ready().await;
    // Two for each object.
    let reports = aws.reports(14).await;
    aws.until_drained().await;
    assert!(aws.keys(&aws.uploads).await.is_empty());

    let mut told = BTreeSet::new();
    for report in &reports {
        told.insert(report["actions"][0]["destination"].as_str().unwrap().to_owned());
    }
    let mut found = BTreeSet::new();
    for (bucket, name, status, content, uuids) in
        [(&aws.quarantine, "bad", "INFECTED", eicar(), 2), (&aws.clean, "good", "CLEAN", b"harmless".to_vec(), 1)]
    {
        let keys = aws.keys(bucket).await;
        let digest: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(keys[..2], [format!("d/{date}/date/{name}"), format!("s/{digest}.bin")]);
        assert!(keys.len() == 2 + uuids && keys[2..].iter().all(|key| Uuid::try_parse(&key[2..]).is_ok()), "{keys:?}");
        for key in keys {
            let stored = aws.get(bucket, &key).await.unwrap();
            assert_eq!((stored.status(), &stored.body), (Some(status), &content), "{key}");
            assert_eq!(versions(&aws, bucket, &key).await, (1, 0), "{key}: a second copy");
            found.insert(format!("s3://{bucket}/{key}"));
        }
    }
    assert_eq!(told, found);
}

/// What is written without a word about encryption gets what its bucket has by default.
#[tokio::test]
async fn placeholders_and_copies_are_encrypted_as_their_bucket_says() {
    let aws = Aws::new().await;
    for (bucket, key_id) in [(&aws.uploads, "key-of-uploads"), (&aws.clean, "key-of-clean")] {
        let by_default = ServerSideEncryptionByDefault::builder().sse_algorithm(ServerSideEncryption::AwsKms);
        let by_default = by_default.kms_master_key_id(key_id).build().unwrap();
        let rule = ServerSideEncryptionRule::builder().apply_server_side_encryption_by_default(by_default).build();
        let configuration = ServerSideEncryptionConfiguration::builder().rules(rule).build().unwrap();
        let put = aws.s3.put_bucket_encryption().bucket(bucket);
        put.server_side_encryption_configuration(configuration).send().await.unwrap();
    }
    let settings = [("CLAMGATE_ACTIONS__INFECTED", "replace"), ("CLAMGATE_ACTIONS__PLACEHOLDER", PLACEHOLDER)];
    let _service = Service::start(&aws, &settings).await;
    let put = async |key: &str, body: Vec<u8>| {
        let put = aws.s3.put_object().bucket(&aws.uploads).key(key).server_side_encryption(ServerSideEncryption::Aes256);
        put.body(ByteStream::from(body)).send().await.unwrap();
    };
    put("bad", eicar()).await;
    put("good", b"harmless".to_vec()).await;
    aws.until_drained().await;
    assert_eq!(aws.get(&aws.uploads, "bad").await.unwrap().body, PLACEHOLDER.as_bytes());
    for (bucket, key, key_id) in [(&aws.uploads, "bad", "key-of-uploads"), (&aws.clean, "good", "key-of-clean")] {
        let head = aws.s3.head_object().bucket(bucket).key(key).send().await.unwrap();
        let found = (head.server_side_encryption(), head.ssekms_key_id());
        assert_eq!(found, (Some(&ServerSideEncryption::AwsKms), Some(key_id)), "{key}");
    }
}

/// Everything about an object that matters afterwards.
#[derive(Debug, PartialEq)]
struct Outcome {
    status: String,
    /// What the report says.
    actions: String,
    /// Where keys of this name are.
    places: Vec<String>,
    /// Versions and delete markers where it was uploaded, and versions at its destination.
    versions: (usize, usize, usize),
    body: Option<String>,
    content_type: Option<String>,
    tags: BTreeMap<String, String>,
    metadata: BTreeMap<String, String>,
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

impl Outcome {
    fn expected(aws: &Aws, report: &Value, place: &str, metadata: &str, versions: usize, actions: &str) -> Self {
        let text = |field: &Value| field.as_str().unwrap().to_owned();
        let target = &report["target"];
        let (key, scan_id, scanned_at) = (text(&target["key"]), text(&report["scan_id"]), text(&report["scanned_at"]));
        let status = key.rsplit('/').next().unwrap().to_owned();
        let (body, detail) = content(&status);
        let definitions = format!("0 {}", &text(&report["definitions"]["fingerprint"])[..16]);

        let mut tags = map(&[("team", "x"), ("clamgate-status", &status), ("clamgate-scan-id", &scan_id)]);
        tags.extend(detail.map(|detail| ("clamgate-detail".to_owned(), detail.to_owned())));
        if status != "FAILED" {
            tags.insert("clamgate-definitions".to_owned(), definitions);
        }
        let mut notes =
            map(&[("clamgate-status", &status), ("clamgate-scan-id", &scan_id), ("clamgate-scanned-at", &scanned_at)]);
        notes.extend(detail.map(|detail| ("clamgate-detail".to_owned(), detail.to_owned())));
        let source = format!("s3://{}/{key}", aws.uploads);
        let source = match target["version_id"].as_str() {
            Some(version) => format!("{source}?versionId={}", version.replace('-', "%2D").replace('_', "%5F")),
            None => source,
        };
        let own = map(&[("owner", "somebody")]);
        let metadata = match metadata {
            "untouched" => map(&[("owner", "somebody"), ("clamgate-source", "s3://forged/k")]),
            "own" => own,
            "noted" => own.into_iter().chain(notes).chain(map(&[("clamgate-source", &source)])).collect(),
            "notes" => notes,
            _ => BTreeMap::new(),
        };
        let is_moved = matches!(place, "clean" | "quarantine");
        let (places, body, content_type) = match place {
            "nowhere" => (vec![], None, None),
            "placeholder" => (vec!["uploads"], Some(PLACEHOLDER.to_owned()), Some("text/x-removed")),
            place => (vec![place], Some(String::from_utf8_lossy(&body).into_owned()), Some("text/x-own")),
        };
        if place == "nowhere" {
            tags.clear();
        }
        Self {
            status,
            actions: actions.to_owned(),
            places: places.into_iter().map(str::to_owned).collect(),
            versions: (versions, 0, usize::from(is_moved)),
            body,
            content_type: content_type.map(str::to_owned),
            tags,
            metadata,
        }
    }

    async fn found(aws: &Aws, report: &Value, place: &str) -> Self {
        let key = report["target"]["key"].as_str().unwrap();
        let in_quarantine = format!("{}/{key}", aws.uploads);
        let mut places = Vec::new();
        for (name, bucket, key) in
            [("uploads", &aws.uploads, key), ("clean", &aws.clean, key), ("quarantine", &aws.quarantine, &in_quarantine)]
        {
            if aws.get(bucket, key).await.is_some() {
                places.push(name.to_owned());
            }
        }
        let (bucket, place_key) = match place {
            "clean" => (&aws.clean, key),
            "quarantine" => (&aws.quarantine, in_quarantine.as_str()),
            _ => (&aws.uploads, key),
        };
        let (left, markers) = versions(aws, &aws.uploads, key).await;
        let copies = if bucket == &aws.uploads { 0 } else { versions(aws, bucket, place_key).await.0 };
        let head = aws.s3.head_object().bucket(bucket).key(place_key).send().await.ok();
        let stored = aws.get(bucket, place_key).await;
        let mut tags = stored.as_ref().map(|stored| stored.tags.clone()).unwrap_or_default();
        // Only what was copied from a bucket with versions has it.
        if tags.remove("clamgate-sequencer").is_some() {
            assert!(copies == 1 && report["target"]["version_id"].is_string(), "{key}");
        }
        let actions = report["actions"].as_array().unwrap().iter();
        let actions =
            actions.map(|action| format!("{} {}", action["action"].as_str().unwrap(), action["outcome"].as_str().unwrap()));
        Self {
            status: report["status"].as_str().unwrap().to_owned(),
            actions: actions.collect::<Vec<_>>().join(", "),
            places,
            versions: (left, markers, copies),
            body: stored.map(|stored| String::from_utf8_lossy(&stored.body).into_owned()),
            content_type: head.as_ref().and_then(|head| head.content_type().map(str::to_owned)),
            tags,
            metadata: head.and_then(|head| head.metadata).unwrap_or_default().into_iter().collect(),
        }
    }
}

/// How many versions and delete markers a key has; without versions, whether it is there.
pub async fn versions(aws: &Aws, bucket: &str, key: &str) -> (usize, usize) {
    let listed = aws.s3.list_object_versions().bucket(bucket).prefix(key).send().await.unwrap();
    let versions = listed.versions().iter().filter(|version| version.key() == Some(key)).count();
    let markers = listed.delete_markers().iter().filter(|marker| marker.key() == Some(key)).count();
    (versions, markers)
}
