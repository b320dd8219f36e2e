//! Which route leads where, and what every request goes through.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::Api;
use super::auth::Tokens;
use super::connection::Reserved;
use super::error::ApiError;
use super::{compatible, manual, objects, quarantine, status, streams};
use crate::telemetry::events;

/// What is answered on connections of the reserve, and without a token.
const HEALTH: [&str; 3] = ["/livez", "/readyz", "/metrics"];

#[derive(OpenApi)]
#[openapi(
    info(title = "clamgate", description = "Malware scanning: one warm ClamAV engine, and never `CLEAN` for what was not scanned completely."),
    tags(
        (name = "scan", description = "Scanning"),
        (name = "definitions", description = "What scans are done with"),
        (name = "quarantine", description = "For operators, with a token of their own (`http.admin_tokens`)"),
        (name = "health", description = "For load balancers and monitoring; no token is needed"),
        (name = "compatible", description = "The routes of other wrappers of ClamAV"),
    ),
)]
struct Document;

/// Everything.
pub(super) fn all(api: &Arc<Api>) -> Router {
    let guarded = OpenApiRouter::with_openapi(document())
        .routes(routes!(streams::scan))
        .routes(routes!(objects::scan))
        .routes(routes!(objects::scan_state))
        .routes(routes!(status::definitions))
        .routes(routes!(status::reload))
        .routes(routes!(compatible::clamav_rest))
        .routes(routes!(compatible::rest_api))
        .route_layer(from_fn_with_state(Arc::clone(api), authorize));
    let for_operators = OpenApiRouter::new()
        .routes(routes!(quarantine::rescan))
        .routes(routes!(quarantine::release))
        .route_layer(from_fn_with_state(Arc::clone(api), authorize_operator));
    let (router, document) = guarded.merge(for_operators).merge(health_routes()).split_for_parts();
    // Made once; they do not change.
    let page: Arc<str> = manual::page(&document).into();
    let document: Arc<str> = serde_json::to_string(&document).unwrap_or_default().into();
    let json = [(header::CONTENT_TYPE, "application/json")];
    let router = router
        .route("/openapi.json", get(move || async move { (json, document.to_string()) }))
        .route("/docs", get(move || async move { Html(page.to_string()) }));
    finish(router, api)
}

/// Health and metrics alone.
pub(super) fn health(api: &Arc<Api>) -> Router {
    finish(health_routes().into(), api)
}

fn health_routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(status::livez)).routes(routes!(status::readyz)).routes(routes!(status::metrics))
}

fn finish(router: Router<Arc<Api>>, api: &Arc<Api>) -> Router {
    router
        .fallback(async || ApiError::not_found("there is no such route; GET /openapi.json lists them"))
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .layer(CatchPanicLayer::custom(panicked))
        .layer(axum::middleware::from_fn(observe))
        .with_state(Arc::clone(api))
}

fn document() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    let components = document.components.get_or_insert_default();
    for (name, description) in [("token", "One of `http.tokens`"), ("admin", "One of `http.admin_tokens`")] {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description)).build();
        components.security_schemes.insert(name.to_owned(), SecurityScheme::Http(scheme).into());
    }
    document
}

/// Nothing is known to panic; if something does, its request alone fails.
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = text.unwrap_or("no message"), "an HTTP request panicked");
    ApiError::internal().into_response()
}

async fn authorize(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    if !api.tokens.admit(headers) {
        return ApiError::unauthorized("http.tokens").into_response();
    }
    // Whoever can connect is a program on this machine, say; not whichever page a browser on it shows.
    if matches!(api.tokens, Tokens::Anybody) && headers.contains_key(header::ORIGIN) {
        return ApiError::forbidden("a web page asked (Origin): for that, set http.tokens").into_response();
    }
    next.run(request).await
}

async fn authorize_operator(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    if api.admins.admit(request.headers()) {
        next.run(request).await
    } else {
        ApiError::unauthorized("http.admin_tokens").into_response()
    }
}

/// Counts the request, and keeps the reserve for those whom it is for.
async fn observe(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let method = known(request.method());
    let reserved = request.extensions().get::<Reserved>().is_some();
    let mut response = if reserved && !HEALTH.contains(&route) {
        ApiError::busy("http.max_connections connections are open").into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    if reserved {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let status = response.status().as_u16();
    events::http_request(route, method, status);
    tracing::debug!(method, route, status, took_ms = began.elapsed().as_secs_f64() * 1e3, "HTTP request");
    response
}

/// The method, or, of the many that a client could make up, a word for all.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}
