//! Reports as emails through GOV.UK Notify (<https://docs.notifications.service.gov.uk/rest-api.html>).

use std::collections::BTreeMap;
use std::io;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hmac::{Hmac, KeyInit, Mac};
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderValue};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use time::OffsetDateTime;

use super::email::{self, Mail, reference};
use super::refusal::refusal;
use super::{Needs, Notice, Sink, SinkError};
use crate::config::NotifyConfig;
use crate::https::HttpsClient;

/// Has Notify send a mail about each report.
pub struct NotifySink {
    client: HttpsClient,
    config: NotifyConfig,
    url: String,
    mail: Mail,
}

#[derive(Serialize)]
struct Request<'a> {
    email_address: &'a str,
    template_id: &'a str,
    personalisation: BTreeMap<&'a str, String>,
    reference: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    email_reply_to_id: Option<&'a str>,
}

/// What Notify says when it refuses.
#[derive(Default, Deserialize)]
struct Refusal {
    errors: Vec<RefusalError>,
}

#[derive(Deserialize)]
struct RefusalError {
    error: String,
    message: String,
}

impl NotifySink {
    /// A sink as configured.
    ///
    /// # Errors
    ///
    /// When the system has no certificates to trust.
    pub fn new(config: &NotifyConfig) -> io::Result<Self> {
        let url = format!("{}/v2/notifications/email", config.base_url.trim_end_matches('/'));
        let mail = Mail::new(&config.to, &config.to_domains, &config.personalisation);
        Ok(Self { client: HttpsClient::new()?, config: config.clone(), url, mail })
    }

    /// A token for a request that is made now: Notify takes it for half a minute.
    fn token(&self, now: OffsetDateTime) -> Option<String> {
        let (service, secret) = self.config.key_parts()?;
        let claims = serde_json::json!({"iss": service, "iat": now.unix_timestamp()});
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let signed = format!("{}.{}", encode(br#"{"typ":"JWT","alg":"HS256"}"#), encode(claims.to_string().as_bytes()));
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok()?;
        mac.update(signed.as_bytes());
        Some(format!("{signed}.{}", encode(&mac.finalize().into_bytes())))
    }

    async fn send(&self, notice: &Notice<'_>) -> Result<(), SinkError> {
        let request = Request {
            email_address: &self.mail.recipient(notice)?,
            template_id: &self.config.template_id,
            personalisation: self.mail.values(notice),
            reference: reference(notice.report),
            email_reply_to_id: self.config.email_reply_to_id.as_deref(),
        };
        let body = serde_json::to_vec(&request).map_err(|error| SinkError::permanent(error.to_string()))?;
        let token =
            self.token(OffsetDateTime::now_utc()).and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok());
        let mut token = token.ok_or_else(|| SinkError::permanent("api_key is no key of GOV.UK Notify"))?;
        token.set_sensitive(true);
        let headers = HeaderMap::from_iter([(AUTHORIZATION, token)]);
        let answer = self.client.post(&self.url, headers, body.into()).await.map_err(SinkError::transient)?;
        if answer.status.is_success() {
            return Ok(());
        }
        let error = refusal(&answer, "");
        let said: Refusal = serde_json::from_slice(&answer.body().await).unwrap_or_default();
        let text: Vec<String> = said.errors.iter().map(|error| format!("{}: {}", error.error, error.message)).collect();
        let text = email::said(&text.join("; "), "");
        let message = if text.is_empty() { error.message.clone() } else { format!("{}: {text}", error.message) };
        // Whoever uploads chose the address, and must not keep the message on the queue.
        let is_pointless =
            !error.can_retry && said.errors.iter().any(|error| error.message.trim_start().starts_with("email_address "));
        Err(SinkError { message, is_pointless, ..error })
    }
}

impl Sink for NotifySink {
    fn deliver<'a>(&'a self, notice: &'a Notice<'a>) -> BoxFuture<'a, Result<(), SinkError>> {
        self.send(notice).boxed()
    }

    fn needs(&self) -> Needs {
        self.mail.needs()
    }
}
