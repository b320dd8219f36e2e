//! Listens, and keeps the number of connections in bounds.

mod paths;
mod reply;
mod session;
mod socket;
mod status;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::session::Session;
use self::socket::Socket;
use crate::config::ClamdConfig;
use crate::intake::Intake;
use crate::service::Service;
use crate::unix_socket::UnixSocket;
use crate::waiting::Waiting;

/// How many directories are walked at once, for all clients.
const WALKS: usize = 32;

/// How often to look for a client that can be sent away.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How long whoever is sent away may take to go: it gets an answer, and time to read it.
const GOING: Duration = Duration::from_secs(4);

/// How long to wait after the system refused to accept.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// Serves until `service.stop`, then finishes the commands under way, or drops them at `abandon`.
///
/// # Errors
///
/// When it cannot listen, or the engine is not warm yet.
pub async fn serve(config: &ClamdConfig, service: &Arc<Service>, abandon: &CancellationToken) -> io::Result<()> {
    let parts = service.parts().ok_or_else(|| io::Error::other("the engine is not warm"))?;
    let server = Arc::new(Server::new(config, service, Arc::clone(&parts.intake)));
    let listeners = Listeners::bind(config).await?;
    listeners.serve(&server, &service.stop, abandon).await;
    Ok(())
}

/// What all connections share.
struct Server {
    config: ClamdConfig,
    service: Arc<Service>,
    intake: Arc<Intake>,
    /// Those that wait for a command.
    idle: Waiting,
    /// Those in the middle of a stream, since it last moved on.
    slow: Waiting,
    /// Turns to walk a directory.
    walks: Arc<Semaphore>,
    slots: Arc<Semaphore>,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixSocket),
}

/// The open listeners.
struct Listeners(Vec<Listener>);

impl Listeners {
    /// Opens what is configured.
    ///
    /// # Errors
    ///
    /// When one of them cannot be opened.
    async fn bind(config: &ClamdConfig) -> io::Result<Self> {
        let mut listeners = Vec::new();
        if let Some(address) = config.listen {
            listeners.push(Listener::Tcp(tcp(address).await?));
        }
        if let Some(path) = &config.socket {
            listeners.push(Listener::Unix(unix(path, config).await?));
        }
        Ok(Self(listeners))
    }

    /// Accepts until `stop`, then waits for what is under way, or drops it at `abandon`.
    async fn serve(self, server: &Arc<Server>, stop: &CancellationToken, abandon: &CancellationToken) {
        let connections = TaskTracker::new();
        let accepting = self.0.into_iter().map(|listener| {
            let connections = &connections;
            async move {
                tokio::select! {
                    () = accept(&listener, server, connections, stop, abandon) => {}
                    () = stop.cancelled() => {}
                }
            }
        });
        futures_util::future::join_all(accepting).await;
        connections.close();
        connections.wait().await;
    }
}

async fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    let listener =
        listener.map_err(|error| io::Error::new(error.kind(), format!("cannot listen on clamd.listen {address}: {error}")))?;
    tracing::info!(address = %listener.local_addr()?, "listening for clamd's clients");
    Ok(listener)
}

async fn unix(path: &Path, config: &ClamdConfig) -> io::Result<UnixSocket> {
    let socket = UnixSocket::bind(path, config.mode().unwrap_or(0o600)).await;
    let context =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on clamd.socket {}: {error}", path.display()));
    let socket = socket.map_err(context)?;
    tracing::info!(socket = %path.display(), "listening for clamd's clients");
    Ok(socket)
}

async fn accept(
    listener: &Listener,
    server: &Arc<Server>,
    connections: &TaskTracker,
    stop: &CancellationToken,
    abandon: &CancellationToken,
) {
    let patience = Duration::from_secs(server.config.read_timeout_secs);
    loop {
        let accepted = match listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| Socket::tcp(stream, patience)),
            Listener::Unix(socket) => socket.accept().await.map(|stream| Socket::unix(stream, patience)),
        };
        let socket = match accepted {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client of clamd's protocol");
                sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let Some(slot) = server.slot().await else { return };
        let (session, stop, abandon) = (Session::new(Arc::clone(server), socket), stop.clone(), abandon.clone());
        connections.spawn(async move {
            let _slot = slot;
            tokio::select! {
                () = session.run(&stop) => {}
                () = abandon.cancelled() => {}
            }
        });
    }
}

impl Server {
    /// A server without connections.
    fn new(config: &ClamdConfig, service: &Arc<Service>, intake: Arc<Intake>) -> Self {
        Self {
            config: config.clone(),
            service: Arc::clone(service),
            intake,
            idle: Waiting::default(),
            slow: Waiting::default(),
            walks: Arc::new(Semaphore::new(WALKS)),
            slots: Arc::new(Semaphore::new(config.max_connections.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Waits for a place for one more connection, and takes it from a client that says nothing or little: else those could
    /// keep all others out.
    async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        loop {
            // One that waits for a command, or else the slowest stream. It may take some time to go; nobody else has to go for it.
            let is_one_going = self.slots.available_permits() == 0 && (self.idle.send_one_away() || self.slow.send_one_away());
            let patience = if is_one_going { GOING } else { LOOK_AGAIN };
            let free = Arc::clone(&self.slots).acquire_owned();
            if let Ok(slot) = timeout(patience, free).await {
                return slot.ok();
            }
        }
    }
}
