//! SCAN and its relatives: files and directories that a client names.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use walkdir::WalkDir;

use super::Server;
use super::reply::{Answer, system_text};
use super::session::Reply;
use crate::clamd::command::Mode;
use crate::telemetry::events;

/// How many files the walk may be ahead of the scans.
const AHEAD: usize = 64;

/// Directories are looked into so deep, each with an open descriptor. What is deeper is told, and keeps the whole from being
/// `OK`.
const DEEPEST: usize = 32;

/// How long to wait for a turn to walk a directory.
const TURN: Duration = Duration::from_secs(10);

/// Something on the way.
enum Found {
    /// A file to scan.
    File(PathBuf),
    /// Something that cannot be scanned, and why.
    Obstacle(PathBuf, String),
}

/// Scans what `path` names and replies: `OK` once, at the end, when all files were clean; else a line for each that was not.
///
/// # Errors
///
/// When the client has gone.
pub(super) async fn scan(server: &Server, mode: Mode, path: &Path, reply: &Reply) -> io::Result<()> {
    let path = without_slash(path);
    let name = path.as_os_str().as_bytes();
    if !server.config.allow_paths_over_tcp && !reply.socket.is_local() {
        return reply.answer(name, &Answer::error("Paths are not taken over TCP; send the file with INSTREAM.")).await;
    }
    let root = path.to_owned();
    let single = match server.intake.look(move || Ok(single(&root))).await {
        Ok((single, _turn)) => single,
        Err(error) => return reply.answer(name, &Answer::failed(&error)).await,
    };
    let all = mode == Mode::AllMatch;
    if let Some(single) = single {
        let (path, answer) = scan_one(server, single).await;
        return reply.lines(answer.lines(path.as_os_str().as_bytes(), all)).await;
    }
    // Each holds descriptors and a thread of the runtime.
    let Ok(Ok(turn)) = timeout(TURN, Arc::clone(&server.walks).acquire_owned()).await else {
        return reply.answer(name, &Answer::error("Too many directories are looked through; try again later.")).await;
    };
    // What the client may take to read, for all replies together: others wait for its turn.
    let mut patience = Duration::from_secs(server.config.read_timeout_secs);
    let (sender, mut found) = mpsc::channel(AHEAD);
    let root = path.to_owned();
    let walk = tokio::task::spawn_blocking(move || {
        // Kept as long as the walk stalls, even when its client has gone.
        let _turn = turn;
        let _ = walk(&root, &sender);
    });
    let at_once = if mode == Mode::Multi { server.intake.pool.threads() * 2 } else { 1 };
    let mut scans = futures_util::stream::poll_fn(|context| found.poll_recv(context))
        .map(|found| scan_one(server, found))
        .buffer_unordered(at_once);
    let (mut clean, mut ended) = (true, Ok(()));
    while let Some((path, answer)) = scans.next().await {
        if answer == Answer::Ok {
            continue;
        }
        clean = false;
        let since = Instant::now();
        let written = timeout_at(since + patience, reply.lines(answer.lines(path.as_os_str().as_bytes(), all))).await;
        ended = written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        patience = patience.saturating_sub(since.elapsed());
        let enough = matches!(answer, Answer::Found(_)) && matches!(mode, Mode::Scan | Mode::AllMatch);
        if enough || ended.is_err() {
            break;
        }
    }
    drop(scans);
    // The walk ends with the first file that nobody takes.
    drop(found);
    let walked = walk.await;
    ended?;
    match walked {
        Ok(()) if clean => reply.answer(name, &Answer::Ok).await,
        Ok(()) => Ok(()),
        Err(_) => reply.answer(name, &Answer::error("The walk failed.")).await,
    }
}

/// The path as clamd's replies have it (`cli_ftw`).
fn without_slash(path: &Path) -> &Path {
    let mut bytes = path.as_os_str().as_bytes();
    while let [rest @ .., b'/'] = bytes
        && !rest.is_empty()
    {
        bytes = rest;
    }
    Path::new(OsStr::from_bytes(bytes))
}

async fn scan_one(server: &Server, found: Found) -> (PathBuf, Answer) {
    let (path, error) = match found {
        Found::Obstacle(path, text) => return (path, Answer::error(&text)),
        Found::File(path) => match server.intake.path(&path).await {
            Ok(report) => {
                events::stream_scanned("clamd", &report);
                return (path, Answer::new(&report, server.config.unscannable));
            }
            Err(error) => (path, error),
        },
    };
    events::stream_failed("clamd", &path.to_string_lossy(), &error);
    let answer = Answer::failed(&error);
    (path, answer)
}

/// What `root` names, unless it is a directory.
///
/// A link that is named itself is followed, where clamd says `OK` and looks at nothing.
fn single(root: &Path) -> Option<Found> {
    let obstacle = |text: String| Some(Found::Obstacle(root.to_owned(), text));
    if !root.is_absolute() {
        return obstacle("File path check failure: The path is not absolute.".to_owned());
    }
    match std::fs::metadata(root) {
        Ok(metadata) if metadata.is_file() => Some(Found::File(root.to_owned())),
        Ok(metadata) if metadata.is_dir() => None,
        Ok(_) => obstacle("Not supported file type".to_owned()),
        Err(error) => obstacle(format!("File path check failure: {}.", system_text(&error))),
    }
}

/// Sends all files below the directory `root`; an error when nobody takes them any more.
///
/// As clamd does by default, links in a directory are not followed, and what is no file is passed over.
fn walk(root: &Path, found: &mpsc::Sender<Found>) -> Result<(), mpsc::error::SendError<Found>> {
    let obstacle = |path: &Path, text: String| found.blocking_send(Found::Obstacle(path.to_owned(), text));
    let metadata = match std::fs::metadata(root) {
        Ok(metadata) if metadata.is_dir() => metadata,
        Ok(_) => return obstacle(root, "It is no directory any more.".to_owned()),
        Err(error) => return obstacle(root, format!("File path check failure: {}.", system_text(&error))),
    };
    // clamd passes over /proc, where no file has a size (`scanner.c: scan_callback`).
    let proc = std::fs::metadata("/proc").ok().map(|metadata| metadata.dev()).filter(|&dev| dev != metadata.dev());
    let entries = WalkDir::new(root).max_open(DEEPEST + 1).max_depth(DEEPEST).into_iter().filter_entry(|entry| {
        !(entry.file_type().is_dir() && proc.is_some() && entry.metadata().ok().map(|metadata| metadata.dev()) == proc)
    });
    for entry in entries {
        match entry {
            Ok(entry) if entry.file_type().is_file() => found.blocking_send(Found::File(entry.into_path()))?,
            Ok(entry) if entry.file_type().is_dir() && entry.depth() == DEEPEST => {
                obstacle(entry.path(), "Directory recursion limit reached.".to_owned())?;
            }
            Ok(_) => {}
            Err(error) => {
                let path = error.path().unwrap_or(root).to_owned();
                let text = match error.io_error() {
                    Some(error) if error.kind() == io::ErrorKind::PermissionDenied => "Access denied.".to_owned(),
                    Some(error) => format!("{}.", system_text(error)),
                    None => error.to_string(),
                };
                obstacle(&path, text)?;
            }
        }
    }
    Ok(())
}
