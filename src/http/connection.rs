//! One connection, from its handshake to its end.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service as _;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::listener::{Server, Slot};

/// How long a client may take until its first request's head is here, the TLS handshake included.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// The largest head of a request.
const HEAD_BYTES: usize = 32 * 1024;
const HEAD_FIELDS: usize = 64;

/// How long a client that is still sending may take to notice that it was answered. Closing at once would reset the connection,
/// and the answer would be lost on its way.
const LINGER: Duration = Duration::from_secs(2);

/// Marks the requests on connections of the reserve.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reserved;

pub(super) struct Connection {
    server: Arc<Server>,
    slot: Slot,
}

/// Since when a connection has no request to work on; `None` while it has one.
type Quiet = Arc<Mutex<Option<Instant>>>;

impl Connection {
    pub(super) fn new(server: Arc<Server>, slot: Slot) -> Self {
        Self { server, slot }
    }

    /// Serves requests until the client has gone, is silent for too long, or the service ends.
    pub(super) async fn serve(self, stream: TcpStream) {
        let began = Instant::now();
        let _ = stream.set_nodelay(true);
        let Some(acceptor) = self.server.acceptor.clone() else { return self.http(stream, began).await };
        let handshake = timeout(HEAD_TIME, acceptor.accept(stream));
        let stream = tokio::select! {
            stream = handshake => stream,
            () = self.server.abandon.cancelled() => return,
        };
        match stream {
            Ok(Ok(stream)) => self.http(stream, began).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => tracing::debug!("TLS handshake took too long"),
        }
    }

    async fn http<S>(self, stream: S, began: Instant)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let server = &self.server;
        let reserved = self.slot.reserved;
        let quiet: Quiet = Arc::new(Mutex::new(Some(began)));
        let service = hyper::service::service_fn({
            let (routes, quiet) = (TowerToHyperService::new(server.routes.clone()), Arc::clone(&quiet));
            move |mut request: Request<Incoming>| {
                let (routes, quiet) = (routes.clone(), Arc::clone(&quiet));
                if reserved {
                    request.extensions_mut().insert(Reserved);
                }
                let answer: Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>> = Box::pin(async move {
                    set(&quiet, None);
                    let answer = routes.call(request.map(Body::new)).await;
                    set(&quiet, Some(Instant::now()));
                    answer
                });
                answer
            }
        });
        let mut builder = http1::Builder::new();
        // Silence is watched here, whatever it is that the client does not do: ask, end its question, or take the answer.
        builder.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(HEAD_BYTES).max_headers(HEAD_FIELDS);
        // Who has closed its sending side may still wait for its answer (`nc -N`).
        builder.half_close(true);
        let mut connection = builder.serve_connection(TokioIo::new(stream), service);

        let (mut patience, mut stopping) = (HEAD_TIME, false);
        let mut next_look = began + HEAD_TIME;
        let ended = loop {
            tokio::select! {
                ended = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)) => break ended,
                () = server.abandon.cancelled() => return,
                () = server.stop.cancelled(), if !stopping => {
                    stopping = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
                () = tokio::time::sleep_until(next_look) => {
                    let since = *quiet.lock().unwrap_or_else(PoisonError::into_inner);
                    if since.is_none_or(|since| since > began) {
                        patience = server.keep_alive;
                    }
                    next_look = since.unwrap_or_else(Instant::now) + patience;
                    if next_look <= Instant::now() {
                        tracing::debug!("an HTTP connection was silent for too long");
                        return;
                    }
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "an HTTP connection ended early");
        }
        let stream = connection.into_parts().io.into_inner();
        tokio::select! {
            _ = timeout(LINGER, linger(stream)) => {}
            () = server.abandon.cancelled() => {}
        }
    }
}

fn set(quiet: &Quiet, since: Option<Instant>) {
    *quiet.lock().unwrap_or_else(PoisonError::into_inner) = since;
}

/// Says that nothing more will be sent, and throws away what the client still sends, until it has gone.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<()> {
    stream.shutdown().await?;
    let mut thrown_away = vec![0; 16 * 1024];
    while stream.read(&mut thrown_away).await? > 0 {}
    Ok(())
}
