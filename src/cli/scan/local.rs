//! Local files, directories and standard input.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use walkdir::WalkDir;

use super::Item;
use crate::intake::Intake;
use crate::report::{ScanReport, Target, Timings};
use crate::scan::{Input, ScanError};

/// Sends what there is at `path`; blocks when the scan is behind.
pub(super) fn walk(path: &Path, items: &Sender<Item>) {
    if path.as_os_str() == "-" {
        let _ = items.blocking_send(Item::Stdin);
        return;
    }
    // A link that is named on the command line is followed; links in a directory are not, as clamscan does it.
    for entry in WalkDir::new(path).follow_root_links(true) {
        let item = match entry {
            Ok(entry) if entry.file_type().is_dir() => continue,
            Ok(entry) if entry.depth() > 0 && !entry.file_type().is_file() => continue,
            Ok(entry) => Item::File(entry.into_path()),
            Err(error) => Item::Broken {
                name: error.path().unwrap_or(path).to_string_lossy().into_owned(),
                error: error.io_error().map_or_else(|| error.to_string(), ToString::to_string),
            },
        };
        if items.blocking_send(item).is_err() {
            return;
        }
    }
}

/// Scans standard input.
pub(super) async fn stdin(intake: &Intake) -> Result<ScanReport, String> {
    let (scratch, limit) = (intake.scratch_dir.clone(), intake.max_file_size_bytes);
    let load = move || Input::read(&mut io::stdin().lock(), &scratch, limit);
    let scanned = intake.pool.scan(load).await.map_err(text)?;
    let target = Target::Stream { name: "-".to_owned(), size: scanned.size };
    let timings = Timings::new(Duration::ZERO, Duration::ZERO, scanned.took, Duration::ZERO);
    Ok(ScanReport::new(target, scanned, timings, Vec::new()))
}

/// The error without what is plain from its place.
pub(super) fn text(error: ScanError) -> String {
    match error {
        ScanError::Read(error) => error.to_string(),
        other => other.to_string(),
    }
}
