//! The `clamgate` program: parse, configure, run, and say how it went.

use std::process::ExitCode;

use clamgate::cli::{self, Command};

/// Takes the place of malloc for libraries, too (its feature `override`): libclamav allocates far more than this program.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(exit) => return exit,
    };
    let config = match cli::configure(&cli) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    match &cli.command {
        Command::Serve => cli::serve::run(config),
        Command::Scan(arguments) => cli::scan::run(&config, arguments),
        Command::Enqueue(arguments) => cli::enqueue::run(&config, arguments),
        Command::Redrive(arguments) => cli::redrive::run(&config, arguments),
        Command::Rescan(request) => cli::scan::rescan(&config, request),
        Command::Release(arguments) => cli::release::run(&config, arguments),
        Command::CheckConfig(arguments) => cli::check_config::run(&config, arguments),
        Command::Health => cli::health::run(&config),
    }
}
