//! Telling the client's own server of a scan, when the client asked for that.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use url::Url;
use uuid::Uuid;

use super::error::ApiError;
use crate::config::HttpConfig;
use crate::https::HttpsClient;

/// How long the server may take for its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it is left alone after each failure.
const PAUSES: [Duration; 4] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(15)];

/// The longest URL.
const URL_BYTES: usize = 2048;

/// Who may be called, and how.
pub(super) struct Callbacks {
    allowed: Vec<Url>,
    /// `None` when nobody may be called.
    client: Option<HttpsClient>,
    under_way: Arc<Semaphore>,
}

/// A call that is to be made.
pub(super) struct Callback {
    url: Url,
    _permit: OwnedSemaphorePermit,
}

impl Callbacks {
    pub(super) fn new(config: &HttpConfig) -> io::Result<Self> {
        let allowed: Vec<Url> = config
            .callbacks
            .iter()
            .map(|prefix| Url::parse(prefix))
            .collect::<Result<_, _>>()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, format!("cannot use http.callbacks: {error}")))?;
        let client = if allowed.is_empty() { None } else { Some(HttpsClient::new()?) };
        Ok(Self { allowed, client, under_way: Arc::new(Semaphore::new(config.max_scans)) })
    }

    /// Prepares a call to what a client named.
    ///
    /// # Errors
    ///
    /// When that is none of `http.callbacks`, or too many calls are under way.
    pub(super) fn prepare(&self, url: &str) -> Result<Callback, ApiError> {
        let refused = || ApiError::forbidden("the callback's URL begins with none of http.callbacks");
        if url.len() > URL_BYTES {
            return Err(ApiError::malformed(format!("the callback's URL has more than {URL_BYTES} bytes")));
        }
        // Parsing resolves dot segments, so that what is compared is what is called.
        let url = Url::parse(url).map_err(|error| ApiError::malformed(format!("the callback is no URL: {error}")))?;
        if !self.allowed.iter().any(|allowed| is_below(&url, allowed)) {
            return Err(refused());
        }
        let permit = Arc::clone(&self.under_way)
            .try_acquire_owned()
            .map_err(|_| ApiError::too_many("too many callbacks are under way: their receivers do not answer"))?;
        Ok(Callback { url, _permit: permit })
    }

    /// Makes a call, several times if need be.
    pub(super) async fn call(&self, callback: Callback, id: Uuid, body: Bytes) {
        let Some(client) = &self.client else { return };
        let host = callback.url.host_str().unwrap_or_default();
        let mut pauses = PAUSES.iter();
        loop {
            let mut headers = HeaderMap::new();
            headers.extend(HeaderValue::from_str(&id.to_string()).map(|id| (HeaderName::from_static("x-clamgate-scan"), id)));
            let error = match timeout(PATIENCE, client.post(callback.url.as_str(), headers, body.clone())).await {
                Ok(Ok(answer)) if answer.status.is_success() => return,
                Ok(Ok(answer)) => format!("HTTP status {}", answer.status),
                Ok(Err(error)) => error,
                Err(_) => format!("no answer in {} seconds", PATIENCE.as_secs()),
            };
            let Some(&pause) = pauses.next() else {
                tracing::error!(host, scan = id.to_string(), error, "callback given up");
                return;
            };
            tracing::warn!(host, scan = id.to_string(), error, "callback failed; it is tried again");
            sleep(pause).await;
        }
    }
}

/// Whether a URL is one of those that an allowed prefix stands for.
fn is_below(url: &Url, allowed: &Url) -> bool {
    let path = url.path().to_ascii_lowercase();
    url.scheme() == allowed.scheme()
        && url.host() == allowed.host()
        && url.port_or_known_default() == allowed.port_or_known_default()
        && url.username().is_empty()
        && url.password().is_none()
        && url.path().starts_with(allowed.path())
        // Some servers take these for slashes.
        && !["%2f", "%5c", "\\", ".."].iter().any(|slash| path.contains(slash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_below_an_allowed_url_is_called() -> Result<(), url::ParseError> {
        let allowed = Url::parse("https://app.example/hooks/")?;
        for (url, below) in [
            ("https://app.example/hooks/1?x=../..", true),
            ("https://APP.example:443/hooks/", true),
            ("https://app.example/x/../hooks/1", true),
            ("https://app.example/hooks", false),
            ("https://app.example/hooks/../admin", false),
            ("https://app.example/hooks/%2e%2e/admin", false),
            ("https://app.example/hooks/..%2fadmin", false),
            ("https://app.example/hooks/..\\admin", false),
            ("https://app.example/hooks/%2E%2E%5Cadmin", false),
            ("http://app.example/hooks/", false),
            ("https://app.example:8443/hooks/", false),
            ("https://app.example@evil.example/hooks/", false),
            ("https://evil.example#@app.example/hooks/", false),
            ("https://user@app.example/hooks/", false),
            ("https://app.example.evil.example/hooks/", false),
        ] {
            assert_eq!(is_below(&Url::parse(url)?, &allowed), below, "{url}");
        }
        Ok(())
    }
}
