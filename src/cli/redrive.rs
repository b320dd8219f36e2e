//! `clamgate redrive`: moves dead letters back to the queue.

use std::io::{self, IsTerminal, Write};
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use time::format_description::well_known::Rfc3339;

use super::enqueue::{failed, stop_on_signal};
use super::{FAILED, OK, printable, usage};
use crate::aws;
use crate::config::Config;
use crate::queue::SqsQueue;
use crate::redrive::{DeadLetter, Progress, Redrive, is_fifo, url_of};

/// How many objects of one message are printed.
const MOST_OBJECTS: usize = 10;

/// The most characters of the reason why a message is not understood.
const LONGEST_REASON: usize = 300;

/// The command's arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The dead letters' queue, instead of the one that the queue's redrive policy names.
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// The queue that they are moved to, instead of queue.url.
    #[arg(long, value_name = "URL")]
    queue_url: Option<String>,
    /// End after so many messages.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// At most so many messages a second.
    #[arg(long, value_name = "N")]
    rate: Option<NonZeroU32>,
    /// Print what would be moved, a line for each message, at most 1000; move nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Moves; 0 when everything that was asked for is on the queue, 2 when not, 64 when it cannot be asked for.
#[must_use]
pub fn run(config: &Config, arguments: &Arguments) -> ExitCode {
    let Some(to) = arguments.queue_url.as_ref().or(config.queue.url.as_ref()) else {
        return usage(&"no queue: give --queue-url or set queue.url");
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start");
    match runtime.and_then(|runtime| runtime.block_on(redrive(arguments, to))) {
        Ok(code) => code,
        Err(error) => failed(&error),
    }
}

async fn redrive(arguments: &Arguments, to: &str) -> Result<ExitCode> {
    let began = Instant::now();
    let client = aws::sqs(&aws::config().await);
    let from = match &arguments.from {
        Some(from) => from.clone(),
        None => {
            let queue = SqsQueue::new(client.clone(), to.to_owned(), Duration::ZERO);
            let Some(arn) = queue.dead_letters().await.with_context(|| format!("cannot use {to}"))? else {
                return Ok(usage(&format!("{to} has no redrive policy: name the dead letters' queue with --from")));
            };
            url_of(&client, &arn).await.with_context(|| format!("cannot find {arn}, where the dead letters are"))?
        }
    };
    if from == to {
        return Ok(usage(&format!("{from} cannot be moved to itself")));
    }
    if is_fifo(&from) != is_fifo(to) {
        return Ok(usage(&format!("{from} and {to} must both be FIFO queues, or neither")));
    }
    let redrive = Redrive { client, from, to: to.to_owned(), limit: arguments.limit, rate: arguments.rate };
    let waiting = redrive.waiting().await.with_context(|| format!("cannot use {}", redrive.from))?;
    if arguments.dry_run {
        return look(&redrive, waiting).await;
    }

    let bar = progress_bar(arguments.limit.map_or(waiting, |limit| limit.min(waiting)));
    let stop = stop_on_signal(&bar)?;
    let mut last = Progress::default();
    let ended = redrive
        .run(&stop, |progress| {
            bar.set_position(progress.moved);
            last = *progress;
        })
        .await;
    bar.finish_and_clear();
    let progress = *ended.as_ref().unwrap_or(&last);
    eprintln!(
        "{} moved, {} left that arrived meanwhile, in {:.1} s",
        progress.moved,
        progress.left,
        began.elapsed().as_secs_f64()
    );
    if progress.doubled > 0 {
        eprintln!(
            "error: {} were moved and could not be deleted: they are on both queues (needs sqs:DeleteMessage)",
            progress.doubled
        );
    }
    if ended.is_err() || progress.interrupted {
        eprintln!("hint: to go on, run the same command again");
    }
    ended.with_context(|| format!("cannot move from {} to {}", redrive.from, redrive.to))?;
    Ok(ExitCode::from(if progress.interrupted || progress.doubled > 0 { FAILED } else { OK }))
}

async fn look(redrive: &Redrive, waiting: u64) -> Result<ExitCode> {
    let stop = stop_on_signal(&ProgressBar::hidden())?;
    let mut written = Ok(());
    let show = |letter: &DeadLetter| {
        if written.is_ok() {
            written = writeln!(io::stdout(), "{}", line(letter));
        }
    };
    let progress = redrive.look(&stop, show).await.with_context(|| format!("cannot look at {}", redrive.from))?;
    written.context("cannot write to standard output")?;
    eprintln!("{} shown of about {waiting} that would be moved", progress.moved);
    Ok(ExitCode::from(if progress.interrupted { FAILED } else { OK }))
}

/// A dead letter on one line.
fn line(letter: &DeadLetter) -> String {
    let sent_at = letter.sent_at.and_then(|at| at.replace_nanosecond(0).ok()?.format(&Rfc3339).ok());
    let what = match &letter.objects {
        Ok(objects) => {
            let shown: Vec<String> = objects.iter().take(MOST_OBJECTS).map(|object| printable(object)).collect();
            let more = objects.len().saturating_sub(MOST_OBJECTS);
            if more > 0 { format!("{} and {more} more", shown.join(" ")) } else { shown.join(" ") }
        }
        Err(why) => format!("not understood: {}", printable(&why.chars().take(LONGEST_REASON).collect::<String>())),
    };
    format!("{} {} {what}", printable(&letter.id), sent_at.unwrap_or_else(|| "-".to_owned()))
}

/// Counts, on a terminal; nothing elsewhere.
fn progress_bar(waiting: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{spinner} {pos} moved of about {len}, {per_sec}, {elapsed}");
    let bar = ProgressBar::new(waiting).with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_dead_letter_is_one_line() {
        let letter = |objects| DeadLetter { id: "id".into(), sent_at: Some(datetime!(2026-11-21 12:00:00.5 UTC)), objects };
        for (objects, expected) in [
            (Ok(vec!["s3://b/k".to_owned(), "s3://b/line\nbreak".to_owned()]), r"s3://b/k s3://b/line\nbreak"),
            (Ok(vec!["o".to_owned(); 12]), "o o o o o o o o o o and 2 more"),
            (Err("no\u{1b}[2J".to_owned()), r"not understood: no\u{1b}[2J"),
        ] {
            assert_eq!(line(&letter(objects)), format!("id 2026-11-21T12:00:00Z {expected}"));
        }
    }
}
