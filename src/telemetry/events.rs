//! The events of an object's way through the service: one call each, one log line each.
//!
//! Names from outside (buckets, keys) are logged as quoted strings, so that they cannot forge a line.

use std::fmt::Display;

use crate::queue::{EventError, Message};
use crate::report::{ScanReport, Target};
use crate::s3::{ObjectId, S3Error};

/// A message that is left for the dead-letter queue. Logged loudly once, at its first delivery.
pub fn message_not_understood(message: &Message, error: &EventError) {
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

/// An object that was deleted or replaced before it could be scanned.
pub fn object_gone(id: &ObjectId, error: &S3Error) {
    tracing::info!(
        bucket = id.bucket.as_str(),
        key = id.key.as_str(),
        version_id = id.version_id.as_deref(),
        why = error.message.as_str(),
        "object gone or replaced; nothing to scan"
    );
}

/// Work on an object that failed; its message comes back, or, after its `last` delivery, goes to the dead-letter queue.
pub fn object_failed(id: &ObjectId, message: &Message, error: &dyn Display, last: bool) {
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

/// A report on a failure that could not be delivered; the message in the dead-letter queue is all that is left.
pub fn report_lost(id: &ObjectId, error: &dyn Display) {
    let error = error.to_string();
    tracing::error!(bucket = id.bucket.as_str(), key = id.key.as_str(), error = error.as_str(), "report not delivered");
}

/// An object that is done: the one line about it. `report` is the whole report as JSON.
pub fn object_scanned(id: &ObjectId, report: &ScanReport) {
    let json = serde_json::to_string(report).unwrap_or_default();
    let status = report.status.to_string();
    let reason = report.reason.map(|reason| reason.to_string());
    let ms = |duration: std::time::Duration| duration.as_secs_f64() * 1e3;
    tracing::info!(
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

/// A stream that a client brought, `via` one of the ways in: the one line about it. `report` is the whole report as JSON.
pub fn stream_scanned(via: &'static str, report: &ScanReport) {
    let json = serde_json::to_string(report).unwrap_or_default();
    let name = match &report.target {
        Target::Stream { name, .. } => name.as_str(),
        Target::File { path, .. } => path.as_str(),
        Target::S3 { key, .. } => key.as_str(),
    };
    let status = report.status.to_string();
    let reason = report.reason.map(|reason| reason.to_string());
    tracing::info!(
        via,
        name,
        status = status.as_str(),
        reason = reason.as_deref(),
        signatures = report.signatures.join(" ").as_str(),
        total_ms = report.timings_ms.total.as_secs_f64() * 1e3,
        report = json.as_str(),
        "stream scanned"
    );
}
