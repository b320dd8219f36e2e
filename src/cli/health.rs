//! `clamgate health`: for container health checks.

use std::process::ExitCode;

use crate::config::Config;
use crate::health;

/// Asks the service through its socket; 0 when it is ready, or pauses for a reload, else 1.
#[must_use]
pub fn run(config: &Config) -> ExitCode {
    let path = config.health_socket();
    let asked = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(health::ask(&path)));
    match asked {
        Ok(health) => {
            println!("{}", serde_json::to_string(&health).unwrap_or_default());
            ExitCode::from(u8::from(!health.ready && !health.pausing))
        }
        Err(error) => {
            eprintln!("error: no answer from {}: {error}", path.display());
            ExitCode::from(1)
        }
    }
}
