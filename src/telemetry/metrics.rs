//! What `/metrics` shows, in Prometheus's text format. Events count themselves (`events`); states are read when they are asked for.
//!
//! Labels have few values, all of them known beforehand or configured: nothing that an uploader chooses becomes a label.

use std::sync::OnceLock;

use metrics::{describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::service::Service;

/// Verdicts, by `via` (`queue`, `http`, `clamd`, …), `status` and `reason`.
pub const SCANS: &str = "clamgate_scans_total";
/// Bytes that were scanned.
pub const SCANNED_BYTES: &str = "clamgate_scanned_bytes_total";
/// How long scans took, without waiting for messages and objects.
pub const SCAN_SECONDS: &str = "clamgate_scan_seconds";
/// Verdicts that were known, without a scan.
pub const CACHED: &str = "clamgate_cached_verdicts_total";
/// From upload (the message's sending) to the report.
pub const TOTAL_SECONDS: &str = "clamgate_upload_to_verdict_seconds";
/// Objects that were gone or replaced before they could be scanned, or that a job names and do not exist.
pub const GONE: &str = "clamgate_objects_gone_total";
/// Objects that a rule of `queue.filters` let by, by `rule`.
pub const SKIPPED: &str = "clamgate_objects_skipped_total";
/// Attempts at an object that failed, by whether it was the `last` one.
pub const FAILURES: &str = "clamgate_object_failures_total";
/// Messages that were not understood.
pub const NOT_UNDERSTOOD: &str = "clamgate_messages_not_understood_total";
/// Attempts at delivering a report that failed and were repeated, by `sink`.
pub const REPORTS_DELAYED: &str = "clamgate_reports_delayed_total";
/// Reports that could not be delivered and were given up, by `sink`.
pub const REPORTS_LOST: &str = "clamgate_reports_lost_total";
/// Reloads of the definitions, by `outcome` (`done`, `failed`).
pub const RELOADS: &str = "clamgate_reloads_total";
/// Requests to the HTTP API, by `route`, `method` and `status`.
pub const HTTP_REQUESTS: &str = "clamgate_http_requests_total";

const LOADING: &str = "clamgate_definitions_loading";
const READY: &str = "clamgate_ready";
const OBSTACLES: &str = "clamgate_obstacles";
const IN_FLIGHT: &str = "clamgate_messages_in_flight";
const BUSY: &str = "clamgate_scans_in_flight";
const THREADS: &str = "clamgate_scan_threads";
const OVERDUE: &str = "clamgate_scan_threads_overdue";
const SIGNATURES: &str = "clamgate_signatures";
const VERSION: &str = "clamgate_definitions_version";
const AGE: &str = "clamgate_definitions_age_seconds";

const SECONDS: &[f64] = &[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0];

/// Begins to count. Events before that are not counted; the second call does nothing.
pub fn install() {
    let _ = recorder();
}

/// Everything that is known at this moment.
#[must_use]
pub fn render(service: &Service) -> String {
    let Some(recorder) = recorder() else { return String::new() };
    let health = service.health();
    gauge!(READY).set(f64::from(u8::from(service.complaints().is_empty())));
    gauge!(LOADING).set(f64::from(u8::from(health.loading.is_some())));
    gauge!(OBSTACLES).set(count(health.obstacles.len()));
    gauge!(IN_FLIGHT).set(count(health.in_flight));
    gauge!(BUSY).set(count(health.scans));
    gauge!(OVERDUE).set(count(health.overdue_threads));
    gauge!(SIGNATURES).set(f64::from(health.signatures));
    if let Some(parts) = service.parts() {
        gauge!(THREADS).set(count(parts.pool.threads()));
        gauge!(VERSION).set(f64::from(parts.pool.current().definitions.version));
    }
    if let Some(age) = service.definitions_age() {
        gauge!(AGE).set(age.as_secs_f64());
    }
    recorder.render()
}

/// Puts the histograms' samples in their buckets. Without it they pile up for as long as nobody asks for the metrics.
pub fn upkeep() {
    if let Some(recorder) = recorder() {
        recorder.run_upkeep();
    }
}

/// `None` when something else in the process records already: a program that embeds this library.
fn recorder() -> Option<&'static PrometheusHandle> {
    static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    RECORDER
        .get_or_init(|| {
            let built = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS);
            let recorder = built.and_then(PrometheusBuilder::install_recorder).ok()?;
            describe();
            Some(recorder)
        })
        .as_ref()
}

fn describe() {
    describe_counter!(SCANS, "Verdicts");
    describe_counter!(SCANNED_BYTES, "Bytes that were scanned");
    describe_histogram!(SCAN_SECONDS, "How long scans took");
    describe_counter!(CACHED, "Verdicts that were known from an earlier scan of the same content");
    describe_histogram!(TOTAL_SECONDS, "From the message's sending to the report");
    describe_counter!(
        GONE,
        "Objects that were deleted or replaced before they could be scanned, or that a job names and do not exist"
    );
    describe_counter!(SKIPPED, "Objects that a rule of queue.filters let by");
    describe_counter!(FAILURES, "Attempts at an object that failed");
    describe_counter!(NOT_UNDERSTOOD, "Messages that were not understood");
    describe_counter!(REPORTS_DELAYED, "Attempts at delivering a report that failed and were repeated");
    describe_counter!(REPORTS_LOST, "Reports that were given up");
    describe_counter!(RELOADS, "Reloads of the definitions");
    describe_counter!(HTTP_REQUESTS, "HTTP requests that were answered");
    describe_gauge!(READY, "1 when work should be sent here, as /readyz says");
    describe_gauge!(LOADING, "1 while definitions are loaded");
    describe_gauge!(OBSTACLES, "How many things keep the process from scanning");
    describe_gauge!(IN_FLIGHT, "Messages that are worked on");
    describe_gauge!(BUSY, "Scans that run or wait for a thread");
    describe_gauge!(THREADS, "Scan threads");
    describe_gauge!(OVERDUE, "Scan threads that are past their deadline and do not come back");
    describe_gauge!(SIGNATURES, "Signatures in the engine");
    describe_gauge!(VERSION, "The version of the daily database");
    describe_gauge!(AGE, "How long ago the definitions were built");
}

#[expect(clippy::cast_precision_loss, reason = "counts of this process are small")]
fn count(number: usize) -> f64 {
    number as f64
}
