//! What is told about a scan: one JSON for every outlet, `clamgate.scan/1`, and the sinks that take it.

mod scan_report;
mod sqs;

use futures_util::future::BoxFuture;

pub use scan_report::{ActionReport, EngineVersions, SCHEMA, ScanReport, Target, Timings, scan_id};
pub use sqs::SqsSink;

/// Somebody who is told of every scan.
///
/// A report may be delivered more than once, always with the same `scan_id`: the receiver must take the second for the first.
pub trait Sink: Send + Sync {
    /// The sink's name, for the log.
    fn name(&self) -> &'static str;

    /// Delivers one report. The message behind it is only acknowledged when this has succeeded.
    fn deliver<'a>(&'a self, report: &'a ScanReport) -> BoxFuture<'a, Result<(), SinkError>>;
}

/// A report that could not be delivered. A retry can help.
#[derive(Debug, thiserror::Error)]
#[error("the report could not be delivered to {sink}: {message}")]
pub struct SinkError {
    /// The sink's name.
    pub sink: &'static str,
    /// What went wrong.
    pub message: String,
}
