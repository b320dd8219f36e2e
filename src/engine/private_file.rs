//! Large inputs on disk, in files that nobody else can reach, mapped for the scan.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::path::Path;

use memmap2::Mmap;

/// A temporary file without a name, to write an input to. Gone from the disk when it is dropped, however the process ends.
#[derive(Debug)]
pub struct PrivateFile(File);

impl PrivateFile {
    /// Makes the file on the file system that `dir` is on.
    ///
    /// # Errors
    ///
    /// When the directory cannot be written to, or no descriptor is left.
    pub fn create_in(dir: &Path) -> io::Result<Self> {
        tempfile::tempfile_in(dir).map(Self)
    }

    /// Writes at a place, also beyond the end: what is between reads as zeros until it is written.
    ///
    /// # Errors
    ///
    /// When the disk does not take it, for want of space above all.
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    /// Reads what was written at a place.
    ///
    /// # Errors
    ///
    /// When the disk does not give it, or the file ends before.
    pub fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(bytes, offset)
    }

    /// Ends writing and maps the file, without reading it.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the mapping. An empty file cannot be mapped.
    pub fn freeze(self) -> io::Result<FrozenFile> {
        // SAFETY: a mapping is only sound while nobody changes the file. This one has no name, its only descriptor was made in
        // `create_in`, never left this type and is closed here, so no safe code can reach the file again.
        unsafe { Mmap::map(&self.0) }.map(FrozenFile)
    }
}

impl Write for PrivateFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The bytes of a [`PrivateFile`], mapped and immutable.
#[derive(Debug)]
pub struct FrozenFile(Mmap);

impl Deref for FrozenFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
