//! What is scanned: bytes in memory, bytes spooled to disk, or a local file.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::budget::Reservation;
use super::buffer::Buffer;
use super::incoming::Incoming;
use crate::engine::FrozenFile;

/// Local files up to this size are read into memory; larger ones are scanned through their descriptor.
const READ_WHOLE_MAX: u64 = 8 * 1024 * 1024;

/// One thing to scan, complete and immutable, with its SHA-256.
#[derive(Debug)]
pub struct Input {
    pub(super) source: Source,
    pub(super) size: u64,
    /// `None` when it is too large to be read.
    pub(super) sha256: Option<[u8; 32]>,
    /// Returned to the budget when the input is dropped.
    pub(super) _reservation: Option<Reservation>,
}

#[derive(Debug)]
pub(super) enum Source {
    Memory(Buffer),
    Spooled(FrozenFile),
    File(LocalFile),
}

/// A file that others may change at any time.
#[derive(Debug)]
pub(super) struct LocalFile {
    pub(super) file: File,
    /// As it was before the first byte was read.
    before: FileState,
}

/// Length, and the times of the last change to content and inode.
#[derive(Debug, PartialEq, Eq)]
struct FileState(u64, (i64, i64), (i64, i64));

impl FileState {
    fn of(metadata: &Metadata) -> Self {
        Self(metadata.len(), (metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec()))
    }
}

impl LocalFile {
    /// Fails if the file is not as it was when it was opened: then what was hashed and what was scanned may differ.
    pub(super) fn is_unchanged(&self) -> io::Result<()> {
        if FileState::of(&self.file.metadata()?) == self.before { Ok(()) } else { Err(changed()) }
    }
}

fn changed() -> io::Error {
    io::Error::other("the file changed while it was read")
}

impl Input {
    /// Bytes in memory.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        let sha256 = Some(Sha256::digest(&bytes).into());
        Self { size: bytes.len() as u64, source: Source::Memory(Buffer::Heap(bytes)), sha256, _reservation: None }
    }

    /// A local file, opened, checked and, up to `limit` bytes (the engine's own), hashed. Blocks on the disk: call it on a scan thread.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or is a directory, a pipe or a device: libclamav would call those clean.
    pub fn open(path: &Path, limit: u64) -> io::Result<Self> {
        // Looked at before it is opened: opening a device can do something.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        // It can be another one by now: opening a pipe waits for its writer, and a file with a lease for its holder.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
        Self::from_file(file, limit)
    }

    /// The whole of an open file, wherever its position is; it is moved. Blocks on the disk: call it on a scan thread.
    ///
    /// # Errors
    ///
    /// As for [`Input::open`].
    pub fn from_file(mut file: File, limit: u64) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let size = metadata.len();
        file.seek(SeekFrom::Start(0))?;
        if size <= READ_WHOLE_MAX {
            let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
            // One byte more than there should be shows that the file grew.
            file.take(size + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 != size {
                return Err(changed());
            }
            return Ok(Self::from_bytes(bytes));
        }
        let before = FileState::of(&metadata);
        // The engine refuses it by its size. A sparse file can have terabytes: reading it would keep the thread for hours.
        if size > limit {
            return Ok(Self { source: Source::File(LocalFile { file, before }), size, sha256: None, _reservation: None });
        }
        let mut digest = Sha256::new();
        let mut chunk = vec![0; 128 * 1024];
        loop {
            match file.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => digest.update(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let sha256 = Some(digest.finalize().into());
        Ok(Self { source: Source::File(LocalFile { file, before }), size, sha256, _reservation: None })
    }

    /// Everything that a reader gives, up to one byte more than `limit`: enough for the engine to see that it is too large.
    /// A little is kept in memory, more goes to a nameless file in `scratch_dir`. Blocks on the reader.
    ///
    /// # Errors
    ///
    /// When the reader fails, or the file cannot be written.
    pub fn read(reader: &mut dyn Read, scratch_dir: &Path, limit: u64) -> io::Result<Self> {
        let mut reader = reader.take(limit + 1);
        let mut head = Vec::new();
        reader.by_ref().take(READ_WHOLE_MAX).read_to_end(&mut head)?;
        if (head.len() as u64) < READ_WHOLE_MAX {
            return Ok(Self::from_bytes(head));
        }
        let mut incoming = Incoming::spooled(scratch_dir)?;
        incoming.write(&head)?;
        drop(head);
        let mut chunk = vec![0; 128 * 1024];
        loop {
            match reader.read(&mut chunk) {
                Ok(0) => return incoming.finish(),
                Ok(count) => incoming.write(&chunk[..count])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// How many bytes there are.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The SHA-256 of bytes that nobody can change any more, so that it stands for what is scanned. A local file's does not: it is hashed first,
    /// and whoever has it mapped can change it without a trace before it is scanned.
    pub(super) fn fixed_digest(&self) -> Option<&[u8; 32]> {
        match self.source {
            Source::Memory(_) | Source::Spooled(_) => self.sha256.as_ref(),
            Source::File(_) => None,
        }
    }

    /// The SHA-256 of the bytes, in hexadecimal digits; `None` when there are too many to be read.
    #[must_use]
    pub fn sha256(&self) -> Option<String> {
        self.sha256.map(|digest| crate::engine::hex(&digest))
    }
}
