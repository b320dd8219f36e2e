//! `clamgate enqueue`: puts objects that exist already on the queue.

use std::io::{self, IsTerminal, Write};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value};
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime};
use tokio_util::sync::CancellationToken;

use super::{FAILED, OK, printable, usage};
use crate::action::ScannedWith;
use crate::aws;
use crate::config::{Config, Location, TagDialect};
use crate::engine::{LoadError, Snapshot};
use crate::enqueue::{self, Destination, Ending, Progress, Request, Selection, StateError, StateFile, TagRule, Work};
use crate::queue::job::{check_custom, check_trace_id};
use crate::queue::{JobObject, QueueError, SqsQueue};
use crate::shutdown::Terminate;

/// How often the progress is written to the state file, at most.
const SAVE_EVERY: Duration = Duration::from_millis(500);

/// The command's arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The bucket, and what the keys begin with: s3://bucket/prefix/
    #[arg(value_name = "S3-LOCATION")]
    source: Location,
    /// The queue, instead of queue.url.
    #[arg(long, value_name = "URL")]
    queue_url: Option<String>,
    /// Every version of each object, not just the latest. Delete markers are left out.
    #[arg(long)]
    versions: bool,
    /// Only objects that were scanned with older definitions than those in --db (or definitions.dir), or never.
    #[arg(long, conflicts_with = "untagged")]
    older_than_definitions: bool,
    /// Only objects without a verdict in their tags.
    #[arg(long)]
    untagged: bool,
    /// Only objects that were last modified then or later: 2026-11-21 or 2026-11-21T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<OffsetDateTime>,
    /// End after so many objects have been enqueued. With --versions, the last one's versions are completed.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// At most so many objects a second.
    #[arg(long, value_name = "N")]
    rate: Option<NonZeroU32>,
    /// Print what would be enqueued, and enqueue nothing.
    #[arg(long)]
    dry_run: bool,
    /// The form of what --dry-run prints: a line for each object.
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    format: Format,
    /// Keep the progress in this file, and go on from there if it exists. It is removed at the end.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Go on after this key.
    #[arg(long, value_name = "KEY", conflicts_with = "state", allow_hyphen_values = true)]
    start_after: Option<String>,
    /// A text that comes back in the reports.
    #[arg(long, value_name = "TEXT", value_parser = parse_trace_id)]
    trace_id: Option<String>,
    /// A JSON object that comes back in the reports.
    #[arg(long, value_name = "JSON", value_parser = parse_custom)]
    custom: Option<Custom>,
}

/// A map in a type of its own: clap takes a bare one for several values.
#[derive(Debug, Clone)]
struct Custom(Map<String, Value>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

fn parse_time(text: &str) -> Result<OffsetDateTime, String> {
    let date = || Date::parse(text, format_description!("[year]-[month]-[day]"));
    OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| date().map(|date| date.midnight().assume_utc()))
        .map_err(|_| "neither a date (2026-11-21, UTC) nor a time (2026-11-21T12:00:00Z)".to_owned())
}

fn parse_trace_id(text: &str) -> Result<String, String> {
    check_trace_id(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

fn parse_custom(text: &str) -> Result<Custom, String> {
    let custom = serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))?;
    check_custom(&custom).map(|()| Custom(custom)).map_err(|error| error.to_string())
}

/// Enqueues; 0 when everything that was asked for is on the queue, 2 when not, 64 when it cannot be asked for.
#[must_use]
pub fn run(config: &Config, arguments: &Arguments) -> ExitCode {
    let Some(queue_url) = arguments.queue_url.as_ref().or(config.queue.url.as_ref()) else {
        return usage(&"no queue: give --queue-url or set queue.url");
    };
    if queue_url.ends_with(".fifo") {
        return usage(&format!("{queue_url}: a standard queue is needed, a FIFO queue would order what needs no order"));
    }
    let selection = match selection(config, arguments) {
        Ok(selection) => selection,
        Err(error) => return failed(&error),
    };
    let state = match open_state(arguments, queue_url, &selection) {
        Ok(state) => state,
        Err(error) => return usage(&error),
    };
    let request = request(arguments, selection, state.as_ref());
    // S3 would list nothing after a key behind the prefix, and everything after one before it.
    if let Some(key) = request.start_after.as_ref().filter(|key| !key.starts_with(&request.source.prefix)) {
        return usage(&format!("{} is not in {}: give a key below it to go on after", quoted(key), request.source));
    }
    warn(config, arguments);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start");
    match runtime.and_then(|runtime| runtime.block_on(enqueue(request, arguments, queue_url, state))) {
        Ok(true) => ExitCode::from(OK),
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => failed(&error),
    }
}

pub(super) fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::from(FAILED)
}

fn open_state(arguments: &Arguments, queue_url: &str, selection: &Selection) -> Result<Option<StateFile>, StateError> {
    let Some(path) = &arguments.state else { return Ok(None) };
    let work = Work {
        source: arguments.source.to_string(),
        queue_url: queue_url.to_owned(),
        versions: arguments.versions,
        selection: selection.clone(),
        trace_id: arguments.trace_id.clone(),
        custom: arguments.custom.clone().map(|custom| custom.0),
    };
    let state = StateFile::open(path, work)?;
    if let (TagRule::OlderThan(then), TagRule::OlderThan(now)) = (&state.selection().tags, &selection.tags)
        && then != now
    {
        eprintln!("going on with what is older than {then}, as this run began; then run it again for {now}");
    }
    Ok(Some(state))
}

/// What is allowed, but hardly meant.
fn warn(config: &Config, arguments: &Arguments) {
    let destinations: Vec<_> = config.actions.destinations().collect();
    for destination in destinations.iter().filter(|place| place.root().overlaps(&arguments.source)) {
        eprintln!("warning: {} holds what was scanned and moved to {destination}", arguments.source);
    }
    if arguments.versions && destinations.into_iter().any(|place| place.is_shared_by_versions()) {
        eprintln!("warning: the versions of an object are moved to one place each over the other, the last scanned wins");
    }
}

fn selection(config: &Config, arguments: &Arguments) -> Result<Selection> {
    let current = || {
        let snapshot = Snapshot::take(&config.definitions.dir)?;
        Ok::<_, LoadError>(ScannedWith::new(snapshot.version()?, &snapshot.fingerprint()?))
    };
    let tags = if arguments.older_than_definitions {
        TagRule::OlderThan(current().context("cannot tell which definitions are current")?)
    } else if arguments.untagged {
        TagRule::Untagged
    } else {
        TagRule::Any
    };
    let actions = &config.actions;
    if arguments.older_than_definitions && !actions.tag_dialects.contains(&TagDialect::Clamgate) {
        eprintln!(
            "warning: only clamgate's own tags say with which definitions an object was scanned: all are taken for older"
        );
    }
    let (tag_prefix, tag_dialects) = (actions.tag_prefix.clone(), actions.tag_dialects.clone());
    Ok(Selection { since: arguments.since, tags, tag_prefix, tag_dialects })
}

fn request(arguments: &Arguments, selection: Selection, state: Option<&StateFile>) -> Request {
    Request {
        source: arguments.source.clone(),
        versions: arguments.versions,
        selection: state.map_or(selection, |state| state.selection().clone()),
        start_after: state.and_then(StateFile::start_after).map(str::to_owned).or_else(|| arguments.start_after.clone()),
        limit: arguments.limit,
        rate: arguments.rate,
        trace_id: arguments.trace_id.clone(),
        custom: arguments.custom.clone().map(|custom| custom.0),
    }
}

/// True when everything that was asked for is on the queue.
async fn enqueue(request: Request, arguments: &Arguments, queue_url: &str, mut state: Option<StateFile>) -> Result<bool> {
    let began = Instant::now();
    let aws = aws::config().await;
    let client = aws::s3(&aws);
    let bar = progress_bar(arguments.dry_run);
    let stop = stop_on_signal(&bar)?;
    if arguments.dry_run {
        state = None;
    }
    // What is wrong with the file shows before anything has been sent.
    let mut start_after = request.start_after.clone();
    if let Some(state) = &mut state {
        state.save(start_after.as_deref())?;
    }

    let mut last = Progress::default();
    let mut saved: Option<Instant> = None;
    let note = |progress: &Progress| {
        bar.set_position(progress.enqueued);
        bar.set_message(progress.listed.to_string());
        last.clone_from(progress);
        match &mut state {
            Some(state) if saved.is_none_or(|at| at.elapsed() >= SAVE_EVERY) => {
                saved = Some(Instant::now());
                state.save(progress.start_after.as_deref())
            }
            _ => Ok(()),
        }
    };
    let ended = if arguments.dry_run {
        enqueue::run(&client, &request, &Printed(arguments.format), &stop, note).await
    } else {
        let queue = SqsQueue::new(aws::sqs(&aws), queue_url.to_owned(), Duration::ZERO);
        enqueue::run(&client, &request, &queue, &stop, note).await
    };
    bar.finish_and_clear();
    if last.start_after.is_some() {
        start_after.clone_from(&last.start_after);
    }
    let ending = ended.as_ref().ok().copied();
    if let Some(mut state) = state {
        if ending == Some(Ending::Complete) {
            state.remove()?;
        } else {
            state.save(start_after.as_deref())?;
        }
    }
    summary(&last, arguments.dry_run, began.elapsed());
    if ending != Some(Ending::Complete) {
        how_to_go_on(arguments.state.as_deref().filter(|_| !arguments.dry_run), start_after.as_deref());
    }
    ended?;
    Ok(ending != Some(Ending::Interrupted) && last.unpinned == 0)
}

/// A token that the first signal cancels. A second one ends the process at once.
pub(super) fn stop_on_signal(bar: &ProgressBar) -> Result<CancellationToken> {
    let mut terminate = Terminate::new().context("cannot handle signals")?;
    let stop = CancellationToken::new();
    let (stopped, bar) = (stop.clone(), bar.clone());
    tokio::spawn(async move {
        terminate.wait().await;
        bar.suspend(|| eprintln!("stopping: finishing the batches under way"));
        stopped.cancel();
        terminate.wait().await;
        std::process::exit(i32::from(FAILED));
    });
    Ok(stop)
}

/// Standard output instead of the queue.
struct Printed(Format);

impl Destination for Printed {
    async fn send(&self, objects: &[JobObject]) -> Result<(), QueueError> {
        let mut lines = String::new();
        for object in objects {
            match self.0 {
                Format::Text => {
                    lines.push_str(&format!("s3://{}/{}", object.bucket, printable(&object.key)));
                    if let Some(version_id) = &object.version_id {
                        lines.push_str(&format!(" {}", printable(version_id)));
                    }
                }
                Format::Json => lines.push_str(&serde_json::to_string(object).unwrap_or_default()),
            }
            lines.push('\n');
        }
        // One write for the batch: a whole line is always on the output.
        io::stdout().write_all(lines.as_bytes()).map_err(|error| QueueError {
            operation: "write to standard output",
            message: error.to_string(),
            lost: false,
        })
    }
}

fn summary(progress: &Progress, dry_run: bool, took: Duration) {
    let Progress { listed, enqueued, skipped, gone, unpinned, start_after: _ } = progress;
    let done = if dry_run { "would be enqueued" } else { "enqueued" };
    eprintln!("{listed} listed: {enqueued} {done}, {skipped} skipped, {gone} gone, in {:.1} s", took.as_secs_f64());
    if *unpinned > 0 {
        eprintln!(
            "error: {unpinned} null versions are behind newer ones and cannot be scanned; copy each onto its key to make it the latest"
        );
    }
}

fn how_to_go_on(state: Option<&Path>, start_after: Option<&str>) {
    match (state, start_after) {
        (Some(_), _) => eprintln!("hint: to go on, run the same command again"),
        (None, Some(key)) => eprintln!("hint: to go on, run the same command with --start-after {}", quoted(key)),
        (None, None) => eprintln!("hint: nothing is done yet, run the same command again"),
    }
}

/// A key as a word of a shell (bash, zsh), on one line.
fn quoted(key: &str) -> String {
    let special = key.contains(char::is_control);
    let escaped = |c: char| match c {
        '\'' if special => r"\'".to_owned(),
        '\\' if special => r"\\".to_owned(),
        '\'' => r"'\''".to_owned(),
        c if c.is_control() => {
            let mut bytes = [0; 4];
            c.encode_utf8(&mut bytes).bytes().map(|byte| format!("\\x{byte:02x}")).collect()
        }
        c => c.to_string(),
    };
    let text: String = key.chars().map(escaped).collect();
    if special { format!("$'{text}'") } else { format!("'{text}'") }
}

/// Counts, on a terminal; nothing elsewhere, nor among the lines of a dry run.
fn progress_bar(dry_run: bool) -> ProgressBar {
    if !io::stderr().is_terminal() || (dry_run && io::stdout().is_terminal()) {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{spinner} {pos} enqueued of {msg} listed, {per_sec}, {elapsed}");
    let bar = ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn times() {
        assert_eq!(parse_time("2026-11-21"), Ok(datetime!(2026-11-21 00:00 UTC)));
        assert_eq!(parse_time("2026-11-21T12:00:00+01:00"), Ok(datetime!(2026-11-21 11:00 UTC)));
        for wrong in ["", "yesterday", "21.11.2026", "2026-11-21 12:00", "2026-13-01"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_shell_reads_a_key_as_it_is() -> std::io::Result<()> {
        for key in ["a b/ü", "it's", "$(reboot) `x` \"", "back\\slash", "line\nbreak 's \\", "\u{7f}\u{85}\u{1b}[2J"] {
            let echoed = std::process::Command::new("bash").args(["-c", &format!("printf %s {}", quoted(key))]).output()?;
            assert_eq!(String::from_utf8_lossy(&echoed.stdout), key);
            assert!(!quoted(key).contains(char::is_control));
        }
        Ok(())
    }
}
