//! Reports as POST requests to a server, signed.

use std::io;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hmac::{Hmac, KeyInit, Mac};
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use sha2::Sha256;
use time::OffsetDateTime;

use super::refusal::refusal;
use super::upscan::Upscan;
use super::{Needs, Notice, Sink, SinkError};
use crate::config::{Secret, WebhookConfig, WebhookForm};
use crate::engine::hex;
use crate::https::HttpsClient;

const SCAN_ID: HeaderName = HeaderName::from_static("x-clamgate-scan-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-clamgate-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("x-clamgate-signature");

/// Posts each report to a URL.
pub struct WebhookSink {
    client: HttpsClient,
    url: String,
    secret: Option<Secret>,
    /// What was configured, and nothing of the report.
    headers: HeaderMap,
    /// `None` for our own form.
    upscan: Option<Upscan>,
}

impl WebhookSink {
    /// A sink as configured; `s3` signs the addresses at which clean files are.
    ///
    /// # Errors
    ///
    /// When the system has no certificates to trust.
    pub fn new(s3: aws_sdk_s3::Client, config: &WebhookConfig) -> io::Result<Self> {
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            let invalid = |_| io::Error::new(io::ErrorKind::InvalidInput, "headers holds what HTTP does not have");
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid(()))?;
            let mut value = HeaderValue::from_str(value.reveal()).map_err(|_| invalid(()))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let upscan = match config.form {
            WebhookForm::Clamgate => None,
            WebhookForm::Upscan => Some(Upscan::new(s3, config.upscan.clone().unwrap_or_default())?),
        };
        Ok(Self { client: HttpsClient::new()?, url: config.url.clone(), secret: config.secret.clone(), headers, upscan })
    }

    /// The headers of a request with this body.
    fn headers(&self, scan_id: &str, body: &str, now: OffsetDateTime) -> Result<HeaderMap, SinkError> {
        let value = |text: &str| HeaderValue::from_str(text).map_err(|error| SinkError::permanent(error.to_string()));
        let mut headers = self.headers.clone();
        headers.insert(SCAN_ID, value(scan_id)?);
        if let Some(secret) = &self.secret {
            let timestamp = now.unix_timestamp().to_string();
            headers.insert(SIGNATURE, value(&format!("v1={}", signature(secret, &timestamp, body)?))?);
            headers.insert(TIMESTAMP, value(&timestamp)?);
        }
        Ok(headers)
    }
}

impl Sink for WebhookSink {
    fn deliver<'a>(&'a self, notice: &'a Notice<'a>) -> BoxFuture<'a, Result<(), SinkError>> {
        async move {
            let body = match &self.upscan {
                None => notice.report.to_json()?,
                Some(upscan) => upscan.body(notice).await?,
            };
            let headers = self.headers(&notice.report.scan_id, &body, OffsetDateTime::now_utc())?;
            let answer = self.client.post(&self.url, headers, body.into()).await.map_err(SinkError::transient)?;
            if answer.status.is_success() { Ok(()) } else { Err(refusal(&answer, "")) }
        }
        .boxed()
    }

    fn needs(&self) -> Needs {
        Needs { headers: self.upscan.is_some(), tags: false }
    }
}

/// The HMAC-SHA256 of `timestamp.body`, in hexadecimal digits.
fn signature(secret: &Secret, timestamp: &str, body: &str) -> Result<String, SinkError> {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.reveal().as_bytes()).map_err(|error| SinkError::permanent(error.to_string()))?;
    for part in [timestamp, ".", body] {
        mac.update(part.as_bytes());
    }
    Ok(hex(&mac.finalize().into_bytes()))
}
