//! The body of a request, as it arrives.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, header};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::api::Api;
use super::error::ApiError;
use crate::config::HttpConfig;
use crate::waiting::{Pace, Waiting};

/// The longest JSON that is read.
const JSON_BYTES: usize = 64 * 1024;

/// A body that must not take too long, neither for the next piece nor as a whole, and not be the slowest when its place is
/// needed. The time while nobody asks for more of it does not count.
pub(super) struct TimedBody {
    body: Body,
    /// How long the next piece may take.
    idle: Duration,
    /// How long all the rest may take.
    left: Duration,
    slow: Waiting,
    pace: Pace,
    /// While the next piece is waited for: since when, and what ends that.
    waiting: Option<(Instant, GivenUp)>,
}

type GivenUp = Pin<Box<dyn Future<Output = ApiError> + Send>>;

impl TimedBody {
    /// The body of a scan that has begun.
    pub(super) fn of_scan(body: Body, api: &Api) -> Self {
        Self::new(body, &api.config, api.slow.clone())
    }

    fn new(body: Body, config: &HttpConfig, slow: Waiting) -> Self {
        let (idle, left) = (Duration::from_secs(config.idle_timeout_secs), Duration::from_secs(config.request_timeout_secs));
        Self { body, idle, left, slow, pace: Pace::default(), waiting: None }
    }

    /// The next piece; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await.transpose()
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ApiError>>> {
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                let (patience, sent_away) = (self.idle.min(self.left), self.pace.wait(&self.slow));
                let (_, given_up) =
                    self.waiting.get_or_insert_with(|| (Instant::now(), Box::pin(given_up(patience, sent_away.clone()))));
                let error = ready!(given_up.as_mut().poll(cx));
                return Poll::Ready(Some(Err(error)));
            };
            if let Some((since, _)) = self.waiting.take() {
                self.left = self.left.saturating_sub(since.elapsed());
            }
            return Poll::Ready(match frame {
                None => {
                    self.pace = Pace::default();
                    None
                }
                Some(Err(error)) => Some(Err(ApiError::malformed(format!("the body broke off: {error}")))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => {
                        self.pace.received(bytes.len());
                        Some(Ok(bytes))
                    }
                    // Trailers say nothing that matters here.
                    Err(_) => continue,
                },
            });
        }
    }
}

/// Waits until nothing more of a body is waited for, and says why.
async fn given_up(patience: Duration, sent_away: CancellationToken) -> ApiError {
    tokio::select! {
        () = sleep(patience) => ApiError::too_slow("the body did not come in time"),
        () = sent_away.cancelled() => {
            ApiError::too_slow("http.max_scans scans are under way, and this body was the slowest: try again later")
        }
    }
}

/// The body's length, if the client says.
pub(super) fn length(request: &Request) -> Option<u64> {
    request.body().size_hint().exact()
}

/// Refuses a body that is not announced, or is packed for its way.
///
/// Without a length, a body that a proxy dropped would be one that is empty, and clean. What is packed would be scanned packed,
/// and libclamav cannot look into all such packings.
pub(super) fn check_head(headers: &HeaderMap) -> Result<(), ApiError> {
    let is = |value: &HeaderValue, word: &str| value.as_bytes().trim_ascii().eq_ignore_ascii_case(word.as_bytes());
    let mut transfer = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (transfer.next(), transfer.next()) {
        (None, _) if headers.contains_key(header::CONTENT_LENGTH) => {}
        (None, _) => return Err(ApiError::length_required()),
        // Of several codings, hyper undoes the last alone.
        (Some(value), None) if is(value, "chunked") => {}
        _ => return Err(ApiError::malformed("Transfer-Encoding must be `chunked` and nothing else")),
    }
    if headers.get_all(header::CONTENT_ENCODING).iter().all(|value| is(value, "identity")) {
        return Ok(());
    }
    Err(ApiError::unsupported("Content-Encoding is not taken: send the content as it is"))
}

/// Reads a JSON body.
pub(super) async fn json<T: DeserializeOwned>(request: Request, config: &HttpConfig) -> Result<T, ApiError> {
    check_head(request.headers())?;
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = content_type.split(';').next().unwrap_or("").trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::unsupported("Content-Type must be application/json"));
    }
    let too_large = || ApiError::too_large(format!("the JSON is longer than {JSON_BYTES} bytes"));
    if length(&request).is_some_and(|length| length > JSON_BYTES as u64) {
        return Err(too_large());
    }
    // It holds no place yet that another could need.
    let mut body = TimedBody::new(request.into_body(), config, Waiting::default());
    let mut text = Vec::new();
    while let Some(bytes) = body.next().await? {
        if text.len() + bytes.len() > JSON_BYTES {
            return Err(too_large());
        }
        text.extend_from_slice(&bytes);
    }
    serde_json::from_slice(&text).map_err(|error| ApiError::malformed(format!("the JSON is not understood: {error}")))
}
