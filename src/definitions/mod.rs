//! Keeps the warm engine's definitions current: runs freshclam, watches the database directory, reloads.
//!
//! An update that is missing, partial or malformed leaves the engine in use as it is, and is logged.

mod freshclam;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use freshclam::Freshclam;

use crate::config::DefinitionsConfig;
use crate::engine::{LoadError, Snapshot};
use crate::scan::Warm;
use crate::telemetry::events;

/// Watches the database directory and reloads.
pub struct Keeper {
    warm: Arc<Warm>,
    poll: Duration,
    /// The files of the last load that failed: not tried again before they change.
    failed: Option<Snapshot>,
}

/// A wish to reload. Dropping all of them ends nothing: the directory is still watched.
#[derive(Debug, Clone)]
pub struct ReloadHandle(mpsc::Sender<()>);

/// The other end of [`ReloadHandle`].
#[derive(Debug)]
pub struct ReloadRequests(mpsc::Receiver<()>);

/// A handle for wishes to reload, and what the [`Keeper`] takes them from. Wishes during a reload become one.
#[must_use]
pub fn reload_channel() -> (ReloadHandle, ReloadRequests) {
    let (sender, receiver) = mpsc::channel(1);
    (ReloadHandle(sender), ReloadRequests(receiver))
}

impl ReloadHandle {
    /// Asks for a reload, whether or not anything changed.
    pub fn request(&self) {
        // Full means that one is waiting already.
        let _ = self.0.try_send(());
    }
}

impl Keeper {
    /// A keeper of the warm engine.
    #[must_use]
    pub fn new(warm: Arc<Warm>, config: &DefinitionsConfig) -> Self {
        Self { warm, poll: Duration::from_secs(config.poll_secs), failed: None }
    }

    /// Reloads on request, and when the directory differs from what is loaded, until `stop`.
    pub async fn run(mut self, mut requests: ReloadRequests, stop: CancellationToken) {
        loop {
            let poll = async {
                if self.poll.is_zero() {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(self.poll).await;
            };
            tokio::select! {
                () = stop.cancelled() => return,
                Some(()) = requests.0.recv() => self.reload("requested").await,
                () = poll => self.reload_if_changed().await,
            }
        }
    }

    async fn reload_if_changed(&mut self) {
        let warm = Arc::clone(&self.warm);
        let now = match tokio::task::spawn_blocking(move || Snapshot::take(warm.database())).await {
            Ok(Ok(now)) => now,
            Ok(Err(error)) => {
                tracing::warn!(error = error.to_string(), "cannot look at the definitions; the engine in use stays");
                return;
            }
            Err(_) => return,
        };
        if now != self.warm.snapshot() && self.failed.as_ref() != Some(&now) {
            self.reload("changed").await;
        }
    }

    async fn reload(&mut self, why: &'static str) {
        let began = Instant::now();
        tracing::info!(why, "reloading the definitions");
        let warm = Arc::clone(&self.warm);
        let loaded = tokio::task::spawn_blocking(move || {
            let before = Snapshot::take(warm.database()).ok();
            warm.reload().map_err(|error| (error, before))
        })
        .await;
        match loaded {
            Ok(Ok(definitions)) => {
                self.failed = None;
                events::reloaded("done");
                tracing::info!(
                    version = definitions.version,
                    signatures = definitions.signatures,
                    fingerprint = definitions.fingerprint,
                    took_ms = began.elapsed().as_millis(),
                    "definitions reloaded"
                );
            }
            Ok(Err((error, before))) => {
                events::reloaded("failed");
                // Files that changed under the load are tried again at the next look.
                self.failed = if matches!(error, LoadError::Changed(_)) { None } else { before };
                tracing::error!(error = error.to_string(), "definitions not reloaded; the engine in use stays");
            }
            Err(error) => {
                events::reloaded("failed");
                tracing::error!(error = error.to_string(), "the reload panicked; the engine in use stays");
            }
        }
    }
}
