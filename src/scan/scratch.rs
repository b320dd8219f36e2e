//! The directory for libclamav's temporary files, private to this process and cleaned up after a crash.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::FlockOperation;
use tempfile::TempDir;

const PREFIX: &str = "clamgate-scratch-";
const LOCK: &str = "lock";

/// The locks of directories that were made again, until the process ends: there may still be scans then that use them.
static RESTORED: Mutex<BTreeMap<PathBuf, File>> = Mutex::new(BTreeMap::new());

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
        let lock = lock(dir.path())?;
        Ok(Self { dir, _lock: lock })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Makes what is gone of a scratch directory again: cleaners of temporary directories take old files. A directory that has not our
/// kind of name gets no lock.
///
/// # Errors
///
/// When it cannot be made, or when something else has taken its place.
pub(super) fn restore(path: &Path) -> io::Result<()> {
    let mut restored = RESTORED.lock().unwrap_or_else(PoisonError::into_inner);
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => DirBuilder::new().mode(0o700).create(path)?,
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.is_dir() => return Err(io::ErrorKind::NotADirectory.into()),
        // In a directory for everybody, somebody else may have taken the name: private documents must not go there.
        Ok(metadata) if metadata.uid() != rustix::process::geteuid().as_raw() => {
            return Err(io::Error::other("it is not ours any more"));
        }
        Ok(_) => {}
    }
    let is_ours = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()));
    if is_ours && !path.join(LOCK).try_exists()? {
        restored.insert(path.to_owned(), lock(path)?);
    }
    Ok(())
}

/// Makes the lock of a directory, and takes it.
fn lock(dir: &Path) -> io::Result<File> {
    // Locked before it gets its name: another process's sweep must never see it without our lock.
    let unnamed = dir.join("lock.new");
    let lock = File::create(&unnamed)?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    fs::rename(unnamed, dir.join(LOCK))?;
    Ok(lock)
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
    fn a_sweep_removed_a_directory_that_was_just_made() -> io::Result<()> {
        let parent = tempfile::tempdir()?;
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let scratch = Scratch::create(parent.path());
                        assert!(matches!(&scratch, Ok(made) if made.path().join(LOCK).exists()), "{scratch:?}");
                    }
                });
            }
        });
        Ok(())
    }

    #[test]
    fn abandoned_directories_are_removed_and_living_ones_kept() -> io::Result<()> {
        let parent = tempfile::tempdir()?;
        let living = Scratch::create(parent.path())?;
        let abandoned = parent.path().join("clamgate-scratch-dead");
        fs::create_dir(&abandoned)?;
        fs::write(abandoned.join(LOCK), "")?;
        fs::write(abandoned.join("20261121-scantemp"), "leaked")?;

        let new = Scratch::create(parent.path())?;
        assert!(!abandoned.exists());
        assert!(living.path().exists());
        let path = new.path().to_owned();
        drop(new);
        assert!(!path.exists());
        Ok(())
    }

    /// Made again without its lock, it was left behind for ever by a crash.
    #[test]
    fn what_was_made_again_is_kept_while_the_process_lives_and_removed_after_a_crash() -> io::Result<()> {
        let parent = tempfile::tempdir()?;
        let scratch = Scratch::create(parent.path())?;
        let path = scratch.path().to_owned();
        for vanish in [|path: &Path| fs::remove_dir_all(path), |path: &Path| fs::remove_file(path.join(LOCK))] {
            vanish(&path)?;
            restore(&path)?;
            assert_eq!(fs::metadata(&path)?.mode() & 0o777, 0o700);
            sweep(parent.path())?;
            assert!(path.exists());

            // A crash: the kernel takes the lock back.
            assert!(RESTORED.lock().unwrap_or_else(PoisonError::into_inner).remove(&path).is_some());
            sweep(parent.path())?;
            assert!(!path.exists());
            restore(&path)?;
        }
        drop(scratch);
        assert!(!path.exists());
        Ok(())
    }

    #[test]
    fn what_is_whole_is_left_alone() -> io::Result<()> {
        let parent = tempfile::tempdir()?;
        let scratch = Scratch::create(parent.path())?;
        let lock = || Ok::<_, io::Error>(fs::metadata(scratch.path().join(LOCK))?.ino());
        let before = lock()?;
        restore(scratch.path())?;
        assert_eq!(lock()?, before);
        restore(parent.path())?;
        assert!(!parent.path().join(LOCK).exists(), "a directory of somebody else's");
        Ok(())
    }
}
