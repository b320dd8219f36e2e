//! The directory for libclamav's temporary files, private to this process and cleaned up after a crash.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::FlockOperation;
use tempfile::TempDir;

const PREFIX: &str = "clamgate-scratch-";
const LOCK: &str = "lock";

/// A private directory that is removed when it is dropped, or, after a crash, by the next process that starts.
#[derive(Debug)]
pub struct Scratch {
    dir: TempDir,
    /// Held as long as the process lives: whoever can take it knows that the directory is abandoned.
    _lock: File,
}

impl Scratch {
    /// Removes what crashed processes left in `parent`, then makes a directory of our own there.
    ///
    /// # Errors
    ///
    /// When `parent` does not exist or cannot be written to.
    pub fn create(parent: &Path) -> io::Result<Self> {
        sweep(parent)?;
        let dir = tempfile::Builder::new().prefix(PREFIX).permissions(Permissions::from_mode(0o700)).tempdir_in(parent)?;
        // Locked before it gets its name: another process's sweep must never see it without our lock.
        let unnamed = dir.path().join("lock.new");
        let lock = File::create(&unnamed)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        fs::rename(unnamed, dir.path().join(LOCK))?;
        Ok(Self { dir, _lock: lock })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Removes abandoned scratch directories: ours by name and owner, with a lock that nobody holds.
fn sweep(parent: &Path) -> io::Result<()> {
    let user = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(parent)?.flatten() {
        if !entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        // Does not follow a symbolic link, which another user could have put here.
        let Ok(metadata) = fs::symlink_metadata(entry.path()) else { continue };
        if !metadata.is_dir() || metadata.uid() != user {
            continue;
        }
        // Without a lock file yet, the directory may belong to a process that is just starting.
        let Ok(lock) = File::open(entry.path().join(LOCK)) else { continue };
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            match fs::remove_dir_all(entry.path()) {
                Ok(()) => tracing::info!(dir = %entry.path().display(), "removed the scratch directory of a crashed process"),
                Err(error) => {
                    tracing::warn!(dir = %entry.path().display(), %error, "cannot remove an abandoned scratch directory")
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Between the lock file's creation and its lock, another process took it for abandoned.
    #[test]
    fn a_sweep_removed_a_directory_that_was_just_made() {
        let parent = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let scratch = Scratch::create(parent.path()).unwrap();
                        assert!(scratch.path().join(LOCK).exists());
                    }
                });
            }
        });
    }

    #[test]
    fn abandoned_directories_are_removed_and_living_ones_kept() {
        let parent = tempfile::tempdir().unwrap();
        let living = Scratch::create(parent.path()).unwrap();
        let abandoned = parent.path().join("clamgate-scratch-dead");
        fs::create_dir(&abandoned).unwrap();
        fs::write(abandoned.join(LOCK), "").unwrap();
        fs::write(abandoned.join("20261121-scantemp"), "leaked").unwrap();

        let new = Scratch::create(parent.path()).unwrap();
        assert!(!abandoned.exists());
        assert!(living.path().exists());
        let path = new.path().to_owned();
        drop(new);
        assert!(!path.exists());
    }
}
