//! `clamgate scan`: files, directories, standard input and objects in S3, in parallel, with a verdict on each.

mod local;
mod objects;
mod output;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::mpsc;

use super::{FAILED, engine_builder, printable, usage};
use crate::config::Config;
use crate::engine::exit_now;
use crate::intake::Intake;
use crate::object::S3Store;
use crate::pipeline::{Mode, Objects};
use crate::queue::ObjectEvent;
use crate::report::ScanReport;
use crate::scan::{Backend, Budget, Pool, Scratch, Warm};
use objects::Address;
use output::{Format, Tally};

/// How many things the search may be ahead of the scan.
const AHEAD: usize = 256;

/// The command's arguments. Each can be set by a variable, for a task whose command line is fixed.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Do with objects what the configuration says (tag, promote, quarantine, report), instead of only telling the verdict.
    #[arg(long, env = "CLAMGATE_ACT")]
    act: bool,
    /// What every scan by hand has.
    #[command(flatten)]
    request: Request,
}

/// What is scanned, and how that is told.
#[derive(Debug, Args)]
pub struct Request {
    /// Files, directories, - for standard input, s3://bucket/key, or s3://bucket/prefix/ for all objects below.
    #[arg(required = true, value_name = "TARGET", env = "CLAMGATE_TARGET")]
    targets: Vec<OsString>,
    /// The version of the one object in S3 that is to be scanned.
    #[arg(long, value_name = "V", env = "CLAMGATE_VERSION_ID")]
    version_id: Option<String>,
    /// A name for the work that comes back in the reports on objects.
    #[arg(long, value_name = "ID", env = "CLAMGATE_TRACE_ID")]
    trace_id: Option<String>,
    /// End, as after an error, when it takes longer, loading the definitions included; 0 for no bound.
    #[arg(long, value_name = "SECS", default_value_t = 0, env = "CLAMGATE_TIMEOUT_SECS")]
    timeout_secs: u64,
    /// The form of the output: a line of text or of JSON (clamgate.scan/1) for each file or object.
    #[arg(long, default_value = "text", value_name = "FORMAT", env = "CLAMGATE_FORMAT")]
    format: Format,
}

/// One thing to scan.
#[derive(Debug, Clone)]
enum Item {
    File(PathBuf),
    Stdin,
    Object(Box<ObjectEvent>),
    /// Found on the way, and nothing that could be scanned.
    Broken {
        name: String,
        error: String,
    },
}

/// What was found about one thing.
struct Outcome {
    name: String,
    /// The verdict, if there is one.
    report: Option<ScanReport>,
    /// What went wrong.
    error: Option<String>,
}

impl Outcome {
    fn error(name: String, error: String) -> Self {
        Self { name, report: None, error: Some(error) }
    }
}

/// Everything that a scan by hand needs.
struct Scanner {
    intake: Arc<Intake>,
    objects: Option<Objects<S3Store>>,
    mode: Mode,
}

/// Scans; 0 all clean, 1 something infected or suspicious, 2 something unscannable or an error and nothing infected.
#[must_use]
pub fn run(config: &Config, arguments: &Arguments) -> ExitCode {
    match Address::of(&arguments.request) {
        Ok(addresses) => scan_all(config, &arguments.request, addresses, arguments.act),
        Err(problem) => usage(&problem),
    }
}

/// Scans objects that are in quarantine again, and acts on what is found; as [`run`].
#[must_use]
pub fn rescan(config: &Config, request: &Request) -> ExitCode {
    let addresses = match Address::of(request) {
        Ok(addresses) => addresses,
        Err(problem) => return usage(&problem),
    };
    if !addresses.iter().all(|address| address.is_quarantined(config)) {
        return usage(&"only objects in quarantine are scanned again: s3://bucket/key in one of actions.quarantine_to");
    }
    scan_all(config, request, addresses, true)
}

fn scan_all(config: &Config, request: &Request, addresses: Vec<Address>, act: bool) -> ExitCode {
    // Not a single thread: an object that goes to disk must not keep the others waiting.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let scanned = runtime.context("cannot start").and_then(|runtime| {
        let code = runtime.block_on(async {
            let scanned = scan(config, request, addresses, act);
            if request.timeout_secs == 0 {
                return scanned.await;
            }
            tokio::time::timeout(Duration::from_secs(request.timeout_secs), scanned).await.unwrap_or_else(|_| {
                eprintln!("error: not done after {} s", request.timeout_secs);
                // libclamav may be at work, cannot be stopped, and must not meet the exit handlers.
                let _ = io::stdout().flush();
                exit_now(FAILED.into())
            })
        });
        // A read of standard input that will never end must not keep the process.
        runtime.shutdown_background();
        code
    });
    let code = scanned.map_or_else(
        |error| {
            eprintln!("error: {error:#}");
            FAILED
        },
        |tally| tally.code(),
    );
    // The thread that loaded the definitions may be ending just now: its destructors, libcrypto's among them, crash when they meet the
    // exit handlers.
    let _ = io::stdout().flush();
    exit_now(code.into())
}

async fn scan(config: &Config, request: &Request, addresses: Vec<Address>, act: bool) -> Result<Tally> {
    let began = Instant::now();
    let scratch = Scratch::create(&config.scan.scratch_dir)
        .with_context(|| format!("cannot use scan.scratch_dir {}", config.scan.scratch_dir.display()))?;
    let builder = engine_builder(config, scratch.path());
    let database = config.definitions.dir.clone();
    let warm = tokio::task::spawn_blocking(move || Warm::load(builder, database)).await??;
    let loaded = began.elapsed();
    let pool = Pool::new(Arc::new(warm) as Arc<dyn Backend>, config.threads(), config.scan_timeout());
    let pool = Arc::new(pool.context("cannot start scan threads")?.remembering(config.scan.cached_verdicts));
    let budget = Budget::new(config.scan.memory_bytes, config.scan.spool_bytes, config.scan.in_memory_max_bytes);
    let max_file_size_bytes = config.limits.max_file_size_bytes;
    let intake = Arc::new(Intake::new(Arc::clone(&pool), budget, scratch.path().to_owned(), max_file_size_bytes));
    let aws = objects::Aws::for_addresses(&addresses).await;
    let objects = match &aws {
        Some(aws) => Some(aws.objects(config, &intake, act).await?),
        None => None,
    };
    let mode = if act { Mode::Act } else { Mode::Look };
    let scanner = Scanner { intake, objects, mode };

    let progress = progress();
    let mut tally = Tally::default();
    let mut scans =
        found(addresses, aws, request.trace_id.clone()).map(|item| scanner.scan(item)).buffer_unordered(pool.threads() * 4);
    while let Some(Outcome { name, report, error }) = scans.next().await {
        progress.inc(1);
        if let Some(report) = report {
            tally.count(report.status);
            let line = request.format.line(&name, &report);
            progress.suspend(|| writeln!(io::stdout(), "{line}")).context("cannot write to standard output")?;
        }
        if let Some(error) = error {
            tally.errors += 1;
            progress.suspend(|| eprintln!("error: {}: {}", printable(&name), printable(&error)));
        }
    }
    progress.finish_and_clear();
    tally.summary(began.elapsed() - loaded, loaded);
    if *pool.overdue().borrow() > 0 {
        // libclamav is still at work, and must not meet the exit handlers.
        drop(scans);
        drop(scratch);
        let _ = io::stdout().flush();
        exit_now(i32::from(tally.code()));
    }
    Ok(tally)
}

impl Scanner {
    async fn scan(&self, item: Item) -> Outcome {
        let (name, scanned) = match item {
            Item::File(path) => {
                let scanned = self.intake.path(&path).await;
                (path.to_string_lossy().into_owned(), scanned.map_err(local::text))
            }
            Item::Stdin => ("-".to_owned(), local::stdin(&self.intake).await),
            Item::Object(event) => return objects::scan(self.objects.as_ref(), &event, self.mode).await,
            Item::Broken { name, error } => (name, Err(error)),
        };
        match scanned {
            Ok(report) => Outcome { name, report: Some(report), error: None },
            Err(error) => Outcome::error(name, error),
        }
    }
}

/// Everything that is found at the addresses, never far ahead of the scan: any number of files and objects fits.
fn found(
    addresses: Vec<Address>,
    aws: Option<objects::Aws>,
    trace_id: Option<String>,
) -> impl futures_util::Stream<Item = Item> {
    let (sender, mut items) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        for address in addresses {
            match address {
                Address::Local(path) => {
                    let (name, items) = (path.to_string_lossy().into_owned(), sender.clone());
                    if let Err(error) = tokio::task::spawn_blocking(move || local::walk(&path, &items)).await {
                        let _ = sender.send(Item::Broken { name, error: error.to_string() }).await;
                    }
                }
                Address::Object(event) => {
                    let event = ObjectEvent { trace_id: trace_id.clone(), ..event };
                    let _ = sender.send(Item::Object(Box::new(event))).await;
                }
                Address::Prefix { bucket, prefix } => {
                    if let Some(aws) = &aws {
                        aws.list(&bucket, &prefix, trace_id.as_deref(), &sender).await;
                    }
                }
            }
        }
    });
    futures_util::stream::poll_fn(move |context| items.poll_recv(context))
}

/// A count, on a terminal; nothing elsewhere.
fn progress() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{spinner} {pos} scanned, {per_sec}, {elapsed}");
    let bar = ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
