//! How the service is, and its definitions.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::api::Api;
use super::error::{AnyRefusal, ApiError};
use crate::engine::Definitions;
use crate::report::EngineVersions;
use crate::telemetry::metrics;

/// The process answers.
#[derive(Serialize, ToSchema)]
pub(super) struct Live {
    /// Always true.
    live: bool,
}

/// Whether work should be sent here.
#[derive(Serialize, ToSchema)]
pub(super) struct Ready {
    /// Whether the engine is warm, has found its canary, and nothing is in the way.
    ready: bool,
    /// What is in the way.
    complaints: Vec<String>,
}

/// What scans are done with.
#[derive(Serialize, ToSchema)]
pub(super) struct CurrentDefinitions {
    /// The definitions, as reports have them.
    definitions: Arc<Definitions>,
    /// How old they are, if they say when they were built.
    age_secs: Option<u64>,
    /// The programs' versions.
    engine: EngineVersions,
    /// Whether others are being loaded at this moment.
    reloading: bool,
}

/// A wish to reload was noted.
#[derive(Serialize, ToSchema)]
pub(super) struct Requested {
    /// Always true.
    requested: bool,
}

/// Whether the process answers. It says nothing about scanning: a restart would help against nothing that `/readyz` complains
/// of.
#[utoipa::path(get, path = "/livez", tag = "health", responses((status = 200, description = "It does", body = Live)))]
pub(super) async fn livez() -> Json<Live> {
    Json(Live { live: true })
}

/// Whether work should be sent here. Not while the first definitions are loaded, not when they are older than
/// `definitions.max_age_secs`, not when the machine is in trouble or no scan thread is left.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    responses((status = 200, description = "Yes", body = Ready), (status = 503, description = "No", body = Ready)),
)]
pub(super) async fn readyz(State(api): State<Arc<Api>>) -> Response {
    let complaints = api.service.complaints();
    let ready = complaints.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { ready, complaints })).into_response()
}

/// Metrics in Prometheus's text format.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "health",
    responses((status = 200, description = "The metrics", body = String, content_type = "text/plain")),
)]
pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (headers, metrics::render(&api.service)).into_response()
}

/// What scans are done with.
#[utoipa::path(
    get,
    path = "/v1/definitions",
    tag = "definitions",
    responses((status = 200, description = "The definitions in use", body = CurrentDefinitions), AnyRefusal),
    security((), ("token" = [])),
)]
pub(super) async fn definitions(State(api): State<Arc<Api>>) -> Result<Json<CurrentDefinitions>, ApiError> {
    let parts = api.parts()?;
    Ok(Json(CurrentDefinitions {
        definitions: parts.pool.current().definitions,
        age_secs: api.service.definitions_age().map(|age| age.as_secs()),
        engine: EngineVersions::current(),
        reloading: parts.warm.is_loading(),
    }))
}

/// Load the definitions again, as SIGHUP does. Scans go on meanwhile, or wait, as `definitions.reload` says; definitions that
/// cannot be used change nothing while scans go on.
#[utoipa::path(
    post,
    path = "/v1/reload",
    tag = "definitions",
    responses((status = 202, description = "They will be; `GET /v1/definitions` shows when", body = Requested), AnyRefusal),
    security((), ("token" = [])),
)]
pub(super) async fn reload(State(api): State<Arc<Api>>) -> (StatusCode, Json<Requested>) {
    api.service.reload.request();
    (StatusCode::ACCEPTED, Json(Requested { requested: true }))
}
