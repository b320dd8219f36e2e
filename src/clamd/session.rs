//! One client: its commands, one or, after IDSESSION, many at once.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::command::Command;
use super::frame::{Frame, Frames, LONGEST_COMMAND, Style};
use super::reply::Answer;
use super::server::Server;
use super::socket::Socket;
use super::{paths, status};
use crate::config::Unscannable;
use crate::intake::{IntakeError, Upload};
use crate::telemetry::events;
use crate::waiting::Pace;

/// What is read at once. A stream is taken in pieces of this size, whatever its client calls a chunk.
const READ_AT_ONCE: usize = 64 * 1024;
const _: () = assert!(READ_AT_ONCE > LONGEST_COMMAND);

/// How many commands of a session are under way at once; the next one is not read before one of them is done.
const MOST_UNDER_WAY: usize = 16;

/// How long what a refused client still sends is read, so that it can read why: closing a connection with bytes unread loses
/// the reply.
const LINGER: Duration = Duration::from_secs(2);

/// A reply to one command.
pub(super) struct Reply {
    pub(super) socket: Arc<Socket>,
    /// The command's number in its session.
    id: Option<u32>,
    terminator: u8,
}

impl Reply {
    /// Writes lines, as a whole.
    ///
    /// # Errors
    ///
    /// When the client has gone.
    pub(super) async fn lines(&self, lines: Vec<Vec<u8>>) -> io::Result<()> {
        let mut bytes = Vec::new();
        for line in lines {
            if let Some(id) = self.id {
                bytes.extend_from_slice(format!("{id}: ").as_bytes());
            }
            bytes.extend_from_slice(&line);
            bytes.push(self.terminator);
        }
        self.socket.write(&bytes).await
    }

    async fn line(&self, text: &str) -> io::Result<()> {
        self.lines(vec![text.as_bytes().to_vec()]).await
    }

    /// Writes the answer about `subject`, with one name.
    ///
    /// # Errors
    ///
    /// When the client has gone.
    pub(super) async fn answer(&self, subject: &[u8], answer: &Answer) -> io::Result<()> {
        self.lines(answer.lines(subject, false)).await
    }
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// All is said, or the client says no more.
    Done,
    /// The client was refused, and may not have noticed yet.
    Refused,
    /// The client took too long.
    TimedOut,
    /// The client was slow, and its place was needed.
    SentAway,
    /// The client has gone; nobody waits for a reply.
    Gone,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// A client's connection.
pub(super) struct Session {
    server: Arc<Server>,
    socket: Arc<Socket>,
    frames: Frames,
    input: Input,
    /// Received, and not asked for yet. They are closed with the session.
    descriptors: Vec<OwnedFd>,
    /// The number of the next command, after IDSESSION.
    next_id: Option<u32>,
    under_way: JoinSet<()>,
}

impl Session {
    /// A connection that was just accepted.
    pub(super) fn new(server: Arc<Server>, socket: Socket) -> Self {
        Self {
            server,
            socket: Arc::new(socket),
            frames: Frames::default(),
            input: Input::new(),
            descriptors: Vec::new(),
            next_id: None,
            under_way: JoinSet::new(),
        }
    }

    /// Answers until the client is done, or `stop`.
    pub(super) async fn run(mut self, stop: &CancellationToken) {
        let end = loop {
            if let Err(end) = self.command(stop).await {
                break end;
            }
        };
        if end == End::Gone {
            // Dropping the session ends what is under way.
            return;
        }
        // A client that has closed its sending side still waits for its replies.
        while self.under_way.join_next().await.is_some() {}
        if matches!(end, End::TimedOut | End::SentAway) {
            let _ = self.socket.write(b"COMMAND READ TIMED OUT\n").await;
        }
        self.socket.finish();
        if end == End::Refused {
            let _ = timeout(LINGER, self.discard()).await;
        }
    }

    async fn discard(&mut self) {
        self.input.clear();
        while let Ok(1..) = self.socket.read(self.input.space(), &mut self.descriptors).await {
            self.input.clear();
            self.descriptors.clear();
        }
    }

    /// Takes one command, and sees to its answer.
    async fn command(&mut self, stop: &CancellationToken) -> Result<(), End> {
        while self.under_way.len() >= MOST_UNDER_WAY {
            self.under_way.join_next().await;
        }
        let (command, style) = self.next_command(stop).await?;
        let reply = Reply { socket: Arc::clone(&self.socket), id: self.next_id, terminator: style.terminator() };
        if self.next_id.is_some() {
            if style == Style::Old {
                reply.line(r"Only nCMDS\n and zCMDS\0 are accepted inside IDSESSION. ERROR").await?;
                return Err(End::Refused);
            }
            if !command.as_ref().is_some_and(Command::is_for_sessions) {
                reply.line("Command invalid inside IDSESSION. ERROR").await?;
                return Err(End::Refused);
            }
        }
        match command {
            Some(Command::Ping) => reply.line("PONG").await?,
            Some(Command::Version) => reply.line(&status::version(&self.server)).await?,
            Some(Command::VersionCommands) => reply.line(&status::version_commands(&self.server)).await?,
            Some(Command::Stats) => reply.line(&status::stats(&self.server)).await?,
            Some(Command::Reload) => {
                self.server.service.reload.request();
                reply.line("RELOADING").await?;
            }
            Some(Command::Shutdown) if self.server.config.allow_shutdown => {
                tracing::info!("a client of clamd's protocol ends the service");
                // The way that all other ends take.
                let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
            }
            Some(Command::Shutdown) => reply.line("COMMAND UNAVAILABLE").await?,
            Some(Command::Scan(mode, path)) => {
                let (server, socket) = (Arc::clone(&self.server), Arc::clone(&self.socket));
                let scan = async move { paths::scan(&server, mode, &path, &reply).await };
                self.see_to(async move { while_present(&socket, scan).await }).await?;
            }
            Some(Command::Instream) => self.stream(reply).await?,
            Some(Command::Fildes) => self.descriptor(reply).await?,
            Some(Command::Idsession) => {
                self.next_id = Some(1);
                return Ok(());
            }
            Some(Command::End) if self.next_id.is_some() => return Err(End::Done),
            Some(Command::Nothing) => {}
            Some(Command::End) | None => reply.line("UNKNOWN COMMAND").await?,
        }
        match &mut self.next_id {
            Some(id) => {
                *id = id.wrapping_add(1).max(1);
                Ok(())
            }
            None => Err(End::Done),
        }
    }

    /// Waits for the next command; `None` when there is none of that name.
    async fn next_command(&mut self, stop: &CancellationToken) -> Result<(Option<Command>, Style), End> {
        let config = &self.server.config;
        let (read_timeout, idle_timeout) = (seconds(config.read_timeout_secs), seconds(config.idle_timeout_secs));
        let (mut since, mut idle) = (Instant::now(), None);
        loop {
            let mut rest = self.input.rest();
            let frame = self.frames.next(&mut rest);
            let left = rest.len();
            let command = match frame {
                Ok(Some(Frame::Command { text, style })) => Some((Command::parse(text, style), style)),
                Ok(_) => None,
                Err(too_long) => {
                    tracing::debug!(%too_long, "a client of clamd's protocol is refused");
                    self.socket.write(b"Command too long. ERROR\n").await?;
                    return Err(End::Refused);
                }
            };
            self.input.keep(left);
            if let Some(command) = command {
                return Ok(command);
            }
            if !self.descriptors.is_empty() {
                self.stray_descriptor().await?;
            }
            let busy = !self.under_way.is_empty();
            let patience = if self.next_id.is_some() && left == 0 { idle_timeout } else { read_timeout };
            if busy {
                idle = None;
            } else if idle.is_none() {
                idle = Some(self.server.idle.begin());
            }
            let sent_away = async {
                match &idle {
                    Some(idle) => idle.sent_away().cancelled().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                read = self.socket.read(self.input.space(), &mut self.descriptors) => {
                    let count = read?;
                    if count == 0 {
                        return Err(End::Done);
                    }
                    if left == 0 {
                        since = Instant::now();
                    }
                    self.input.filled(count);
                }
                // Nobody is idle who waits for an answer.
                _ = self.under_way.join_next(), if busy => since = Instant::now(),
                () = stop.cancelled() => return Err(End::Done),
                () = self.socket.broken() => return Err(End::Gone),
                () = sleep_until(since + patience), if !busy => return Err(End::TimedOut),
                () = sent_away => return Err(End::TimedOut),
            }
        }
    }

    /// Nothing asked for the descriptors that have come. They are closed with the session.
    async fn stray_descriptor(&self) -> Result<(), End> {
        self.socket.write(b"PROTOCOL ERROR: ancillary data sent without FILDES. ERROR\n").await?;
        Err(End::Refused)
    }

    /// Does a command's work: now, or, in a session, beside the commands that follow.
    async fn see_to(&mut self, work: impl Future<Output = io::Result<()>> + Send + 'static) -> Result<(), End> {
        if self.next_id.is_none() {
            return Ok(work.await?);
        }
        self.under_way.spawn(async move {
            // When the client has gone, the session notices it itself.
            let _ = work.await;
        });
        Ok(())
    }

    /// INSTREAM: takes the stream, and has it scanned. One that is refused is answered at once and then read to its end.
    async fn stream(&mut self, reply: Reply) -> Result<(), End> {
        let give_up = Instant::now() + seconds(self.server.config.stream_timeout_secs);
        self.frames.begin_stream();
        let (mut refused, mut pace) = (None, Pace::default());
        let mut upload = match self.server.intake.upload() {
            Ok(upload) => Some(upload),
            Err(error) => {
                refused = Some(refuse(&self.server, None, &error, &reply).await?);
                None
            }
        };
        loop {
            if !self.descriptors.is_empty() {
                return self.stray_descriptor().await;
            }
            let mut rest = self.input.rest();
            let frame = self.frames.next(&mut rest);
            let left = rest.len();
            let mut more = false;
            match frame {
                // As clamd does it: what will be too long is refused before it comes.
                Ok(Some(Frame::Chunk(length))) => {
                    let limit = self.server.intake.max_file_size_bytes;
                    if let Some(taken) = upload.take_if(|taken| taken.size().saturating_add(length.into()) > limit) {
                        refused = Some(refuse(&self.server, Some(taken), &IntakeError::TooLarge(limit), &reply).await?);
                    }
                }
                Ok(Some(Frame::Data(bytes))) => {
                    if let Some(mut taken) = upload.take() {
                        match taken.write(bytes) {
                            Ok(()) => upload = Some(taken),
                            Err(error) => refused = Some(refuse(&self.server, Some(taken), &error, &reply).await?),
                        }
                    }
                }
                Ok(Some(_)) => {
                    self.input.keep(left);
                    break;
                }
                Ok(None) => more = true,
                Err(_) => return Err(End::Refused),
            }
            self.input.keep(left);
            if more {
                let late = if refused.is_some() { End::Refused } else { End::TimedOut };
                match self.read_more(give_up, late, &mut pace).await {
                    Err(End::SentAway) => {
                        if refused.is_none() {
                            let answer = Answer::error("All connections are taken, and this was the slowest; try again later.");
                            let _ = timeout(LINGER, reply.answer(STREAM.as_bytes(), &answer)).await;
                        }
                        return Err(End::Refused);
                    }
                    read => read?,
                }
            }
        }
        match (upload, refused) {
            (Some(upload), None) => {
                let (server, socket) = (Arc::clone(&self.server), Arc::clone(&self.socket));
                let scan = async move { scan_stream(&server, upload, &reply).await };
                self.see_to(async move { while_present(&socket, scan).await }).await
            }
            (_, Some(Refusal::Stream)) => Ok(()),
            (_, Some(Refusal::Session) | None) => Err(End::Refused),
        }
    }

    /// Reads more of a command that has begun, no longer than until `give_up`.
    async fn read_more(&mut self, give_up: Instant, late: End, pace: &mut Pace) -> Result<(), End> {
        let sent_away = pace.wait(&self.server.slow);
        let deadline = give_up.min(Instant::now() + seconds(self.server.config.read_timeout_secs));
        let read = tokio::select! {
            read = self.socket.read(self.input.space(), &mut self.descriptors) => read,
            () = sleep_until(deadline) => return Err(late),
            () = sent_away.cancelled() => return Err(End::SentAway),
            () = self.socket.broken() => return Err(End::Gone),
        };
        match read? {
            0 => Err(End::Done),
            count => {
                pace.received(count);
                self.input.filled(count);
                Ok(())
            }
        }
    }

    /// FILDES: takes the descriptor, and has its file scanned.
    async fn descriptor(&mut self, reply: Reply) -> Result<(), End> {
        self.frames.expect_carrier();
        let give_up = Instant::now() + seconds(self.server.config.read_timeout_secs);
        let mut pace = Pace::default();
        loop {
            let mut rest = self.input.rest();
            let has_come = matches!(self.frames.next(&mut rest), Ok(Some(_)));
            let left = rest.len();
            self.input.keep(left);
            if has_come {
                break;
            }
            self.read_more(give_up, End::TimedOut, &mut pace).await?;
        }
        let mut received = std::mem::take(&mut self.descriptors);
        let descriptor = match (received.pop(), received.len()) {
            (Some(descriptor), 0) => descriptor,
            (Some(_), _) => {
                reply.line("More than one file descriptor received. ERROR").await?;
                return Err(End::Refused);
            }
            (None, _) => {
                reply.line("No file descriptor received. ERROR").await?;
                return Err(End::Refused);
            }
        };
        let (server, socket) = (Arc::clone(&self.server), Arc::clone(&self.socket));
        let scan = async move { scan_descriptor(&server, descriptor, &reply).await };
        self.see_to(async move { while_present(&socket, scan).await }).await
    }
}

/// What a refused stream ends.
enum Refusal {
    /// Itself.
    Stream,
    /// The session as well.
    Session,
}

/// Answers a stream that cannot be taken.
async fn refuse(server: &Server, upload: Option<Upload>, error: &IntakeError, reply: &Reply) -> io::Result<Refusal> {
    let answer = match (error, upload) {
        (IntakeError::TooLarge(_), Some(upload)) => {
            let report = upload.too_large(STREAM.to_owned());
            events::stream_scanned("clamd", &report);
            if server.config.unscannable == Unscannable::Error {
                // The words that clamd's clients know.
                reply.line("INSTREAM size limit exceeded. ERROR").await?;
                return Ok(Refusal::Session);
            }
            Answer::new(&report, server.config.unscannable)
        }
        (IntakeError::Scan(error), _) => {
            events::stream_failed("clamd", STREAM, error);
            Answer::failed(error)
        }
        (error, _) => {
            events::stream_failed("clamd", STREAM, error);
            Answer::error("No room for it at this moment; try again later.")
        }
    };
    reply.answer(STREAM.as_bytes(), &answer).await?;
    Ok(Refusal::Stream)
}

/// What a stream is called.
const STREAM: &str = "stream";

async fn scan_stream(server: &Server, upload: Upload, reply: &Reply) -> io::Result<()> {
    let answer = match upload.scan(STREAM.to_owned()).await {
        Ok(report) => {
            events::stream_scanned("clamd", &report);
            Answer::new(&report, server.config.unscannable)
        }
        Err(error) => {
            events::stream_failed("clamd", STREAM, &error);
            match &error {
                IntakeError::Scan(error) => Answer::failed(error),
                _ => Answer::error("No room for it at this moment; try again later."),
            }
        }
    };
    reply.answer(STREAM.as_bytes(), &answer).await
}

async fn scan_descriptor(server: &Server, descriptor: OwnedFd, reply: &Reply) -> io::Result<()> {
    let name = format!("fd[{}]", descriptor.as_raw_fd());
    let answer = match server.intake.file(File::from(descriptor), name.clone()).await {
        Ok(report) => {
            events::stream_scanned("clamd", &report);
            Answer::new(&report, server.config.unscannable)
        }
        Err(error) => {
            events::stream_failed("clamd", &name, &error);
            Answer::failed(&error)
        }
    };
    reply.answer(name.as_bytes(), &answer).await
}

/// Works as long as the client has not gone for certain: what it had waiting makes room for others.
async fn while_present(socket: &Socket, work: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    tokio::select! {
        done = work => done,
        () = socket.gone() => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Bytes that have arrived and are not used yet.
struct Input {
    bytes: Box<[u8]>,
    begin: usize,
    end: usize,
}

impl Input {
    fn new() -> Self {
        Self { bytes: vec![0; READ_AT_ONCE].into_boxed_slice(), begin: 0, end: 0 }
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.begin..self.end).unwrap_or_default()
    }

    /// Only the last `count` bytes are still wanted.
    fn keep(&mut self, count: usize) {
        self.begin = self.end.saturating_sub(count);
    }

    fn clear(&mut self) {
        (self.begin, self.end) = (0, 0);
    }

    /// Where to read to. Never empty: what is kept while more is needed is at most a command.
    fn space(&mut self) -> &mut [u8] {
        self.bytes.copy_within(self.begin..self.end, 0);
        (self.begin, self.end) = (0, self.end - self.begin);
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }
}
