//! `clamgate health`: a Unix socket that answers every connection with one line of JSON.
//!
//! The answer comes from the process that does the work, at the moment of asking: a file could outlive it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use crate::unix_socket::UnixSocket;

/// How long an asker waits, and how long the service waits for an asker to read.
const PATIENCE: Duration = Duration::from_secs(3);

/// The longest answer that is read.
const LONGEST: u64 = 64 * 1024;

/// What a health check gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether objects are being scanned.
    pub ready: bool,
    /// What the process is doing: `loading`, `serving` or `stopping`.
    pub state: String,
    /// How many signatures are loaded.
    pub signatures: u32,
    /// How many messages are in flight.
    pub in_flight: usize,
    /// How many scans run or wait for a thread.
    pub scans: usize,
    /// How many scan threads are past their deadline and do not come back.
    pub overdue_threads: usize,
    /// How far a load of definitions is, the first or a later one: `5200000 of 8700000 signatures`, `compiling, 40%`.
    pub loading: Option<String>,
    /// Whether it is not ready because of a reload alone, which should end by itself: no reason to end the process.
    pub pausing: bool,
    /// What keeps the process from scanning; not ready while there is any.
    pub obstacles: Vec<String>,
}

/// A bound socket, removed when dropped.
#[derive(Debug)]
pub struct HealthServer(UnixSocket);

impl HealthServer {
    /// Binds the socket, in place of one that nobody listens on any more. Only this user may connect.
    ///
    /// # Errors
    ///
    /// When the directory cannot be written to, or another process listens on the socket.
    pub async fn bind(path: &Path) -> io::Result<Self> {
        let socket = UnixSocket::bind(path, 0o600).await.map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => {
                let text = "another clamgate listens on it; set service.health_socket to give each its own";
                io::Error::new(io::ErrorKind::AddrInUse, text)
            }
            _ => error,
        })?;
        Ok(Self(socket))
    }

    /// Answers until `stop`.
    pub async fn run(self, health: Arc<dyn Fn() -> Health + Send + Sync>, stop: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                accepted = self.0.accept() => accepted,
                () = stop.cancelled() => return,
            };
            match accepted {
                Ok(mut stream) => {
                    let line = serde_json::to_string(&health()).unwrap_or_default() + "\n";
                    // The answer fits the socket's buffer: this does not wait for the asker.
                    let _ = tokio::time::timeout(PATIENCE, stream.write_all(line.as_bytes())).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "the health socket cannot accept");
                    tokio::time::sleep(PATIENCE).await;
                }
            }
        }
    }
}

/// Asks the service that listens on the socket.
///
/// # Errors
///
/// When nobody answers in time, or not as expected.
pub async fn ask(path: &Path) -> io::Result<Health> {
    let exchange = async {
        let mut text = String::new();
        UnixStream::connect(path).await?.take(LONGEST).read_to_string(&mut text).await?;
        serde_json::from_str(&text).map_err(io::Error::from)
    };
    tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
