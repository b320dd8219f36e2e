//! What clients are told. They look for `OK`, `FOUND` and `ERROR`, some at the end of the reply, some anywhere in it.

use std::fmt::Write;

use crate::config::Unscannable;
use crate::engine::{Means, Source, Status, meaning};
use crate::report::ScanReport;
use crate::scan::ScanError;

/// What the names of incomplete scans begin with.
const FAMILY: &str = "Clamgate.Unscannable";

/// A name with a longer detail is cut.
const LONGEST_DETAIL: usize = 64;

/// The outcome of a scan in the protocol's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// `OK`
    Ok,
    /// `… FOUND`, once for each name. There is at least one.
    Found(Vec<String>),
    /// `… ERROR`
    Error(String),
}

impl Answer {
    /// The answer to a scan that gave this report.
    pub(super) fn new(report: &ScanReport, unscannable: Unscannable) -> Self {
        let mut names = report.signatures.clone();
        // Malware first: SCAN and INSTREAM give one name, and a client may let some of the others through.
        names.sort_by_key(|name| meaning(Source::Alert, name).is_some_and(|row| row.means == Means::Suspicious));
        match (report.status, unscannable) {
            (Status::Clean, _) if names.is_empty() && report.reason.is_none() => Self::Ok,
            (Status::Unscannable, Unscannable::Found) => {
                names.insert(0, unscannable_name(report));
                Self::Found(names)
            }
            (Status::Unscannable, Unscannable::Error) if names.is_empty() => {
                let reason = report.reason.map(|reason| reason.to_string()).unwrap_or_default();
                let detail = report.detail.as_deref().unwrap_or_default();
                Self::error(&format!("Not scanned completely, {reason} {detail}"))
            }
            (Status::Infected | Status::Suspicious | Status::Unscannable, _) if !names.is_empty() => Self::Found(names),
            (Status::Infected | Status::Suspicious, _) => Self::Found(vec!["Clamgate.Unnamed".to_owned()]),
            _ => Self::error("No verdict."),
        }
    }

    /// The answer when there is no verdict.
    pub(super) fn failed(error: &ScanError) -> Self {
        let text = match error {
            ScanError::Read(error) => match error.kind() {
                std::io::ErrorKind::PermissionDenied => "Access denied.".to_owned(),
                std::io::ErrorKind::InvalidInput => "Not a regular file".to_owned(),
                _ => format!("{}.", system_text(error)),
            },
            // More about it is in the log, and no business of a client.
            ScanError::Trouble(_) => "Hindered by the machine; try again later.".to_owned(),
            ScanError::Stuck | ScanError::Closed => format!("{error}."),
        };
        Self::error(&text)
    }

    /// An error, in words that no client can take for `OK` or `FOUND`: some look for these anywhere in a reply.
    pub(super) fn error(text: &str) -> Self {
        Self::Error(text.trim().replace("OK", "ok").replace("FOUND", "found"))
    }

    /// The answer's lines without terminators; `all` names, or the first one.
    pub(super) fn lines(&self, subject: &[u8], all: bool) -> Vec<Vec<u8>> {
        let subject = without_verdict(printable(subject));
        let line = |text: &str| [&subject, &b": "[..], &printable(text.as_bytes())].concat();
        match self {
            Self::Ok => vec![line("OK")],
            Self::Found(names) => {
                let names = if all { names } else { &names[..names.len().min(1)] };
                names.iter().map(|name| line(&format!("{name} FOUND"))).collect()
            }
            Self::Error(text) => vec![line(&format!("{text} ERROR"))],
        }
    }
}

/// `Clamgate.Unscannable.ENCRYPTED.Zip`, in the characters that names of signatures have.
fn unscannable_name(report: &ScanReport) -> String {
    let mut name = FAMILY.to_owned();
    if let Some(reason) = report.reason {
        let _ = write!(name, ".{reason}");
    }
    if let Some(detail) = &report.detail {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        name.push('.');
        name.extend(detail.chars().map(plain).take(LONGEST_DETAIL));
    }
    name
}

/// What the operating system says, without Rust's `(os error 2)`.
pub(super) fn system_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// A text from outside on one line, and without anything that a terminal would obey. Otherwise as it is: clients compare paths.
pub(super) fn printable(text: &[u8]) -> Vec<u8> {
    let mut line = Vec::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || misleads(c) {
                line.extend(c.escape_default().map(|c| c as u8));
            } else {
                line.extend(c.encode_utf8(&mut [0; 4]).bytes());
            }
        }
        for &byte in chunk.invalid() {
            if (0x80..0xa0).contains(&byte) {
                line.extend(format!("\\x{byte:02x}").bytes());
            } else {
                line.push(byte);
            }
        }
    }
    line
}

/// A name in which no colon stands before `OK`: some clients look for the verdict behind the first colon of a reply, not the last.
fn without_verdict(name: Vec<u8>) -> Vec<u8> {
    let forges = |n: usize| name.get(n + 1..).is_some_and(|rest| rest.trim_ascii_start().starts_with(b"OK"));
    let escaped = name.iter().enumerate().flat_map(|(n, byte)| match byte {
        b':' if forges(n) => br"\u{3a}",
        _ => std::slice::from_ref(byte),
    });
    escaped.copied().collect()
}

/// Whether a character begins a line for some readers, or turns the text around it: what follows a name could be taken for its
/// verdict, or the verdict for a part of the name.
fn misleads(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use time::OffsetDateTime;

    use super::*;
    use crate::engine::{Definitions, Reason, Verdict};
    use crate::report::{Target, Timings};
    use crate::scan::{Current, Scanned};

    fn report(verdict: Verdict) -> ScanReport {
        let definitions = Definitions { version: 0, built_at: None, signatures: 1, fingerprint: "f".into() };
        let with = Current { definitions: Arc::new(definitions), options_digest: "o".into() };
        let scanned = Scanned {
            verdict,
            with,
            sha256: None,
            size: 1,
            scanned_at: OffsetDateTime::UNIX_EPOCH,
            took: Duration::ZERO,
            cached: false,
        };
        ScanReport::new(Target::Stream { name: "stream".into(), size: 1 }, scanned, Timings::default(), Vec::new())
    }

    fn verdict(status: Status, names: &[&str], reason: Option<(Reason, &str)>) -> Verdict {
        let (reason, detail) = reason.map(|(reason, detail)| (reason, detail.to_owned())).unzip();
        let signatures = names.iter().map(|&name| name.to_owned()).collect();
        Verdict { status, signatures, allowed: Vec::new(), reason, detail }
    }

    #[test]
    fn answers() {
        use Reason::*;
        use Status::*;
        let encrypted = Some((Encrypted, "Zip"));
        let found = |lines: &[&str]| lines.iter().map(|line| format!("stream: {line}")).collect::<Vec<_>>();
        for (verdict, in_found, in_error) in [
            (verdict(Clean, &[], None), &["OK"][..], &["OK"][..]),
            (verdict(Infected, &["PUA.A", "Win.B"], None), &["Win.B FOUND", "PUA.A FOUND"], &["Win.B FOUND", "PUA.A FOUND"]),
            (verdict(Infected, &["Win.B"], encrypted), &["Win.B FOUND"], &["Win.B FOUND"]),
            (verdict(Suspicious, &["PUA.A"], None), &["PUA.A FOUND"], &["PUA.A FOUND"]),
            (
                verdict(Unscannable, &[], encrypted),
                &["Clamgate.Unscannable.ENCRYPTED.Zip FOUND"],
                &["Not scanned completely, ENCRYPTED Zip ERROR"],
            ),
            (
                verdict(Unscannable, &["PUA.A"], encrypted),
                &["Clamgate.Unscannable.ENCRYPTED.Zip FOUND", "PUA.A FOUND"],
                &["PUA.A FOUND"],
            ),
            (
                verdict(Unscannable, &[], Some((EngineError, "TOKEN: a/b\nOK"))),
                &["Clamgate.Unscannable.ENGINE_ERROR.TOKEN__a_b_OK FOUND"],
                &["Not scanned completely, ENGINE_ERROR TokEN: a/b\\nok ERROR"],
            ),
            // These cannot be; if they were, they would not be clean.
            (verdict(Clean, &["Win.B"], None), &["No verdict. ERROR"], &["No verdict. ERROR"]),
            (verdict(Clean, &[], encrypted), &["No verdict. ERROR"], &["No verdict. ERROR"]),
            (verdict(Failed, &[], None), &["No verdict. ERROR"], &["No verdict. ERROR"]),
            (verdict(Infected, &[], None), &["Clamgate.Unnamed FOUND"], &["Clamgate.Unnamed FOUND"]),
        ] {
            for (how, expected) in
                [(crate::config::Unscannable::Found, in_found), (crate::config::Unscannable::Error, in_error)]
            {
                let answer = Answer::new(&report(verdict.clone()), how);
                let lines =
                    |all| answer.lines(b"stream", all).into_iter().map(|line| String::from_utf8_lossy(&line).into_owned());
                assert_eq!(lines(true).collect::<Vec<_>>(), found(expected), "{verdict:?} {how:?}");
                assert_eq!(lines(false).collect::<Vec<_>>(), found(&expected[..1]));
            }
        }
    }

    #[test]
    fn names_from_outside() {
        for (name, expected) in [
            (&b"/a b\xc3\xa9"[..], &b"/a b\xc3\xa9"[..]),
            (b"/a\nb\r\0\x1b", b"/a\\nb\\r\\u{0}\\u{1b}"),
            (b"/\xc2\x85\xff\x9b", b"/\\u{85}\xff\\x9b"),
            (
                "/a\u{2028}b\u{2029}c\u{202e}d\u{2066}e\u{200f}".as_bytes(),
                b"/a\\u{2028}b\\u{2029}c\\u{202e}d\\u{2066}e\\u{200f}",
            ),
        ] {
            assert_eq!(printable(name), expected);
        }
        let long = "x ".repeat(500);
        let name = unscannable_name(&report(verdict(Status::Unscannable, &[], Some((Reason::EngineError, &long)))));
        assert_eq!(name.len(), FAMILY.len() + ".ENGINE_ERROR.".len() + LONGEST_DETAIL);
    }

    #[test]
    fn a_name_with_a_colon_forged_a_verdict() {
        for (name, expected) in [
            ("/a: OK", r"/a\u{3a} OK"),
            ("/a:OK: x", r"/a\u{3a}OK: x"),
            ("/a:  OK", r"/a\u{3a}  OK"),
            ("/12:30: O", "/12:30: O"),
        ] {
            let infected = Answer::Found(vec!["Win.B".to_owned()]);
            assert_eq!(infected.lines(name.as_bytes(), false), [format!("{expected}: Win.B FOUND").into_bytes()]);
        }
    }

    #[test]
    fn failures() {
        let read = |code| ScanError::Read(std::io::Error::from_raw_os_error(code));
        for (error, expected) in [
            (read(libc::EACCES), "Access denied. ERROR"),
            (read(libc::ENOENT), "No such file or directory. ERROR"),
            (ScanError::Trouble("no space in /scratch".into()), "Hindered by the machine; try again later. ERROR"),
            (ScanError::Closed, "the scanner is shutting down. ERROR"),
        ] {
            assert_eq!(Answer::failed(&error).lines(b"f", true), [format!("f: {expected}").into_bytes()]);
        }
    }
}
