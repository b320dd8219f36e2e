//! Reports as events on an EventBridge bus.

use aws_sdk_eventbridge::Client;
use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use aws_smithy_types::DateTime;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::answer::{failed, json_within, looked_up, refused, too_long};
use super::{Notice, SCHEMA, ScanReport, Sink, SinkError, Target};
use crate::aws;
use crate::config::{EventBridgeForm, EventBridgeSinkConfig};
use crate::engine::{Reason, Status};

/// The most bytes of an event: time, source, detail-type and detail
/// (<https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html>).
const MOST_BYTES: usize = 256 * 1024;

/// What the time counts.
const TIME_BYTES: usize = 14;

/// GuardDuty's name for the event
/// (<https://docs.aws.amazon.com/guardduty/latest/ug/monitor-with-eventbridge-s3-malware-protection.html>).
const GUARDDUTY: &str = "GuardDuty Malware Protection Object Scan Result";

/// How many threats are listed when all of them would be too long.
const MOST_THREATS: usize = 100;

/// Puts an event for each report.
#[derive(Debug, Clone)]
pub struct EventBridgeSink {
    client: Client,
    config: EventBridgeSinkConfig,
}

impl EventBridgeSink {
    /// A sink on an event bus.
    #[must_use]
    pub fn new(client: Client, config: EventBridgeSinkConfig) -> Self {
        Self { client, config }
    }

    async fn put(&self, report: &ScanReport) -> Result<(), SinkError> {
        let EventBridgeSinkConfig { bus, source, form } = &self.config;
        let detail_type = detail_type(*form);
        let detail = detail(*form, report, MOST_BYTES - TIME_BYTES - source.len() - detail_type.len())?;
        let entry = PutEventsRequestEntry::builder()
            .event_bus_name(bus)
            .source(source)
            .detail_type(detail_type)
            .detail(detail)
            // The same for every delivery.
            .time(DateTime::from_secs(report.scanned_at.unix_timestamp()))
            .build();
        let put = self.client.put_events().entries(entry).send().await.map_err(|error| failed("PutEvents", &error))?;
        // The request as a whole succeeds when its entry fails.
        match put.entries() {
            [entry] if put.failed_entry_count() == 0 && entry.error_code().is_none() => Ok(()),
            [entry] => {
                let (code, text) = (entry.error_code().unwrap_or(""), entry.error_message().unwrap_or(""));
                Err(refused("PutEvents", code, text))
            }
            _ => Err(SinkError::transient("PutEvents: no answer for the event")),
        }
    }
}

impl Sink for EventBridgeSink {
    fn deliver<'a>(&'a self, notice: &'a Notice<'a>) -> BoxFuture<'a, Result<(), SinkError>> {
        self.put(notice.report).boxed()
    }

    fn prepare(&self) -> BoxFuture<'_, Result<(), SinkError>> {
        async {
            let asked = self.client.describe_event_bus().name(&self.config.bus).send().await;
            looked_up("DescribeEventBus", asked)
        }
        .boxed()
    }
}

fn detail_type(form: EventBridgeForm) -> &'static str {
    match form {
        EventBridgeForm::Clamgate => SCHEMA,
        EventBridgeForm::GuardDuty => GUARDDUTY,
    }
}

fn detail(form: EventBridgeForm, report: &ScanReport, most: usize) -> Result<String, SinkError> {
    if form == EventBridgeForm::Clamgate {
        return json_within(report, most);
    }
    let whole = aws::sqs_text(&guardduty(report, usize::MAX).to_string());
    if whole.len() <= most {
        return Ok(whole);
    }
    let short = aws::sqs_text(&guardduty(report, MOST_THREATS).to_string());
    if short.len() <= most { Ok(short) } else { Err(too_long(whole.len(), most)) }
}

/// The detail of GuardDuty's event. Only what is clean has no threats.
fn guardduty(report: &ScanReport, most_threats: usize) -> Value {
    let (bucket, key, etag, version) = match &report.target {
        Target::S3 { bucket, key, etag, version_id, .. } => {
            (bucket.as_str(), key.as_str(), etag.as_deref(), version_id.as_deref())
        }
        target => ("", target.name(), None, None),
    };
    let (scan, result) = match report.status {
        Status::Clean => ("COMPLETED", "NO_THREATS_FOUND"),
        Status::Infected | Status::Suspicious => ("COMPLETED", "THREATS_FOUND"),
        Status::Unscannable => ("SKIPPED", "UNSUPPORTED"),
        Status::Failed => ("FAILED", "FAILED"),
    };
    let is_found = result == "THREATS_FOUND";
    let threats: Vec<Value> = report.signatures.iter().take(most_threats).map(|name| json!({"name": name})).collect();
    let reason = report.reason.filter(|_| !is_found).map(|reason| match reason {
        Reason::Encrypted => "PASSWORD_PROTECTED".to_owned(),
        other => other.to_string(),
    });
    json!({
        "schemaVersion": "1.0",
        "scanStatus": scan,
        "resourceType": "S3_OBJECT",
        "s3ObjectDetails": {"bucketName": bucket, "objectKey": key, "eTag": etag, "versionId": version, "s3Throttled": false},
        "scanResultDetails": {
            "scanResultStatus": result,
            "threats": is_found.then_some(threats),
            "statusReasons": reason.map(|reason| [reason]),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::scan_report::example;
    use super::*;

    /// As GuardDuty's user guide shows its events, with the values of our example.
    #[test]
    fn guardduty_says_the_same() -> Result<(), Box<dyn std::error::Error>> {
        let recorded = r#"{
            "schemaVersion": "1.0",
            "scanStatus": "SCAN",
            "resourceType": "S3_OBJECT",
            "s3ObjectDetails": {"bucketName": "b", "objectKey": "k", "eTag": "e", "versionId": "v", "s3Throttled": false},
            "scanResultDetails": {"scanResultStatus": "RESULT", "threats": THREATS, "statusReasons": REASONS}
        }"#;
        for (status, reason, scan, result, threats, reasons) in [
            (Status::Clean, None, "COMPLETED", "NO_THREATS_FOUND", "null", "null"),
            (Status::Infected, None, "COMPLETED", "THREATS_FOUND", r#"[{"name": "Win.Test.EICAR_HDB-1"}]"#, "null"),
            (
                Status::Infected,
                Some(Reason::TimedOut),
                "COMPLETED",
                "THREATS_FOUND",
                r#"[{"name": "Win.Test.EICAR_HDB-1"}]"#,
                "null",
            ),
            (Status::Suspicious, None, "COMPLETED", "THREATS_FOUND", r#"[{"name": "Win.Test.EICAR_HDB-1"}]"#, "null"),
            (Status::Unscannable, Some(Reason::Encrypted), "SKIPPED", "UNSUPPORTED", "null", r#"["PASSWORD_PROTECTED"]"#),
            (Status::Unscannable, Some(Reason::TooLarge), "SKIPPED", "UNSUPPORTED", "null", r#"["TOO_LARGE"]"#),
            (Status::Failed, None, "FAILED", "FAILED", "null", "null"),
        ] {
            let recorded = recorded
                .replace("SCAN", scan)
                .replace("RESULT", result)
                .replace("THREATS,", &format!("{threats},"))
                .replace("REASONS", reasons);
            let report = ScanReport { status, reason, ..example() };
            let detail = detail(EventBridgeForm::GuardDuty, &report, MOST_BYTES)?;
            assert_eq!(serde_json::from_str::<Value>(&detail)?, serde_json::from_str::<Value>(&recorded)?, "{status}");
        }
        Ok(())
    }

    #[test]
    fn too_many_threats_are_cut() -> Result<(), Box<dyn std::error::Error>> {
        let report = ScanReport { signatures: (0..5000).map(|n| format!("Win.Test.{n:05}")).collect(), ..example() };
        for (form, list) in
            [(EventBridgeForm::Clamgate, "/signatures"), (EventBridgeForm::GuardDuty, "/scanResultDetails/threats")]
        {
            let short: Value = serde_json::from_str(&detail(form, &report, 50_000)?)?;
            assert_eq!(short.pointer(list).and_then(Value::as_array).map(Vec::len), Some(100), "{list}");
            assert!(detail(form, &report, 100).is_err());
        }
        Ok(())
    }
}
