//! Refusals and failures: one JSON for all of them.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use crate::intake::IntakeError;
use crate::pipeline::Failure;
use crate::s3::S3Error;
use crate::scan::ScanError;

/// How long a client that found everything taken should wait, in seconds.
const SOON: u32 = 1;
/// The same when the machine is in trouble or the engine is being loaded.
const LATER: u32 = 10;

/// Why a request was not answered as it was meant to be. It never says anything about the content.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    /// For programs: words with underscores.
    code: &'static str,
    /// For people: what to do about it.
    message: String,
    retry_after: Option<u32>,
}

/// What every refusal and failure looks like.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error, examples(json!({"error": {"code": "not_found", "message": "there is no such route; GET /openapi.json lists them"}})))]
pub(super) struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Debug, Serialize, ToSchema)]
struct ErrorDetail {
    /// For programs: it stays the same.
    code: &'static str,
    /// For people: what is wrong, and what to do about it.
    message: String,
}

/// What any request can get.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "for the document")]
pub(super) enum AnyRefusal {
    /// The request makes no sense: its head, its query or its body.
    #[response(status = 400)]
    Malformed(ErrorBody),
    /// A token is needed, or another one.
    #[response(status = 401, headers(("WWW-Authenticate" = String, description = "`Bearer`")))]
    Unauthorized(ErrorBody),
    /// A web page asked (`Origin`), and no token is needed.
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// Every connection is taken, the engine is being loaded, or the service is ending. Try again later.
    #[response(status = 503, headers(("Retry-After" = u32, description = "Seconds to wait")))]
    Unavailable(ErrorBody),
}

/// What a request for a scan can get.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "for the document")]
pub(super) enum ScanRefusal {
    /// The request makes no sense: its head, its query or its body. A body that broke off was not scanned.
    #[response(status = 400)]
    Malformed(ErrorBody),
    /// A token is needed, or another one.
    #[response(status = 401, headers(("WWW-Authenticate" = String, description = "`Bearer`")))]
    Unauthorized(ErrorBody),
    /// The body did not come, or came too slowly. Nothing was scanned.
    #[response(status = 408)]
    TooSlow(ErrorBody),
    /// Neither Content-Length nor Transfer-Encoding: perhaps the body was lost on its way.
    #[response(status = 411)]
    LengthRequired(ErrorBody),
    /// The body is in a form that is not taken here.
    #[response(status = 415)]
    Unsupported(ErrorBody),
    /// `http.max_scans` scans are under way. Try again later.
    #[response(status = 429, headers(("Retry-After" = u32, description = "Seconds to wait")))]
    TooMany(ErrorBody),
    /// It could not be scanned: no room, no engine yet, trouble with the machine, or the service is ending. Try again later.
    #[response(status = 503, headers(("Retry-After" = u32, description = "Seconds to wait")))]
    Unavailable(ErrorBody),
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after: None }
    }

    pub(super) fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", message)
    }

    /// `tokens`: the field of the configuration.
    pub(super) fn unauthorized(tokens: &str) -> Self {
        let message = format!("this needs a header `Authorization: Bearer …` with one of {tokens}");
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub(super) fn method_not_allowed() -> Self {
        let message = "this route has other methods; the header Allow lists them";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
    }

    pub(super) fn too_slow(message: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "too_slow", message)
    }

    pub(super) fn length_required() -> Self {
        let message =
            "this needs a body, with Content-Length or `Transfer-Encoding: chunked`; for an empty one, `Content-Length: 0`";
        Self::new(StatusCode::LENGTH_REQUIRED, "length_required", message)
    }

    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    pub(super) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported", message)
    }

    pub(super) fn too_many(message: impl Into<String>) -> Self {
        Self { retry_after: Some(SOON), ..Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many", message) }
    }

    pub(super) fn busy(message: impl Into<String>) -> Self {
        Self { retry_after: Some(SOON), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message) }
    }

    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self { retry_after: Some(LATER), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message) }
    }

    pub(super) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "something went wrong here; the log may say more")
    }

    pub(super) fn body(&self) -> ErrorBody {
        ErrorBody { error: ErrorDetail { code: self.code, message: self.message.clone() } }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"clamgate\""));
        }
        response
    }
}

impl From<ScanError> for ApiError {
    fn from(error: ScanError) -> Self {
        Self::unavailable(error.to_string())
    }
}

impl From<IntakeError> for ApiError {
    fn from(error: IntakeError) -> Self {
        match error {
            IntakeError::TooLarge(_) => Self::too_large(error.to_string()),
            IntakeError::Busy => Self::busy(error.to_string()),
            IntakeError::Scan(error) => error.into(),
        }
    }
}

impl From<S3Error> for ApiError {
    fn from(error: S3Error) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "s3", error.to_string())
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        if failure.is_trouble() || failure.is_closing() {
            return Self::unavailable(failure.to_string());
        }
        let code = match failure {
            Failure::Fetch(_) => "s3",
            Failure::Action(_) => "action",
            Failure::Report(_) => "report",
            Failure::Scan(_) | Failure::Closed => return Self::unavailable(failure.to_string()),
        };
        Self::new(StatusCode::BAD_GATEWAY, code, failure.to_string())
    }
}
