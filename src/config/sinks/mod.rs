//! `[report.sinks.NAME]`: where the reports of a sink can go, one way a file.

mod email;
mod event_bridge;
mod object;
mod postgres;
mod sns;
mod text_template;
mod webhook;

use std::net::IpAddr;

use url::{Host, Url};

pub use email::{NotifyConfig, Recipient, ReportField, SesConfig, Value, is_address};
pub use event_bridge::{EventBridgeForm, EventBridgeSinkConfig};
pub use object::ObjectSinkConfig;
pub use postgres::PostgresSinkConfig;
pub use sns::{SnsForm, SnsSinkConfig};
pub use text_template::TextTemplate;
pub use webhook::{UpscanConfig, WebhookConfig, WebhookForm};

/// The longest URL.
const URL_BYTES: usize = 2048;

/// Why reports cannot be sent to this URL, if so.
fn url_problem(url: &str, allow_http: bool) -> Option<&'static str> {
    let Ok(parsed) = Url::parse(url) else { return Some("must be a URL, such as https://app.example/hooks/scans") };
    let is_local = match parsed.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        None => false,
    };
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Some("must not hold a user or password: send them in a header");
    }
    if parsed.fragment().is_some() || url.len() > URL_BYTES {
        return Some("must have at most 2048 bytes and no #");
    }
    match parsed.scheme() {
        "https" => None,
        "http" if is_local || allow_http => None,
        "http" => {
            Some("must begin with https:// unless it is on this machine: anybody on the way could read and change reports")
        }
        _ => Some("must begin with https://"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_travel_encrypted() {
        for (url, works) in [
            ("https://app.example/hooks", true),
            ("http://127.0.0.1:8080/", true),
            ("http://[::1]/", true),
            ("http://localhost/", true),
            ("http://app.example/", false),
            ("http://127.0.0.1.evil.example/", false),
            ("http://localhost.evil.example/", false),
            ("http://127.0.0.1@evil.example/", false),
            ("https://user:password@app.example/", false),
            ("https://app.example/#here", false),
            ("ftp://127.0.0.1/", false),
            ("/hooks", false),
        ] {
            assert_eq!(url_problem(url, false).is_none(), works, "{url}");
        }
        assert_eq!(url_problem("http://app.internal/", true), None);
        assert!(url_problem("ftp://app.internal/", true).is_some());
        assert!(url_problem(&format!("https://app.example/{}", "x".repeat(2048)), false).is_some());
    }
}
