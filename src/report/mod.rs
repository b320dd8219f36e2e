//! What is told about a scan: one JSON for every outlet, `clamgate.scan/1`, and the sinks that take it.

mod answer;
mod batches;
mod delivery;
mod email;
mod encoded_word;
mod event_bridge;
mod fifo;
mod notify;
mod object;
mod outbox;
mod postgres;
mod refusal;
mod scan_report;
mod ses;
mod sns;
mod sqs;
mod upscan;
mod webhook;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use time::OffsetDateTime;

pub use delivery::Sinks;
pub use event_bridge::EventBridgeSink;
pub use notify::NotifySink;
pub use object::ObjectSink;
pub use outbox::Outbox;
pub use postgres::{POSTGRES_SCHEMA, PostgresSink};
pub use scan_report::{ActionReport, EngineVersions, SCHEMA, ScanReport, Source, Target, Timings, scan_id};
pub use ses::SesSink;
pub use sns::SnsSink;
pub use sqs::SqsSink;
pub use webhook::WebhookSink;

/// Somebody who is told of scans.
///
/// A report may be delivered more than once, always with the same `scan_id`: the receiver must take the second for the first.
/// Waiting, retries and giving up are not a sink's business, but that of [`Sinks`]: one call is one attempt.
pub trait Sink: Send + Sync {
    /// Delivers one report.
    ///
    /// # Errors
    ///
    /// [`SinkError`]. The call may also be dropped when it takes too long.
    fn deliver<'a>(&'a self, notice: &'a Notice<'a>) -> BoxFuture<'a, Result<(), SinkError>>;

    /// What it must know about the object beside the report. Asking S3 costs time.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// Gets ready, or looks whether it can be used, once at the start.
    ///
    /// # Errors
    ///
    /// [`SinkError`]: permanent when it certainly cannot, such as a topic that does not exist; transient when that cannot be
    /// told.
    fn prepare(&self) -> BoxFuture<'_, Result<(), SinkError>> {
        ready(Ok(())).boxed()
    }
}

/// What a sink must know about the object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Its headers and metadata.
    pub headers: bool,
    /// Its tags.
    pub tags: bool,
}

/// A report, and what else is known of the object.
#[derive(Debug, Clone, Copy)]
pub struct Notice<'a> {
    /// The report.
    pub report: &'a ScanReport,
    /// What the object's uploader said about it.
    pub about: &'a About,
}

/// What an object's uploader said about it: nothing to rely on. Empty unless a sink [needs](Sink::needs) it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// `Content-Type`
    pub content_type: Option<String>,
    /// When it was written.
    pub last_modified: Option<OffsetDateTime>,
    /// `x-amz-meta-*`, by name without that prefix, in small letters.
    pub metadata: BTreeMap<String, String>,
    /// Its tags, those that a scan wrote included.
    pub tags: BTreeMap<String, String>,
}

/// A report that could not be delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the report could not be delivered to {sink}: {message}")]
pub struct SinkError {
    /// The sink's name in the configuration.
    pub sink: String,
    /// What went wrong, without secrets.
    pub message: String,
    /// Whether a further attempt soon can help.
    pub can_retry: bool,
    /// How long the receiver wants to be left alone.
    pub retry_after: Option<Duration>,
    /// Whether there is nobody to tell, now or ever: then not even a required sink keeps its message.
    pub is_pointless: bool,
}

impl SinkError {
    /// An error that a further attempt can mend.
    #[must_use]
    pub fn transient(message: impl Into<String>) -> Self {
        Self { sink: String::new(), message: message.into(), can_retry: true, retry_after: None, is_pointless: false }
    }

    /// An error that a further attempt soon repeats.
    #[must_use]
    pub fn permanent(message: impl Into<String>) -> Self {
        Self { can_retry: false, ..Self::transient(message) }
    }

    /// There is nobody to tell: the object does not say who, or not so that anybody could be told.
    #[must_use]
    pub fn pointless(message: impl Into<String>) -> Self {
        Self { is_pointless: true, ..Self::permanent(message) }
    }
}
