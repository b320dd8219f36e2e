//! `clamgate scan`: files, directories and standard input, in parallel, with a verdict on each.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::mpsc;
use walkdir::WalkDir;

use super::{FAILED, FOUND, OK, engine_builder, usage};
use crate::config::Config;
use crate::engine::{Status, exit_now};
use crate::report::{ScanReport, Target, Timings};
use crate::scan::{Input, Pool, ScanError, Scanned, Scratch, Warm};

/// How many paths the walk may be ahead of the scan.
const AHEAD: usize = 256;

/// The command's arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Files, directories, or - for standard input.
    #[arg(required = true, value_name = "TARGET")]
    targets: Vec<PathBuf>,
    /// The form of the output: a line of text or of JSON (clamgate.scan/1) for each file.
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// One thing to scan.
#[derive(Debug, Clone)]
enum Item {
    File(PathBuf),
    Stdin,
    /// Found on the way, and no file that could be scanned.
    Broken {
        path: String,
        error: String,
    },
}

/// What was found, in numbers.
#[derive(Debug, Default)]
struct Tally {
    clean: u64,
    infected: u64,
    suspicious: u64,
    unscannable: u64,
    errors: u64,
}

/// Scans; 0 all clean, 1 something infected or suspicious, 2 something unscannable or an error and nothing infected.
#[must_use]
pub fn run(config: &Config, arguments: &Arguments) -> ExitCode {
    if let Some(target) = arguments.targets.iter().find(|target| target.to_string_lossy().starts_with("s3://")) {
        return usage(&format!("{}: only local files, directories and - can be scanned by hand", target.display()));
    }
    let scanned = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")
        .and_then(|runtime| runtime.block_on(scan(config, arguments)));
    match scanned {
        Ok(tally) => ExitCode::from(tally.code()),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

async fn scan(config: &Config, arguments: &Arguments) -> Result<Tally> {
    let began = Instant::now();
    let scratch = Scratch::create(&config.scan.scratch_dir)
        .with_context(|| format!("cannot use scan.scratch_dir {}", config.scan.scratch_dir.display()))?;
    let warm = Warm::load(engine_builder(config, scratch.path()), config.definitions.dir.clone())?;
    let loaded = began.elapsed();
    let pool = Pool::new(Arc::new(warm), config.threads(), config.scan_timeout()).context("cannot start scan threads")?;

    let progress = progress();
    let mut tally = Tally::default();
    let limit = config.limits.max_file_size_bytes;
    let mut scans = tokio_stream(walk(arguments.targets.clone()))
        .map(|item| scan_item(&pool, item, scratch.path(), limit))
        .buffer_unordered(pool.threads() * 2);
    while let Some((name, target, outcome)) = scans.next().await {
        progress.inc(1);
        match outcome {
            Ok(scanned) => {
                tally.count(scanned.verdict.status);
                let line = match arguments.format {
                    Format::Text => text_line(&name, &scanned),
                    Format::Json => json_line(target(scanned.size), scanned),
                };
                progress.suspend(|| writeln!(io::stdout(), "{line}")).context("cannot write to standard output")?;
            }
            Err(error) => {
                tally.errors += 1;
                progress.suspend(|| eprintln!("error: {}: {error}", printable(&name)));
            }
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

type Named = (String, Box<dyn FnOnce(u64) -> Target>, Result<Scanned, String>);

async fn scan_item(pool: &Pool, item: Item, scratch: &Path, limit: u64) -> Named {
    let text = |error: ScanError| match error {
        ScanError::Read(error) => error.to_string(),
        other => other.to_string(),
    };
    match item {
        Item::File(path) => {
            let name = path.to_string_lossy().into_owned();
            let outcome = pool.scan(move || Input::open(&path)).await.map_err(text);
            let target = {
                let path = name.clone();
                move |size| Target::File { path, size }
            };
            (name, Box::new(target), outcome)
        }
        Item::Stdin => {
            let scratch = scratch.to_owned();
            let outcome = pool.scan(move || Input::read(&mut io::stdin().lock(), &scratch, limit)).await.map_err(text);
            ("-".to_owned(), Box::new(|size| Target::Stream { name: "-".to_owned(), size }), outcome)
        }
        Item::Broken { path, error } => {
            let target = {
                let path = path.clone();
                move |size| Target::File { path, size }
            };
            (path, Box::new(target), Err(error))
        }
    }
}

/// Walks the targets on a thread of its own, never far ahead of the scan: any number of files fits.
fn walk(targets: Vec<PathBuf>) -> mpsc::Receiver<Item> {
    let (sender, items) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        for target in targets {
            if target.as_os_str() == "-" {
                if sender.blocking_send(Item::Stdin).is_err() {
                    return;
                }
                continue;
            }
            // A link that is named on the command line is followed; links in a directory are not, as clamscan does it.
            for entry in WalkDir::new(&target).follow_root_links(true) {
                let item = match entry {
                    Ok(entry) if entry.file_type().is_dir() => continue,
                    Ok(entry) if entry.depth() > 0 && !entry.file_type().is_file() => continue,
                    Ok(entry) => Item::File(entry.into_path()),
                    Err(error) => Item::Broken {
                        path: error.path().unwrap_or(&target).to_string_lossy().into_owned(),
                        error: error.io_error().map_or_else(|| error.to_string(), ToString::to_string),
                    },
                };
                if sender.blocking_send(item).is_err() {
                    return;
                }
            }
        }
    });
    items
}

fn tokio_stream(mut items: mpsc::Receiver<Item>) -> impl futures_util::Stream<Item = Item> {
    futures_util::stream::poll_fn(move |context| items.poll_recv(context))
}

impl Tally {
    /// The exit code.
    fn code(&self) -> u8 {
        if self.infected + self.suspicious > 0 {
            FOUND
        } else if self.unscannable + self.errors > 0 {
            FAILED
        } else {
            OK
        }
    }

    fn count(&mut self, status: Status) {
        match status {
            Status::Clean => self.clean += 1,
            Status::Infected => self.infected += 1,
            Status::Suspicious => self.suspicious += 1,
            Status::Unscannable | Status::Failed => self.unscannable += 1,
        }
    }

    fn summary(&self, took: Duration, loaded: Duration) {
        eprintln!(
            "{} clean, {} infected, {} suspicious, {} unscannable, {} errors in {:.1} s (definitions loaded in {:.1} s)",
            self.clean,
            self.infected,
            self.suspicious,
            self.unscannable,
            self.errors,
            took.as_secs_f64(),
            loaded.as_secs_f64()
        );
    }
}

/// `path: STATUS`, with signatures, or the reason and its detail.
fn text_line(name: &str, scanned: &Scanned) -> String {
    let verdict = &scanned.verdict;
    let mut line = format!("{}: {}", printable(name), verdict.status);
    for signature in &verdict.signatures {
        line.push(' ');
        line.push_str(signature);
    }
    if let Some(reason) = verdict.reason {
        line.push_str(&format!(" {reason}"));
        if let Some(detail) = &verdict.detail {
            line.push_str(&format!(" ({})", printable(detail)));
        }
    }
    line
}

/// A hostile name on one line, and without anything that a terminal would obey.
fn printable(name: &str) -> String {
    name.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

fn json_line(target: Target, scanned: Scanned) -> String {
    let timings = Timings::new(Duration::ZERO, Duration::ZERO, scanned.took, Duration::ZERO);
    let report = ScanReport::new(target, scanned, timings, Vec::new());
    serde_json::to_string(&report).unwrap_or_default()
}

/// A count of files, on a terminal; nothing elsewhere.
fn progress() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{spinner} {pos} files, {per_sec}, {elapsed}");
    let bar = ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
