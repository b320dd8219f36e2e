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
use super::strict_form::{StrictForm, is_token};
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

/// The boundary, if the body is a form.
///
/// # Errors
///
/// When it is a multipart of another kind, or its type can be read in more than one way: what is meant would not be what is
/// scanned.
pub(super) fn boundary(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let Some(value) = types.next() else { return Ok(None) };
    if types.next().is_some() {
        return Err(ApiError::malformed("more than one Content-Type"));
    }
    let text = value.to_str().map_err(|_| ApiError::malformed("Content-Type is not ASCII"))?.trim();
    if !text.get(..10).is_some_and(|start| start.eq_ignore_ascii_case("multipart/")) {
        return Ok(None);
    }
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    if !essence.trim().eq_ignore_ascii_case("multipart/form-data") {
        return Err(ApiError::unsupported("of the multipart types, only multipart/form-data is taken"));
    }
    let boundary = only_boundary(parameters).ok_or_else(|| {
        ApiError::malformed("Content-Type must have one parameter `boundary`, and nothing that could be another")
    })?;
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=?!#$%&*^`|~".contains(&byte);
    if !(1..=70).contains(&boundary.len()) || !boundary.bytes().all(is_known) {
        return Err(ApiError::malformed("the boundary must have 1 to 70 letters, digits or signs such as - and _"));
    }
    Ok(Some(boundary.to_owned()))
}

/// The boundary among the parameters. `None` if they are not as RFC 9110 has them, or another parser could take something else
/// for the boundary: some search for the word.
fn only_boundary(parameters: &str) -> Option<&str> {
    let (mut rest, mut found) = (parameters.trim(), None);
    while !rest.is_empty() {
        let (name, behind) = rest.split_once('=')?;
        let (value, behind) = match behind.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => behind.split_at(behind.find([';', ' ', '\t']).unwrap_or(behind.len())),
        };
        let is_quoted = rest.get(name.len() + 1..)?.starts_with('"');
        if !is_token(name) || value.contains('\\') || !(is_quoted || is_token(value)) {
            return None;
        }
        if name.eq_ignore_ascii_case("boundary") {
            if found.replace(value).is_some() {
                return None;
            }
        } else if [name, value].iter().any(|text| text.to_ascii_lowercase().contains("boundary")) {
            return None;
        }
        let behind = behind.trim_start();
        rest = if behind.is_empty() { "" } else { behind.strip_prefix(';')?.trim_start() };
    }
    found
}

/// Receives a whole form.
pub(super) async fn receive(api: &Api, request: Request, boundary: String, intake: &Arc<Intake>) -> Result<Form, ApiError> {
    body::check_head(request.headers())?;
    let most = (intake.max_file_size_bytes.saturating_add(BETWEEN_PARTS)).saturating_mul(MAX_PARTS as u64);
    if body::length(&request).is_some_and(|length| length > most) {
        return Err(ApiError::too_large(format!("no form of {MAX_PARTS} parts can have so many bytes")));
    }
    let allowance = Arc::new(AtomicU64::new(0));
    let body = TimedBody::of_scan(request.into_body(), api);
    let strict = StrictForm::new(&boundary);
    let mut metered = Metered { body, strict, allowance: Arc::clone(&allowance), pause: false };
    let mut form = Multipart::new(&mut metered, boundary);
    let mut parts = Vec::new();
    loop {
        allowance.store(BETWEEN_PARTS, Ordering::Relaxed);
        let Some(mut field) = form.next_field().await.map_err(broken)? else { break };
        if parts.len() == MAX_PARTS {
            return Err(ApiError::too_large(format!("a form may have {MAX_PARTS} parts")));
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
    // The parser stops at the last boundary; nothing may be behind it.
    drop(form);
    while std::future::poll_fn(|cx| Pin::new(&mut metered).poll_next(cx)).await.transpose()?.is_some() {}
    Ok(Form::Parts(parts))
}

fn broken(error: multer::Error) -> ApiError {
    if let multer::Error::StreamReadFailed(cause) = &error
        && let Some(cause) = cause.downcast_ref::<ApiError>()
    {
        return cause.clone();
    }
    ApiError::malformed(format!("the form is broken: {error}"))
}

/// A body that gives one piece at a time, once it was checked, and not more than it is allowed to. The parser takes all that it can get, and would
/// keep the whole of an endless header.
struct Metered {
    body: TimedBody,
    strict: StrictForm,
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
        let sound = match &piece {
            Some(Ok(bytes)) => self.strict.push(bytes),
            Some(Err(_)) => Ok(()),
            None => self.strict.end(),
        };
        if let Err(error) = sound {
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(Ok(bytes)) = &piece {
            self.pause = true;
            let allowed = self.allowance.load(Ordering::Relaxed);
            // A piece can hold the end of one thing and the beginning of the next; only an allowance that was used up before
            // is no use.
            if allowed == 0 {
                return Poll::Ready(Some(Err(ApiError::malformed("the form has too much beside the content of its parts"))));
            }
            if allowed != u64::MAX {
                self.allowance.store(allowed.saturating_sub(bytes.len() as u64), Ordering::Relaxed);
            }
        }
        Poll::Ready(piece)
    }
}
