//! Whether this machine can scan at the moment: space, descriptors, a scratch directory.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::scratch;

/// Descriptors that one scan may need at once: the temporary files of each level of nesting, and some to spare.
const DESCRIPTORS: usize = 64;

/// What is written to see whether the disk takes it.
static TRIAL: [u8; 64 * 1024] = [0; 64 * 1024];

/// Looks at the machine, and tells what keeps it from scanning.
#[derive(Debug, Clone)]
pub struct Fitness {
    scratch_dir: PathBuf,
    min_free_bytes: u64,
}

impl Fitness {
    /// A machine is fit while temporary files can be made in `scratch_dir`, and `min_free_bytes` are free there.
    #[must_use]
    pub fn new(scratch_dir: &Path, min_free_bytes: u64) -> Self {
        Self { scratch_dir: scratch_dir.to_owned(), min_free_bytes }
    }

    /// What keeps this machine from scanning now; `None` when nothing does. Blocks on the disk for a moment. A scratch directory that
    /// is gone (cleaners of temporary directories take old ones) is made again.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let dir = self.scratch_dir.display();
        let on_disk = || -> io::Result<u64> {
            scratch::restore(&self.scratch_dir)?;
            // As libclamav does it: a directory for each scan, and a file in it.
            let scan = tempfile::tempdir_in(&self.scratch_dir)?;
            let mut file = tempfile::tempfile_in(scan.path())?;
            let mut held = Vec::with_capacity(DESCRIPTORS);
            for _ in 0..DESCRIPTORS {
                held.push(file.try_clone()?);
            }
            file.write_all(&TRIAL)?;
            let disk = rustix::fs::fstatvfs(&file)?;
            Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
        };
        match on_disk() {
            Ok(free) if free < self.min_free_bytes => {
                Some(format!("{free} bytes are free in the scratch directory {dir}, and {} are needed", self.min_free_bytes))
            }
            Ok(_) => None,
            Err(error) => Some(format!("the scratch directory {dir} cannot be used: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Fitness;

    #[test]
    fn space_and_directory() -> std::io::Result<()> {
        let dir = tempfile::tempdir()?;
        assert_eq!(Fitness::new(dir.path(), 1).trouble(), None);
        let trouble = Fitness::new(dir.path(), u64::MAX).trouble().unwrap_or_default();
        assert!(trouble.contains("bytes are free"), "{trouble}");
        let taken = dir.path().join("taken");
        std::fs::write(&taken, "")?;
        let trouble = Fitness::new(&taken, 1).trouble().unwrap_or_default();
        assert!(trouble.contains("not a directory"), "{trouble}");
        let gone = dir.path().join("gone");
        assert_eq!(Fitness::new(&gone, 1).trouble(), None);
        assert!(gone.is_dir(), "it was made again");
        Ok(())
    }
}
