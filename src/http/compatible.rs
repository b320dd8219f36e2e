//! The routes of two common wrappers of clamd, so that their clients need another address and nothing else.
//!
//! Both know only "clean" and "infected". What was not scanned completely is never called clean here.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::api::Api;
use super::error::{ApiError, ScanRefusal};
use super::form::{self, Form, MAX_PARTS, Part};
use super::streams::{ScanForm, scan_upload};
use crate::engine::{Reason, Status};
use crate::report::ScanReport;
use crate::telemetry::events;

/// What the clients of both show for a file that is too large.
const TOO_LARGE: &str = "File size limit exceeded";

/// The answer on one file (<https://github.com/ajilach/clamav-rest>).
#[derive(Serialize, ToSchema)]
pub(super) struct ClamavRestResult {
    #[serde(rename = "Status")]
    status: ClamavRestStatus,
    /// The signatures, or why it was not scanned.
    #[serde(rename = "Description")]
    description: String,
    #[serde(rename = "FileName", skip_serializing_if = "String::is_empty")]
    file_name: String,
    #[serde(skip)]
    code: StatusCode,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(super) enum ClamavRestStatus {
    /// Completely scanned, nothing found.
    #[serde(rename = "OK")]
    Ok,
    /// Something was found.
    #[serde(rename = "FOUND")]
    Found,
    /// It has no file name, and was not scanned.
    #[serde(rename = "ERROR")]
    Error,
    /// It could not be scanned completely.
    #[serde(rename = "PARSE ERROR")]
    ParseError,
}

impl ClamavRestResult {
    fn new(file_name: String, report: &ScanReport) -> Self {
        let (status, description, code) = match (report.status, report.reason) {
            (Status::Clean, _) => (ClamavRestStatus::Ok, String::new(), StatusCode::OK),
            (Status::Infected | Status::Suspicious, _) => {
                (ClamavRestStatus::Found, report.signatures.join(", "), StatusCode::NOT_ACCEPTABLE)
            }
            (Status::Unscannable | Status::Failed, Some(Reason::TooLarge)) => {
                (ClamavRestStatus::ParseError, TOO_LARGE.to_owned(), StatusCode::PAYLOAD_TOO_LARGE)
            }
            (Status::Unscannable | Status::Failed, _) => {
                (ClamavRestStatus::ParseError, why(report), StatusCode::PRECONDITION_FAILED)
            }
        };
        Self { status, description, file_name, code }
    }

    fn nameless() -> Self {
        let description = "MimePart FileName missing".to_owned();
        Self { status: ClamavRestStatus::Error, description, file_name: String::new(), code: StatusCode::UNPROCESSABLE_ENTITY }
    }
}

/// The reason and what is known of it.
fn why(report: &ScanReport) -> String {
    let reason = report.reason.map_or_else(|| report.status.to_string(), |reason| reason.to_string());
    match &report.detail {
        Some(detail) => format!("{reason}: {detail}"),
        None => reason,
    }
}

/// Scan the files of a form, with the answers of ajilach/clamav-rest.
#[utoipa::path(
    post,
    path = "/v2/scan",
    tag = "compatible",
    request_body(content = ScanForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "All are clean", body = Vec<ClamavRestResult>),
        (status = 403, description = "A web page asked (`Origin`), and no token is needed", body = super::error::ErrorBody),
        (status = 406, description = "Something was found in at least one", body = Vec<ClamavRestResult>),
        (status = 412, description = "At least one could not be scanned completely", body = Vec<ClamavRestResult>),
        (status = 413, description = "One is too large; those behind it were not read", body = Vec<ClamavRestResult>),
        (status = 422, description = "A part has no file name, and was not scanned", body = Vec<ClamavRestResult>),
        ScanRefusal,
    ),
    security((), ("token" = [])),
)]
pub(super) async fn clamav_rest(State(api): State<Arc<Api>>, request: Request) -> Result<Response, ApiError> {
    let (_scanning, form) = receive(&api, request).await?;
    let (parts, too_large) = match form {
        Form::Parts(parts) => (parts, None),
        Form::TooLarge { parts, file, report, .. } => (parts, Some((file, report))),
    };
    let mut results = Vec::new();
    for part in parts {
        results.push(match part.file.clone() {
            Some(file) => ClamavRestResult::new(file, &scan(&api, part).await?),
            None => ClamavRestResult::nameless(),
        });
    }
    if let Some((file, report)) = too_large {
        events::stream_scanned("http", &report);
        results.push(ClamavRestResult::new(file.unwrap_or_default(), &report));
    }
    if results.is_empty() {
        return Err(ApiError::malformed("the form has no part"));
    }
    // A virus wins, else the last thing that was wrong.
    let codes = || results.iter().map(|result| result.code);
    let wrong =
        codes().find(|&code| code == StatusCode::NOT_ACCEPTABLE).or_else(|| codes().rfind(|&code| code != StatusCode::OK));
    Ok((wrong.unwrap_or(StatusCode::OK), Json(results)).into_response())
}

/// The answer of benzino77/clamav-rest-api (<https://github.com/benzino77/clamav-rest-api>).
#[derive(Serialize, ToSchema)]
pub(super) struct RestApiAnswer {
    success: bool,
    data: RestApiData,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RestApiData {
    /// With `success`.
    Result(Vec<RestApiResult>),
    /// Without it.
    Error(String),
}

#[derive(Serialize, ToSchema)]
pub(super) struct RestApiResult {
    name: String,
    /// Also true for what could not be scanned completely.
    is_infected: bool,
    /// The signatures; `Clamgate.Unscannable.` and the reason, for what could not be scanned completely.
    viruses: Vec<String>,
}

impl RestApiResult {
    fn new(name: String, report: &ScanReport) -> Self {
        let unscannable = || {
            let reason = report.reason.map_or_else(|| report.status.to_string(), |reason| reason.to_string());
            format!("Clamgate.Unscannable.{reason}")
        };
        let viruses = match report.status {
            Status::Clean => Vec::new(),
            Status::Infected | Status::Suspicious => report.signatures.clone(),
            Status::Unscannable | Status::Failed => vec![unscannable()],
        };
        Self { name, is_infected: report.status != Status::Clean, viruses }
    }
}

fn refusal(status: StatusCode, error: impl Into<String>) -> Response {
    (status, Json(RestApiAnswer { success: false, data: RestApiData::Error(error.into()) })).into_response()
}

/// The name of its form's field.
const FILES: &str = "FILES";

/// A form for benzino77/clamav-rest-api.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
pub(super) struct RestApiForm {
    /// The files, each with a name.
    #[schema(rename = "FILES", value_type = String, format = Binary)]
    files: Vec<u8>,
}

/// Either an answer of theirs or an error of ours.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "for the document")]
pub(super) enum RestApiRefusal {
    Theirs(RestApiAnswer),
    Ours(super::error::ErrorBody),
}

/// Scan the files of a form, with the answers of benzino77/clamav-rest-api.
#[utoipa::path(
    post,
    path = "/api/v1/scan",
    tag = "compatible",
    request_body(content = RestApiForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "The verdicts", body = RestApiAnswer),
        (status = 400, description = "The form is not as it should be", body = RestApiRefusal),
        (status = 401, description = "A token is needed, or another one", body = super::error::ErrorBody),
        (status = 403, description = "A web page asked (`Origin`), and no token is needed", body = super::error::ErrorBody),
        (status = 408, description = "The body came too slowly", body = super::error::ErrorBody),
        (status = 411, description = "Neither Content-Length nor Transfer-Encoding", body = super::error::ErrorBody),
        (status = 413, description = "A file is too large; nothing was scanned", body = RestApiRefusal),
        (status = 415, description = "The body is in a form that is not taken here", body = super::error::ErrorBody),
        (status = 429, description = "Too many scans are under way", body = super::error::ErrorBody),
        (status = 503, description = "It could not be scanned now", body = super::error::ErrorBody),
    ),
    security((), ("token" = [])),
)]
pub(super) async fn rest_api(State(api): State<Arc<Api>>, request: Request) -> Result<Response, ApiError> {
    let (_scanning, form) = receive(&api, request).await?;
    let parts = match form {
        Form::Parts(parts) => parts,
        Form::TooLarge { report, .. } => {
            events::stream_scanned("http", &report);
            return Ok(refusal(StatusCode::PAYLOAD_TOO_LARGE, format!("{TOO_LARGE}.")));
        }
    };
    if parts.is_empty() {
        return Ok(refusal(StatusCode::BAD_REQUEST, "No files were uploaded"));
    }
    if parts.iter().any(|part| part.field != FILES || part.file.is_none()) {
        return Ok(refusal(StatusCode::BAD_REQUEST, format!("The request should have only {FILES} key")));
    }
    let mut results = Vec::with_capacity(parts.len().min(MAX_PARTS));
    for part in parts {
        let name = part.name();
        results.push(RestApiResult::new(name, &scan(&api, part).await?));
    }
    Ok(Json(RestApiAnswer { success: true, data: RestApiData::Result(results) }).into_response())
}

/// Begins a scan and receives its form.
async fn receive(api: &Api, request: Request) -> Result<(tokio::sync::OwnedSemaphorePermit, Form), ApiError> {
    let Some(boundary) = form::boundary(request.headers())? else {
        return Err(ApiError::unsupported("Content-Type must be multipart/form-data"));
    };
    let (scanning, parts) = api.begin_scan().await?;
    let form = form::receive(api, request, boundary, &parts.intake).await?;
    Ok((scanning, form))
}

async fn scan(api: &Api, part: Part) -> Result<ScanReport, ApiError> {
    let name = part.name();
    let report = scan_upload(api, part.upload, name).await?;
    events::stream_scanned("http", &report);
    Ok(report)
}
