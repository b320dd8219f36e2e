//! The events of an object's way through the service: one call each makes the log line and the counter.
//!
//! Names from outside (buckets, keys) are logged as quoted strings, so that they cannot forge a line.

use std::fmt::Display;

use ::metrics::{counter, histogram};

use super::metrics;
use crate::queue::{EventError, Message};
use crate::report::{ScanReport, SinkError, Target};
use crate::s3::{ObjectId, S3Error, S3ErrorKind};

/// A message that is left for the dead-letter queue. Logged loudly once, at its first delivery.
pub fn message_not_understood(message: &Message, error: &EventError) {
    counter!(metrics::NOT_UNDERSTOOD).increment(1);
    // It can quote the message, of up to a megabyte.
    let error: String = error.to_string().chars().take(300).collect();
    if message.receive_count <= 1 {
        tracing::error!(
            message_id = message.id.as_str(),
            error = error.as_str(),
            "message not understood; left for the dead-letter queue"
        );
    } else {
        tracing::debug!(message_id = message.id.as_str(), error = error.as_str(), "message not understood, again");
    }
}

/// An object that was deleted or replaced before it could be scanned. That one does not exist that must is a warning.
pub fn object_gone(id: &ObjectId, error: &S3Error, must_exist: bool) {
    counter!(metrics::GONE).increment(1);
    let (bucket, key, version_id) = (id.bucket.as_str(), id.key.as_str(), id.version_id.as_deref());
    let why = error.message.as_str();
    if must_exist && error.kind == S3ErrorKind::Gone {
        tracing::warn!(bucket, key, version_id, why, "the object that a job names does not exist");
    } else {
        tracing::info!(bucket, key, version_id, why, "object gone or replaced; nothing to scan");
    }
}

/// An object that a rule of `queue.filters` lets by without a scan.
pub fn object_skipped(id: &ObjectId, rule: &str) {
    counter!(metrics::SKIPPED, "rule" => rule.to_owned()).increment(1);
    tracing::info!(
        bucket = id.bucket.as_str(),
        key = id.key.as_str(),
        version_id = id.version_id.as_deref(),
        rule,
        "object skipped"
    );
}

/// Work on an object that failed; its message comes back, or, after its `last` delivery, goes to the dead-letter queue.
pub fn object_failed(id: &ObjectId, message: &Message, error: &dyn Display, last: bool) {
    counter!(metrics::FAILURES, "last" => if last { "true" } else { "false" }).increment(1);
    let error = error.to_string();
    tracing::warn!(
        bucket = id.bucket.as_str(),
        key = id.key.as_str(),
        version_id = id.version_id.as_deref(),
        message_id = message.id.as_str(),
        receive_count = message.receive_count,
        error = error.as_str(),
        last,
        "object not done; its message will be delivered again, or was for the last time"
    );
}

/// A report that could not be delivered and is given up. That there is nobody to tell is the uploader's doing, and only a warning.
pub fn report_lost(target: &Target, error: &SinkError) {
    counter!(metrics::REPORTS_LOST, "sink" => error.sink.clone()).increment(1);
    let is_pointless = error.is_pointless;
    let (target, sink, error) = (target.name(), error.sink.as_str(), error.message.as_str());
    if is_pointless {
        tracing::warn!(target, sink, error, "report not delivered: there is nobody to tell");
    } else {
        tracing::error!(target, sink, error, "report not delivered");
    }
}

/// A report that could not be delivered at once; it is tried again.
pub fn report_delayed(target: &Target, error: &SinkError, attempt: u32) {
    counter!(metrics::REPORTS_DELAYED, "sink" => error.sink.clone()).increment(1);
    let (target, sink, error) = (target.name(), error.sink.as_str(), error.message.as_str());
    tracing::warn!(target, sink, attempt, error, "report not delivered yet");
}

/// A sink that is not ready when the service starts; reports are delivered when it is.
pub fn sink_not_ready(error: &SinkError) {
    let (sink, error) = (error.sink.as_str(), error.message.as_str());
    tracing::warn!(sink, error, "not ready for reports");
}

/// A stream or file that could not be scanned; its sender was told.
pub fn stream_failed(via: &'static str, name: &str, error: &dyn Display) {
    let error = error.to_string();
    tracing::warn!(via, name, error = error.as_str(), "stream not scanned");
}

/// An object that is done, and the way it came in: the one line about it. `report` is the whole report as JSON.
pub fn object_scanned(via: &'static str, id: &ObjectId, report: &ScanReport) {
    count(via, report);
    histogram!(metrics::TOTAL_SECONDS).record(report.timings_ms.total);
    let json = serde_json::to_string(report).unwrap_or_default();
    let status = report.status.to_string();
    let reason = report.reason.map(|reason| reason.to_string());
    let ms = |duration: std::time::Duration| duration.as_secs_f64() * 1e3;
    tracing::info!(
        via,
        bucket = id.bucket.as_str(),
        key = id.key.as_str(),
        version_id = id.version_id.as_deref(),
        status = status.as_str(),
        reason = reason.as_deref(),
        signatures = report.signatures.join(" ").as_str(),
        queued_ms = ms(report.timings_ms.queued),
        fetch_ms = ms(report.timings_ms.fetch),
        scan_ms = ms(report.timings_ms.scan),
        act_ms = ms(report.timings_ms.act),
        total_ms = ms(report.timings_ms.total),
        report = json.as_str(),
        "object scanned"
    );
}

/// A stream or file that is done, and the way it came in.
pub fn stream_scanned(via: &'static str, report: &ScanReport) {
    count(via, report);
    let json = serde_json::to_string(report).unwrap_or_default();
    let status = report.status.to_string();
    let reason = report.reason.map(|reason| reason.to_string());
    tracing::info!(
        via,
        name = report.target.name(),
        status = status.as_str(),
        reason = reason.as_deref(),
        signatures = report.signatures.join(" ").as_str(),
        scan_ms = report.timings_ms.scan.as_secs_f64() * 1e3,
        total_ms = report.timings_ms.total.as_secs_f64() * 1e3,
        report = json.as_str(),
        "stream scanned"
    );
}

/// The definitions were reloaded, or could not be.
pub fn reloaded(outcome: &'static str) {
    counter!(metrics::RELOADS, "outcome" => outcome).increment(1);
}

/// A request to the HTTP API was answered. `route` is the route as it is written, not the path that was asked for.
pub fn http_request(route: &str, method: &'static str, status: u16) {
    let labels = [("route", route.to_owned()), ("method", method.to_owned()), ("status", status.to_string())];
    counter!(metrics::HTTP_REQUESTS, &labels).increment(1);
}

fn count(via: &'static str, report: &ScanReport) {
    let reason = report.reason.map_or_else(String::new, |reason| reason.to_string());
    counter!(metrics::SCANS, "via" => via, "status" => report.status.to_string(), "reason" => reason).increment(1);
    if report.cached {
        counter!(metrics::CACHED).increment(1);
    } else if report.sha256.is_some() {
        counter!(metrics::SCANNED_BYTES).increment(report.target.size());
        histogram!(metrics::SCAN_SECONDS).record(report.timings_ms.scan);
    }
}
