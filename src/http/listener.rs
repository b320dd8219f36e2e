//! Accepting connections, as many at once as the configuration says.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::Connection;

/// Connections beyond `max_connections`: whoever asks for health or metrics gets it there, others are told to come back.
const RESERVE: usize = 32;

/// How long nothing is accepted after an error, which is most likely a want of descriptors.
const AFTER_ERROR: Duration = Duration::from_millis(200);

/// What is served on one address.
pub(super) struct Server {
    pub(super) routes: Router,
    /// `None` for plain connections.
    pub(super) acceptor: Option<TlsAcceptor>,
    pub(super) max_connections: usize,
    /// How long a connection may be without a request.
    pub(super) keep_alive: Duration,
    /// Accept nothing more, and close connections after their request.
    pub(super) stop: CancellationToken,
    /// Drop all connections.
    pub(super) abandon: CancellationToken,
    /// What must end before the service does.
    pub(super) work: TaskTracker,
}

/// A connection's place among those that are open; free again when it is dropped.
pub(super) struct Slot {
    _permit: OwnedSemaphorePermit,
    /// It is one of the reserve.
    pub(super) reserved: bool,
}

/// All places.
struct Slots {
    regular: Arc<Semaphore>,
    reserve: Arc<Semaphore>,
}

impl Server {
    /// Accepts until `stop`. Connections may go on longer: they are part of `work`.
    pub(super) async fn run(self, listener: TcpListener) {
        let slots =
            Slots { regular: Arc::new(Semaphore::new(self.max_connections)), reserve: Arc::new(Semaphore::new(RESERVE)) };
        let server = Arc::new(self);
        loop {
            let accepted = tokio::select! {
                accepted = slots.accept(&listener) => accepted,
                () = server.stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, slot)) => {
                    let connection = Connection::new(Arc::clone(&server), slot);
                    server.work.spawn(connection.serve(stream));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an HTTP connection");
                    tokio::time::sleep(AFTER_ERROR).await;
                }
            }
        }
    }
}

impl Slots {
    /// Waits for a place, then for a connection.
    async fn accept(&self, listener: &TcpListener) -> io::Result<(TcpStream, Slot)> {
        let permit = tokio::select! {
            biased;
            permit = Arc::clone(&self.regular).acquire_owned() => permit.map(|permit| Slot { _permit: permit, reserved: false }),
            permit = Arc::clone(&self.reserve).acquire_owned() => permit.map(|permit| Slot { _permit: permit, reserved: true }),
        };
        let mut slot = permit.map_err(io::Error::other)?;
        let (stream, _) = listener.accept().await?;
        // A regular place may have become free meanwhile.
        if slot.reserved
            && let Ok(permit) = Arc::clone(&self.regular).try_acquire_owned()
        {
            slot = Slot { _permit: permit, reserved: false };
        }
        Ok((stream, slot))
    }
}
