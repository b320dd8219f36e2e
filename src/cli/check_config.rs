//! `clamgate check-config`: the configuration in effect, as TOML.

use std::process::ExitCode;

use clap::Args;

use super::{OK, usage};
use crate::config::Config;
use crate::report::POSTGRES_SCHEMA;

/// The command's arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Print instead the SQL that makes the table of a PostgreSQL sink with migrate = false.
    #[arg(long)]
    postgres_schema: bool,
}

/// Prints the merged configuration, which has been checked by now. Secrets are masked; AWS credentials come from elsewhere.
#[must_use]
pub fn run(config: &Config, arguments: &Arguments) -> ExitCode {
    if arguments.postgres_schema {
        print!("{POSTGRES_SCHEMA}");
        return ExitCode::from(OK);
    }
    match toml::to_string(config) {
        Ok(text) => {
            print!("{text}");
            ExitCode::from(OK)
        }
        Err(error) => usage(&error),
    }
}
