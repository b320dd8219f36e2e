//! A client's connection: over TCP, or over a Unix socket, which can carry file descriptors.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, Shutdown, recv, recvmsg, shutdown};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// How many descriptors are taken from one message: enough to see that it was more than one. The kernel closes the rest.
const MOST_DESCRIPTORS: usize = 2;

/// How often to look whether a client is still there.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A connection that any task may write to, and one reads from.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Stream,
    /// Held by the one reply that is being written.
    writing: Mutex<()>,
    /// A client that does not read its reply in this time is given up.
    write_timeout: Duration,
    /// A reply could not be written, perhaps by half; nothing that would follow could be understood.
    broken: CancellationToken,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// A connection over TCP.
    pub(super) fn tcp(stream: TcpStream, write_timeout: Duration) -> Self {
        // Replies are small and awaited.
        let _ = stream.set_nodelay(true);
        Self::new(Stream::Tcp(stream), write_timeout)
    }

    /// A connection over a Unix socket.
    pub(super) fn unix(stream: UnixStream, write_timeout: Duration) -> Self {
        Self::new(Stream::Unix(stream), write_timeout)
    }

    fn new(stream: Stream, write_timeout: Duration) -> Self {
        Self { stream, writing: Mutex::new(()), write_timeout, broken: CancellationToken::new() }
    }

    /// Whether the client is on this machine, and may open what it names by its own right or ours.
    pub(super) fn is_local(&self) -> bool {
        matches!(self.stream, Stream::Unix(_))
    }

    /// Reads what has arrived; 0 at the end. Descriptors that came with it are added to `descriptors`.
    pub(super) async fn read(&self, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
        match &self.stream {
            Stream::Tcp(stream) => {
                let read = || Ok(recv(stream, &mut *buffer, RecvFlags::empty())?.0);
                stream.async_io(Interest::READABLE, read).await
            }
            Stream::Unix(stream) => {
                let read = || receive(stream, &mut *buffer, descriptors);
                stream.async_io(Interest::READABLE, read).await
            }
        }
    }

    /// Writes all of it, as a whole.
    ///
    /// # Errors
    ///
    /// When the client has gone, or does not read. Nothing can be written any more.
    pub(super) async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let writing = async {
            let _turn = self.writing.lock().await;
            if self.broken.is_cancelled() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            // Until it is written: also when this future is dropped half way.
            let broken = self.broken.clone().drop_guard();
            let mut rest = bytes;
            while !rest.is_empty() {
                let written = self.write_some(rest).await?;
                rest = &rest[written..];
            }
            broken.disarm();
            Ok(())
        };
        let written = tokio::time::timeout(self.write_timeout, writing).await;
        let written = written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        if written.is_err() {
            self.broken.cancel();
        }
        written
    }

    async fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &self.stream {
            Stream::Tcp(stream) => stream.async_io(Interest::WRITABLE, || stream.try_write(bytes)).await,
            Stream::Unix(stream) => stream.async_io(Interest::WRITABLE, || stream.try_write(bytes)).await,
        }?;
        if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) }
    }

    /// Waits until a reply could not be written.
    pub(super) async fn broken(&self) {
        self.broken.cancelled().await;
    }

    /// Whether the client has gone for certain. One that has only closed its sending side still waits for its reply.
    fn is_gone(&self) -> bool {
        let gone = PollFlags::HUP | PollFlags::ERR;
        let mut fds = [match &self.stream {
            Stream::Tcp(stream) => PollFd::new(stream, PollFlags::empty()),
            Stream::Unix(stream) => PollFd::new(stream, PollFlags::empty()),
        }];
        self.broken.is_cancelled() || (poll(&mut fds, Some(&Timespec::default())).is_ok() && fds[0].revents().intersects(gone))
    }

    /// Waits until the client has gone for certain.
    pub(super) async fn gone(&self) {
        while !self.is_gone() {
            tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = self.broken() => {}
            }
        }
    }

    /// Says that no reply follows.
    pub(super) fn finish(&self) {
        let _ = match &self.stream {
            Stream::Tcp(stream) => shutdown(stream, Shutdown::Write),
            Stream::Unix(stream) => shutdown(stream, Shutdown::Write),
        };
    }
}

fn receive(socket: impl AsFd, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    // Closes what is left in it when it is dropped.
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok(received.bytes)
}
