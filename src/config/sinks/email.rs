//! `[report.sinks.NAME.notify]` and `[report.sinks.NAME.ses]`: who gets which mail.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{TextTemplate, url_problem};
use crate::config::Secret;

/// `[report.sinks.NAME.notify]`: each report is an email through GOV.UK Notify.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotifyConfig {
    /// The API key as Notify shows it: its name, the service's id and the secret, joined with hyphens.
    pub api_key: Secret,
    /// The template's id.
    pub template_id: String,
    /// Who gets the mail.
    pub to: Recipient,
    /// The domains of recipients; needed unless `to` is an address. `*.example.com` for all below one, `*` for any.
    #[serde(default)]
    pub to_domains: Vec<String>,
    /// What the template's placeholders stand for.
    #[serde(default)]
    pub personalisation: BTreeMap<String, Value>,
    /// Notify's id of the address for answers.
    pub email_reply_to_id: Option<String>,
    /// Where Notify is.
    #[serde(default = "notify")]
    pub base_url: String,
}

/// `[report.sinks.NAME.ses]`: each report is an email through Amazon SES.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SesConfig {
    /// The sender, verified at SES.
    pub from: String,
    /// Who gets the mail.
    pub to: Recipient,
    /// The domains of recipients; needed unless `to` is an address. `*.example.com` for all below one, `*` for any.
    #[serde(default)]
    pub to_domains: Vec<String>,
    /// The address for answers.
    pub reply_to: Option<String>,
    /// The subject, with `{placeholders}`.
    pub subject: String,
    /// The plain text, with `{placeholders}`.
    pub body: String,
    /// What the placeholders stand for.
    #[serde(default)]
    pub values: BTreeMap<String, Value>,
    /// SES's configuration set.
    pub configuration_set: Option<String>,
}

/// Who gets a mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recipient {
    /// The address that the object's metadata of this name holds (`x-amz-meta-NAME`).
    Metadata(String),
    /// The address that the object's tag of this name holds.
    Tag(String),
    /// Always this address.
    Address(String),
}

/// What a placeholder stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// The object's metadata of this name (`x-amz-meta-NAME`).
    Metadata(String),
    /// The object's tag of this name.
    Tag(String),
    /// Something from the report.
    Report(ReportField),
    /// Always this text.
    Text(String),
}

/// Something from a report. Nothing in here comes from the object's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportField {
    /// The verdict.
    Status,
    /// Why the scan was not complete.
    Reason,
    /// The names of what was found.
    Signatures,
    /// The object's bucket.
    Bucket,
    /// The object's key.
    Key,
    /// The last part of the object's key.
    Name,
    /// The object's version.
    VersionId,
    /// Its size in bytes.
    Size,
    /// The SHA-256 of its content.
    Sha256,
    /// The scan's id.
    ScanId,
    /// When the scan ended.
    ScannedAt,
    /// The sender's own name for the work.
    TraceId,
}

fn notify() -> String {
    "https://api.notifications.service.gov.uk".to_owned()
}

impl NotifyConfig {
    /// The service's id and the secret in the API key: its last two UUIDs.
    #[must_use]
    pub fn key_parts(&self) -> Option<(&str, &str)> {
        let key = self.api_key.reveal();
        let (rest, secret) = key.split_at_checked(key.len().checked_sub(36)?)?;
        let rest = rest.strip_suffix('-')?;
        let (name, service) = rest.split_at_checked(rest.len().checked_sub(36)?)?;
        (is_uuid(secret) && is_uuid(service) && (name.is_empty() || name.ends_with('-'))).then_some((service, secret))
    }

    /// What cannot work.
    pub(in crate::config) fn problems(&self) -> Vec<String> {
        let mut problems = problems_of(&self.to, &self.to_domains, &self.personalisation);
        if self.key_parts().is_none() {
            problems
                .push("api_key must be as GOV.UK Notify shows it: name, service id and secret, joined with hyphens".to_owned());
        }
        if self.template_id.is_empty() {
            problems.push("template_id is empty".to_owned());
        }
        problems.extend(url_problem(&self.base_url, false).map(|problem| format!("base_url {problem}")));
        problems
    }
}

impl SesConfig {
    /// What cannot work.
    pub(in crate::config) fn problems(&self) -> Vec<String> {
        let mut problems = problems_of(&self.to, &self.to_domains, &self.values);
        if self.from.is_empty() || self.from.chars().any(char::is_control) {
            problems.push("from must be an address, such as Scans <scans@example.com>".to_owned());
        }
        if self.reply_to.as_deref().is_some_and(|address| !is_address(address)) {
            problems.push("reply_to must be one address, such as help@example.com".to_owned());
        }
        for (field, text) in [("subject", &self.subject), ("body", &self.body)] {
            if text.is_empty() {
                problems.push(format!("{field} is empty"));
            }
            let problem = TextTemplate::problem(text, |name| self.values.contains_key(name));
            problems.extend(problem.map(|problem| format!("{field} {problem}; see values")));
        }
        if self.subject.chars().any(char::is_control) {
            problems.push("subject must be one line".to_owned());
        }
        problems
    }
}

fn problems_of(to: &Recipient, domains: &[String], values: &BTreeMap<String, Value>) -> Vec<String> {
    let mut problems = Vec::new();
    match to {
        Recipient::Address(address) if !is_address(address) => {
            problems.push("to.address must be one address, such as uploads@example.com".to_owned());
        }
        Recipient::Address(_) => {}
        Recipient::Metadata(_) | Recipient::Tag(_) if domains.is_empty() => problems.push(
            "to_domains is empty: name the domains of those who may get mail, or [\"*\"] if whoever uploads may have mail sent to anybody"
                .to_owned(),
        ),
        Recipient::Metadata(name) | Recipient::Tag(name) if name.is_empty() => {
            problems.push("to has an empty name".to_owned());
        }
        Recipient::Metadata(_) | Recipient::Tag(_) => {}
    }
    let is_domain = |domain: &str| is_address(&format!("a@{domain}"));
    if domains.iter().any(|domain| domain != "*" && !is_domain(domain.strip_prefix("*.").unwrap_or(domain))) {
        problems.push("to_domains must hold domains, such as example.com or *.example.com".to_owned());
    }
    let empty: BTreeSet<&str> = values
        .iter()
        .filter(|(_, value)| matches!(value, Value::Metadata(name) | Value::Tag(name) if name.is_empty()))
        .map(|(name, _)| name.as_str())
        .collect();
    problems.extend(empty.into_iter().map(|name| format!("the value of {name:?} has an empty name")));
    problems
}

/// Whether this is one plain email address: RFC 5322's unquoted form with a domain name, in ASCII. What mail servers take besides is not
/// worth the ways to misread it.
#[must_use]
pub fn is_address(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else { return false };
    let is_atom = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 254
        && local.len() <= 64
        && local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atom))
        && domain.contains('.')
        && domain.split('.').all(is_label)
        && domain.rsplit('.').next().is_some_and(|last| last.chars().any(|c| c.is_ascii_alphabetic()))
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && uuid::Uuid::try_parse(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_plain_address() {
        for (text, holds) in [
            ("a@b.example", true),
            ("first.last+tag@sub.domain-name.example", true),
            ("o'neil@b.example", true),
            ("", false),
            ("a", false),
            ("@b.example", false),
            ("a@", false),
            ("a@localhost", false),
            ("a@127.0.0.1", false),
            ("a@[127.0.0.1]", false),
            ("a@b.example,c@d.example", false),
            ("a@b.example;c@d.example", false),
            ("a@b.example c@d.example", false),
            ("a@b.example\r\nBcc: c@d.example", false),
            ("a@b.example\n", false),
            ("a@b@c.example", false),
            ("A <a@b.example>", false),
            ("\"a b\"@c.example", false),
            ("a..b@c.example", false),
            (".a@b.example", false),
            ("a@-b.example", false),
            ("a@b..example", false),
            ("ä@b.example", false),
            ("a@bücher.example", false),
            ("a\u{202e}@b.example", false),
        ] {
            assert_eq!(is_address(text), holds, "{text:?}");
        }
        assert!(!is_address(&format!("{}@b.example", "a".repeat(65))));
        assert!(!is_address(&format!("a@{}.example", "b".repeat(64))));
        assert!(!is_address(&format!("a@{}example", "b.".repeat(130))));
    }

    #[test]
    fn the_api_key_is_taken_apart() -> Result<(), Box<dyn std::error::Error>> {
        const SERVICE: &str = "26785a09-ab16-4eb0-8407-a37497a57506";
        const SECRET: &str = "3d844edf-8d35-48ac-975b-e847b4f122b0";
        for (key, works) in [
            (format!("my-key-{SERVICE}-{SECRET}"), true),
            (format!("{SERVICE}-{SECRET}"), true),
            (format!("my-key-{SECRET}"), false),
            (format!("my-key{SERVICE}-{SECRET}"), false),
            (format!("my-key-{SERVICE}-{}", &SECRET[1..]), false),
            (format!("my-key-{SERVICE} {SECRET}"), false),
            (format!("ééé{}", &SECRET[1..]), false),
            (String::new(), false),
        ] {
            let config: NotifyConfig =
                toml::from_str(&format!("api_key = {key:?}\ntemplate_id = 't'\nto = {{ address = 'a@b.example' }}"))?;
            let parts = config.key_parts();
            assert_eq!(parts, works.then_some((SERVICE, SECRET)));
            assert_eq!(config.problems().is_empty(), works);
        }
        Ok(())
    }

    #[test]
    fn mail_for_anybody_is_a_decision() -> Result<(), toml::de::Error> {
        for (fields, problem) in [
            ("to = { metadata = 'who' }", Some("to_domains is empty")),
            ("to = { tag = 'who' }", Some("to_domains is empty")),
            ("to = { metadata = 'who' }\nto_domains = ['*']", None),
            ("to = { metadata = 'who' }\nto_domains = ['b.example', '*.c.example']", None),
            ("to = { metadata = 'who' }\nto_domains = ['@b.example']", Some("to_domains must hold")),
            ("to = { metadata = '' }\nto_domains = ['*']", Some("an empty name")),
            ("to = { address = 'a@b.example, c@d.example' }", Some("to.address")),
            ("to = { address = 'a@b.example' }\nvalues = { x = { tag = '' } }", Some("\"x\" has an empty name")),
        ] {
            let config: SesConfig = toml::from_str(&format!("from = 'x@y.example'\nsubject = 's'\nbody = 'b'\n{fields}"))?;
            let problems = config.problems();
            assert_eq!(problems.len(), usize::from(problem.is_some()), "{fields}: {problems:?}");
            assert!(problems.iter().all(|found| found.contains(problem.unwrap_or_default())), "{fields}: {problems:?}");
        }
        Ok(())
    }
}
