//! The pages on the ways in: their examples are run as they stand, with the real AWS CLI and the real service.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clamgate::queue::Event;
use serde_json::{Value, json};

use crate::aws::{self, Aws};
use crate::samples::eicar;
use crate::service::{Service, signatures};
use crate::wait;

/// The key of every example.
const KEY: &str = "a b+c.pdf";

/// One fenced block of a page.
struct Block {
    heading: String,
    /// What stands behind the fence: `sh`, `json`, `json refused`.
    kind: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn blocks(page: &str) -> Vec<Block> {
    let text = fs::read_to_string(root().join("docs/ways-in").join(page)).unwrap();
    let (mut heading, mut blocks, mut open) = (String::new(), Vec::new(), None::<Block>);
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(""), Some(_)) => blocks.extend(open.take()),
            (Some(kind), None) => {
                open = Some(Block { heading: heading.clone(), kind: kind.to_owned(), text: String::new() });
            }
            (_, Some(block)) => block.text.extend([line, "\n"]),
            (_, None) => line.strip_prefix("## ").into_iter().for_each(|text| text.clone_into(&mut heading)),
        }
    }
    assert!(open.is_none(), "{page}: a block without an end");
    blocks
}

/// The commands under a heading; there must be some.
fn commands(page: &str, heading: &str) -> Vec<String> {
    let found: Vec<String> = blocks(page)
        .into_iter()
        .filter(|block| block.kind == "sh" && block.heading == heading)
        .map(|block| block.text)
        .collect();
    assert!(!found.is_empty(), "{page}: {heading}");
    found
}

/// The first version of the AWS CLI has an old name of SQS in it that wins over AWS_ENDPOINT_URL, but not over this.
const AWS: &str = r#"aws() { command aws --endpoint-url "$AWS_ENDPOINT_URL" "$@"; }"#;

/// Where the commands run: a directory, and what their variables mean.
struct Shell {
    dir: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Shell {
    fn new(aws: &Aws, bucket: &str) -> Self {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_clamgate"));
        let path = [&root().join(".venv/bin"), program.parent().unwrap()].map(|dir| dir.display().to_string());
        let variables = vec![
            ("PATH", format!("{}:/usr/bin:/bin", path.join(":"))),
            // The AWS CLI looks at this one alone, and reads neither this machine's configuration nor its home.
            ("AWS_DEFAULT_REGION", "us-east-1".to_owned()),
            ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null".to_owned()),
            ("BUCKET", bucket.to_owned()),
            ("QUEUE_URL", aws.queue.clone()),
            ("QUEUE_ARN", aws.queue_arn.clone()),
            ("DEFINITIONS", signatures().display().to_string()),
        ];
        Self { dir: tempfile::tempdir().unwrap(), variables }
    }

    /// What the commands printed.
    fn run(&self, commands: &str) -> String {
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &format!("{AWS}\n{commands}")])
            .current_dir(&self.dir)
            .env_clear()
            .envs(aws::environment());
        let output = bash.envs(self.variables.iter().map(|(name, value)| (name, value))).output().unwrap();
        assert!(output.status.success(), "{commands}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// A service that leaves objects where they are.
async fn service(aws: &Aws) -> Service {
    Service::start(aws, &[("CLAMGATE_ACTIONS__PROMOTE_TO", ""), ("CLAMGATE_ACTIONS__QUARANTINE_TO", "")]).await
}

async fn upload(aws: &Aws, bucket: &str) {
    aws.s3.put_object().bucket(bucket).key(KEY).body(eicar().into()).send().await.unwrap();
}

/// Waits for the only report, which is about the object.
async fn until_found(aws: &Aws, bucket: &str) -> Value {
    let report = aws.reports(1).await.remove(0);
    let seen = json!({"bucket": report["target"]["bucket"], "key": report["target"]["key"], "status": report["status"]});
    assert_eq!(seen, json!({"bucket": bucket, "key": KEY, "status": "INFECTED"}));
    aws.until_drained().await;
    assert_eq!(aws.get(bucket, KEY).await.unwrap().status(), Some("INFECTED"));
    report
}

#[test]
fn every_message_on_the_page_is_what_the_page_says() {
    let mut seen = Vec::new();
    for Block { heading, kind, text } in blocks("queue.md") {
        match kind.as_str() {
            "json" => {
                let Ok(Event::Objects(objects)) = Event::parse(&text) else { panic!("{heading}: {text}") };
                let named = (objects.len(), objects[0].bucket.as_str(), objects[0].key.as_str());
                assert_eq!(named, (1, "uploads", KEY), "{heading}");
                seen.push(heading);
            }
            "json acknowledged" => {
                text.lines().for_each(|line| assert!(matches!(Event::parse(line), Ok(Event::Nothing(_))), "{line}"))
            }
            "json refused" => text.lines().for_each(|line| assert!(Event::parse(line).is_err(), "{line}")),
            "sh" => {}
            other => panic!("{heading}: a block of kind {other}"),
        }
    }
    let sections = ["S3 to the queue", "Through SNS", "Through EventBridge", "Jobs", "Jobs of bucketAV"];
    assert_eq!(seen, sections);
}

/// Wires a bucket up as the page says, uploads, and sees the upload found.
async fn wired(heading: &str, edit: impl Fn(String) -> String) -> Value {
    let aws = Aws::new().await;
    let bucket = aws.silent_bucket().await;
    let shell = Shell::new(&aws, &bucket);
    for block in commands("queue.md", heading) {
        shell.run(&edit(block));
    }
    upload(&aws, &bucket).await;
    // What is on the queue shows that it came this way.
    let body = wait::until("the message", || async {
        let request = aws.sqs.receive_message().queue_url(&aws.queue).max_number_of_messages(10).visibility_timeout(0);
        let messages = request.send().await.unwrap().messages.unwrap_or_default();
        messages
            .into_iter()
            .filter_map(|message| message.body)
            .find(|body| body.contains(&bucket) && !body.contains("TestEvent"))
    })
    .await;
    let _service = service(&aws).await;
    until_found(&aws, &bucket).await;
    serde_json::from_str(&body).unwrap()
}

#[tokio::test]
async fn s3_to_the_queue() {
    let body = wired("S3 to the queue", |block| block).await;
    assert_eq!(body["Records"][0]["s3"]["object"]["key"], "a+b%2Bc.pdf");
}

#[tokio::test]
async fn through_sns_raw() {
    let body = wired("Through SNS", |block| block).await;
    assert_eq!(body["Records"][0]["s3"]["object"]["key"], "a+b%2Bc.pdf");
}

#[tokio::test]
async fn through_sns_in_an_envelope() {
    let body = wired("Through SNS", |block| {
        let enveloped = block.replace(" --attributes RawMessageDelivery=true", "");
        assert_ne!(enveloped, block);
        enveloped
    })
    .await;
    assert_eq!(body["Type"], "Notification");
    assert!(body["Message"].as_str().unwrap().contains("a+b%2Bc.pdf"));
}

#[tokio::test]
async fn through_event_bridge() {
    let body = wired("Through EventBridge", |block| block).await;
    assert_eq!((&body["source"], &body["detail"]["object"]["key"]), (&json!("aws.s3"), &json!(KEY)));
}

#[tokio::test]
async fn jobs() {
    let aws = Aws::new().await;
    let bucket = aws.silent_bucket().await;
    upload(&aws, &bucket).await;
    let _service = service(&aws).await;
    let shell = Shell::new(&aws, &bucket);
    for heading in ["Jobs", "Jobs of bucketAV"] {
        for block in commands("queue.md", heading) {
            shell.run(&block);
        }
        until_found(&aws, &bucket).await;
    }
}

#[tokio::test]
async fn existing_objects() {
    let aws = Aws::new().await;
    let keys: Vec<String> = (0..30).map(|n| format!("incoming/{n:02}")).collect();
    let (bucket, source) = aws.existing(keys.iter().cloned()).await;
    let shell = Shell::new(&aws, &bucket);
    let queued = || async { aws.depth(&aws.queue).await.0 };

    let first = commands("existing-objects.md", "");
    assert_eq!(first.len(), 2);
    let lines: Vec<String> = keys[..20].iter().map(|key| format!("{source}{key}\n")).collect();
    assert_eq!(shell.run(&first[0]), lines.concat());
    assert_eq!(queued().await, 0);
    shell.run(&first[1]);
    assert_eq!(queued().await, 30);
    let traced = aws.take_all().await;
    assert!(traced.iter().all(|body| body.contains(r#""trace_id":"first-scan""#)), "{traced:?}");

    // None has been scanned: untagged, and older than any definitions.
    for (heading, expected) in [("Interruptions", 30), ("Again with newer definitions", 60)] {
        let commands = commands("existing-objects.md", heading);
        assert_eq!(commands.len(), 1);
        shell.run(&commands[0]);
        assert_eq!(queued().await, expected, "{heading}");
    }
    assert_eq!(fs::read_dir(shell.dir.path()).unwrap().count(), 0, "no state is left");
    let _service = service(&aws).await;
    aws.until_drained().await;
    for key in keys {
        assert_eq!(aws.get(&bucket, &key).await.unwrap().status(), Some("CLEAN"), "{key}");
    }
}
