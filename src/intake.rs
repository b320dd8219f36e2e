//! What clients bring themselves: streams and local files, scanned by the warm engine within the same budget as objects.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::engine::{Reason, Verdict};
use crate::report::{ScanReport, Target, Timings};
use crate::scan::{Budget, Incoming, Input, Pool, ScanError, Scanned};

/// Takes in what clients bring. Every way in shares one.
pub struct Intake {
    /// What scans.
    pub pool: Arc<Pool>,
    /// Bounds the bytes in flight.
    pub budget: Budget,
    /// Where large streams are spooled.
    pub scratch_dir: PathBuf,
    /// Longer streams are not taken.
    pub max_file_size_bytes: u64,
    /// Turns to look at files that clients name.
    reading: Arc<Semaphore>,
    /// How long that may take.
    patience: Duration,
}

/// How long a file that a client names may take to be opened and read: a network's file system or FUSE can stall for ever.
const PATIENCE: Duration = Duration::from_secs(600);

/// Why a stream was not taken, or not scanned. Only the first says anything about it.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// It is longer than `limits.max_file_size_bytes`; [`Upload::too_large`] makes the report.
    #[error("the stream is longer than {0} bytes")]
    TooLarge(u64),
    /// Too much is in flight; trying again later can help.
    #[error("no room: too much is being scanned at this moment")]
    Busy,
    /// It could not be scanned. Trying again later can help.
    #[error(transparent)]
    Scan(#[from] ScanError),
}

/// A stream that is arriving. It takes room as it grows, and gives it back when it is dropped or scanned.
pub struct Upload {
    intake: Arc<Intake>,
    incoming: Incoming,
    began: Instant,
}

impl Intake {
    /// An intake in front of a pool.
    #[must_use]
    pub fn new(pool: Arc<Pool>, budget: Budget, scratch_dir: PathBuf, max_file_size_bytes: u64) -> Self {
        let reading = Arc::new(Semaphore::new(Self::readers(pool.threads())));
        Self { pool, budget, scratch_dir, max_file_size_bytes, reading, patience: PATIENCE }
    }

    /// How many files that clients name are read at once for so many scan threads, each by a thread of the runtime's.
    #[must_use]
    pub fn readers(scan_threads: usize) -> usize {
        scan_threads.max(1).saturating_mul(2)
    }

    /// Begins a stream of unknown size.
    ///
    /// # Errors
    ///
    /// [`IntakeError::Scan`], when the machine does not let us.
    pub fn upload(self: &Arc<Self>) -> Result<Upload, IntakeError> {
        let incoming = Incoming::new(self.budget.open_ended(), 0, &self.scratch_dir).map_err(trouble)?;
        Ok(Upload { intake: Arc::clone(self), incoming, began: Instant::now() })
    }

    /// Scans a local file.
    ///
    /// # Errors
    ///
    /// [`ScanError`]; [`ScanError::Read`] when it is no regular file or cannot be read.
    pub async fn path(&self, path: &Path) -> Result<ScanReport, ScanError> {
        let name = path.to_string_lossy().into_owned();
        let (path, limit) = (path.to_owned(), self.max_file_size_bytes);
        let target = |size| Target::File { path: name, size };
        self.local(move || Input::open(&path, limit), target).await
    }

    /// Scans the whole of an open file, which the client calls `name`.
    ///
    /// # Errors
    ///
    /// As for [`Intake::path`].
    pub async fn file(&self, file: File, name: String) -> Result<ScanReport, ScanError> {
        let limit = self.max_file_size_bytes;
        self.local(move || Input::from_file(file, limit), |size| Target::Stream { name, size }).await
    }

    async fn local(
        &self,
        load: impl FnOnce() -> io::Result<Input> + Send + 'static,
        target: impl FnOnce(u64) -> Target,
    ) -> Result<ScanReport, ScanError> {
        let began = Instant::now();
        // The turn is kept until the scan is done: what was read takes memory.
        let (input, _turn) = self.look(load).await?;
        let scanned = self.pool.judge(input).await?;
        let timings = Timings::new(Duration::ZERO, Duration::ZERO, began.elapsed(), Duration::ZERO);
        Ok(ScanReport::new(target(scanned.size), scanned, timings, Vec::new()))
    }

    /// Looks at a file that a client names: not on a scan thread, because it can stall for ever. A turn is lost as long as it does.
    ///
    /// # Errors
    ///
    /// [`ScanError::Read`], also when there is no turn, or no answer, for ten minutes.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<(T, OwnedSemaphorePermit), ScanError> {
        let stalled = |_| io::Error::from(io::ErrorKind::TimedOut);
        let turn = timeout(self.patience, Arc::clone(&self.reading).acquire_owned()).await.map_err(stalled)?;
        let turn = turn.map_err(|_| ScanError::Closed)?;
        let looking = tokio::task::spawn_blocking(move || (work(), turn));
        let (found, turn) = timeout(self.patience, looking).await.map_err(stalled)?.map_err(io::Error::other)?;
        Ok((found?, turn))
    }
}

impl Upload {
    /// Appends what has arrived.
    ///
    /// # Errors
    ///
    /// [`IntakeError::TooLarge`], [`IntakeError::Busy`], or [`IntakeError::Scan`] when the disk is full. Nothing can be appended then.
    ///
    /// # Panics
    ///
    /// On a runtime with a single thread: writing to a disk must not keep other tasks waiting.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), IntakeError> {
        let limit = self.intake.max_file_size_bytes;
        if self.incoming.size().saturating_add(bytes.len() as u64) > limit {
            return Err(IntakeError::TooLarge(limit));
        }
        let scratch_dir = &self.intake.scratch_dir;
        if !self.incoming.has_room(bytes.len())
            && !blocking(|| self.incoming.make_room(bytes.len(), scratch_dir)).map_err(trouble)?
        {
            return Err(IntakeError::Busy);
        }
        let written =
            if self.incoming.is_spooled() { blocking(|| self.incoming.write(bytes)) } else { self.incoming.write(bytes) };
        written.map_err(trouble)
    }

    /// How many bytes have arrived.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.incoming.size()
    }

    /// Scans what has arrived, which the client calls `name`.
    ///
    /// # Errors
    ///
    /// [`IntakeError::Scan`].
    pub async fn scan(self, name: String) -> Result<ScanReport, IntakeError> {
        let Self { intake, incoming, began } = self;
        let arrived = began.elapsed();
        let input = incoming.finish().map_err(trouble)?;
        let scanned = intake.pool.judge(input).await?;
        let timings = Timings::new(Duration::ZERO, arrived, began.elapsed().saturating_sub(arrived), Duration::ZERO);
        Ok(ScanReport::new(Target::Stream { name, size: scanned.size }, scanned, timings, Vec::new()))
    }

    /// The report on a stream that was too long to be taken: the same as on an object of that size.
    #[must_use]
    pub fn too_large(self, name: String) -> ScanReport {
        let size = self.incoming.size();
        let verdict = Verdict::unscannable(Reason::TooLarge, "MaxFileSize");
        let scanned = Scanned::unread(verdict, size, self.intake.pool.current());
        let timings = Timings::new(Duration::ZERO, self.began.elapsed(), Duration::ZERO, Duration::ZERO);
        ScanReport::new(Target::Stream { name, size }, scanned, timings, Vec::new())
    }
}

fn trouble(error: io::Error) -> IntakeError {
    IntakeError::Scan(ScanError::Trouble(error.to_string()))
}

fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::engine::{Definitions, Observations, Status};
    use crate::scan::{Backend, Current, Observed};

    struct FindsNothing;

    impl Backend for FindsNothing {
        fn current(&self) -> Current {
            let definitions = Definitions { version: 1, built_at: None, signatures: 1, fingerprint: "f".into() };
            Current { definitions: Arc::new(definitions), options_digest: "o".into() }
        }

        fn scan(&self, _: &Input) -> io::Result<Observed> {
            Ok(Observed { observations: Observations { finished: true, ..Observations::default() }, with: self.current() })
        }
    }

    #[tokio::test]
    async fn files_that_stalled_held_all_scan_threads() -> Result<(), ScanError> {
        let pool = Arc::new(Pool::new(Arc::new(FindsNothing), 1, Duration::from_secs(600))?);
        let mut intake = Intake::new(Arc::clone(&pool), Budget::new(1, 1, 1), PathBuf::new(), 100);
        intake.patience = Duration::from_millis(50);
        let target = |size| Target::Stream { name: String::new(), size };
        let mut gates = Vec::new();
        for _ in 0..Intake::readers(1) {
            let (gate, end) = mpsc::channel::<()>();
            gates.push(gate);
            let load = move || {
                let _ = end.recv();
                Ok(Input::from_bytes(Vec::new()))
            };
            let stalled = intake.local(load, target).await;
            assert!(matches!(&stalled, Err(ScanError::Read(error)) if error.kind() == io::ErrorKind::TimedOut), "{stalled:?}");
        }
        let other = intake.local(|| Ok(Input::from_bytes(Vec::new())), target).await;
        assert!(matches!(other, Err(ScanError::Read(_))), "there is no turn left for files");
        let stream = pool.scan(|| Ok(Input::from_bytes(Vec::new()))).await?;
        assert_eq!(stream.verdict.status, Status::Clean, "what needs no file is scanned");
        drop(gates);
        intake.patience = PATIENCE;
        let file = intake.local(|| Ok(Input::from_bytes(Vec::new())), target).await?;
        assert_eq!(file.status, Status::Clean, "their turns are free again");
        Ok(())
    }
}
