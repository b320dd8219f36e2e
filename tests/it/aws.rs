//! A local AWS, one for all tests of this binary, and what each test keeps there.

use std::collections::{BTreeMap, HashMap};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketVersioningStatus, Event, NotificationConfiguration, QueueConfiguration, VersioningConfiguration,
};
use aws_sdk_sqs::types::QueueAttributeName;
use futures_util::{StreamExt, stream};

use crate::wait;

/// Starts the server once; it ends with this process, which holds the other end of its standard input.
#[expect(clippy::zombie_processes, reason = "it lives as long as this process")]
fn endpoint() -> &'static str {
    static ENDPOINT: OnceLock<String> = OnceLock::new();
    ENDPOINT.get_or_init(|| {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/ministack");
        assert!(program.exists(), "{} is missing: run `make setup`", program.display());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Command::new("sh")
            .args(["-c", r#""$0" & server=$!; read -r _; kill $server; wait $server"#])
            .arg(program)
            .env("GATEWAY_PORT", port.to_string())
            .env("BIND_HOST", "127.0.0.1")
            .env("LOG_LEVEL", "ERROR")
            .env("TMPDIR", env!("CARGO_TARGET_TMPDIR"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Kept open until the process ends.
        std::mem::forget(server.stdin.take());
        format!("http://127.0.0.1:{port}")
    })
}

/// The environment that every AWS client understands.
pub fn environment() -> [(&'static str, &'static str); 5] {
    [
        ("AWS_ENDPOINT_URL", endpoint()),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]
}

/// Buckets and queues of one test.
pub struct Aws {
    pub s3: aws_sdk_s3::Client,
    pub sqs: aws_sdk_sqs::Client,
    /// Its notifications go to the queue.
    pub uploads: String,
    pub clean: String,
    pub quarantine: String,
    pub queue: String,
    pub queue_arn: String,
    pub dead_letters: String,
    pub results: String,
}

/// An object as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub body: Vec<u8>,
    pub tags: BTreeMap<String, String>,
}

impl Stored {
    pub fn status(&self) -> Option<&str> {
        self.tags.get("clamgate-status").map(String::as_str)
    }
}

/// What a test's buckets are like.
#[derive(Clone, Copy)]
pub struct Setup {
    pub versioned: bool,
    /// How often a message is received before it goes to the dead-letter queue.
    pub receives: u32,
}

impl Aws {
    pub async fn new() -> Self {
        Self::with(Setup { versioned: false, receives: 5 }).await
    }

    pub async fn with(setup: Setup) -> Self {
        static TESTS: AtomicU32 = AtomicU32::new(0);
        let test = TESTS.fetch_add(1, Ordering::Relaxed);
        let sdk = aws_config::defaults(aws_config::BehaviorVersion::latest())
            .endpoint_url(endpoint())
            .region("us-east-1")
            .credentials_provider(aws_sdk_s3::config::Credentials::new("test", "test", None, None, "test"))
            .load()
            .await;
        let s3 = clamgate::aws::s3(&sdk);
        let sqs = clamgate::aws::sqs(&sdk);
        wait::until("the local AWS", || async { s3.list_buckets().send().await.ok() }).await;

        let name = |what: &str| format!("test{test}-{what}");
        for bucket in ["uploads", "clean", "quarantine"] {
            s3.create_bucket().bucket(name(bucket)).send().await.unwrap();
            if setup.versioned {
                let enabled = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
                s3.put_bucket_versioning().bucket(name(bucket)).versioning_configuration(enabled).send().await.unwrap();
            }
        }
        let create = |what: &str, attributes: HashMap<QueueAttributeName, String>| {
            let request = sqs.create_queue().queue_name(name(what)).set_attributes(Some(attributes));
            async move { request.send().await.unwrap().queue_url.unwrap() }
        };
        let dead_letters = create("dead", HashMap::new()).await;
        let results = create("results", HashMap::new()).await;
        let dead_arn = arn(&sqs, &dead_letters).await;
        let redrive = format!(r#"{{"deadLetterTargetArn":"{dead_arn}","maxReceiveCount":"{}"}}"#, setup.receives);
        let queue = create("queue", HashMap::from([(QueueAttributeName::RedrivePolicy, redrive)])).await;
        let queue_arn = arn(&sqs, &queue).await;

        let aws = Self {
            s3,
            sqs,
            uploads: name("uploads"),
            clean: name("clean"),
            quarantine: name("quarantine"),
            queue,
            queue_arn,
            dead_letters,
            results,
        };
        aws.notify(&aws.uploads).await;
        aws
    }

    /// Sends the bucket's events to the queue. S3 sends a test event at once.
    pub async fn notify(&self, bucket: &str) {
        let rule = QueueConfiguration::builder()
            .queue_arn(&self.queue_arn)
            .events(Event::from("s3:ObjectCreated:*"))
            .events(Event::from("s3:ObjectRemoved:*"))
            .build()
            .unwrap();
        let rules = NotificationConfiguration::builder().queue_configurations(rule).build();
        let request = self.s3.put_bucket_notification_configuration().bucket(bucket).notification_configuration(rules);
        request.send().await.unwrap();
    }

    pub async fn upload(&self, key: &str, body: impl Into<Vec<u8>>) {
        let body = ByteStream::from(body.into());
        self.s3.put_object().bucket(&self.uploads).key(key).body(body).send().await.unwrap();
    }

    /// A bucket of its own that nothing tells of.
    pub async fn silent_bucket(&self) -> String {
        let bucket = format!("{}-silent", self.uploads);
        self.s3.create_bucket().bucket(&bucket).send().await.unwrap();
        bucket
    }

    /// Small clean objects.
    pub async fn fill(&self, bucket: &str, keys: impl IntoIterator<Item = String>) {
        let puts = keys.into_iter().map(|key| async move {
            let body = ByteStream::from(format!("clean {key}").into_bytes());
            self.s3.put_object().bucket(bucket).key(key).body(body).send().await.unwrap();
        });
        stream::iter(puts).buffer_unordered(16).collect::<()>().await;
    }

    /// A bucket of its own with small objects that nothing has told of, and its URL; the queue is empty.
    pub async fn existing(&self, keys: impl IntoIterator<Item = String>) -> (String, String) {
        self.take_all().await;
        let bucket = self.silent_bucket().await;
        self.fill(&bucket, keys).await;
        let source = format!("s3://{bucket}/");
        (bucket, source)
    }

    /// Takes all messages from the queue: their bodies.
    pub async fn take_all(&self) -> Vec<String> {
        let mut bodies = Vec::new();
        loop {
            let request = self.sqs.receive_message().queue_url(&self.queue).max_number_of_messages(10);
            let received = request.send().await.unwrap().messages.unwrap_or_default();
            if received.is_empty() && self.depth(&self.queue).await == (0, 0) {
                return bodies;
            }
            for message in received {
                let receipt = message.receipt_handle().unwrap();
                self.sqs.delete_message().queue_url(&self.queue).receipt_handle(receipt).send().await.unwrap();
                bodies.push(message.body.unwrap());
            }
        }
    }

    /// The object, or `None` if there is none.
    pub async fn get(&self, bucket: &str, key: &str) -> Option<Stored> {
        let object = self.s3.get_object().bucket(bucket).key(key).send().await.ok()?;
        let body = object.body.collect().await.ok()?.to_vec();
        let tags = self.s3.get_object_tagging().bucket(bucket).key(key).send().await.ok()?;
        let tags = tags.tag_set().iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect();
        Some(Stored { body, tags })
    }

    /// All keys of a bucket.
    pub async fn keys(&self, bucket: &str) -> Vec<String> {
        let mut keys = Vec::new();
        let mut pages = self.s3.list_objects_v2().bucket(bucket).into_paginator().send();
        while let Some(page) = pages.next().await {
            keys.extend(page.unwrap().contents().iter().filter_map(|object| object.key().map(str::to_owned)));
        }
        keys
    }

    pub async fn send(&self, body: &str) {
        self.sqs.send_message().queue_url(&self.queue).message_body(body).send().await.unwrap();
    }

    /// Messages that are waiting, and messages that somebody works on.
    pub async fn depth(&self, queue: &str) -> (u32, u32) {
        let attributes = self
            .sqs
            .get_queue_attributes()
            .queue_url(queue)
            .attribute_names(QueueAttributeName::All)
            .send()
            .await
            .unwrap()
            .attributes
            .unwrap();
        let number = |name| attributes.get(&name).and_then(|text: &String| text.parse().ok()).unwrap_or(0);
        (
            number(QueueAttributeName::ApproximateNumberOfMessages),
            number(QueueAttributeName::ApproximateNumberOfMessagesNotVisible),
        )
    }

    /// Waits until every message has been worked off, and shows that none was given up.
    pub async fn until_drained(&self) {
        wait::until("an empty queue", || async { (self.depth(&self.queue).await == (0, 0)).then_some(()) }).await;
        assert_eq!(self.depth(&self.dead_letters).await, (0, 0), "messages were given up");
    }

    /// Takes reports from the result queue until `count` have come.
    pub async fn reports(&self, count: usize) -> Vec<serde_json::Value> {
        let mut reports = Vec::new();
        while reports.len() < count {
            let received = wait::until(&format!("report {} of {count}", reports.len() + 1), || async {
                let request = self.sqs.receive_message().queue_url(&self.results).max_number_of_messages(10);
                request.send().await.unwrap().messages.filter(|messages| !messages.is_empty())
            })
            .await;
            for message in received {
                reports.push(serde_json::from_str(message.body().unwrap()).unwrap());
                let receipt = message.receipt_handle().unwrap();
                self.sqs.delete_message().queue_url(&self.results).receipt_handle(receipt).send().await.unwrap();
            }
        }
        reports
    }
}

async fn arn(sqs: &aws_sdk_sqs::Client, queue: &str) -> String {
    let request = sqs.get_queue_attributes().queue_url(queue).attribute_names(QueueAttributeName::QueueArn);
    let attributes = request.send().await.unwrap().attributes.unwrap();
    attributes[&QueueAttributeName::QueueArn].clone()
}
