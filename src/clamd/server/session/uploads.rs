//! Content that a client hands over: INSTREAM and FILDES.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use tokio::time::{Instant, timeout};

use super::super::Server;
use super::super::reply::Answer;
use super::{End, LINGER, Pace, Reply, Session, seconds, while_present};
use crate::clamd::frame::Frame;
use crate::config::Unscannable;
use crate::intake::{IntakeError, Upload};
use crate::telemetry::events;

/// What a stream is called.
const STREAM: &str = "stream";

impl Session {
    /// INSTREAM: takes the stream, and has it scanned. One that is refused is answered at once and then read to its end.
    pub(super) async fn stream(&mut self, reply: Reply) -> Result<(), End> {
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

    /// FILDES: takes the descriptor, and has its file scanned.
    pub(super) async fn descriptor(&mut self, reply: Reply) -> Result<(), End> {
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
