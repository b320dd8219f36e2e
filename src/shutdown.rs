//! From signals to an orderly end.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The two stages of an end: first nothing new is begun, then what still runs is given up.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Begin nothing new.
    pub stop: CancellationToken,
    /// Give up what still runs.
    pub abandon: CancellationToken,
}

/// SIGTERM and SIGINT.
#[derive(Debug)]
pub struct Terminate {
    term: Signal,
    int: Signal,
}

impl Terminate {
    /// Takes the two signals over from their default action.
    ///
    /// # Errors
    ///
    /// When the handlers cannot be installed.
    pub fn new() -> io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    /// Waits for either of them.
    pub async fn wait(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

impl Shutdown {
    /// Waits for a signal, stops, and after the grace period abandons. Returns only on a second signal.
    pub async fn run(self, mut terminate: Terminate, grace: Duration) {
        let signal = terminate.wait().await;
        tracing::info!(signal, grace_secs = grace.as_secs(), "stopping: finishing what is under way");
        self.stop.cancel();
        tokio::select! {
            () = tokio::time::sleep(grace) => {
                tracing::warn!("the grace period is over: giving unfinished messages back");
                self.abandon.cancel();
            }
            signal = terminate.wait() => return tracing::warn!(signal, "stopping at once"),
        }
        let signal = terminate.wait().await;
        tracing::warn!(signal, "stopping at once");
    }
}
