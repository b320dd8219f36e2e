//! What clients bring themselves: streams and local files, scanned by the warm engine within the same budget as objects.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

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
}

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
        let scanned = self.pool.scan(load).await?;
        let timings = Timings::new(Duration::ZERO, Duration::ZERO, began.elapsed(), Duration::ZERO);
        Ok(ScanReport::new(target(scanned.size), scanned, timings, Vec::new()))
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
        let scanned = intake.pool.scan(move || Ok(input)).await?;
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
