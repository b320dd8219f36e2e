//! clamd's protocol, so that its clients work unchanged: `clamdscan`, freshclam's `NotifyClamd`, and the libraries of many
//! languages.
//!
//! The replies are clamd 1.4's, byte for byte, except where clamd says `OK` of what it has not scanned. The parser knows no
//! connection, and can be fuzzed without the service.

mod command;
mod frame;
#[cfg(feature = "service")]
mod paths;
#[cfg(feature = "service")]
mod reply;
#[cfg(feature = "service")]
mod server;
#[cfg(feature = "service")]
mod session;
#[cfg(feature = "service")]
mod socket;
#[cfg(feature = "service")]
mod status;

#[cfg(feature = "service")]
use std::sync::Arc;

#[cfg(feature = "service")]
use tokio_util::sync::CancellationToken;

pub use command::{COMMANDS, Command, Mode};
pub use frame::{Frame, Frames, LONGEST_COMMAND, Style, TooLong};

#[cfg(feature = "service")]
use crate::config::ClamdConfig;
#[cfg(feature = "service")]
use crate::service::Service;

/// Serves until `service.stop`, then finishes the commands under way, or drops them at `abandon`.
///
/// # Errors
///
/// When it cannot listen, or the engine is not warm yet.
#[cfg(feature = "service")]
pub async fn serve(config: &ClamdConfig, service: &Arc<Service>, abandon: &CancellationToken) -> std::io::Result<()> {
    let parts = service.parts().ok_or_else(|| std::io::Error::other("the engine is not warm"))?;
    let server = Arc::new(server::Server::new(config, service, Arc::clone(&parts.intake)));
    let listeners = server::Listeners::bind(config).await?;
    listeners.serve(&server, &service.stop, abandon).await;
    Ok(())
}
