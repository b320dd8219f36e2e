//! Runs the real freshclam on a schedule.
//!
//! Its exit code is logged and nothing else: measured, it is 0 after an update, without one, when it was rate-limited and in
//! its cool-down, and not 0 when all databases but the last were updated. What counts is what is in the directory afterwards.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::ReloadHandle;
use crate::config::FreshclamConfig;
use crate::engine::{LoadError, Snapshot};

/// How many lines of freshclam's output are kept for the log when a run changed nothing and failed.
const LINES_KEPT: usize = 20;

/// The updater.
#[derive(Debug, Clone)]
pub struct Freshclam {
    config: FreshclamConfig,
    dir: PathBuf,
    required: Vec<String>,
}

/// What a run did to the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// There is something new.
    Changed,
    /// Nothing changed; freshclam says that this is as it should be.
    Current,
    /// Nothing changed, because something went wrong.
    Failed,
}

impl Freshclam {
    /// An updater of the databases in `dir`, which are complete with the `required` ones.
    #[must_use]
    pub fn new(config: FreshclamConfig, dir: PathBuf, required: Vec<String>) -> Self {
        Self { config, dir, required }
    }

    /// Runs again and again until `stop`, and asks for a reload after each run that changed something.
    pub async fn run(self, reload: ReloadHandle, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                update = self.update() => {
                    if update == Update::Changed {
                        reload.request();
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.pause()) => {}
            }
        }
    }

    /// Runs until the databases are complete, for a first start with an empty directory. Waits a minute after each failure.
    pub async fn first_download(&self) {
        while let Err(missing) = self.complete().await {
            tracing::info!(missing, "freshclam fetches the definitions");
            self.update().await;
            if self.complete().await.is_err() {
                tokio::time::sleep(Duration::from_mins(1)).await;
            }
        }
    }

    /// What is missing, if anything is.
    async fn complete(&self) -> Result<(), String> {
        let complete = self.on_disk(|updater| Snapshot::take(&updater.dir)?.require(&updater.required));
        complete.await?.map_err(|error: LoadError| error.to_string())
    }

    /// Looks at the directory, which can be a volume that does not answer for a while.
    async fn on_disk<T: Send + 'static>(&self, look: impl FnOnce(&Self) -> T + Send + 'static) -> Result<T, String> {
        let updater = self.clone();
        tokio::task::spawn_blocking(move || look(&updater))
            .await
            .map_err(|error| format!("cannot look at the directory: {error}"))
    }

    /// Removes what killed runs left in the directory: `tmp.` and ten characters (`libfreshclam.c: fc_prune_database_directory`
    /// knows nothing of them). A running freshclam's is younger.
    fn sweep(&self) {
        let old = Duration::from_secs(self.config.timeout_secs).max(Duration::from_hours(1)) * 2;
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let is_left = name.len() == 14 && name.as_encoded_bytes().starts_with(b"tmp.");
            let age = entry.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|at| at.elapsed().ok());
            if is_left && age.is_some_and(|age| age > old) {
                let removed = std::fs::remove_dir_all(entry.path());
                tracing::info!(dir = %entry.path().display(), ok = removed.is_ok(), "removing what a killed freshclam left");
            }
        }
    }

    /// Runs freshclam once and looks at what it did. The child is killed when the future is dropped.
    pub async fn update(&self) -> Update {
        let before = self.on_disk(|updater| {
            updater.sweep();
            Snapshot::take(&updater.dir).ok()
        });
        let before = before.await.ok().flatten();
        let (status, lines) = self.spawn().await;
        let after = self.on_disk(|updater| Snapshot::take(&updater.dir).ok()).await.ok().flatten();
        let changed = after != before;
        let update = match &status {
            _ if changed => Update::Changed,
            Ok(status) if status.success() => Update::Current,
            _ => Update::Failed,
        };
        let exit = match &status {
            Ok(status) => status.to_string(),
            Err(error) => error.clone(),
        };
        match update {
            Update::Changed => tracing::info!(exit, "freshclam changed the definitions"),
            Update::Current => tracing::info!(exit, "freshclam found nothing new"),
            Update::Failed => {
                tracing::error!(exit, output = lines.join("\n"), "freshclam failed; the definitions stay as they are");
            }
        }
        update
    }

    async fn spawn(&self) -> (Result<ExitStatus, String>, Vec<String>) {
        let mut command = Command::new(&self.config.program);
        command.arg("--stdout").arg(format!("--datadir={}", self.dir.display()));
        if let Some(file) = &self.config.config_file {
            command.arg(format!("--config-file={}", file.display()));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return (Err(format!("cannot start {}: {error}", self.config.program.display())), Vec::new()),
        };
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let run = async {
            let (mut lines, errors) = tokio::join!(keep_lines(stdout), keep_lines(stderr));
            lines.extend(errors);
            (child.wait().await.map_err(|error| error.to_string()), lines)
        };
        match tokio::time::timeout(Duration::from_secs(self.config.timeout_secs), run).await {
            Ok(ended) => ended,
            Err(_) => (Err(format!("ended after {} s", self.config.timeout_secs)), Vec::new()),
        }
    }

    /// The configured interval, up to a tenth more or less, so that many instances do not ask the mirror at once.
    fn pause(&self) -> Duration {
        Duration::from_secs(self.config.interval_secs).mul_f64(0.9 + fastrand::f64() / 5.0)
    }
}

/// Logs a stream's lines and returns the last of them.
async fn keep_lines(stream: Option<impl AsyncRead + Unpin>) -> Vec<String> {
    let Some(stream) = stream else { return Vec::new() };
    let mut kept = std::collections::VecDeque::with_capacity(LINES_KEPT);
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // Progress bars are redrawn in place.
        let line = line.rsplit('\r').next().unwrap_or_default().to_owned();
        tracing::debug!(target: "freshclam", "{line}");
        if kept.len() == LINES_KEPT {
            kept.pop_front();
        }
        kept.push_back(line);
    }
    kept.into()
}
