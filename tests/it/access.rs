//! The least that the service must be allowed, and the policies that keep others from what is not clean.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use aws_sdk_s3::primitives::ByteStream;
use serde_json::{Value, json};

use crate::aws::{Aws, Setup, environment};
use crate::recorder::{Call, Recorder};
use crate::samples::{self, eicar};
use crate::service::{Service, clamgate};

/// What `check-config --iam-policy` prints with these settings.
fn printed(settings: &[(String, String)], arguments: &[&str]) -> (Option<i32>, Value, String) {
    let mut command = clamgate();
    command.args(["check-config", "--iam-policy"]).args(arguments).env("AWS_REGION", "us-east-1");
    command.envs(settings.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name, value)));
    let output = command.output().unwrap();
    let policy = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), policy, String::from_utf8(output.stderr).unwrap())
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// Whether a resource's ARN is meant: one that ends in `*` means all that begin so.
fn covers(pattern: &str, arn: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == arn, |beginning| arn.starts_with(beginning))
}

/// Compares a policy with what was called: nothing that it does not allow, and nothing allowed that was never called but for
/// these.
fn compare(policy: &Value, calls: &BTreeSet<Call>, never_called: &[(&str, &str)]) {
    assert_eq!(policy["Version"], "2012-10-17");
    let statements = policy["Statement"].as_array().unwrap();
    for (action, arn) in calls {
        let allowed = statements.iter().any(|statement| {
            assert_eq!(statement["Effect"], "Allow");
            let resources = texts(&statement["Resource"]);
            texts(&statement["Action"]).contains(&action.as_str()) && resources.iter().any(|pattern| covers(pattern, arn))
        });
        assert!(allowed, "{action} on {arn} is not allowed by {policy:#}");
    }
    let mut unused = BTreeSet::new();
    for statement in statements {
        let resources = texts(&statement["Resource"]);
        for action in texts(&statement["Action"]) {
            let is_used = calls.iter().any(|(called, arn)| called == action && resources.iter().any(|p| covers(p, arn)));
            if !is_used {
                unused.insert((statement["Sid"].as_str().unwrap(), action));
            }
        }
    }
    assert_eq!(unused, never_called.iter().copied().collect(), "{calls:#?}");
}

/// What is only called when something goes wrong, or that S3 looks at without a call of its own.
const IN_TROUBLE: [(&str, &str); 6] = [
    // Decides whether S3 answers 404 or 403.
    ("UploadBuckets", "s3:ListBucket"),
    ("DestinationBuckets", "s3:ListBucket"),
    // A copy in parts that breaks off.
    ("Destinations", "s3:AbortMultipartUpload"),
    // A copy of another content with the same ETag is undone.
    ("Destinations", "s3:DeleteObject"),
    ("Destinations", "s3:DeleteObjectVersion"),
    // A copy that an earlier delivery made, and whose tags had no room for ours.
    ("Quarantines", "s3:GetObject"),
];

/// Everything is on, in buckets with and without versions; the calls of both together are what the policy allows.
#[tokio::test]
async fn the_printed_policy_is_what_the_service_calls() {
    let mut all_calls = BTreeSet::new();
    let mut policy = Value::Null;
    let mut buckets: Vec<String> = Vec::new();
    for versioned in [true, false] {
        let aws = Aws::with(Setup { versioned, receives: 5 }).await;
        let (recorder, endpoint) = Recorder::start(environment()[0].1).await;
        let outbox = aws.silent_bucket().await;
        let settings = [
            ("AWS_ENDPOINT_URL", endpoint),
            ("CLAMGATE_REPORT__OUTBOX", format!("s3://{outbox}/reports/")),
            ("CLAMGATE_ACTIONS__QUARANTINE_TO", format!("s3://{}/bad/", aws.quarantine)),
            ("CLAMGATE_ACTIONS__UNSCANNABLE", "leave".to_owned()),
            ("CLAMGATE_ACTIONS__MULTIPART_COPY_BYTES", "6000000".to_owned()),
            ("CLAMGATE_QUEUE__VISIBILITY_TIMEOUT_SECS", "10".to_owned()),
        ];
        let borrowed: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let service = Service::start(&aws, &borrowed).await;
        aws.upload("clean", b"hello world".to_vec()).await;
        aws.upload("in/parts", samples::noise(12_000_000)).await;
        aws.upload("left", samples::encrypted_zip("a", b"x")).await;
        let tagged = aws.s3.put_object().bucket(&aws.uploads).key("bad").body(ByteStream::from(eicar())).tagging("team=a");
        tagged.send().await.unwrap();
        let reports = aws.reports(4).await;
        aws.until_drained().await;
        // The same again: what is in the outbox is read. And a message that is handed back.
        let left = reports.iter().find(|report| report["target"]["key"] == "left").unwrap();
        let again = json!({"bucket": aws.uploads, "key": "left", "version_id": left["target"]["version_id"]});
        aws.send(&json!({"objects": [again]}).to_string()).await;
        aws.reports(1).await;
        aws.until_drained().await;
        aws.send("not understood").await;
        service.until_logged("message not understood; left for the dead-letter queue", 1).await;
        crate::wait::until("the message to be handed back", || async {
            recorder.calls().iter().any(|(action, _)| action == "sqs:ChangeMessageVisibility").then_some(())
        })
        .await;

        let settings: Vec<(String, String)> = service.settings().to_vec();
        let (code, found, stderr) = printed(&settings, &["--bucket", &aws.uploads]);
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stderr.contains(&aws.uploads), "{stderr}");
        // One test's names are as good as the other's.
        let test = aws.uploads.strip_suffix("-uploads").unwrap().to_owned();
        let rename = |arn: &str| arn.replace(&format!("{test}-"), "test-");
        all_calls.extend(recorder.calls().into_iter().map(|(action, arn)| (action, rename(&arn))));
        let found: Value = serde_json::from_str(&rename(&found.to_string())).unwrap();
        assert!(policy.is_null() || policy == found);
        policy = found;
        buckets.push(outbox);
    }
    compare(&policy, &all_calls, &IN_TROUBLE);
}

/// A service that only looks and reports is allowed nothing that changes an object.
#[tokio::test]
async fn what_is_off_is_not_allowed() {
    let aws = Aws::new().await;
    let (recorder, endpoint) = Recorder::start(environment()[0].1).await;
    let settings = [
        ("AWS_ENDPOINT_URL", endpoint.as_str()),
        ("CLAMGATE_ACTIONS__TAG", "false"),
        ("CLAMGATE_ACTIONS__PROMOTE_TO", ""),
        ("CLAMGATE_ACTIONS__QUARANTINE_TO", ""),
    ];
    let service = Service::start(&aws, &settings).await;
    aws.upload("bad", eicar()).await;
    aws.reports(1).await;
    aws.until_drained().await;
    let (_, policy, _) = printed(service.settings(), &["--bucket", &aws.uploads]);
    // Read without version here; that a message is handed back is another test's.
    let never =
        [("Queue", "sqs:ChangeMessageVisibility"), ("UploadBuckets", "s3:ListBucket"), ("Uploads", "s3:GetObjectVersion")];
    compare(&policy, &recorder.calls(), &never);
}

#[test]
fn a_policy_without_buckets_is_a_mistake() {
    for (arguments, expected) in [
        (&[][..], "--bucket"),
        (&["--bucket", "s3://b/"], "not the name of a bucket"),
        (&["--bucket", "uploads", "--kms-key", "alias/a"], "not the ARN of a KMS key"),
    ] {
        let (code, policy, stderr) = printed(&[], arguments);
        assert_eq!((code, policy), (Some(64), Value::Null), "{arguments:?}");
        assert!(stderr.contains(expected), "{stderr}");
    }
    let queue = [("CLAMGATE_QUEUE__URL".to_owned(), "http://q/".to_owned())];
    let (code, _, stderr) = printed(&queue, &["--bucket", "uploads"]);
    assert_eq!(code, Some(64));
    assert!(stderr.contains("/ACCOUNT/NAME"), "{stderr}");
}

/// A request, as a bucket policy sees it.
struct Asked<'a> {
    principal: &'a str,
    action: &'a str,
    /// The status tag that the object has.
    existing: Option<&'a str>,
    /// The tags that the request brings.
    brought: &'a [&'a str],
}

const KEY: &str = "clamgate-status";
const SCANNER: &str = "arn:aws:iam::ACCOUNT:role/SCANNER-ROLE";
const SOMEBODY: &str = "arn:aws:iam::ACCOUNT:role/somebody";

/// Whether a statement of a bucket policy is about the request
/// (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html>): a negated
/// operator holds when there is no such key, and so does no other.
fn applies(statement: &Value, asked: &Asked<'_>) -> bool {
    let actions = match &statement["Action"] {
        Value::String(one) => vec![one.as_str()],
        many => texts(many),
    };
    let mut holds = actions.contains(&asked.action);
    for (operator, keys) in statement["Condition"].as_object().into_iter().flatten() {
        for (key, wanted) in keys.as_object().unwrap() {
            let wanted = wanted.as_str().unwrap();
            let values: Vec<&str> = match key.as_str() {
                "aws:PrincipalArn" => vec![asked.principal],
                "s3:RequestObjectTagKeys" => asked.brought.to_vec(),
                key if key == format!("s3:ExistingObjectTag/{KEY}") => asked.existing.into_iter().collect(),
                other => panic!("a condition that this test does not know: {other}"),
            };
            holds &= match operator.as_str() {
                "StringEquals" | "ForAnyValue:StringEquals" => values.contains(&wanted),
                "StringNotEquals" | "ArnNotEquals" => !values.contains(&wanted),
                "Null" => values.is_empty() == (wanted == "true"),
                other => panic!("an operator that this test does not know: {other}"),
            };
        }
    }
    holds
}

#[test]
fn the_bucket_policies_let_nobody_read_what_is_not_clean_nor_say_that_it_is() {
    let (read, tag) = ("s3:GetObject", "s3:PutObjectTagging");
    for (file, others_may_tag) in [("only-clean.json", false), ("only-clean-own-tags.json", true)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/policies").join(file);
        let text = fs::read_to_string(&path).unwrap();
        let policy: Value = serde_json::from_str(&text).unwrap();
        let statements = policy["Statement"].as_array().unwrap();
        for statement in statements {
            assert_eq!((&statement["Effect"], &statement["Principal"]), (&json!("Deny"), &json!("*")), "{file}");
            assert_eq!(statement["Resource"], "arn:aws:s3:::BUCKET/*", "{file}");
        }
        for (principal, action, existing, brought, denied) in [
            (SOMEBODY, read, None, &[][..], true),
            (SOMEBODY, read, Some("CLEAN"), &[], false),
            (SOMEBODY, read, Some("clean"), &[], true),
            (SOMEBODY, read, Some("INFECTED"), &[], true),
            (SOMEBODY, read, Some("IN_PROGRESS"), &[], true),
            (SOMEBODY, "s3:GetObjectVersion", None, &[], true),
            (SOMEBODY, "s3:GetObjectVersion", Some("CLEAN"), &[], false),
            (SCANNER, read, None, &[], false),
            (SOMEBODY, "s3:PutObject", None, &[], false),
            (SOMEBODY, "s3:PutObject", None, &[KEY], true),
            (SOMEBODY, "s3:PutObject", None, &["team", KEY], true),
            (SOMEBODY, "s3:PutObject", None, &["team"], false),
            (SCANNER, "s3:PutObject", None, &[KEY], false),
            (SOMEBODY, tag, None, &[KEY], true),
            (SOMEBODY, "s3:PutObjectVersionTagging", None, &[KEY], true),
            (SOMEBODY, tag, None, &["team"], !others_may_tag),
            // That would take the verdict away.
            (SOMEBODY, tag, Some("INFECTED"), &["team"], true),
            (SOMEBODY, "s3:PutObjectVersionTagging", Some("INFECTED"), &[], true),
            (SOMEBODY, "s3:DeleteObjectTagging", Some("INFECTED"), &[], true),
            (SOMEBODY, "s3:DeleteObjectVersionTagging", Some("INFECTED"), &[], true),
            (SOMEBODY, "s3:DeleteObjectTagging", None, &[], !others_may_tag),
            (SCANNER, tag, Some("INFECTED"), &[KEY], false),
            (SCANNER, "s3:DeleteObjectTagging", Some("INFECTED"), &[], false),
        ] {
            let asked = Asked { principal, action, existing, brought };
            let found = statements.iter().any(|statement| applies(statement, &asked));
            assert_eq!(found, denied, "{file}: {principal} {action} {existing:?} {brought:?}");
        }
    }
}
