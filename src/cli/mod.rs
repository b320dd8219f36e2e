//! The command line. Data goes to standard output, everything else to standard error.

pub mod check_config;
pub mod enqueue;
pub mod health;
pub mod redrive;
pub mod release;
pub mod scan;
pub mod serve;

use std::fmt::Display;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use aws_config::SdkConfig;
use clap::{Parser, Subcommand};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::action::Actions;
use crate::aws;
use crate::config::{self, Config, LogFormat, Overrides};
use crate::engine::{Canary, EngineBuilder};
use crate::intake::Intake;
use crate::key::printable;
use crate::object::S3Store;
use crate::pipeline::Objects;
use crate::report::{Outbox, Sinks};
use crate::telemetry::logs;

/// All is well.
pub const OK: u8 = 0;
/// Something infected or suspicious was found.
pub const FOUND: u8 = 1;
/// Something could not be scanned, or failed.
pub const FAILED: u8 = 2;
/// The command line or the configuration is wrong (`EX_USAGE` of sysexits.h).
pub const USAGE: u8 = 64;

/// Malware scanning for uploads: a warm ClamAV engine behind S3 event notifications.
#[derive(Debug, Parser)]
#[command(name = "clamgate", version = VERSION, arg_required_else_help = true)]
pub struct Cli {
    /// The configuration file (TOML). Variables CLAMGATE_SECTION__FIELD and flags win over it.
    #[arg(long, global = true, env = "CLAMGATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The directory of the signature databases.
    #[arg(long, global = true, value_name = "DIR")]
    db: Option<PathBuf>,
    /// The number of scan threads; 0 for one per processor.
    #[arg(long, global = true, value_name = "N")]
    threads: Option<u32>,
    /// The form of the log.
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// The level of the log, or a filter such as info,clamgate::queue=debug.
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Scan what a queue of S3 events says, until told to stop.
    Serve,
    /// Scan files, directories, standard input, or objects in S3.
    Scan(scan::Arguments),
    /// Put objects that exist already on the queue.
    Enqueue(enqueue::Arguments),
    /// Move dead letters back to the queue.
    Redrive(redrive::Arguments),
    /// Scan objects in quarantine again, and move those that are clean now to where clean ones go.
    Rescan(scan::Request),
    /// Take an object out of quarantine, whatever was found in it.
    Release(release::Arguments),
    /// Print the configuration in effect, or what it needs to be allowed in AWS.
    CheckConfig(check_config::Arguments),
    /// Ask the service on this machine whether it is ready.
    Health,
}

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("CLAMGATE_COMMIT"), ")");

/// Parses the command line.
///
/// # Errors
///
/// The exit code, when there is nothing to run: 0 after `--help`, 64 after a mistake.
pub fn parse() -> Result<Cli, ExitCode> {
    Cli::try_parse().map_err(|error| {
        let _ = error.print();
        if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::from(OK) }
    })
}

/// Merges the configuration and sets up the log.
///
/// # Errors
///
/// Exit code 64, after saying what is wrong.
pub fn configure(cli: &Cli) -> Result<Config, ExitCode> {
    let mut overrides: Overrides = Vec::new();
    let mut set = |path, value: Option<String>| overrides.extend(value.map(|value| (path, toml::Value::String(value))));
    set("definitions.dir", cli.db.as_ref().map(|dir| dir.display().to_string()));
    set(
        "log.format",
        cli.log_format.and_then(|format| clap::ValueEnum::to_possible_value(&format)).map(|v| v.get_name().into()),
    );
    // A scan by hand prints its verdicts; only `serve` has a story to tell besides.
    let quiet = !matches!(cli.command, Command::Serve);
    set("log.level", cli.log_level.clone());
    overrides.extend(cli.threads.map(|threads| ("scan.threads", toml::Value::Integer(threads.into()))));
    let mut environment = Vec::new();
    for (name, value) in std::env::vars_os() {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => environment.push((name, value)),
            (Ok(name), Err(_)) if name.starts_with("CLAMGATE_") && name.contains("__") => {
                return Err(usage(&format!("{name} is not UTF-8")));
            }
            _ => {}
        }
    }
    let mut config = config::load(cli.config.as_deref(), environment.into_iter(), overrides).map_err(|error| usage(&error))?;
    // A database that is named for a scan by hand is taken as it is: what freshclam should have left is elsewhere.
    if cli.db.is_some() && matches!(cli.command, Command::Scan(_) | Command::Rescan(_)) {
        config.definitions.required.get_or_insert_default();
    }
    let mut log = config.log.clone();
    if quiet && cli.log_level.is_none() && log.level == config::LogConfig::default().level {
        "warn".clone_into(&mut log.level);
    }
    logs::init(&log).map_err(|error| usage(&error))?;
    raise_descriptor_limit();
    Ok(config)
}

/// What reaches beyond this machine. None of it needs an engine: it can be made while one is loaded.
struct Outside {
    s3: aws_sdk_s3::Client,
    actions: Actions,
    sinks: Sinks,
}

impl Outside {
    fn new(config: &Config, sdk: &SdkConfig) -> io::Result<Self> {
        let s3 = aws::s3(sdk);
        Ok(Self { actions: Actions::new(s3.clone(), config.actions.clone()), sinks: Sinks::new(&config.report, sdk)?, s3 })
    }

    /// What works on objects, as configured, within the intake's budget.
    fn objects(self, config: &Config, intake: &Intake) -> Objects<S3Store> {
        Objects {
            store: S3Store::new(self.s3.clone(), config.scan.ranged_fetch_bytes),
            pool: Arc::clone(&intake.pool),
            budget: intake.budget.clone(),
            actions: self.actions,
            policy: config.actions.clone(),
            filters: config.queue.filters.clone(),
            outbox: config.report.outbox.clone().map(|location| Outbox::new(self.s3, location)),
            sinks: self.sinks,
            scratch_dir: intake.scratch_dir.clone(),
            max_file_size_bytes: intake.max_file_size_bytes,
        }
    }
}

/// Says what is wrong with the usage.
fn usage(error: &dyn Display) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(USAGE)
}

/// Lets the process open as many files as the system allows it: libclamav opens some for each level of nesting.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit on open files");
    }
}

/// The engine that the configuration describes, with its temporary files in `scratch_dir`.
fn engine_builder(config: &Config, scratch_dir: &std::path::Path) -> EngineBuilder {
    let definitions = &config.definitions;
    EngineBuilder::new()
        .limits(config.limits.clone())
        .timeout(config.scan_timeout())
        .scratch_dir(scratch_dir)
        .pua(definitions.pua)
        .canary(definitions.canary.clone().map_or(Canary::Eicar, Canary::File))
        .certs_dir(definitions.certs_dir.clone())
        .required(config.required_databases())
        .pcre_jit(config.scan.pcre_jit)
        .fast_logical_expressions(config.scan.fast_logical_expressions)
        .allowed(config.scan.allowed_signatures.iter().cloned())
}
