//! Metrics, in Prometheus's text format.

use std::sync::OnceLock;

use metrics::{counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::service::Service;

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Counts from now on. Only the first call in a process counts.
pub fn install() {
    RECORDER.get_or_init(|| {
        let handle = PrometheusBuilder::new().install_recorder();
        describe_counter!("clamgate_http_requests_total", "HTTP requests that were answered.");
        describe_gauge!("clamgate_ready", "1 if work should be sent here, as /readyz says.");
        describe_gauge!("clamgate_scans_in_flight", "Scans that run or wait for a thread.");
        describe_gauge!("clamgate_messages_in_flight", "Messages of the queue that are worked on.");
        describe_gauge!("clamgate_overdue_threads", "Scan threads that are past their deadline and do not come back.");
        describe_gauge!("clamgate_signatures", "Signatures that are loaded.");
        describe_gauge!("clamgate_definitions_age_seconds", "How long ago the definitions were built, if they say.");
        handle.map_err(|error| tracing::error!(%error, "there will be no metrics")).ok()
    });
}

/// A request was answered. `route` is the route as it is written, not the path that was asked for.
pub fn http_request(route: &str, method: &'static str, status: u16) {
    let labels = [("route", route.to_owned()), ("method", method.to_owned()), ("status", status.to_string())];
    counter!("clamgate_http_requests_total", &labels).increment(1);
}

/// All metrics as they are now.
#[must_use]
pub fn render(service: &Service) -> String {
    install();
    let health = service.health();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let set = |name: &'static str, value: usize| gauge!(name).set(value as f64);
    set("clamgate_ready", usize::from(service.complaints().is_empty()));
    set("clamgate_scans_in_flight", health.scans);
    set("clamgate_messages_in_flight", health.in_flight);
    set("clamgate_overdue_threads", health.overdue_threads);
    set("clamgate_signatures", health.signatures as usize);
    if let Some(age) = service.definitions_age() {
        gauge!("clamgate_definitions_age_seconds").set(age.as_secs_f64());
    }
    RECORDER.get().and_then(Option::as_ref).map(PrometheusHandle::render).unwrap_or_default()
}
