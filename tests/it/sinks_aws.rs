//! Reports to SNS, EventBridge and objects in S3.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_eventbridge::types::Target;
use aws_sdk_sqs::types::{Message, MessageSystemAttributeName, QueueAttributeName};
use serde_json::{Value, json};

use crate::aws::{self, Aws, Setup};
use crate::gate::Gate;
use crate::samples::{self, eicar};
use crate::service::Service;
use crate::sinks::python;
use crate::wait;
use crate::web::curl;

const IN_PLACE: [(&str, &str); 2] = [("CLAMGATE_ACTIONS__PROMOTE_TO", ""), ("CLAMGATE_ACTIONS__QUARANTINE_TO", "")];

fn endpoint() -> &'static str {
    aws::environment()[0].1
}

async fn sdk() -> SdkConfig {
    let credentials = aws_sdk_s3::config::Credentials::new("test", "test", None, None, "test");
    let config = aws_config::defaults(BehaviorVersion::latest()).endpoint_url(endpoint()).region("us-east-1");
    config.credentials_provider(credentials).load().await
}

/// What listens: topics, a bus, and queues behind them.
pub struct Listeners<'a> {
    aws: &'a Aws,
    sns: aws_sdk_sns::Client,
    events: aws_sdk_eventbridge::Client,
}

impl<'a> Listeners<'a> {
    pub async fn new(aws: &'a Aws) -> Self {
        let sdk = sdk().await;
        Self { aws, sns: aws_sdk_sns::Client::new(&sdk), events: aws_sdk_eventbridge::Client::new(&sdk) }
    }

    fn name(&self, what: &str) -> String {
        self.aws.uploads.replace("uploads", what)
    }

    /// A topic's ARN.
    pub async fn topic(&self, what: &str) -> String {
        let name = self.name(what);
        let mut request = self.sns.create_topic().name(&name);
        if name.ends_with(".fifo") {
            request = request.attributes("FifoTopic", "true");
        }
        request.send().await.unwrap().topic_arn.unwrap()
    }

    /// A queue's URL and ARN.
    async fn queue(&self, what: &str) -> (String, String) {
        let name = self.name(what);
        let mut request = self.aws.sqs.create_queue().queue_name(&name);
        if name.ends_with(".fifo") {
            request = request.attributes(QueueAttributeName::FifoQueue, "true");
        }
        let url = request.send().await.unwrap().queue_url.unwrap();
        let asked = self.aws.sqs.get_queue_attributes().queue_url(&url).attribute_names(QueueAttributeName::QueueArn);
        let arn = asked.send().await.unwrap().attributes.unwrap()[&QueueAttributeName::QueueArn].clone();
        (url, arn)
    }

    /// The URL of a queue that gets the topic's messages as they are, if they fit.
    pub async fn subscriber(&self, topic: &str, what: &str, filter: &str) -> String {
        let (url, arn) = self.queue(what).await;
        let mut request = self.sns.subscribe().topic_arn(topic).protocol("sqs").endpoint(arn);
        request = request.attributes("RawMessageDelivery", "true");
        if !filter.is_empty() {
            request = request.attributes("FilterPolicy", filter);
        }
        request.send().await.unwrap();
        url
    }

    /// A bus, and the URL of a queue that gets all events of this source on it.
    pub async fn bus(&self, what: &str, source: &str) -> (String, String) {
        let bus = self.name(what);
        self.events.create_event_bus().name(&bus).send().await.unwrap();
        let url = self.rule(&bus, what, source).await;
        (bus, url)
    }

    async fn rule(&self, bus: &str, what: &str, source: &str) -> String {
        let (url, arn) = self.queue(what).await;
        let rule = self.name(what);
        let pattern = json!({"source": [source]}).to_string();
        self.events.put_rule().name(&rule).event_bus_name(bus).event_pattern(pattern).send().await.unwrap();
        let target = Target::builder().id("queue").arn(arn).build().unwrap();
        self.events.put_targets().rule(&rule).event_bus_name(bus).targets(target).send().await.unwrap();
        url
    }

    /// Takes so many messages; there are no more.
    async fn take(&self, queue: &str, count: usize) -> Vec<Message> {
        let mut messages = Vec::new();
        while messages.len() < count {
            let received = wait::until(&format!("message {} of {count} on {queue}", messages.len() + 1), || async {
                let request = self.aws.sqs.receive_message().queue_url(queue).max_number_of_messages(10);
                let request = request.message_attribute_names("All");
                let received = request.message_system_attribute_names(MessageSystemAttributeName::All).send().await;
                received.unwrap().messages.filter(|messages| !messages.is_empty())
            })
            .await;
            for message in received {
                let receipt = message.receipt_handle().unwrap();
                self.aws.sqs.delete_message().queue_url(queue).receipt_handle(receipt).send().await.unwrap();
                messages.push(message);
            }
        }
        assert_eq!((messages.len(), self.aws.depth(queue).await), (count, (0, 0)), "{queue}");
        messages
    }

    /// Takes what comes next.
    async fn take_some(&self, queue: &str) -> Vec<Value> {
        let received = wait::until("a message", || async {
            let request = self.aws.sqs.receive_message().queue_url(queue).max_number_of_messages(10);
            request.send().await.unwrap().messages.filter(|messages| !messages.is_empty())
        })
        .await;
        received.iter().map(|message| serde_json::from_str(message.body().unwrap()).unwrap()).collect()
    }

    async fn take_json(&self, queue: &str, count: usize) -> Vec<Value> {
        let messages = self.take(queue, count).await;
        messages.iter().map(|message| serde_json::from_str(message.body().unwrap()).unwrap()).collect()
    }
}

fn attributes(message: &Message) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = message
        .message_attributes()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), value.string_value().unwrap_or_default().to_owned()))
        .collect();
    found.sort();
    found
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[tokio::test]
async fn everybody_gets_the_same_report_and_a_subscriber_what_it_filters_for() {
    let aws = Aws::with(Setup { versioned: true, receives: 5 }).await;
    let listeners = Listeners::new(&aws).await;
    let topic = listeners.topic("topic").await;
    let infected = listeners.subscriber(&topic, "infected", r#"{"status": ["INFECTED", "UNSCANNABLE"]}"#).await;
    let (bus, events) = listeners.bus("bus", "my.app").await;
    let bucket = aws.silent_bucket().await;
    let settings = [
        ("CLAMGATE_REPORT__SINKS__TOPIC__SNS__TOPIC_ARN", topic.as_str()),
        ("CLAMGATE_REPORT__SINKS__BUS__EVENT_BRIDGE__BUS", &bus),
        ("CLAMGATE_REPORT__SINKS__BUS__EVENT_BRIDGE__SOURCE", "my.app"),
        ("CLAMGATE_REPORT__SINKS__FILES__S3__TO", &format!("s3://{bucket}/by/{{bucket}}/{{key}}.json")),
        ("CLAMGATE_REPORT__SINKS__ALL__S3__TO", &format!("s3://{bucket}/{{date}}/{{status}}/{{scan_id}}")),
    ];
    let _service = Service::start(&aws, &[&settings[..], &IN_PLACE].concat()).await;
    aws.upload("a b/ü.txt", eicar()).await;
    aws.upload("clean", b"hello world".to_vec()).await;
    aws.upload("zip", samples::encrypted_zip("a", b"x")).await;
    aws.until_drained().await;
    let mut reports = aws.reports(3).await;
    reports.sort_by_key(|report| report["target"]["key"].to_string());
    let [of_eicar, of_clean, of_zip] = reports.as_slice() else { panic!("{reports:?}") };

    let mut published = listeners.take(&infected, 2).await;
    published.sort_by_key(|message| message.body().unwrap().contains("UNSCANNABLE"));
    for (message, report, status, reason) in
        [(&published[0], of_eicar, "INFECTED", ""), (&published[1], of_zip, "UNSCANNABLE", "ENCRYPTED")]
    {
        assert_eq!(&serde_json::from_str::<Value>(message.body().unwrap()).unwrap(), report);
        let (key, version) = (report["target"]["key"].as_str().unwrap(), report["target"]["version_id"].as_str().unwrap());
        let mut expected = pairs(&[
            ("action", "tag"),
            ("bucket", &aws.uploads),
            ("key", key),
            ("reason", reason),
            ("status", status),
            ("version", version),
        ]);
        expected.retain(|(_, value)| !value.is_empty());
        assert_eq!(attributes(message), expected);
    }

    let mut events = listeners.take_json(&events, 3).await;
    events.sort_by_key(|event| event["detail"]["target"]["key"].to_string());
    for (event, report) in events.iter().zip(&reports) {
        assert_eq!(
            (&event["source"], &event["detail-type"], &event["detail"]),
            (&json!("my.app"), &json!("clamgate.scan/1"), report)
        );
    }

    for report in [of_eicar, of_clean, of_zip] {
        let text = |field: &str| report[field].as_str().unwrap().to_owned();
        let date = text("scanned_at").split_once('T').unwrap().0.to_owned();
        let by_key = format!("by/{}/{}.json", aws.uploads, report["target"]["key"].as_str().unwrap());
        for key in [by_key, format!("{date}/{}/{}", text("status"), text("scan_id"))] {
            let stored = aws.s3.get_object().bucket(&bucket).key(&key).send().await.unwrap();
            assert_eq!(stored.content_type(), Some("application/json"), "{key}");
            let uploaded = aws.s3.head_object().bucket(&aws.uploads).key(report["target"]["key"].as_str().unwrap());
            let uploaded = uploaded.send().await.unwrap();
            let expected = HashMap::from([
                ("status".to_owned(), text("status")),
                ("scan-id".to_owned(), text("scan_id")),
                ("etag".to_owned(), uploaded.e_tag().unwrap().replace('"', "")),
                ("version-id".to_owned(), uploaded.version_id().unwrap().to_owned()),
            ]);
            assert_eq!(stored.metadata(), Some(&expected), "{key}");
            let body = stored.body.collect().await.unwrap().to_vec();
            assert_eq!(&serde_json::from_slice::<Value>(&body).unwrap(), report, "{key}");
        }
    }
    assert_eq!(aws.keys(&bucket).await.len(), 6);
}

#[test]
fn a_result_on_another_upload_is_not_believed() {
    for page in ["ways-out/aws.md", "designs/user-waits.md"] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page)).unwrap();
        let query = text.split_once("head-object").unwrap().1.split('"').find(|text| text.starts_with("Metadata")).unwrap();
        for (uploaded, metadata, expected) in [
            ("newer", json!({"status": "CLEAN", "etag": "newer"}), json!("CLEAN")),
            ("newer", json!({"status": "INFECTED", "etag": "newer"}), json!("INFECTED")),
            ("newer", json!({"status": "CLEAN", "etag": "older"}), json!(false)),
            ("newer", json!({"status": "CLEAN"}), json!(false)),
        ] {
            let given = json!([query.replace("$uploaded", uploaded), {"Metadata": metadata}]);
            // As AWS's command line does.
            let found = python("import jmespath\nprint(json.dumps(jmespath.search(*given)))", &given);
            assert_eq!(serde_json::from_str::<Value>(&found).unwrap(), expected, "{page}: {given}");
        }
    }
}

#[tokio::test]
async fn an_application_made_for_another_scanner_goes_on_working() {
    let aws = Aws::new().await;
    let listeners = Listeners::new(&aws).await;
    let (function, virusscan) = (listeners.topic("function").await, listeners.topic("virusscan").await);
    let of_function = listeners.subscriber(&function, "of-function", "").await;
    let of_virusscan = listeners.subscriber(&virusscan, "of-virusscan", r#"{"status": ["infected"]}"#).await;
    let (bus, of_guardduty) = listeners.bus("guardduty", "clamgate").await;
    let settings = [
        ("CLAMGATE_REPORT__SINKS__FUNCTION__SNS__TOPIC_ARN", function.as_str()),
        ("CLAMGATE_REPORT__SINKS__FUNCTION__SNS__FORM", "bucket-antivirus-function"),
        ("CLAMGATE_REPORT__SINKS__VIRUSSCAN__SNS__TOPIC_ARN", &virusscan),
        ("CLAMGATE_REPORT__SINKS__VIRUSSCAN__SNS__FORM", "aws-s3-virusscan"),
        ("CLAMGATE_REPORT__SINKS__GUARDDUTY__EVENT_BRIDGE__BUS", &bus),
        ("CLAMGATE_REPORT__SINKS__GUARDDUTY__EVENT_BRIDGE__FORM", "guardduty"),
    ];
    let _service = Service::start(&aws, &[&settings[..], &IN_PLACE].concat()).await;
    aws.upload("bad", eicar()).await;
    aws.upload("good", b"hello world".to_vec()).await;
    aws.until_drained().await;
    let name = "Win.Test.EICAR_HDB-1.UNOFFICIAL";

    let mut found = listeners.take_json(&of_function, 2).await;
    found.sort_by_key(|message| message["key"].to_string());
    for (found, key, signature, status) in [(&found[0], "bad", name, "INFECTED"), (&found[1], "good", "OK", "CLEAN")] {
        let expected = json!({"bucket": aws.uploads, "key": key, "version": null, "av-signature": signature, "av-status": status,
            "av-timestamp": found["av-timestamp"]});
        assert_eq!(found, &expected);
        assert_eq!(found["av-timestamp"].as_str().unwrap().len(), "2026/10/14 17:46:40 UTC".len());
    }

    let found = listeners.take(&of_virusscan, 1).await;
    let text = format!("s3://{}/bad  is infected, tag action executed", aws.uploads);
    assert_eq!(found[0].body(), Some(text.as_str()));
    let expected = [("action", "tag"), ("bucket", aws.uploads.as_str()), ("key", "bad"), ("status", "infected")];
    assert_eq!(attributes(&found[0]), pairs(&expected));

    let mut found = listeners.take_json(&of_guardduty, 2).await;
    found.sort_by_key(|event| event["detail"]["s3ObjectDetails"]["objectKey"].to_string());
    for (event, key, result, threats) in
        [(&found[0], "bad", "THREATS_FOUND", json!([{"name": name}])), (&found[1], "good", "NO_THREATS_FOUND", Value::Null)]
    {
        assert_eq!(event["detail-type"], "GuardDuty Malware Protection Object Scan Result");
        let etag = aws.s3.head_object().bucket(&aws.uploads).key(key).send().await.unwrap().e_tag.unwrap().replace('"', "");
        let expected = json!({
            "schemaVersion": "1.0", "scanStatus": "COMPLETED", "resourceType": "S3_OBJECT",
            "s3ObjectDetails": {"bucketName": aws.uploads, "objectKey": key, "eTag": etag, "versionId": null, "s3Throttled": false},
            "scanResultDetails": {"scanResultStatus": result, "threats": threats, "statusReasons": null},
        });
        assert_eq!(event["detail"], expected);
    }
}

#[tokio::test]
async fn a_fifo_topic_and_a_fifo_queue_keep_the_order_of_a_key_and_drop_the_second_of_two_equal_reports() {
    let aws = Aws::new().await;
    let listeners = Listeners::new(&aws).await;
    let topic = listeners.topic("topic.fifo").await;
    let behind_topic = listeners.subscriber(&topic, "reports.fifo", "").await;
    let (queue, _) = listeners.queue("queue.fifo").await;
    let settings = [
        ("CLAMGATE_REPORT__SINKS__TOPIC__SNS__TOPIC_ARN", topic.as_str()),
        ("CLAMGATE_REPORT__SINKS__FIFO__SQS__QUEUE_URL", &queue),
    ];
    let _service = Service::start(&aws, &[&settings[..], &IN_PLACE].concat()).await;
    aws.upload("k", eicar()).await;
    aws.upload("other", eicar()).await;
    aws.until_drained().await;
    // The second work on the same content has the same result; the sender of a job wants its own report.
    for job in [r#""key":"k""#, r#""key":"k","trace_id":"t""#] {
        aws.send(&format!(r#"{{"schema":"clamgate.job/1","objects":[{{"bucket":"{}",{job}}}]}}"#, aws.uploads)).await;
    }
    aws.until_drained().await;
    assert_eq!(aws.reports(4).await.len(), 4);
    for queue in [behind_topic, queue] {
        let mut found: Vec<(String, bool, String)> = Vec::new();
        for message in listeners.take(&queue, 3).await {
            let report: Value = serde_json::from_str(message.body().unwrap()).unwrap();
            let group = message.attributes().unwrap()[&MessageSystemAttributeName::MessageGroupId].clone();
            found.push((report["target"]["key"].as_str().unwrap().to_owned(), report["trace_id"] == "t", group));
        }
        found.sort();
        let keys: Vec<(&str, bool)> = found.iter().map(|(key, is_of_job, _)| (key.as_str(), *is_of_job)).collect();
        assert_eq!(keys, [("k", false), ("k", true), ("other", false)], "{queue}");
        assert!(found[0].2 == found[1].2 && found[1].2 != found[2].2, "{queue}: {found:?}");
    }
}

#[tokio::test]
async fn a_queue_and_a_topic_that_are_missing_delay_the_acknowledgement_and_nobody_else() {
    let aws = Aws::with(Setup { versioned: false, receives: 1000 }).await;
    let listeners = Listeners::new(&aws).await;
    let topic = listeners.topic("topic").await;
    let (queue, _) = listeners.queue("reports").await;
    let settings = [
        ("CLAMGATE_REPORT__SINKS__TOPIC__SNS__TOPIC_ARN", topic.as_str()),
        ("CLAMGATE_REPORT__SINKS__OTHER__SQS__QUEUE_URL", &queue),
        ("CLAMGATE_QUEUE__MAX_IN_FLIGHT", "1"),
    ];
    let _service = Service::start(&aws, &[&settings[..], &IN_PLACE].concat()).await;
    listeners.sns.delete_topic().topic_arn(&topic).send().await.unwrap();
    aws.sqs.delete_queue().queue_url(&queue).send().await.unwrap();
    let keys = ["1", "2", "3"];
    for key in keys {
        aws.upload(key, eicar()).await;
    }
    let until_tagged = async || {
        for key in keys {
            wait::until("a tag", || async { aws.get(&aws.uploads, key).await?.status().map(drop) }).await;
        }
        let (waiting, in_flight) = aws.depth(&aws.queue).await;
        assert_eq!(waiting + in_flight, 3, "acknowledged without a report");
    };
    until_tagged().await;
    // One of them is not enough.
    assert_eq!(listeners.queue("reports").await.0, queue);
    let mut told = BTreeSet::new();
    while told.len() < keys.len() {
        told.extend(listeners.take_some(&queue).await.iter().map(|report| report["target"]["key"].to_string()));
    }
    until_tagged().await;
    assert_eq!(listeners.topic("topic").await, topic);
    aws.until_drained().await;
}

#[tokio::test]
async fn a_sink_that_hangs_holds_its_messages_and_no_scan() {
    let aws = Aws::new().await;
    let listeners = Listeners::new(&aws).await;
    let topic = listeners.topic("topic").await;
    let queue = listeners.subscriber(&topic, "reports", "").await;
    let gate = Gate::to(endpoint()).await;
    let settings = [
        ("AWS_ENDPOINT_URL_SNS", gate.url.as_str()),
        ("CLAMGATE_REPORT__SINKS__TOPIC__SNS__TOPIC_ARN", &topic),
        ("CLAMGATE_REPORT__SINKS__TOPIC__TIMEOUT_SECS", "1"),
        ("CLAMGATE_QUEUE__MAX_IN_FLIGHT", "1"),
        ("CLAMGATE_QUEUE__VISIBILITY_TIMEOUT_SECS", "10"),
    ];
    let _service = Service::start(&aws, &[&settings[..], &IN_PLACE].concat()).await;
    for key in ["1", "2", "3"] {
        aws.upload(key, eicar()).await;
    }
    // Those who do not hang are told at once, of all three: the place of a message that waits goes to the next.
    let ids = |reports: Vec<Value>| reports.iter().map(|report| report["scan_id"].to_string()).collect::<BTreeSet<_>>();
    let told = ids(aws.reports(3).await);
    assert_eq!(told.len(), 3);
    wait::until("all three in flight", || async { (aws.depth(&aws.queue).await == (0, 3)).then_some(()) }).await;
    gate.open();
    aws.until_drained().await;
    // What got through just when a second had passed is said again: the same words.
    let mut told_late = BTreeSet::new();
    while told_late.len() < told.len() {
        told_late.extend(ids(listeners.take_some(&queue).await));
    }
    assert_eq!(told_late, told);
    assert_eq!(aws.depth(&aws.results).await, (0, 0), "somebody was told twice");
}

#[tokio::test]
async fn what_is_not_required_is_given_up_and_counted() {
    let aws = Aws::new().await;
    let listeners = Listeners::new(&aws).await;
    let topic = listeners.topic("topic").await;
    listeners.sns.delete_topic().topic_arn(&topic).send().await.unwrap();
    let settings = [
        ("CLAMGATE_REPORT__SINKS__TOPIC__SNS__TOPIC_ARN", topic.as_str()),
        ("CLAMGATE_REPORT__SINKS__TOPIC__REQUIRED", "false"),
        // PutEvents succeeds, its entry does not.
        ("CLAMGATE_REPORT__SINKS__BUS__EVENT_BRIDGE__BUS", "arn:aws:events:us-east-1:111122223333:event-bus/theirs"),
        ("CLAMGATE_REPORT__SINKS__BUS__REQUIRED", "false"),
        ("CLAMGATE_REPORT__SINKS__FILES__S3__TO", "s3://no-such-bucket-at-all/{key}"),
        ("CLAMGATE_REPORT__SINKS__FILES__REQUIRED", "false"),
        ("CLAMGATE_HTTP__ENABLED", "true"),
        ("CLAMGATE_HTTP__LISTEN", "127.0.0.1:0"),
    ];
    // The place of reports is looked at by the start, so it is there then.
    aws.s3.create_bucket().bucket("no-such-bucket-at-all").send().await.unwrap();
    let service = Service::start(&aws, &[&settings[..], &IN_PLACE].concat()).await;
    aws.s3.delete_bucket().bucket("no-such-bucket-at-all").send().await.unwrap();
    assert_eq!(service.logged("not ready for reports").len(), 2);
    aws.upload("k", eicar()).await;
    aws.until_drained().await;
    assert_eq!(aws.reports(1).await.len(), 1);
    let lost = service.until_logged("report not delivered", 3).await;
    for expected in
        ["Publish: NotFound", "PutEvents: ResourceNotFound", "PutObject of s3://no-such-bucket-at-all/k: NoSuchBucket"]
    {
        assert!(lost.iter().any(|line| line["error"].as_str().unwrap().starts_with(expected)), "{expected}: {lost:?}");
    }
    let metrics = curl(&[&format!("http://{}/metrics", service.http_address().await)]).await;
    for sink in ["topic", "bus", "files"] {
        let line = format!("clamgate_reports_lost_total{{sink=\"{sink}\"}} 1");
        assert!(metrics.text().lines().any(|found| found == line), "{line} in\n{}", metrics.text());
    }
}

#[tokio::test]
async fn after_a_crash_the_same_words_are_said_again() {
    let aws = Aws::with(Setup { versioned: false, receives: 1000 }).await;
    let listeners = Listeners::new(&aws).await;
    let topic = listeners.topic("topic").await;
    let queue = listeners.subscriber(&topic, "reports", "").await;
    let bucket = aws.silent_bucket().await;
    let mut gate = Gate::to(endpoint()).await;
    let settings = [
        ("AWS_ENDPOINT_URL_SNS", gate.url.as_str()),
        ("CLAMGATE_REPORT__SINKS__TOPIC__SNS__TOPIC_ARN", &topic),
        ("CLAMGATE_REPORT__OUTBOX", &format!("s3://{bucket}/outbox/")),
        ("CLAMGATE_REPORT__QUEUE_URL", ""),
        ("CLAMGATE_QUEUE__VISIBILITY_TIMEOUT_SECS", "10"),
    ];
    let mut service = Service::new(&aws, &[&settings[..], &IN_PLACE].concat());
    service.spawn();
    service.until_ready().await;
    aws.upload("k", eicar()).await;
    let key = wait::until("the report in the outbox", || async { aws.keys(&bucket).await.pop() }).await;
    // One connection was the look at the start.
    gate.until_knocked(2).await;
    service.signal("KILL");
    service.until_ended().await;
    assert_eq!(aws.depth(&queue).await, (0, 0));
    gate.open();
    service.spawn();
    service.until_ready().await;
    aws.until_drained().await;
    let written = aws.get(&bucket, &key).await.unwrap().body;
    let published = listeners.take(&queue, 1).await;
    assert_eq!(published[0].body().unwrap().as_bytes(), written);
    assert_eq!(aws.keys(&bucket).await, [key]);
}

#[tokio::test]
async fn what_certainly_cannot_work_is_refused_at_the_start() {
    let aws = Aws::new().await;
    let listeners = Listeners::new(&aws).await;
    let topic = listeners.topic("topic").await.replace("-topic", "-no-such-topic");
    let bucket = aws.silent_bucket().await;
    aws.notify(&bucket).await;
    let place = format!("s3://{bucket}/{{key}}");
    for (settings, expected) in [
        (
            vec![("CLAMGATE_REPORT__SINKS__TOPIC__SNS__TOPIC_ARN", topic.as_str())],
            "delivered to topic: GetTopicAttributes: NotFound",
        ),
        (
            vec![("CLAMGATE_REPORT__SINKS__BUS__EVENT_BRIDGE__BUS", "no-such-bus")],
            "delivered to bus: DescribeEventBus: ResourceNotFound",
        ),
        (vec![("CLAMGATE_REPORT__SINKS__FILES__S3__TO", place.as_str())], "would be scanned again"),
    ] {
        let mut service = Service::new(&aws, &settings);
        service.spawn();
        let ended = service.until_ended().await;
        let said = service.logged("cannot go on").pop().map(|line| line["error"].to_string()).unwrap_or_default();
        assert!(ended.code() == Some(2) && said.contains(expected), "{ended} {said}, not {expected}");
    }
}

#[test]
fn the_examples_of_the_page_can_be_used() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ways-out/aws.md");
    let text = fs::read_to_string(page).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for block in text.split("```").skip(1).step_by(2) {
        let (language, code) = block.split_once('\n').unwrap();
        match language {
            "toml" => {
                let file = dir.path().join("clamgate.toml");
                fs::write(&file, code).unwrap();
                let config = clamgate::config::load(Some(&file), std::iter::empty(), Vec::new()).unwrap();
                seen += config.report.sinks.len();
            }
            "json" => drop(serde_json::from_str::<Value>(code).unwrap_or_else(|error| panic!("{error}: {code}"))),
            other => assert_eq!(other, "sh"),
        }
    }
    assert_eq!(seen, 6);
}
