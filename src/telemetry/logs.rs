//! The log: to standard error, as text for people or as JSON for machines.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Sets up the process's log.
///
/// # Errors
///
/// When the level is neither a level nor a filter.
pub fn init(config: &LogConfig) -> Result<(), String> {
    let filter = EnvFilter::builder()
        .parse(&config.level)
        .map_err(|error| format!("log.level: {:?} is not a level or a filter: {error}", config.level))?;
    let json = match config.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !io::stderr().is_terminal(),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    if json {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
    } else {
        builder.with_ansi(io::stderr().is_terminal()).init();
    }
    Ok(())
}
