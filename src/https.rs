//! A client for HTTP servers that others run: TLS with the system's certificates (or those that `SSL_CERT_FILE` names), no redirects,
//! and bounds on what an answer may cost.

use std::io;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::aws_lc_rs;

/// How long a connection may take to be made, without TLS. How long an answer may take is the caller's decision.
const CONNECT: Duration = Duration::from_secs(10);
/// How much of an answer's body is read.
const BODY_BYTES: usize = 64 * 1024;

/// The client.
#[derive(Clone)]
pub(crate) struct HttpsClient(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

/// What a server answered.
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: StatusCode,
    headers: HeaderMap,
    body: Incoming,
}

impl HttpsClient {
    /// A client.
    ///
    /// # Errors
    ///
    /// When the system has no certificates to trust.
    pub(crate) fn new() -> io::Result<Self> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT));
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(aws_lc_rs::default_provider())?
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        // Nothing is kept open: calls are rare, and what was sent on a connection that breaks may or may not have arrived.
        Ok(Self(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector)))
    }

    /// Posts JSON.
    ///
    /// # Errors
    ///
    /// Why there is no answer, without the URL.
    pub(crate) async fn post(&self, url: &str, headers: HeaderMap, json: Bytes) -> Result<Answer, String> {
        let mut request = Request::post(url).body(Full::new(json)).map_err(|error| error.to_string())?;
        *request.headers_mut() = headers;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(concat!("clamgate/", env!("CARGO_PKG_VERSION"))));
        // Redirects are not followed: they could lead anywhere.
        let answer = self.0.request(request).await.map_err(|error| {
            std::error::Error::source(&error).map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
        })?;
        let (head, body) = answer.into_parts();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

impl Answer {
    /// How long the server wants to be left alone, if it says so in seconds.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
    }

    /// The beginning of the body, as far as it came.
    pub(crate) async fn body(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(Ok(frame)) = self.body.frame().await {
            let data = frame.into_data().unwrap_or_default();
            let room = BODY_BYTES - bytes.len();
            bytes.extend_from_slice(data.get(..room).unwrap_or(&data));
            if bytes.len() == BODY_BYTES {
                break;
            }
        }
        bytes
    }
}
