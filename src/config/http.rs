//! `[http]`: the HTTP API.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Secret, those_that_are};

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
    /// Who may have objects in quarantine scanned again or released, by the same header; nobody by default. None of these may be among
    /// `tokens`.
    pub admin_tokens: Vec<Secret>,
    /// Whether anybody who can connect may use it. On by default for loopback addresses alone.
    pub allow_anonymous: Option<bool>,
    /// The certificate chain for TLS (PEM); without it, connections are plain.
    pub tls_certificate: Option<PathBuf>,
    /// Its private key (PEM).
    pub tls_key: Option<PathBuf>,
    /// Where health and metrics are served besides, without TLS: `0.0.0.0:8081` for example. There, no client of the API can
    /// take their place.
    pub health_listen: Option<SocketAddr>,
    /// How many connections are open at once. On 32 more, health and metrics are answered, and everything else 503; more wait
    /// to be accepted.
    pub max_connections: usize,
    /// How many scans are asked for at once. The slowest body makes room for one more; when none is slow, more are answered 429.
    pub max_scans: usize,
    /// How long the body of a request may take to arrive; then it is answered 408.
    pub request_timeout_secs: u64,
    /// How long nothing of it may arrive; then it is answered 408.
    pub idle_timeout_secs: u64,
    /// How long a connection is kept open without a request. Load balancers want more than their own idle timeout (AWS: 60
    /// seconds).
    pub keep_alive_secs: u64,
    /// The buckets whose objects clients may have scanned (`POST /v1/scan/s3`); none by default, because this service can
    /// read more than they.
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
            admin_tokens: Vec::new(),
            allow_anonymous: None,
            tls_certificate: None,
            tls_key: None,
            health_listen: None,
            max_connections: 1000,
            max_scans: 100,
            request_timeout_secs: 600,
            idle_timeout_secs: 30,
            keep_alive_secs: 75,
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

    /// How long a connection is kept open without a request.
    #[must_use]
    pub fn keep_alive(&self) -> Duration {
        Duration::from_secs(self.keep_alive_secs)
    }

    /// How many files its clients can have open here: connections, those kept for health included, and bodies on disk.
    #[must_use]
    pub fn open_files(&self) -> usize {
        if self.enabled { self.max_connections + 100 + self.max_scans } else { 0 }
    }

    /// What cannot work.
    pub(super) fn problems(&self) -> Vec<&'static str> {
        let are_long = |tokens: &[Secret]| tokens.iter().all(|token| token.reveal().len() >= 16);
        let is_shared = self.tokens.iter().any(|token| self.admin_tokens.iter().any(|admin| admin.reveal() == token.reveal()));
        let callbacks_are_urls = self.callbacks.iter().all(|prefix| {
            prefix.ends_with('/')
                && (prefix.starts_with("https://") || prefix.starts_with("http://"))
                && prefix.matches('/').count() >= 3
                // Behind these the path has ended: any path would begin with what is left.
                && !prefix.contains(['?', '#'])
        });
        those_that_are([
            (
                self.enabled && self.tokens.is_empty() && !self.is_open(),
                "http.tokens is empty, and http.listen can be reached from elsewhere: set tokens, or http.allow_anonymous = true",
            ),
            (!are_long(&self.tokens), "http.tokens must have at least 16 characters each"),
            (!are_long(&self.admin_tokens), "http.admin_tokens must have at least 16 characters each"),
            (is_shared, "http.tokens and http.admin_tokens share a token: whoever has scans made would release objects"),
            (
                self.allow_anonymous == Some(true) && !self.tokens.is_empty(),
                "http.allow_anonymous is set beside http.tokens: which of them is meant?",
            ),
            (self.tls_certificate.is_some() != self.tls_key.is_some(), "http.tls_certificate and http.tls_key belong together"),
            (self.max_connections == 0, "http.max_connections must be at least 1"),
            (self.max_scans == 0, "http.max_scans must be at least 1"),
            (self.request_timeout_secs == 0, "http.request_timeout_secs must be at least 1"),
            (self.idle_timeout_secs == 0, "http.idle_timeout_secs must be at least 1"),
            (self.keep_alive_secs == 0, "http.keep_alive_secs must be at least 1"),
            (self.max_connections > 1_000_000, "http.max_connections must be at most 1000000"),
            (self.max_scans > 1_000_000, "http.max_scans must be at most 1000000"),
            (
                self.keep_alive_secs.max(self.request_timeout_secs).max(self.idle_timeout_secs) > 24 * 3600,
                "http's times must be at most 86400",
            ),
            (
                !callbacks_are_urls,
                "http.callbacks must be URLs that end with a slash and have no ? or #, such as https://app.example/hooks/",
            ),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_have_tokens_of_their_own() -> Result<(), toml::de::Error> {
        for (text, problem) in [
            ("admin_tokens = ['0123456789abcdef']\ntokens = ['fedcba9876543210']", None),
            ("admin_tokens = ['0123456789abcde']", Some("admin_tokens must have")),
            ("admin_tokens = ['0123456789abcdef']\ntokens = ['0123456789abcdef']", Some("share a token")),
        ] {
            let problems = toml::from_str::<HttpConfig>(text)?.problems().join("; ");
            assert_eq!(problems.is_empty(), problem.is_none(), "{problems}");
            assert!(problems.contains(problem.unwrap_or_default()), "{problems}");
        }
        Ok(())
    }

    #[test]
    fn callbacks_are_prefixes_of_paths() {
        for (prefix, works) in [
            ("https://app.example/", true),
            ("http://app.example/hooks/", true),
            ("https://app.example", false),
            ("https://app.example/hooks", false),
            ("ftp://app.example/", false),
            ("https://app.example/hooks?to=/", false),
            ("https://app.example/#/", false),
        ] {
            let config = HttpConfig { callbacks: vec![prefix.to_owned()], ..HttpConfig::default() };
            assert_eq!(config.problems().is_empty(), works, "{prefix}");
        }
    }
}
