//! Sinks: their configuration, and what their tests share.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use clamgate::report::{About, Notice, ScanReport, Sink};
use serde_json::{Value, json};

use crate::aws::Aws;
use crate::service::clamgate;

pub const SECRET: &str = "hunter2-hunter2-hunter2";
pub const KEY: &str = "3d844edf-8d35-48ac-975b-e847b4f122b0";

/// What Python prints: `input` is what the code finds as `given`.
pub fn python(code: &str, input: &Value) -> String {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let code = format!("import json, sys\ngiven = json.load(sys.stdin)\n{code}");
    let mut child = Command::new(program).args(["-c", &code]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{code}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Uploads with metadata.
pub async fn upload(aws: &Aws, key: &str, body: Vec<u8>, metadata: &[(&str, &str)]) {
    let mut request = aws.s3.put_object().bucket(&aws.uploads).key(key).content_type("text/plain");
    for (name, value) in metadata {
        request = request.metadata(*name, *value);
    }
    request.body(ByteStream::from(body)).send().await.unwrap();
}

/// A report for sinks that are asked directly.
pub fn report(status: &str) -> ScanReport {
    serde_json::from_value(json!({
        "schema": "clamgate.scan/1", "scan_id": "0123456789abcdef0123456789abcdef", "status": status, "signatures": ["Win.Test"],
        "reason": null, "detail": null, "target": {"kind": "s3", "bucket": "b", "key": "in/a b.pdf", "version_id": "v", "etag": "e", "size": 68},
        "sha256": "00", "definitions": {"version": 1, "built_at": null, "signatures": 8, "fingerprint": "f"},
        "engine": {"libclamav": "1.4.6", "clamgate": "0.1.0"}, "scanned_at": "2026-10-14T17:46:40.123Z",
        "timings_ms": {"queued": 1.0, "fetch": 1.0, "scan": 1.0, "act": 1.0, "total": 4.0}, "actions": [],
    }))
    .unwrap()
}

/// How one attempt ends: delivered, or whether to try again, when, and whether there is anybody to tell at all; and what is said.
pub async fn attempt(sink: &dyn Sink, about: &About) -> Result<(), (bool, Option<u64>, bool, String)> {
    let report = report("INFECTED");
    let told = tokio::time::timeout(Duration::from_secs(180), sink.deliver(&Notice { report: &report, about })).await;
    told.expect("the attempt has no end").map_err(|error| {
        let after = error.retry_after.map(|pause| pause.as_secs());
        (error.can_retry, after, error.is_pointless, error.message)
    })
}

pub async fn sdk(endpoint: &str) -> aws_config::SdkConfig {
    aws_config::defaults(aws_config::BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region("us-east-1")
        .credentials_provider(aws_sdk_s3::config::Credentials::new("test", "test", None, None, "test"))
        .load()
        .await
}

#[test]
fn check_config_shows_no_secret_and_takes_the_pages_examples() {
    let dir = tempfile::tempdir().unwrap();
    let check = |text: &str| {
        let file = dir.path().join("clamgate.toml");
        fs::write(&file, text).unwrap();
        let output = clamgate().arg("check-config").arg("--config").arg(&file).output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    for page in ["webhook.md", "email.md"] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ways-out").join(page)).unwrap();
        let examples: Vec<&str> = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
        assert_eq!(examples.len(), 2, "{page}");
        for example in examples {
            let (code, shown) = check(example);
            assert_eq!(code, Some(0), "{shown}");
            for secret in ["a long secret", KEY] {
                assert!(!shown.contains(secret), "{shown}");
            }
            assert_eq!(shown.contains("********"), example.contains("secret = ") || example.contains("api_key"), "{shown}");
        }
    }
    let header = format!("[report.sinks.a.webhook]\nurl = 'https://a.example/'\nheaders = {{ authorization = '{SECRET}' }}\n");
    let (code, shown) = check(&header);
    assert!(code == Some(0) && shown.contains("authorization") && !shown.contains(SECRET), "{shown}");

    for (text, problem) in [
        ("webhook = { url = 'http://a.example/' }", "webhook.url must begin with https://"),
        ("webhook = { url = 'https://a.example/', secret = 'short' }", "webhook.secret must have at least 16"),
        ("webhook = { url = 'https://a.example/', headers = { x-clamgate-signature = 'x' } }", "is set by this service"),
        ("webhook = { url = 'https://a.example/', headers = { Host = 'x' } }", "headers.host is set by this service"),
        ("webhook = { url = 'https://a.example/', upscan = {} }", "means nothing without form"),
        ("webhook = { url = 'https://a.example/', form = 'upscan', upscan = { download_url = 'https://{x}' } }", "{x}"),
        ("webhook = { url = 'https://a.example/', form = 'upscan', upscan = { download_url_secs = 604801 } }", "a week"),
        ("ses = { from = 'a@b.example', to = { address = 'a@b.example' }, subject = '{x}', body = 'b' }", "nothing fills: {x}"),
        ("ses = { from = 'a@b.example', to = { address = 'a@b.example' }, subject = \"a\\nb\", body = 'b' }", "one line"),
        ("ses = { from = 'a@b.example', to = { address = 'a@b.example' }, subject = 's', body = '{' }", "without a partner"),
        (
            "sqs = { queue_url = 'http://q/' }\nwebhook = { url = 'https://a.example/' }",
            "exactly one of: event_bridge, notify, postgres, s3, ses, sns, sqs, webhook",
        ),
    ] {
        let (code, shown) = check(&format!("[report.sinks.a]\n{text}\n"));
        assert!(code == Some(64) && shown.contains(problem) && shown.contains("report.sinks.a"), "{text}: {shown}");
        assert_eq!(shown.lines().count(), 2, "one mistake: {shown}");
    }
}
