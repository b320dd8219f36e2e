//! `[report.sinks.NAME.webhook]`

use std::collections::BTreeMap;

use hyper::header::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::{TextTemplate, url_problem};
use crate::config::Secret;

/// `[report.sinks.NAME.webhook]`: each report is a POST request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Who is told. What nobody must see, `check-config` included, belongs into `headers`.
    pub url: String,
    /// What requests are signed with (HMAC-SHA256), 16 characters at least; without it they are not signed.
    pub secret: Option<Secret>,
    /// The form of the body.
    #[serde(default)]
    pub form: WebhookForm,
    /// Further headers, such as `authorization`. Their values are not shown.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// Whether reports may be sent without TLS to other machines.
    #[serde(default)]
    pub allow_http: bool,
    /// What `form = "upscan"` is made from.
    pub upscan: Option<UpscanConfig>,
}

/// The form of a webhook's body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WebhookForm {
    /// `clamgate.scan/1`
    #[default]
    Clamgate,
    /// The callback of HMRC's upscan.
    Upscan,
}

/// `[report.sinks.NAME.webhook.upscan]`: what upscan's callback is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpscanConfig {
    /// The object's metadata with the upload's reference; the key where it is missing.
    pub reference: String,
    /// The object's metadata with the file's name; the key's last part where it is missing.
    pub file_name: String,
    /// For how long `downloadUrl`, an address that S3 signs, hands out a clean file.
    pub download_url_secs: Option<u64>,
    /// `downloadUrl` instead, with `{bucket}`, `{key}` and `{reference}`.
    pub download_url: Option<String>,
}

impl Default for UpscanConfig {
    fn default() -> Self {
        // As upscan-initiate writes them.
        Self {
            reference: "file-reference".into(),
            file_name: "original-filename".into(),
            download_url_secs: None,
            download_url: None,
        }
    }
}

/// Headers that are this service's own business.
const TAKEN: [&str; 6] = ["host", "content-length", "content-type", "transfer-encoding", "connection", "user-agent"];

impl WebhookConfig {
    /// What cannot work.
    pub(in crate::config) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        problems.extend(url_problem(&self.url, self.allow_http).map(|problem| format!("url {problem}")));
        if self.secret.as_ref().is_some_and(|secret| secret.reveal().len() < 16) {
            problems.push("secret must have at least 16 characters".to_owned());
        }
        for (name, value) in &self.headers {
            let lower = name.to_ascii_lowercase();
            if HeaderName::from_bytes(name.as_bytes()).is_err() || HeaderValue::from_str(value.reveal()).is_err() {
                problems.push("headers holds a name or a value that HTTP does not have".to_owned());
            } else if TAKEN.contains(&lower.as_str()) || lower.starts_with("x-clamgate-") {
                problems.push(format!("headers.{lower} is set by this service"));
            }
        }
        if let Some(upscan) = &self.upscan {
            if self.form != WebhookForm::Upscan {
                problems.push("upscan means nothing without form = \"upscan\"".to_owned());
            }
            problems.extend(upscan.problems());
        }
        problems
    }
}

impl UpscanConfig {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.download_url.is_some() && self.download_url_secs.is_some() {
            problems.push("upscan has both download_url and download_url_secs: which of them is meant?".to_owned());
        }
        // https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-presigned-url.html
        if self.download_url_secs.is_some_and(|secs| !(1..=604_800).contains(&secs)) {
            problems.push("upscan.download_url_secs must be between 1 and 604800: S3 signs for no more than a week".to_owned());
        }
        if let Some(url) = &self.download_url {
            let problem = TextTemplate::problem(url, |name| ["bucket", "key", "reference"].contains(&name));
            problems.extend(problem.map(|problem| format!("upscan.download_url {problem}")));
        }
        problems
    }
}
