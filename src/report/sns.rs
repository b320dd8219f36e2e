//! Reports as messages on an SNS topic.

use std::collections::BTreeMap;

use aws_sdk_sns::Client;
use aws_sdk_sns::types::MessageAttributeValue;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Serialize;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::answer::{failed, json_within, looked_up, too_long};
use super::{Notice, ScanReport, Sink, SinkError, Target, fifo};
use crate::aws;
use crate::config::{SnsForm, SnsSinkConfig};
use crate::engine::Status;

/// The most bytes of a message, its attributes included (<https://docs.aws.amazon.com/sns/latest/api/API_Publish.html>).
const MOST_BYTES: usize = 256 * 1024;

/// The most characters of a subject; it is ASCII without control characters.
const LONGEST_SUBJECT: usize = 99;

/// Publishes each report, with attributes for the filters of subscriptions.
#[derive(Debug, Clone)]
pub struct SnsSink {
    client: Client,
    config: SnsSinkConfig,
}

/// A message, as subscribers get it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Message {
    text: String,
    subject: Option<String>,
    attributes: BTreeMap<&'static str, String>,
}

impl SnsSink {
    /// A sink on a topic.
    #[must_use]
    pub fn new(client: Client, config: SnsSinkConfig) -> Self {
        Self { client, config }
    }

    async fn publish(&self, report: &ScanReport) -> Result<(), SinkError> {
        let topic = self.config.topic_arn.as_str();
        let message = Message::new(self.config.form, report)?;
        let mut request = self.client.publish().topic_arn(topic).message(&message.text).set_subject(message.subject);
        for (name, value) in message.attributes {
            let value = MessageAttributeValue::builder().data_type("String").string_value(value).build();
            request = request.message_attributes(name, value.map_err(|error| SinkError::permanent(error.to_string()))?);
        }
        let (group, id) = fifo::ids(topic, report)?.unzip();
        let request = request.set_message_group_id(group).set_message_deduplication_id(id);
        request.send().await.map(drop).map_err(|error| failed("Publish", &error))
    }
}

impl Sink for SnsSink {
    fn deliver<'a>(&'a self, notice: &'a Notice<'a>) -> BoxFuture<'a, Result<(), SinkError>> {
        self.publish(notice.report).boxed()
    }

    fn prepare(&self) -> BoxFuture<'_, Result<(), SinkError>> {
        async {
            let asked = self.client.get_topic_attributes().topic_arn(&self.config.topic_arn).send().await;
            looked_up("GetTopicAttributes", asked)
        }
        .boxed()
    }
}

impl Message {
    fn new(form: SnsForm, report: &ScanReport) -> Result<Self, SinkError> {
        let message = match form {
            SnsForm::Clamgate => clamgate(report)?,
            SnsForm::BucketAntivirusFunction => bucket_antivirus_function(report)?,
            SnsForm::AwsS3Virusscan => aws_s3_virusscan(report),
        };
        let bytes = message.text.len() + message.attribute_bytes();
        if bytes > MOST_BYTES { Err(too_long(bytes, MOST_BYTES)) } else { Ok(message) }
    }

    fn attribute_bytes(&self) -> usize {
        self.attributes.iter().map(|(name, value)| name.len() + "String".len() + value.len()).sum()
    }
}

/// Our own report.
fn clamgate(report: &ScanReport) -> Result<Message, SinkError> {
    let mut attributes = of_object(&report.target);
    attributes.insert("status", report.status.to_string());
    attributes.insert("reason", report.reason.map(|reason| reason.to_string()).unwrap_or_default());
    let moved = report.actions.iter().rev().find(|action| matches!(action.outcome.as_ref(), "done" | "follows"));
    attributes.insert("action", moved.map_or("none", |action| action.action.as_ref()).to_owned());
    let mut message = Message { text: String::new(), subject: None, attributes: without_empty(attributes) };
    message.text = json_within(report, MOST_BYTES - message.attribute_bytes())?;
    Ok(message)
}

const TIMESTAMP: &[BorrowedFormatItem<'_>] = format_description!("[year]/[month]/[day] [hour]:[minute]:[second] UTC");

/// As in `sns_scan_results` of <https://github.com/bluesentry/bucket-antivirus-function/blob/master/scan.py>. It knows clean and
/// infected only: whatever is not clean must not be taken for it.
fn bucket_antivirus_function(report: &ScanReport) -> Result<Message, SinkError> {
    #[derive(Serialize)]
    #[serde(rename_all = "kebab-case")]
    struct Form<'a> {
        bucket: &'a str,
        key: &'a str,
        version: Option<&'a str>,
        av_signature: &'a str,
        av_status: &'a str,
        av_timestamp: String,
    }
    let (bucket, key, version) = object(&report.target);
    let is_clean = report.status == Status::Clean;
    let utc = report.scanned_at.to_offset(time::UtcOffset::UTC);
    let form = Form {
        bucket,
        key,
        version,
        av_signature: if is_clean { "OK" } else { report.signatures.first().map_or("UNKNOWN", String::as_str) },
        av_status: if is_clean { "CLEAN" } else { "INFECTED" },
        av_timestamp: utc.format(TIMESTAMP).map_err(|error| SinkError::permanent(error.to_string()))?,
    };
    let text = serde_json::to_string(&form).map_err(|error| SinkError::permanent(error.to_string()))?;
    Ok(Message { text: aws::sqs_text(&text), subject: None, attributes: BTreeMap::new() })
}

/// As in `publish_notification` of the worker in <https://github.com/widdix/aws-s3-virusscan/blob/master/template.yaml>. What
/// could not be scanned has its status for that, `no`.
fn aws_s3_virusscan(report: &ScanReport) -> Message {
    let (bucket, key, version) = object(&report.target);
    let status = match report.status {
        Status::Clean => "clean",
        Status::Infected | Status::Suspicious => "infected",
        Status::Unscannable | Status::Failed => "no",
    };
    let did = |name: &str| {
        let is_done = |outcome: &str| matches!(outcome, "done" | "follows");
        report.actions.iter().any(|action| action.action == name && is_done(&action.outcome))
    };
    let action = if did("delete") {
        "delete"
    } else if did("tag") {
        "tag"
    } else {
        "no"
    };
    let text = format!("s3://{bucket}/{key} {} is {status}, {action} action executed", version.unwrap_or(""));
    let mut attributes = of_object(&report.target);
    attributes.insert("status", status.to_owned());
    attributes.insert("action", action.to_owned());
    let subject = format!("s3-virusscan s3://{bucket}");
    let fits = subject.len() <= LONGEST_SUBJECT && subject.chars().all(|c| c == ' ' || c.is_ascii_graphic());
    Message { text: aws::sqs_plain_text(&text), subject: fits.then_some(subject), attributes: without_empty(attributes) }
}

/// SNS refuses an empty value.
fn without_empty(mut attributes: BTreeMap<&'static str, String>) -> BTreeMap<&'static str, String> {
    attributes.retain(|_, value| !value.is_empty());
    attributes
}

/// Bucket, key and version.
fn object(target: &Target) -> (&str, &str, Option<&str>) {
    match target {
        Target::S3 { bucket, key, version_id, .. } => (bucket, key, version_id.as_deref()),
        Target::File { .. } | Target::Stream { .. } => ("", target.name(), None),
    }
}

fn of_object(target: &Target) -> BTreeMap<&'static str, String> {
    let (bucket, key, version) = object(target);
    let pairs = [("bucket", bucket), ("key", key), ("version", version.unwrap_or(""))];
    pairs.into_iter().map(|(name, value)| (name, aws::sqs_plain_text(value))).collect()
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::super::ActionReport;
    use super::super::scan_report::example;
    use super::*;
    use crate::engine::Reason;

    fn report(status: Status, actions: &[&'static str]) -> ScanReport {
        let action = |name: &&'static str| ActionReport {
            action: Cow::Borrowed(*name),
            outcome: Cow::Borrowed("done"),
            destination: None,
            detail: None,
        };
        let signatures = if status == Status::Infected { example().signatures } else { Vec::new() };
        let reason = (status == Status::Unscannable).then_some(Reason::Encrypted);
        ScanReport { status, signatures, reason, actions: actions.iter().map(action).collect(), ..example() }
    }

    fn attributes(message: &Message) -> String {
        message.attributes.iter().map(|(name, value)| format!("{name}={value} ")).collect::<String>().trim_end().to_owned()
    }

    #[test]
    fn filters_find_what_they_need() -> Result<(), SinkError> {
        for (status, actions, expected) in [
            (Status::Clean, &["promote"][..], "action=promote bucket=b key=k status=CLEAN version=v"),
            (Status::Infected, &[], "action=none bucket=b key=k status=INFECTED version=v"),
            (Status::Unscannable, &["tag"], "action=tag bucket=b key=k reason=ENCRYPTED status=UNSCANNABLE version=v"),
        ] {
            let report = report(status, actions);
            let message = Message::new(SnsForm::Clamgate, &report)?;
            assert_eq!((attributes(&message).as_str(), &message.text), (expected, &report.to_json()?));
        }
        let target = Target::S3 { bucket: "b".into(), key: "a\u{1}\u{fffe}".into(), version_id: None, etag: None, size: 1 };
        let message = Message::new(SnsForm::Clamgate, &ScanReport { target, ..report(Status::Clean, &[]) })?;
        assert_eq!(attributes(&message), r"action=none bucket=b key=a\u0001\ufffe status=CLEAN");
        Ok(())
    }

    #[test]
    fn attributes_count_when_it_is_too_long() -> Result<(), SinkError> {
        let mut report = report(Status::Clean, &[]);
        let own = Message::new(SnsForm::Clamgate, &report)?;
        let room = MOST_BYTES - own.text.len() - own.attribute_bytes() - r#","trace_id":"""#.len();
        for (bytes, fits) in [(room, true), (room + 1, false)] {
            report.trace_id = Some("x".repeat(bytes));
            assert_eq!(Message::new(SnsForm::Clamgate, &report).is_ok(), fits, "{bytes}");
        }
        Ok(())
    }

    /// The README shows no example: these are what `json.dumps` makes of the fields in `scan.py`, read from its code.
    #[test]
    fn bucket_antivirus_function_says_the_same() -> Result<(), Box<dyn std::error::Error>> {
        for (status, expected) in [
            (Status::Clean, r#""av-signature": "OK", "av-status": "CLEAN""#),
            (Status::Infected, r#""av-signature": "Win.Test.EICAR_HDB-1", "av-status": "INFECTED""#),
            (Status::Suspicious, r#""av-signature": "UNKNOWN", "av-status": "INFECTED""#),
            (Status::Unscannable, r#""av-signature": "UNKNOWN", "av-status": "INFECTED""#),
            (Status::Failed, r#""av-signature": "UNKNOWN", "av-status": "INFECTED""#),
        ] {
            let recorded = format!(
                r#"{{"bucket": "b", "key": "k", "version": "v", {expected}, "av-timestamp": "2026/10/14 17:46:40 UTC"}}"#
            );
            let message = Message::new(SnsForm::BucketAntivirusFunction, &report(status, &[]))?;
            let (found, recorded): (serde_json::Value, serde_json::Value) =
                (serde_json::from_str(&message.text)?, serde_json::from_str(&recorded)?);
            assert_eq!((found, attributes(&message).as_str()), (recorded, ""));
        }
        Ok(())
    }

    #[test]
    fn aws_s3_virusscan_says_the_same() -> Result<(), SinkError> {
        for (status, actions, text, expected) in [
            (Status::Clean, &["tag"][..], "clean, tag", "action=tag bucket=b key=k status=clean version=v"),
            (
                Status::Infected,
                &["tag", "delete"],
                "infected, delete",
                "action=delete bucket=b key=k status=infected version=v",
            ),
            (Status::Suspicious, &[], "infected, no", "action=no bucket=b key=k status=infected version=v"),
            (Status::Unscannable, &["tag"], "no, tag", "action=tag bucket=b key=k status=no version=v"),
            (Status::Failed, &[], "no, no", "action=no bucket=b key=k status=no version=v"),
        ] {
            let message = Message::new(SnsForm::AwsS3Virusscan, &report(status, actions))?;
            assert_eq!(message.text, format!("s3://b/k v is {text} action executed"));
            assert_eq!(message.subject.as_deref(), Some("s3-virusscan s3://b"));
            assert_eq!(attributes(&message), expected);
        }
        Ok(())
    }
}
