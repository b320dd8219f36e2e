//! The HTTP API.
//!
//! HTTP/1.1 alone: with HTTP/2, one connection could carry any number of requests. Nothing of a body is kept but in an
//! [`Upload`](crate::intake::Upload), which takes its room from the budget that all ways in share.

mod api;
mod auth;
mod body;
mod callback;
mod compatible;
mod connection;
mod error;
mod form;
mod listener;
mod manual;
mod objects;
mod quarantine;
mod remembered;
mod routes;
mod status;
mod streams;
mod strict_form;
mod tls;

use std::io;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::HttpConfig;
use crate::service::Service;
use api::Api;
use listener::Server;

/// Serves until `service.stop`, then finishes the requests and scans under way, or drops them at `abandon`.
///
/// # Errors
///
/// When it cannot listen, or the certificate cannot be used.
pub async fn serve(config: &HttpConfig, service: &Arc<Service>, abandon: &CancellationToken) -> io::Result<()> {
    let acceptor = tls::acceptor(config)?;
    let work = TaskTracker::new();
    let api = Arc::new(Api::new(config, service, &work, abandon)?);
    let server = |routes, max_connections, acceptor| Server {
        routes,
        acceptor,
        max_connections,
        keep_alive: config.keep_alive(),
        stop: service.stop.clone(),
        abandon: abandon.clone(),
        work: work.clone(),
    };
    let clients = bind(config.listen, "the HTTP API listens").await?;
    let clients = server(routes::all(&api), config.max_connections, acceptor).run(clients);
    let probes = match config.health_listen {
        Some(address) => Some(bind(address, "health and metrics listen").await?),
        None => None,
    };
    let probes = async {
        if let Some(listener) = probes {
            server(routes::health(&api), PROBES, None).run(listener).await;
        }
    };
    tokio::join!(clients, probes);

    work.close();
    tokio::select! {
        biased;
        () = abandon.cancelled() => tracing::warn!("HTTP requests under way were dropped"),
        () = work.wait() => {}
    }
    Ok(())
}

/// How many connections `http.health_listen` takes at once.
const PROBES: usize = 64;

async fn bind(address: std::net::SocketAddr, message: &'static str) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))?;
    tracing::info!(address = listener.local_addr()?.to_string(), "{message}");
    Ok(listener)
}
