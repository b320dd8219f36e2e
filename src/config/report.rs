//! `[report]`: who is told of each scan.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Location;
use super::sinks::{NotifyConfig, SesConfig, WebhookConfig};
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

/// `[report.sinks.NAME]`: where reports go (one of `sqs`, …), and how much it matters that they arrive.
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
    /// As emails through GOV.UK Notify.
    pub notify: Option<NotifyConfig>,
    /// As emails through Amazon SES.
    pub ses: Option<SesConfig>,
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
    /// GOV.UK Notify.
    Notify(&'config NotifyConfig),
    /// Amazon SES.
    Ses(&'config SesConfig),
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
            notify: None,
            ses: None,
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
            self.notify.as_ref().map(SinkKind::Notify),
            self.ses.as_ref().map(SinkKind::Ses),
            self.sqs.as_ref().map(SinkKind::Sqs),
            self.webhook.as_ref().map(SinkKind::Webhook),
        ];
        let mut kinds = kinds.into_iter().flatten();
        kinds.next().filter(|_| kinds.next().is_none())
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
            if sink.kind().is_none() {
                problem(" must have exactly one of: notify, ses, sqs, webhook");
            }
            for text in sink.webhook.iter().flat_map(WebhookConfig::problems) {
                problem(&format!(".webhook.{text}"));
            }
            for text in sink.notify.iter().flat_map(NotifyConfig::problems) {
                problem(&format!(".notify.{text}"));
            }
            for text in sink.ses.iter().flat_map(SesConfig::problems) {
                problem(&format!(".ses.{text}"));
            }
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
