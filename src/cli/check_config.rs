//! `clamgate check-config`: the configuration in effect, as TOML.

use std::process::ExitCode;

use super::{OK, usage};
use crate::config::Config;

/// Prints the merged configuration, which has been checked by now. Secrets are masked; AWS credentials come from elsewhere.
#[must_use]
pub fn run(config: &Config) -> ExitCode {
    match toml::to_string(config) {
        Ok(text) => {
            print!("{text}");
            ExitCode::from(OK)
        }
        Err(error) => usage(&error),
    }
}
