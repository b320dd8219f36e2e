//! `POST /v1/scan`: the client brings the content.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::{IntoParams, ToSchema};

use super::api::Api;
use super::body::{self, TimedBody};
use super::error::{ApiError, ScanRefusal};
use super::form::{self, Form};
use crate::engine::{Reason, Verdict};
use crate::intake::{Intake, IntakeError, Upload};
use crate::queue::job::check_trace_id;
use crate::report::{ScanReport, Target, Timings};
use crate::scan::Scanned;
use crate::telemetry::events;

/// The longest name.
pub(super) const NAME_BYTES: usize = 1024;
/// The longest trace id.
const TRACE_ID_BYTES: usize = 256;

/// What a body without a name is called.
const NAMELESS: &str = "stream";

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ScanQuery {
    /// What the report calls the body, where a header cannot hold it. The parts of a form have names of their own.
    #[param(max_length = 1024)]
    name: Option<String>,
}

/// A form with any number of parts, up to 100. All of them are scanned, whether or not they have a file name.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document")]
pub(super) struct ScanForm {
    /// The content.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
}

/// The reports on a form of several parts, in their order.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ScanReports {
    results: Vec<ScanReport>,
}

/// One report, or those on a form of several parts.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum ScanAnswer {
    /// A body, or a form of one part.
    One(Box<ScanReport>),
    /// A form of several parts.
    Several(ScanReports),
}

/// Scan the body, or every part of a form. The status is 200 whatever the verdict: read `status`.
#[utoipa::path(
    post,
    path = "/v1/scan",
    tag = "scan",
    params(
        ScanQuery,
        ("X-Filename" = Option<String>, Header, description = "What the report calls the body, in UTF-8", max_length = 1024),
        ("X-Trace-Id" = Option<String>, Header, description = "Comes back in the report", max_length = 256),
    ),
    request_body(content((Vec<u8> = "application/octet-stream"), (ScanForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "The verdict", body = ScanAnswer),
        (status = 403, description = "A web page asked (`Origin`), and no token is needed", body = super::error::ErrorBody),
        (status = 413, description = "Longer than `limits.max_file_size_bytes`: the report says `UNSCANNABLE TOO_LARGE`. Or an error, if a \
                                      form is so large that no report can be made", body = TooLarge),
        ScanRefusal,
    ),
    security((), ("token" = [])),
)]
pub(super) async fn scan(
    State(api): State<Arc<Api>>,
    query: Result<Query<ScanQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::malformed(error.body_text()))?;
    let trace_id = header(request.headers(), "x-trace-id", TRACE_ID_BYTES)?;
    if let Some(trace_id) = &trace_id {
        check_trace_id(trace_id).map_err(|error| ApiError::malformed(error.to_string()))?;
    }
    let name = match header(request.headers(), "x-filename", NAME_BYTES)? {
        Some(name) => name,
        None => query.name.unwrap_or_else(|| NAMELESS.to_owned()),
    };
    if name.len() > NAME_BYTES {
        return Err(name_too_long());
    }
    let (scanning, parts) = api.begin_scan().await?;
    let mut reports = match form::boundary(request.headers())? {
        None => vec![receive_and_scan(&api, request, &parts.intake, name).await?],
        Some(boundary) => match form::receive(&api, request, boundary, &parts.intake).await? {
            Form::Parts(parts) if parts.is_empty() => return Err(ApiError::malformed("the form has no part")),
            Form::Parts(parts) => scan_parts(&api, parts).await?,
            Form::TooLarge { parts, report, .. } => {
                let mut reports = scan_parts(&api, parts).await?;
                reports.push(*report);
                reports
            }
        },
    };
    drop::<OwnedSemaphorePermit>(scanning);
    for report in &mut reports {
        report.trace_id.clone_from(&trace_id);
        events::stream_scanned("http", report);
    }
    Ok(answer(reports))
}

/// A report, or, of a form so large that none can be made, an error.
#[derive(ToSchema)]
#[schema(title = "TooLarge")]
#[serde(untagged)]
#[expect(dead_code, reason = "for the document")]
pub(super) enum TooLarge {
    Report(ScanAnswer),
    Error(super::error::ErrorBody),
}

fn answer(mut reports: Vec<ScanReport>) -> Response {
    let too_large = |report: &ScanReport| report.reason == Some(Reason::TooLarge) && report.sha256.is_none();
    let status = if reports.iter().any(too_large) { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::OK };
    let answer = match reports.pop() {
        Some(report) if reports.is_empty() => ScanAnswer::One(Box::new(report)),
        last => {
            reports.extend(last);
            ScanAnswer::Several(ScanReports { results: reports })
        }
    };
    (status, Json(answer)).into_response()
}

/// Receives a body and scans it, if it is not too long.
async fn receive_and_scan(api: &Api, request: Request, intake: &Arc<Intake>, name: String) -> Result<ScanReport, ApiError> {
    body::check_head(request.headers())?;
    if let Some(length) = body::length(&request).filter(|&length| length > intake.max_file_size_bytes) {
        return Ok(too_large(intake, name, length));
    }
    let mut upload = intake.upload().map_err(|error| failed(api, error))?;
    let mut body = TimedBody::of_scan(request.into_body(), api);
    while let Some(bytes) = body.next().await? {
        match upload.write(&bytes) {
            Ok(()) => {}
            Err(IntakeError::TooLarge(_)) => return Ok(upload.too_large(name)),
            Err(error) => return Err(failed(api, error)),
        }
    }
    scan_upload(api, upload, name).await
}

/// Scans the parts of a form, one after the other: no client gets more than one scan thread for one request.
async fn scan_parts(api: &Api, parts: Vec<form::Part>) -> Result<Vec<ScanReport>, ApiError> {
    let mut reports = Vec::with_capacity(parts.len() + 1);
    for part in parts {
        let name = part.name();
        reports.push(scan_upload(api, part.upload, name).await?);
    }
    Ok(reports)
}

/// Scans what has arrived.
pub(super) async fn scan_upload(api: &Api, upload: Upload, name: String) -> Result<ScanReport, ApiError> {
    upload.scan(name).await.map_err(|error| failed(api, error))
}

/// What becomes of an upload that was not scanned.
pub(super) fn failed(api: &Api, error: IntakeError) -> ApiError {
    if let IntakeError::Scan(error) = &error {
        api.note_trouble(error);
    }
    error.into()
}

/// The report on a body that says that it is too long: none of it is read.
fn too_large(intake: &Intake, name: String, size: u64) -> ScanReport {
    let verdict = Verdict::unscannable(Reason::TooLarge, "MaxFileSize");
    let scanned = Scanned::unread(verdict, size, intake.pool.current());
    ScanReport::new(Target::Stream { name, size }, scanned, Timings::default(), Vec::new())
}

/// A header's text.
fn header(headers: &HeaderMap, name: &'static str, most: usize) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = str::from_utf8(value.as_bytes()).map_err(|_| ApiError::malformed(format!("the header {name} is not UTF-8")))?;
    if text.len() > most {
        return Err(ApiError::malformed(format!("the header {name} has more than {most} bytes")));
    }
    Ok(Some(text.to_owned()))
}

pub(super) fn name_too_long() -> ApiError {
    ApiError::malformed(format!("a name has more than {NAME_BYTES} bytes"))
}
