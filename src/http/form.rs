//! `multipart/form-data`: all of a form's parts are received, then scanned.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use futures_util::Stream;
use multer::Multipart;

use super::api::Api;
use super::body::{self, TimedBody};
use super::error::ApiError;
use super::streams;
use crate::intake::{Intake, IntakeError, Upload};
use crate::report::ScanReport;

/// How many parts a form may have.
pub(super) const MAX_PARTS: usize = 100;

/// How many bytes may lie between the content of one part and that of the next: a boundary and headers.
const BETWEEN_PARTS: u64 = 16 * 1024;

/// A part that has arrived, and is not scanned yet.
pub(super) struct Part {
    /// The name of its field.
    pub(super) field: String,
    /// The name of its file, if it says so.
    pub(super) file: Option<String>,
    pub(super) upload: Upload,
}

/// What a form came to.
pub(super) enum Form {
    /// All of it is here.
    Parts(Vec<Part>),
    /// One of its parts is too large; what followed was not read.
    TooLarge {
        /// Those that came before it.
        parts: Vec<Part>,
        /// The name of its file.
        file: Option<String>,
        /// The report on it.
        report: Box<ScanReport>,
    },
}

impl Part {
    /// What the report calls it.
    pub(super) fn name(&self) -> String {
        self.file.clone().unwrap_or_else(|| self.field.clone())
    }
}

/// Whether the body is a form.
///
/// # Errors
///
/// When it is a multipart of another kind, or its type cannot be read: what is meant would not be what is scanned.
pub(super) fn boundary(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let Some(value) = types.next() else { return Ok(None) };
    if types.next().is_some() {
        return Err(ApiError::malformed("more than one Content-Type"));
    }
    let text = value.to_str().map_err(|_| ApiError::malformed("Content-Type is not ASCII"))?;
    if !text.trim_start().get(..10).is_some_and(|start| start.eq_ignore_ascii_case("multipart/")) {
        return Ok(None);
    }
    match multer::parse_boundary(text) {
        Ok(boundary) if (1..=70).contains(&boundary.len()) => Ok(Some(boundary)),
        Ok(_) => Err(ApiError::malformed("the boundary must have 1 to 70 characters")),
        Err(multer::Error::NoMultipart) => {
            Err(ApiError::unsupported("of the multipart types, only multipart/form-data is taken"))
        }
        Err(error) => Err(ApiError::malformed(format!("Content-Type: {error}"))),
    }
}

/// Receives a whole form.
pub(super) async fn receive(api: &Api, request: Request, boundary: String, intake: &Arc<Intake>) -> Result<Form, ApiError> {
    body::refuse_encoded(request.headers())?;
    let most = (intake.max_file_size_bytes.saturating_add(BETWEEN_PARTS)).saturating_mul(MAX_PARTS as u64);
    if body::length(&request).is_some_and(|length| length > most) {
        return Err(ApiError::too_large(format!("no form of {MAX_PARTS} parts can have so many bytes")));
    }
    let allowance = Arc::new(AtomicU64::new(0));
    let body = TimedBody::new(request.into_body(), &api.config);
    let mut form = Multipart::new(Metered { body, allowance: Arc::clone(&allowance), pause: false }, boundary);
    let mut parts = Vec::new();
    loop {
        allowance.store(BETWEEN_PARTS, Ordering::Relaxed);
        let Some(mut field) = form.next_field().await.map_err(broken)? else { return Ok(Form::Parts(parts)) };
        if parts.len() == MAX_PARTS {
            return Err(ApiError::too_large(format!("a form may have {MAX_PARTS} parts")));
        }
        let encoding = field.headers().get("content-transfer-encoding").map(|value| value.as_bytes().to_ascii_lowercase());
        if encoding.is_some_and(|encoding| !matches!(encoding.as_slice(), b"7bit" | b"8bit" | b"binary")) {
            return Err(ApiError::unsupported("Content-Transfer-Encoding is not taken: send the content as it is"));
        }
        let name = field.name().unwrap_or("").to_owned();
        let file = field.file_name().map(str::to_owned);
        if name.len().max(file.as_ref().map_or(0, String::len)) > streams::NAME_BYTES {
            return Err(streams::name_too_long());
        }
        // The upload bounds what follows.
        allowance.store(u64::MAX, Ordering::Relaxed);
        let mut upload = intake.upload().map_err(|error| streams::failed(api, error))?;
        while let Some(bytes) = field.chunk().await.map_err(broken)? {
            match upload.write(&bytes) {
                Ok(()) => {}
                Err(IntakeError::TooLarge(_)) => {
                    let report = upload.too_large(file.clone().unwrap_or_else(|| name.clone()));
                    return Ok(Form::TooLarge { parts, file, report: Box::new(report) });
                }
                Err(error) => return Err(streams::failed(api, error)),
            }
        }
        parts.push(Part { field: name, file, upload });
    }
}

fn broken(error: multer::Error) -> ApiError {
    if let multer::Error::StreamReadFailed(cause) = &error
        && let Some(cause) = cause.downcast_ref::<ApiError>()
    {
        return cause.clone();
    }
    ApiError::malformed(format!("the form is broken: {error}"))
}

/// A body that gives one piece at a time, and not more than it is allowed to. The parser takes all that it can get, and would
/// keep the whole of an endless header.
struct Metered {
    body: TimedBody,
    allowance: Arc<AtomicU64>,
    pause: bool,
}

impl Stream for Metered {
    type Item = Result<Bytes, ApiError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.pause) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let piece = ready!(self.body.poll_next(cx));
        if let Some(Ok(bytes)) = &piece {
            self.pause = true;
            let allowed = self.allowance.load(Ordering::Relaxed);
            // A piece can hold the end of one thing and the beginning of the next; only an allowance that was used up before
            // is no use.
            if allowed == 0 {
                return Poll::Ready(Some(Err(ApiError::malformed("the headers of a part are too long"))));
            }
            if allowed != u64::MAX {
                self.allowance.store(allowed.saturating_sub(bytes.len() as u64), Ordering::Relaxed);
            }
        }
        Poll::Ready(piece)
    }
}
