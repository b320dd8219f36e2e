//! What is printed: a line for each thing, and the numbers at the end.

use std::time::Duration;

use clap::ValueEnum;

use super::super::{FAILED, FOUND, OK, printable};
use crate::engine::Status;
use crate::report::ScanReport;

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Text,
    /// `clamgate.scan/1`.
    Json,
}

/// What was found, in numbers.
#[derive(Debug, Default)]
pub(super) struct Tally {
    clean: u64,
    infected: u64,
    suspicious: u64,
    unscannable: u64,
    pub(super) errors: u64,
}

impl Format {
    pub(super) fn line(self, name: &str, report: &ScanReport) -> String {
        match self {
            Self::Text => text_line(name, report),
            Self::Json => serde_json::to_string(report).unwrap_or_default(),
        }
    }
}

impl Tally {
    /// The exit code.
    pub(super) fn code(&self) -> u8 {
        if self.infected + self.suspicious > 0 {
            FOUND
        } else if self.unscannable + self.errors > 0 {
            FAILED
        } else {
            OK
        }
    }

    pub(super) fn count(&mut self, status: Status) {
        match status {
            Status::Clean => self.clean += 1,
            Status::Infected => self.infected += 1,
            Status::Suspicious => self.suspicious += 1,
            Status::Unscannable | Status::Failed => self.unscannable += 1,
        }
    }

    pub(super) fn summary(&self, took: Duration, loaded: Duration) {
        eprintln!(
            "{} clean, {} infected, {} suspicious, {} unscannable, {} errors in {:.1} s (definitions loaded in {:.1} s)",
            self.clean,
            self.infected,
            self.suspicious,
            self.unscannable,
            self.errors,
            took.as_secs_f64(),
            loaded.as_secs_f64()
        );
    }
}

/// `name: STATUS`, with signatures, or the reason and its detail.
fn text_line(name: &str, report: &ScanReport) -> String {
    let mut line = format!("{}: {}", printable(name), report.status);
    for signature in &report.signatures {
        line.push(' ');
        line.push_str(signature);
    }
    if let Some(reason) = report.reason {
        line.push_str(&format!(" {reason}"));
        if let Some(detail) = &report.detail {
            line.push_str(&format!(" ({})", printable(detail)));
        }
    }
    line
}
