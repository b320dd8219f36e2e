//! `clamgate scan s3://…`: a task that is started for one upload, and objects below a prefix.

use std::process::Output;

use crate::aws::{self, Aws, Setup};
use crate::postgres;
use crate::samples::{self, eicar};
use crate::service::{clamgate, signatures};

/// Runs the program as a task would: nothing but its arguments and the environment.
async fn run(aws: &Aws, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let scratch = tempfile::tempdir().unwrap();
    let mut command = tokio::process::Command::from(clamgate());
    command
        .arg("scan")
        .args(arguments)
        .envs(aws::environment())
        .env("CLAMGATE_DEFINITIONS__DIR", signatures())
        .env("CLAMGATE_SCAN__SCRATCH_DIR", scratch.path())
        .env("CLAMGATE_ACTIONS__QUARANTINE_TO", format!("s3://{}", aws.quarantine))
        .env("CLAMGATE_ACTIONS__PROMOTE_TO", format!("s3://{}", aws.clean))
        .env("CLAMGATE_REPORT__QUEUE_URL", &aws.results)
        .envs(environment.iter().copied());
    command.output().await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_verdict_in_the_exit_code_and_on_standard_output() {
    let aws = Aws::new().await;
    // Nothing in a key is decoded.
    let strange = "in/a+b %2F\u{7}é";
    for (key, body) in [
        ("in/clean", b"hello world".to_vec()),
        (strange, eicar()),
        ("in/encrypted.zip", samples::encrypted_zip("salaries.txt", b"x")),
        ("other", eicar()),
    ] {
        aws.upload(key, body).await;
    }
    let at = |key: &str| format!("s3://{}/{key}", aws.uploads);
    let shown = |key: &str| at(key).replace('\u{7}', "\\u{7}");
    let infected = format!("{}: INFECTED Win.Test.EICAR_HDB-1.UNOFFICIAL", shown(strange));
    let clean = format!("{}: CLEAN", shown("in/clean"));
    let encrypted = format!("{}: UNSCANNABLE ENCRYPTED (Zip)", shown("in/encrypted.zip"));
    for (targets, code, mut expected) in [
        (vec![at("in/clean")], 0, vec![clean.clone()]),
        (vec![at(strange)], 1, vec![infected.clone()]),
        (vec![at("in/encrypted.zip")], 2, vec![encrypted.clone()]),
        (vec![at("in/")], 1, vec![clean, infected, encrypted]),
        (vec![at("missing")], 2, vec![]),
        (vec![format!("s3://{}-no-such-bucket/", aws.uploads)], 2, vec![]),
        (vec![at("empty-prefix/")], 2, vec![]),
    ] {
        let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
        let output = run(&aws, &targets, &[]).await;
        let stdout = text(&output.stdout);
        let mut lines: Vec<&str> = stdout.lines().collect();
        lines.sort_unstable();
        expected.sort_unstable();
        assert_eq!((output.status.code(), lines), (Some(code), expected.iter().map(String::as_str).collect()), "{targets:?}");
    }
    // Without --act, nothing was done to them.
    assert_eq!(aws.get(&aws.uploads, "in/clean").await.unwrap().status(), None);
    assert!(aws.keys(&aws.quarantine).await.is_empty());
    assert_eq!(aws.depth(&aws.results).await, (0, 0));
}

/// As EventBridge starts it: everything in the environment.
#[tokio::test]
async fn everything_from_the_environment() {
    let aws = Aws::with(Setup { versioned: true, receives: 5 }).await;
    aws.upload("k", eicar()).await;
    let versions = aws.s3.list_object_versions().bucket(&aws.uploads).send().await.unwrap();
    let infected = versions.versions()[0].version_id().unwrap().to_owned();
    aws.upload("k", b"hello world".to_vec()).await;

    let target = format!("s3://{}/k", aws.uploads);
    let settings = [
        ("CLAMGATE_TARGET", target.as_str()),
        ("CLAMGATE_VERSION_ID", infected.as_str()),
        ("CLAMGATE_ACT", "true"),
        ("CLAMGATE_TRACE_ID", "upload-17"),
        ("CLAMGATE_FORMAT", "json"),
        ("CLAMGATE_TIMEOUT_SECS", "300"),
    ];
    let output = run(&aws, &[], &settings).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed["status"], "INFECTED");
    assert_eq!(printed["target"]["version_id"], infected.as_str());
    assert_eq!(printed["trace_id"], "upload-17");
    assert_eq!(aws.reports(1).await, [printed]);
    assert_eq!(aws.keys(&aws.quarantine).await, ["k"]);
    // The version that was not asked for is where it was.
    let left = aws.get(&aws.uploads, "k").await.unwrap();
    assert_eq!((left.body.as_slice(), left.status()), (&b"hello world"[..], None));
}

#[tokio::test]
async fn its_verdict_is_a_row_of_a_table_that_was_not_there() {
    let aws = Aws::new().await;
    let database = postgres::shared().database().await;
    aws.upload("k", eicar()).await;
    let target = format!("s3://{}/k", aws.uploads);
    let settings = [("CLAMGATE_REPORT__SINKS__DB__POSTGRES__URL", &*database.url())];
    let output = run(&aws, &["--act", &target], &settings).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let rows = database.rows("select key, status from clamgate_scans").await;
    assert_eq!(rows, [serde_json::json!({"key": "k", "status": "INFECTED"})]);
    assert_eq!(aws.keys(&aws.quarantine).await, ["k"]);
}

/// As at the start of the service: nothing is done that somebody who must be told of it certainly cannot hear of.
#[tokio::test]
async fn nothing_is_done_when_somebody_certainly_cannot_be_told() {
    let aws = Aws::new().await;
    aws.upload("k", eicar()).await;
    let target = format!("s3://{}/k", aws.uploads);
    let topic = "arn:aws:sns:us-east-1:000000000000:no-such-topic-at-all";
    let settings = [("CLAMGATE_REPORT__SINKS__TOPIC__SNS__TOPIC_ARN", topic)];
    let output = run(&aws, &["--act", &target], &settings).await;
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("delivered to topic: GetTopicAttributes: NotFound"), "{said}");
    assert!(output.stdout.is_empty());
    assert_eq!(aws.get(&aws.uploads, "k").await.unwrap().status(), None);
    assert_eq!(aws.depth(&aws.results).await, (0, 0));
    // Without --act nobody is told, and nobody need be there.
    assert_eq!(run(&aws, &[&target], &settings).await.status.code(), Some(1));
}

#[tokio::test]
async fn what_is_no_use_is_said() {
    let aws = Aws::new().await;
    aws.upload("k", b"hello world".to_vec()).await;
    let object = format!("s3://{}/k", aws.uploads);
    for (arguments, settings, code, expected) in [
        (vec!["s3://"], vec![], 64, "there is no bucket"),
        (vec!["s3:///k"], vec![], 64, "there is no bucket"),
        (vec!["--version-id", "null", "s3://b/k"], vec![], 64, "the version null is overwritten in place"),
        (vec!["--trace-id", "a\nb", "s3://b/k"], vec![], 64, "--trace-id"),
        (vec!["--version-id", "v", "file"], vec![], 64, "--version-id belongs to an object in S3"),
        (vec!["--version-id", "v", "s3://b/"], vec![], 64, "--version-id belongs to an object in S3"),
        (vec!["--version-id", "v", "s3://b/k", "s3://b/l"], vec![], 64, "--version-id belongs to one object alone"),
        (vec![], vec![], 64, "TARGET"),
        (vec![object.as_str()], vec![("AWS_ENDPOINT_URL", "http://127.0.0.1:1")], 2, "HeadObject of s3://"),
    ] {
        let output = run(&aws, &arguments, &settings).await;
        let stderr = text(&output.stderr);
        assert!(output.status.code() == Some(code) && stderr.contains(expected), "{arguments:?}: {stderr}");
        assert!(output.stdout.is_empty());
    }
}

/// A task that hangs would never tell anybody.
#[tokio::test]
async fn the_time_is_bounded() {
    let aws = Aws::new().await;
    // Takes the connection, and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let output = run(&aws, &["--timeout-secs", "1", "s3://b/k"], &[("AWS_ENDPOINT_URL", &endpoint)]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("not done after 1 s"));
}
