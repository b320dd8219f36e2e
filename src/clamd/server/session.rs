//! One client: its commands, one or, after IDSESSION, many at once.

mod input;
mod uploads;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use self::input::Input;
use super::reply::Answer;
use super::socket::Socket;
use super::{Server, paths, status};
use crate::clamd::command::Command;
use crate::clamd::frame::{Frame, Frames, Style};
use crate::waiting::Pace;

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
