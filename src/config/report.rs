//! `[report]`: who is told of each scan.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Location;
use super::sinks::{
    EventBridgeSinkConfig, NotifyConfig, ObjectSinkConfig, PostgresSinkConfig, SesConfig, SnsSinkConfig, WebhookConfig,
};
use crate::engine::Status;

/// `[report]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReportConfig {
    /// An SQS queue that gets each report as a message: short for a sink named `queue`.
    pub queue_url: Option<String>,
    /// Where each report is written down before anybody is told (`s3://bucket/prefix/`). Work that a crash cut short is then told
    /// again in the same words; without it, with the same `scan_id`, but with the times of the second scan.
    pub outbox: Option<Location>,
    /// How many messages may wait for a sink that does not answer, without keeping others from being scanned.
    pub max_waiting: usize,
    /// Everybody who is told, by a name of your choice.
    pub sinks: BTreeMap<String, SinkConfig>,
}

/// `[report.sinks.NAME]`: where reports go (one of `event_bridge`, `postgres`, `s3`, …), and how much it matters that they arrive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SinkConfig {
    /// Whether a message is only acknowledged when this sink has its report. If not, a report that cannot be delivered is given up.
    pub required: bool,
    /// The statuses that are told; all when unset.
    pub statuses: Option<Vec<Status>>,
    /// How long one attempt may take.
    pub timeout_secs: u64,
    /// How long further attempts are made. After that, a required report goes back to the queue with its message.
    pub retry_for_secs: u64,
    /// As events on an EventBridge bus.
    pub event_bridge: Option<EventBridgeSinkConfig>,
    /// As emails through GOV.UK Notify.
    pub notify: Option<NotifyConfig>,
    /// As rows of a table in PostgreSQL.
    pub postgres: Option<PostgresSinkConfig>,
    /// As one object in S3 for each scan.
    pub s3: Option<ObjectSinkConfig>,
    /// As emails through Amazon SES.
    pub ses: Option<SesConfig>,
    /// As messages on an SNS topic.
    pub sns: Option<SnsSinkConfig>,
    /// As messages on an SQS queue.
    pub sqs: Option<SqsSinkConfig>,
    /// As POST requests to a server.
    pub webhook: Option<WebhookConfig>,
}

/// `[report.sinks.NAME.sqs]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqsSinkConfig {
    /// The queue's URL.
    pub queue_url: String,
}

/// Where a sink's reports go.
#[derive(Debug, Clone, Copy)]
pub enum SinkKind<'config> {
    /// An EventBridge bus.
    EventBridge(&'config EventBridgeSinkConfig),
    /// GOV.UK Notify.
    Notify(&'config NotifyConfig),
    /// A table in PostgreSQL.
    Postgres(&'config PostgresSinkConfig),
    /// A place in S3.
    S3(&'config ObjectSinkConfig),
    /// Amazon SES.
    Ses(&'config SesConfig),
    /// An SNS topic.
    Sns(&'config SnsSinkConfig),
    /// An SQS queue.
    Sqs(&'config SqsSinkConfig),
    /// A server.
    Webhook(&'config WebhookConfig),
}

/// The name of the sink that `report.queue_url` stands for.
const QUEUE: &str = "queue";

impl Default for ReportConfig {
    fn default() -> Self {
        Self { queue_url: None, outbox: None, max_waiting: 1000, sinks: BTreeMap::new() }
    }
}

impl Default for SinkConfig {
    fn default() -> Self {
        Self {
            required: true,
            statuses: None,
            timeout_secs: 10,
            retry_for_secs: 300,
            event_bridge: None,
            notify: None,
            postgres: None,
            s3: None,
            ses: None,
            sns: None,
            sqs: None,
            webhook: None,
        }
    }
}

impl SinkConfig {
    /// Where its reports go; `None` unless exactly one place is configured.
    #[must_use]
    pub fn kind(&self) -> Option<SinkKind<'_>> {
        let kinds = [
            self.event_bridge.as_ref().map(SinkKind::EventBridge),
            self.notify.as_ref().map(SinkKind::Notify),
            self.postgres.as_ref().map(SinkKind::Postgres),
            self.s3.as_ref().map(SinkKind::S3),
            self.ses.as_ref().map(SinkKind::Ses),
            self.sns.as_ref().map(SinkKind::Sns),
            self.sqs.as_ref().map(SinkKind::Sqs),
            self.webhook.as_ref().map(SinkKind::Webhook),
        ];
        let mut kinds = kinds.into_iter().flatten();
        kinds.next().filter(|_| kinds.next().is_none())
    }

    /// What cannot work with the place that is configured, each with the rest of the field's name.
    fn problems_of_kind(&self) -> Vec<String> {
        let named =
            |name: &'static str, texts: Vec<String>| texts.into_iter().map(move |text| format!(".{name}.{text}")).collect();
        match self.kind() {
            Some(SinkKind::EventBridge(config)) => config.problems(),
            Some(SinkKind::Notify(config)) => named("notify", config.problems()),
            Some(SinkKind::Postgres(config)) => config.problems().into_iter().map(|text| format!(".postgres{text}")).collect(),
            Some(SinkKind::S3(config)) => config.problems(),
            Some(SinkKind::Ses(config)) => named("ses", config.problems()),
            Some(SinkKind::Sns(config)) => config.problems(),
            Some(SinkKind::Sqs(_)) => Vec::new(),
            Some(SinkKind::Webhook(config)) => named("webhook", config.problems()),
            None => vec![" must have exactly one of: event_bridge, notify, postgres, s3, ses, sns, sqs, webhook".to_owned()],
        }
    }
}

impl ReportConfig {
    /// All sinks, by name, `queue_url` among them.
    #[must_use]
    pub fn sinks(&self) -> BTreeMap<String, SinkConfig> {
        let mut sinks = self.sinks.clone();
        if let Some(queue_url) = self.queue_url.clone() {
            let queue = SinkConfig { sqs: Some(SqsSinkConfig { queue_url }), ..SinkConfig::default() };
            sinks.insert(QUEUE.to_owned(), queue);
        }
        sinks
    }

    /// The URLs of all queues that are told.
    pub fn queue_urls(&self) -> impl Iterator<Item = &str> {
        self.queue_url
            .iter()
            .chain(self.sinks.values().filter_map(|sink| Some(&sink.sqs.as_ref()?.queue_url)))
            .map(String::as_str)
    }

    /// All places in S3 where reports are written.
    #[must_use]
    pub fn locations(&self) -> Vec<Location> {
        let objects = self.sinks.values().filter_map(|sink| Some(sink.s3.as_ref()?.to.location()));
        self.outbox.iter().cloned().chain(objects).collect()
    }

    /// What cannot work, one sentence each, with the field's name.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.queue_url.is_some() && self.sinks.contains_key(QUEUE) {
            problems.push(format!("report.sinks.{QUEUE} is the name that report.queue_url has already: choose another"));
        }
        for (name, sink) in &self.sinks {
            let mut problem = |text: &str| problems.push(format!("report.sinks.{name}{text}"));
            if !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c)) || name.is_empty() {
                problem(": its name must be made of a-z, 0-9, - and _");
            }
            sink.problems_of_kind().iter().for_each(|text| problem(text));
            if sink.statuses.as_ref().is_some_and(Vec::is_empty) {
                problem(".statuses is empty: nobody would ever be told");
            }
            if !(1..=300).contains(&sink.timeout_secs) {
                problem(".timeout_secs must be between 1 and 300");
            }
            if sink.retry_for_secs > 6 * 3600 {
                problem(".retry_for_secs must be at most 21600: SQS hides a message for no more than 12 hours in all");
            }
        }
        problems
    }
}
