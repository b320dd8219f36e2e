//! What all emails have in common: who gets them, and what of an object is said in them. Both come from the report and from what was
//! configured of the object's metadata and tags; whoever uploads may have chosen those.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::encoded_word::decode;
use super::{About, Needs, Notice, ScanReport, SinkError, Target};
use crate::config::{Recipient, ReportField, Value, is_address};

/// How long a value may be, in characters.
const VALUE_CHARS: usize = 200;

/// How much of what a server said is passed on, in characters.
const SAID_CHARS: usize = 300;

/// Who gets a mail, and what is said in it.
pub(super) struct Mail {
    to: Recipient,
    to_domains: Vec<String>,
    values: BTreeMap<String, Value>,
}

impl Mail {
    pub(super) fn new(to: &Recipient, to_domains: &[String], values: &BTreeMap<String, Value>) -> Self {
        Self { to: to.clone(), to_domains: to_domains.to_vec(), values: values.clone() }
    }

    /// What must be known of the object.
    pub(super) fn needs(&self) -> Needs {
        let values = || self.values.values();
        Needs {
            headers: matches!(self.to, Recipient::Metadata(_)) || values().any(|value| matches!(value, Value::Metadata(_))),
            tags: matches!(self.to, Recipient::Tag(_)) || values().any(|value| matches!(value, Value::Tag(_))),
        }
    }

    /// The recipient's address.
    ///
    /// # Errors
    ///
    /// A [pointless](SinkError::pointless) attempt, when the object names nobody who may get mail. The error does not show the address.
    pub(super) fn recipient(&self, notice: &Notice<'_>) -> Result<String, SinkError> {
        let (found, place) = match &self.to {
            Recipient::Address(address) => return Ok(address.clone()),
            Recipient::Metadata(name) => (metadata(notice.about, name), format!("metadata {name:?}")),
            Recipient::Tag(name) => (notice.about.tags.get(name).map(String::as_str), format!("tag {name:?}")),
        };
        let found =
            found.ok_or_else(|| SinkError::pointless(format!("the object has no {place}, which names the recipient")))?;
        let address = decode(found.trim());
        if !is_address(&address) {
            return Err(SinkError::pointless(format!("the object's {place} is not one email address")));
        }
        let domain = address.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
        let is_allowed = self.to_domains.iter().any(|allowed| {
            let allowed = allowed.to_ascii_lowercase();
            match allowed.strip_prefix('*') {
                Some(parent) => domain.ends_with(parent),
                None => domain == allowed,
            }
        });
        if !is_allowed {
            return Err(SinkError::pointless(format!("the domain in the object's {place} is none of to_domains")));
        }
        Ok(address.into_owned())
    }

    /// What each placeholder stands for. What is missing is an empty text.
    pub(super) fn values(&self, notice: &Notice<'_>) -> BTreeMap<&str, String> {
        let value = |value: &Value| match value {
            Value::Metadata(name) => harmless(&decode(metadata(notice.about, name).unwrap_or_default())),
            Value::Tag(name) => harmless(notice.about.tags.get(name).map_or("", String::as_str)),
            Value::Report(field) => harmless(&of_report(notice.report, *field)),
            Value::Text(text) => text.clone(),
        };
        self.values.iter().map(|(name, configured)| (name.as_str(), value(configured))).collect()
    }
}

/// What a server said, as it may stand in the log and in reports: short, and without the recipient's address, which servers like to repeat. Addresses
/// in `known`, which is configured, are left.
pub(super) fn said(text: &str, known: &str) -> String {
    // None of these can be in an address.
    let is_between = |c: char| c.is_whitespace() || c.is_control() || ",;:<>()[]\"\\".contains(c);
    let is_known = |word: &str| known.split(is_between).any(|known| known.eq_ignore_ascii_case(word));
    let words = text.split_inclusive(is_between).map(|word| {
        let bare = word.trim_end_matches(is_between);
        if bare.contains('@') && !is_known(bare) { word.replacen(bare, "(an address)", 1) } else { word.to_owned() }
    });
    words.collect::<String>().chars().take(SAID_CHARS).collect()
}

/// What a mail is recognised by: two with the same are about the same scan and verdict.
pub(super) fn reference(report: &ScanReport) -> String {
    format!("{}-{}", report.scan_id, report.status)
}

fn metadata<'about>(about: &'about About, name: &str) -> Option<&'about str> {
    about.metadata.get(&name.to_lowercase()).map(String::as_str)
}

fn of_report(report: &ScanReport, field: ReportField) -> Cow<'_, str> {
    let optional = |text: Option<&str>| text.unwrap_or_default().to_owned().into();
    let key = report.target.name();
    match (field, &report.target) {
        (ReportField::Status, _) => report.status.to_string().into(),
        (ReportField::Reason, _) => report.reason.map_or_else(String::new, |reason| reason.to_string()).into(),
        (ReportField::Signatures, _) => report.signatures.join(", ").into(),
        (ReportField::Bucket, Target::S3 { bucket, .. }) => bucket.into(),
        (ReportField::VersionId, Target::S3 { version_id, .. }) => optional(version_id.as_deref()),
        (ReportField::Bucket | ReportField::VersionId, _) => "".into(),
        (ReportField::Key, _) => key.into(),
        (ReportField::Name, _) => key.rsplit('/').next().unwrap_or(key).into(),
        (ReportField::Size, _) => report.target.size().to_string().into(),
        (ReportField::Sha256, _) => optional(report.sha256.as_deref()),
        (ReportField::ScanId, _) => report.scan_id.as_str().into(),
        (ReportField::ScannedAt, _) => {
            let at = report.scanned_at.replace_nanosecond(0).unwrap_or(report.scanned_at);
            at.format(&time::format_description::well_known::Rfc3339).unwrap_or_default().into()
        }
        (ReportField::TraceId, _) => optional(report.trace_id.as_deref()),
    }
}

/// A text that forges no line, hides nothing, and is neither a link nor the markup of one (GOV.UK Notify makes links of
/// `[text](address)`, mail programs of `https://…`).
fn harmless(text: &str) -> String {
    // Marks that change the direction of text or cannot be seen: `gpj.exe` would read `exe.jpg`.
    let is_hidden = |c: char| matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    let mut visible = text.chars().filter(|&c| !c.is_control() && !is_hidden(c));
    let shown: String = visible.by_ref().take(VALUE_CHARS).collect();
    let cut = if visible.next().is_some() { "…" } else { "" };
    format!("{}{cut}", shown.replace("://", ": //").replace('[', "(").replace(']', ")"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::scan_report::example;

    fn about(metadata: &[(&str, &str)], tags: &[(&str, &str)]) -> About {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        About { metadata: map(metadata), tags: map(tags), ..About::default() }
    }

    #[test]
    fn mail_goes_to_one_address_of_a_named_domain_or_to_nobody() {
        let report = example();
        for (domains, written, expected) in [
            (&["b.example"][..], Some("a@b.example"), Ok("a@b.example")),
            (&["b.example"], Some(" a@B.EXAMPLE "), Ok("a@B.EXAMPLE")),
            (&["*.b.example"], Some("a@c.b.example"), Ok("a@c.b.example")),
            (&["*"], Some("a@anywhere.example"), Ok("a@anywhere.example")),
            (&["*"], Some("=?UTF-8?B?YUBiLmV4YW1wbGU=?="), Ok("a@b.example")),
            (&["*.b.example"], Some("a@b.example"), Err("none of to_domains")),
            (&["*.b.example"], Some("a@evilb.example"), Err("none of to_domains")),
            (&["b.example"], Some("a@evilb.example"), Err("none of to_domains")),
            (&["b.example"], Some("a@evil.example,a@b.example"), Err("not one email address")),
            (&["b.example"], Some("a@evil.example@b.example"), Err("not one email address")),
            (&["*"], Some("a@b.example\r\nBcc: c@d.example"), Err("not one email address")),
            (&["*"], Some("=?UTF-8?Q?a=40b.example=2Cc=40d.example?="), Err("not one email address")),
            (&["*"], Some(""), Err("not one email address")),
            (&["*"], None, Err("has no")),
        ] {
            for to in [Recipient::Metadata("Uploader".into()), Recipient::Tag("uploader".into())] {
                let domains: Vec<String> = domains.iter().map(|&domain| domain.to_owned()).collect();
                let mail = Mail::new(&to, &domains, &BTreeMap::new());
                let pairs: Vec<_> = written.map(|text| ("uploader", text)).into_iter().collect();
                let about = if mail.needs().headers { about(&pairs, &[]) } else { about(&[], &pairs) };
                let found = mail.recipient(&Notice { report: &report, about: &about });
                match (found, expected) {
                    (Ok(found), expected) => assert_eq!(Ok(found.as_str()), expected),
                    (Err(error), Ok(address)) => panic!("{address}: {error}"),
                    (Err(error), Err(text)) => {
                        assert!(error.is_pointless && error.message.contains(text), "{written:?}: {error}");
                        assert!(!error.message.contains('@'), "{error}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_a_server_said_is_short_and_names_no_recipient() {
        for (text, expected) in [
            ("", ""),
            ("quota exceeded", "quota exceeded"),
            ("not verified: a@b.example, scans@b.example", "not verified: (an address), scans@b.example"),
            ("<A.o'Neil+x@B.EXAMPLE>", "<(an address)>"),
            ("Scans@b.example", "Scans@b.example"),
            ("a.scans@b.example", "(an address)"),
            ("'a@b.example'.", "(an address)"),
            ("b: \"{\\\"to\\\":\\\"a@b.example\\\"}\"", "b: \"{\\\"to\\\":\\\"(an address)\\\"}\""),
            ("a@b.example\nto a@b.example", "(an address)\nto (an address)"),
        ] {
            assert_eq!(said(text, "Scans <scans@b.example>"), expected, "{text}");
        }
        assert_eq!(said(&"é".repeat(301), ""), "é".repeat(300));
        assert_eq!(said(&format!("{}a@b.example", "é ".repeat(148)), ""), format!("{}(an ", "é ".repeat(148)));
    }

    #[test]
    fn values_are_short_and_harmless() {
        for (text, expected) in [
            ("report.pdf", "report.pdf"),
            ("a\r\nBcc: c@d.example\0", "aBcc: c@d.example"),
            ("invoice\u{202e}gpj.exe", "invoicegpj.exe"),
            ("\u{2066}a\u{200b}\u{feff}", "a"),
            ("[click](https://evil.example)", "(click)(https: //evil.example)"),
            ("h\u{200b}ttps:/\u{200b}/evil.example", "https: //evil.example"),
            ("été 🐚.pdf", "été 🐚.pdf"),
        ] {
            assert_eq!(harmless(text), expected, "{text:?}");
        }
        assert_eq!(harmless(&"é".repeat(200)), "é".repeat(200));
        assert_eq!(harmless(&"é".repeat(201)), "é".repeat(200) + "…");
    }

    #[test]
    fn values_come_from_where_the_configuration_says() -> Result<(), toml::de::Error> {
        let values = "a = { metadata = 'File-Name' }\nb = { tag = 'Case' }\nc = { report = 'status' }\nd = { text = '[x](https://y/)' }\n\
                      e = { metadata = 'missing' }\nf = { report = 'signatures' }\ng = { report = 'scanned_at' }\nh = { tag = 'case' }\n\
                      i = { report = 'name' }\nj = { report = 'reason' }";
        let mail = Mail::new(&Recipient::Address("a@b.example".into()), &[], &toml::from_str(values)?);
        assert_eq!(mail.needs(), Needs { headers: true, tags: true });
        let about = about(&[("file-name", "=?UTF-8?B?w6k=?=")], &[("Case", "1/2")]);
        let report = ScanReport {
            target: Target::S3 { bucket: "b".into(), key: "in/a b.pdf".into(), version_id: None, etag: None, size: 1 },
            ..example()
        };
        let found = mail.values(&Notice { report: &report, about: &about });
        let found: Vec<&str> = found.values().map(String::as_str).collect();
        let expected =
            ["é", "1/2", "INFECTED", "[x](https://y/)", "", "Win.Test.EICAR_HDB-1", "2026-10-14T17:46:40Z", "", "a b.pdf", ""];
        assert_eq!(found, expected);
        Ok(())
    }
}
