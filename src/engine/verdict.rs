//! From what libclamav said to what is true of the file.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::handle::{code_name, error_text};
use super::meanings::{Meaning, Means, Source, meaning};
use super::observations::Observations;

/// What is known of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// Fully scanned, nothing found.
    Clean,
    /// At least one malware signature matched.
    Infected,
    /// Fully scanned; only PUA or heuristic signatures matched.
    Suspicious,
    /// Could not be fully scanned; the [`Reason`] says why.
    Unscannable,
    /// Could not be fetched or acted on, and retries are used up.
    Failed,
}

/// Why an object was not fully scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Reason {
    /// It took longer than `scan.timeout_secs`.
    TimedOut,
    /// It is larger than `limits.max_file_size_bytes`.
    TooLarge,
    /// Something in it exceeds a limit; the detail says which.
    LimitExceeded,
    /// It is encrypted, or a member of it is; the detail names what.
    Encrypted,
    /// It cannot be read at all: an archived storage class, a customer's key, RAR without the unrar module.
    Unsupported,
    /// libclamav, or this program, failed on it.
    EngineError,
    /// It crashed the process that scanned it.
    Crashed,
}

/// The outcome of one scan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The status that decides what happens to the object.
    pub status: Status,
    /// All signatures that matched (malware, PUA, heuristics), sorted, each once.
    pub signatures: Vec<String>,
    /// Signatures that matched and are allowed, sorted, each once. They have no part in the status.
    pub allowed: Vec<String>,
    /// Why the scan was not complete. Always set for [`Status::Unscannable`], possibly for [`Status::Infected`].
    pub reason: Option<Reason>,
    /// More about the reason: which limit, which member, what libclamav said.
    pub detail: Option<String>,
}

impl Verdict {
    /// The verdict on an input that could not be scanned at all.
    #[must_use]
    pub fn unscannable(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            status: Status::Unscannable,
            signatures: Vec::new(),
            allowed: Vec::new(),
            reason: Some(reason),
            detail: Some(detail.into()),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clean => "CLEAN",
            Self::Infected => "INFECTED",
            Self::Suspicious => "SUSPICIOUS",
            Self::Unscannable => "UNSCANNABLE",
            Self::Failed => "FAILED",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TimedOut => "TIMED_OUT",
            Self::TooLarge => "TOO_LARGE",
            Self::LimitExceeded => "LIMIT_EXCEEDED",
            Self::Encrypted => "ENCRYPTED",
            Self::Unsupported => "UNSUPPORTED",
            Self::EngineError => "ENGINE_ERROR",
            Self::Crashed => "CRASHED",
        })
    }
}

/// Whether a name that libclamav gives is a detection, and not its way to say that it did not look at everything.
#[must_use]
pub fn is_detection(name: &str) -> bool {
    !name.is_empty() && !matches!(meaning(Source::Alert, name), Some(Meaning { means: Means::Incomplete(_), .. }))
}

/// What a gap is called in the report: without libclamav's families of names, and the layer that a parse error was in.
fn short(text: &str) -> String {
    let name = text.rsplit_once(" in ").map_or(text, |(name, _)| name);
    let families = ["Heuristics.Limits.Exceeded.", "Heuristics.Encrypted.", "Heuristics."];
    families.iter().find_map(|family| name.strip_prefix(family)).unwrap_or(name).to_owned()
}

/// The verdict that the observations allow. `CLEAN` needs proof of completeness; everything unknown is `UNSCANNABLE`.
///
/// Malware outranks an incomplete scan, which outranks a suspicion. Of several reasons the most telling is given, in the
/// order of [`Reason`].
#[must_use]
pub fn judge(seen: &Observations) -> Verdict {
    let mut detections = BTreeSet::new();
    let mut malware = false;
    let mut gaps: BTreeSet<(Reason, String)> = BTreeSet::new();

    for name in &seen.signatures {
        match meaning(Source::Alert, name).map(|row| row.means) {
            Some(Means::Incomplete(reason)) => {
                gaps.insert((reason, short(name)));
            }
            // The table knows no harmless alert and no other trouble.
            Some(_) => {
                detections.insert(name.clone());
            }
            None => {
                malware = true;
                detections.insert(name.clone());
            }
        }
    }
    let mut note = |source, text: &str, detail: String| match meaning(source, text).map(|row| row.means) {
        Some(Means::Harmless) => {}
        Some(Means::Incomplete(reason)) => {
            gaps.insert((reason, detail));
        }
        _ => {
            gaps.insert((Reason::EngineError, detail));
        }
    };
    for error in &seen.parse_errors {
        note(Source::ParseError, error, short(error));
    }
    for message in &seen.messages {
        note(Source::Message, &message.text, message.text.clone());
    }
    let code = clamav_sys::cl_error_t(seen.return_code);
    if code == clamav_sys::CL_VIRUS {
        if seen.signatures.is_empty() && seen.allowed.is_empty() {
            gaps.insert((Reason::EngineError, "libclamav raised an alert without a name".to_owned()));
        }
    } else {
        note(Source::ReturnCode, code_name(code.0), error_text(code));
    }
    gaps.extend(seen.encrypted.iter().map(|name| (Reason::Encrypted, name.clone())));
    gaps.extend(seen.unsupported.iter().map(|name| (Reason::Unsupported, name.clone())));
    gaps.extend(seen.failures.iter().map(|failure| (Reason::EngineError, failure.clone())));
    gaps.extend(seen.refusal.iter().map(|trouble| (Reason::EngineError, trouble.clone())));
    if seen.timed_out {
        gaps.insert((Reason::TimedOut, "MaxScanTime".to_owned()));
    }
    // Without the metadata, or after a failure of our own, nothing is known of what was scanned.
    let missing = if seen.finished && seen.failures.is_empty() { seen.members.missing() } else { 0 };
    if missing > 0 {
        gaps.insert((Reason::Unsupported, format!("{missing} members of archives were not unpacked")));
    }
    if seen.too_large {
        gaps.insert((Reason::TooLarge, "MaxFileSize".to_owned()));
    }
    if !seen.finished && gaps.is_empty() {
        gaps.insert((Reason::EngineError, "libclamav did not finish the scan".to_owned()));
    }

    let status = if malware {
        Status::Infected
    } else if !gaps.is_empty() {
        Status::Unscannable
    } else if !detections.is_empty() {
        Status::Suspicious
    } else {
        Status::Clean
    };
    let (reason, detail) = gaps.into_iter().next().unzip();
    let allowed = seen.allowed.iter().cloned().collect();
    Verdict { status, signatures: detections.into_iter().collect(), allowed, reason, detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Message, Severity};

    fn finished(signatures: &[&str]) -> Observations {
        Observations {
            finished: true,
            return_code: u32::from(!signatures.is_empty()),
            signatures: signatures.iter().map(|&name| name.to_owned()).collect(),
            ..Observations::default()
        }
    }

    #[test]
    fn verdicts() {
        use Reason::*;
        use Status::*;
        let message = |severity| Message { severity, text: "m".to_owned() };
        type Row<'a> = (&'a str, Observations, Status, &'a [&'a str], Option<Reason>);
        let table: Vec<Row<'_>> = vec![
            ("complete", finished(&[]), Clean, &[], None),
            ("nothing known", Observations::default(), Unscannable, &[], Some(EngineError)),
            ("malware", finished(&["B", "A.UNOFFICIAL"]), Infected, &["A.UNOFFICIAL", "B"], None),
            ("pua", finished(&["PUA.Win.X"]), Suspicious, &["PUA.Win.X"], None),
            ("heuristic", finished(&["Heuristics.Broken.Executable"]), Suspicious, &["Heuristics.Broken.Executable"], None),
            ("limit", finished(&["Heuristics.Limits.Exceeded.MaxFiles"]), Unscannable, &[], Some(LimitExceeded)),
            ("time", finished(&["Heuristics.Limits.Exceeded.MaxScanTime"]), Unscannable, &[], Some(TimedOut)),
            ("encrypted", finished(&["Heuristics.Encrypted.Zip"]), Unscannable, &[], Some(Encrypted)),
            (
                "malware and limit",
                finished(&["A", "Heuristics.Limits.Exceeded.MaxFiles"]),
                Infected,
                &["A"],
                Some(LimitExceeded),
            ),
            ("pua and encrypted", finished(&["PUA.A", "Heuristics.Encrypted.PDF"]), Unscannable, &["PUA.A"], Some(Encrypted)),
            ("unknown code", Observations { return_code: 9999, ..finished(&[]) }, Unscannable, &[], Some(EngineError)),
            ("alert without name", Observations { return_code: 1, ..finished(&[]) }, Unscannable, &[], Some(EngineError)),
            ("too large", Observations { too_large: true, ..Observations::default() }, Unscannable, &[], Some(TooLarge)),
            ("member", Observations { encrypted: ["x".into()].into(), ..finished(&[]) }, Unscannable, &[], Some(Encrypted)),
            ("rar", Observations { unsupported: ["RAR".into()].into(), ..finished(&[]) }, Unscannable, &[], Some(Unsupported)),
            (
                "error message",
                Observations { messages: vec![message(Severity::Error)], ..finished(&[]) },
                Unscannable,
                &[],
                Some(EngineError),
            ),
            (
                "warning",
                Observations { messages: vec![message(Severity::Warning)], ..finished(&[]) },
                Unscannable,
                &[],
                Some(EngineError),
            ),
            ("xz", finished(&["Heuristics.XZ.DicSizeLimit"]), Unscannable, &[], Some(LimitExceeded)),
            (
                "an unknown message, however quiet",
                Observations { messages: vec![message(Severity::Info)], ..finished(&[]) },
                Unscannable,
                &[],
                Some(EngineError),
            ),
            ("own failure", Observations { failures: vec!["f".into()], ..finished(&[]) }, Unscannable, &[], Some(EngineError)),
            (
                "limit among parse errors",
                Observations { parse_errors: ["Heuristics.Limits.Exceeded.MaxRecursion".into()].into(), ..finished(&[]) },
                Unscannable,
                &[],
                Some(LimitExceeded),
            ),
            (
                "ole2 property",
                Observations { parse_errors: ["OLE2_SUMMARY_FLAG_CODEPAGE in CL_TYPE_MSOLE2".into()].into(), ..finished(&[]) },
                Clean,
                &[],
                None,
            ),
            (
                "unknown parse error",
                Observations { parse_errors: ["X".into()].into(), ..finished(&[]) },
                Unscannable,
                &[],
                Some(EngineError),
            ),
        ];
        for (case, seen, status, signatures, reason) in table {
            let verdict = judge(&seen);
            assert_eq!((verdict.status, verdict.reason), (status, reason), "{case}: {verdict:?}");
            assert_eq!(verdict.signatures, signatures, "{case}");
            assert_eq!(verdict.detail.is_some(), reason.is_some(), "{case}");
        }
    }
}
