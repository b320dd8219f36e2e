//! `[http]`: the HTTP API.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Secret;

/// `[http]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Whether the API is served.
    pub enabled: bool,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Who may use it: a client sends one of them as `Authorization: Bearer …`. Health and metrics need none.
    pub tokens: Vec<Secret>,
    /// Whether anybody who can connect may use it. On by default for loopback addresses alone.
    pub allow_anonymous: Option<bool>,
    /// The certificate chain for TLS (PEM); without it, connections are plain.
    pub tls_certificate: Option<PathBuf>,
    /// Its private key (PEM).
    pub tls_key: Option<PathBuf>,
    /// How many connections are open at once; more wait to be accepted.
    pub max_connections: usize,
    /// How many scans are asked for at once; more are answered 429.
    pub max_scans: usize,
    /// How long a client may take for its request.
    pub request_timeout_secs: u64,
    /// How long a client may send nothing in the middle of one.
    pub idle_timeout_secs: u64,
    /// The buckets whose objects clients may have scanned (`POST /v1/scan/s3`); none by default, because this service can read more than they.
    pub s3_buckets: Vec<String>,
    /// What a callback's URL must begin with, up to a slash; none by default, because this service can reach more than they.
    pub callbacks: Vec<String>,
    /// How many finished scans are remembered for `GET /v1/scans/{id}`.
    pub remembered_scans: usize,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            tokens: Vec::new(),
            allow_anonymous: None,
            tls_certificate: None,
            tls_key: None,
            max_connections: 1000,
            max_scans: 100,
            request_timeout_secs: 600,
            idle_timeout_secs: 30,
            s3_buckets: Vec::new(),
            callbacks: Vec::new(),
            remembered_scans: 10_000,
        }
    }
}

impl HttpConfig {
    /// Whether a client without a token is served, in effect.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.tokens.is_empty() && self.allow_anonymous.unwrap_or_else(|| self.listen.ip().is_loopback())
    }

    /// What cannot work.
    pub(super) fn problems(&self) -> Vec<&'static str> {
        let tokens_are_long = self.tokens.iter().all(|token| token.reveal().len() >= 16);
        let callbacks_are_urls = self.callbacks.iter().all(|prefix| {
            prefix.ends_with('/')
                && (prefix.starts_with("https://") || prefix.starts_with("http://"))
                && prefix.matches('/').count() >= 3
        });
        [
            (
                self.enabled && self.tokens.is_empty() && !self.is_open(),
                "http.tokens is empty, and http.listen can be reached from elsewhere: set tokens, or http.allow_anonymous = true",
            ),
            (!tokens_are_long, "http.tokens must have at least 16 characters each"),
            (
                self.allow_anonymous == Some(true) && !self.tokens.is_empty(),
                "http.allow_anonymous is set beside http.tokens: which of them is meant?",
            ),
            (self.tls_certificate.is_some() != self.tls_key.is_some(), "http.tls_certificate and http.tls_key belong together"),
            (self.max_connections == 0, "http.max_connections must be at least 1"),
            (self.max_scans == 0, "http.max_scans must be at least 1"),
            (self.request_timeout_secs == 0, "http.request_timeout_secs must be at least 1"),
            (self.idle_timeout_secs == 0, "http.idle_timeout_secs must be at least 1"),
            (!callbacks_are_urls, "http.callbacks must be URLs that end with a slash, such as https://app.example/hooks/"),
        ]
        .into_iter()
        .filter_map(|(wrong, problem)| wrong.then_some(problem))
        .collect()
    }
}
