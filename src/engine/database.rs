//! The files of a signature database: which there are, whether they changed, and what identifies their content.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::error::LoadError;

/// The endings that `cl_load` takes from a directory (`readdb.h: CLI_DBEXT`); it ignores every other file.
const ENDINGS: &[&str] = &[
    "cat", "cbc", "cdb", "cfg", "cld", "crb", "cud", "cvd", "db", "fp", "ftm", "gdb", "hdb", "hdu", "hsb", "hsu", "idb", "ign",
    "ign2", "imp", "info", "ioc", "ldb", "ldu", "mdb", "mdu", "msb", "msu", "ndb", "ndu", "pdb", "pwdb", "rmd", "sdb", "sfp",
    "wdb", "yar", "yara", "zmd",
];

/// Endings of databases that carry their own signature in a header of 512 bytes (`cvd.c: cl_cvdhead`).
const SIGNED: &[&str] = &["cvd", "cld", "cud"];
const SIGNED_HEADER: usize = 512;

/// What an engine scans with, as reports show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct Definitions {
    /// The version of the daily database; 0 when there is none.
    pub version: u32,
    /// When the daily database was built.
    #[serde(with = "time::serde::rfc3339::option")]
    #[cfg_attr(feature = "service", schema(value_type = Option<String>, format = DateTime))]
    pub built_at: Option<OffsetDateTime>,
    /// How many signatures were loaded.
    pub signatures: u32,
    /// A digest of the content: the same files give the same fingerprint on every machine.
    pub fingerprint: String,
}

/// The database files of a directory at one moment: name, size, time and inode of each. Cheap to take, to be compared.
///
/// `cl_statchkdir` exists for this, but misses deletions and edits within the same second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    path: PathBuf,
    files: Vec<Stamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Stamp {
    path: PathBuf,
    size: u64,
    modified: (i64, i64),
    inode: u64,
}

impl Snapshot {
    /// Looks at a database directory, or at a single database file.
    ///
    /// # Errors
    ///
    /// [`LoadError::Read`] when the directory or a file in it cannot be looked at, [`LoadError::NoDatabase`] when it holds no
    /// database.
    pub fn take(path: &Path) -> Result<Self, LoadError> {
        let read = |error| LoadError::Read { path: path.to_owned(), error };
        let mut files = Vec::new();
        if fs::metadata(path).map_err(read)?.is_dir() {
            for entry in fs::read_dir(path).map_err(read)? {
                let file = entry.map_err(read)?.path();
                if ending(&file).is_some() {
                    files.push(file);
                }
            }
        } else {
            files.push(path.to_owned());
        }
        let mut stamps = Vec::with_capacity(files.len());
        for file in files {
            let metadata = match fs::metadata(&file) {
                Ok(metadata) => metadata,
                // freshclam replaces files by renaming: one that is gone since the listing is simply not there.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(LoadError::Read { path: file, error }),
            };
            if metadata.is_file() {
                stamps.push(Stamp {
                    path: file,
                    size: metadata.len(),
                    modified: (metadata.mtime(), metadata.mtime_nsec()),
                    inode: metadata.ino(),
                });
            }
        }
        if stamps.is_empty() {
            return Err(LoadError::NoDatabase(path.to_owned()));
        }
        stamps.sort();
        Ok(Self { path: path.to_owned(), files: stamps })
    }

    /// A digest of the files' names and contents, as 64 hexadecimal digits. Of a signed database only the header is read,
    /// which holds the digest and the signature of the rest.
    ///
    /// # Errors
    ///
    /// [`LoadError::Read`] for a file that cannot be read.
    pub fn fingerprint(&self) -> Result<String, LoadError> {
        let mut digest = Sha256::new();
        for stamp in &self.files {
            let name = stamp.path.file_name().unwrap_or_default().as_encoded_bytes();
            digest.update(name);
            digest.update([0]);
            digest.update(stamp.size.to_le_bytes());
            let most = match ending(&stamp.path) {
                Some(ending) if SIGNED.contains(&ending) => SIGNED_HEADER as u64,
                _ => u64::MAX,
            };
            File::open(&stamp.path)
                .and_then(|file| io::copy(&mut file.take(most), &mut HashWriter(&mut digest)))
                .map_err(|error| LoadError::Read { path: stamp.path.clone(), error })?;
        }
        Ok(hex(&digest.finalize()))
    }

    /// The version of the daily database, as [`Definitions::version`] has it after a load; 0 when there is none. Only its header is
    /// read.
    ///
    /// # Errors
    ///
    /// [`LoadError::Read`] for a file that cannot be read.
    pub fn version(&self) -> Result<u32, LoadError> {
        let mut newest = 0;
        for stamp in &self.files {
            let is_daily = stamp.path.file_stem().is_some_and(|stem| stem == "daily");
            if is_daily && ending(&stamp.path).is_some_and(|ending| SIGNED.contains(&ending)) {
                let mut header = Vec::with_capacity(SIGNED_HEADER);
                File::open(&stamp.path)
                    .and_then(|file| file.take(SIGNED_HEADER as u64).read_to_end(&mut header))
                    .map_err(|error| LoadError::Read { path: stamp.path.clone(), error })?;
                // Of the two, daily.cvd and daily.cld, libclamav loads the newer (cvd.c: cli_cvdload).
                newest = newest.max(header_version(&header).unwrap_or(0));
            }
        }
        Ok(newest)
    }

    /// Checks that there is a signed database of each of these names (`daily`, `main`): freshclam can leave some out, and exit
    /// with 0 the next time.
    ///
    /// # Errors
    ///
    /// [`LoadError::Incomplete`] names the first that is missing.
    pub fn require(&self, names: &[String]) -> Result<(), LoadError> {
        let is_there = |name: &String| {
            self.files.iter().any(|stamp| {
                stamp.path.file_stem().is_some_and(|stem| stem == name.as_str())
                    && ending(&stamp.path).is_some_and(|ending| SIGNED.contains(&ending))
            })
        };
        match names.iter().find(|name| !is_there(name)) {
            Some(name) => Err(LoadError::Incomplete { path: self.path.clone(), name: name.clone() }),
            None => Ok(()),
        }
    }

    /// The signed databases.
    pub(super) fn signed(&self) -> impl Iterator<Item = &Path> {
        let is_signed = |stamp: &&Stamp| ending(&stamp.path).is_some_and(|ending| SIGNED.contains(&ending));
        self.files.iter().filter(is_signed).map(|stamp| stamp.path.as_path())
    }

    /// Whether no file holds anything.
    pub(super) fn is_empty(&self) -> bool {
        self.files.iter().all(|stamp| stamp.size == 0)
    }

    /// The directory or file that was looked at.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The version in a signed database's header: `ClamAV-VDB:time:version:…` (`cvd.c: cl_cvdparse`).
fn header_version(header: &[u8]) -> Option<u32> {
    let mut fields = std::str::from_utf8(header.get(..64)?).ok()?.split(':');
    fields.next().filter(|magic| *magic == "ClamAV-VDB")?;
    fields.nth(1)?.parse().ok()
}

struct HashWriter<'digest>(&'digest mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The file's ending, if it is one of a database.
fn ending(file: &Path) -> Option<&'static str> {
    let found = file.extension()?.to_str()?;
    ENDINGS.iter().copied().find(|known| known.eq_ignore_ascii_case(found))
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn a_same_second_edit_a_deletion_and_a_new_file_are_seen() -> Result<(), Box<dyn Error>> {
        let dir = tempfile::tempdir()?;
        let file = |name: &str| dir.path().join(name);
        fs::write(file("a.hdb"), "x")?;
        fs::write(file("README"), "not a database")?;
        let first = Snapshot::take(dir.path())?;
        assert_eq!(first.files.len(), 1);
        assert_eq!(first, Snapshot::take(dir.path())?);

        // Replaced by a rename, same size, same modification time.
        let modified = fs::metadata(file("a.hdb"))?.modified()?;
        fs::write(file("new"), "y")?;
        File::options().write(true).open(file("new"))?.set_modified(modified)?;
        fs::rename(file("new"), file("a.hdb"))?;
        let second = Snapshot::take(dir.path())?;
        assert_ne!(first, second);

        fs::write(file("b.ndb"), "z")?;
        let third = Snapshot::take(dir.path())?;
        assert_ne!(second, third);
        fs::remove_file(file("a.hdb"))?;
        assert_ne!(third, Snapshot::take(dir.path())?);
        fs::remove_file(file("b.ndb"))?;
        assert!(matches!(Snapshot::take(dir.path()), Err(LoadError::NoDatabase(_))));
        Ok(())
    }

    #[test]
    fn the_version_is_that_of_the_daily_database() -> Result<(), Box<dyn Error>> {
        let dir = tempfile::tempdir()?;
        let version = || Snapshot::take(dir.path())?.version();
        let write = |name: &str, content: &str| fs::write(dir.path().join(name), format!("{content:512}"));
        write("main.cvd", "ClamAV-VDB:16 Sep 2021 08-32 -0400:62:6647427:90:0:0:builder:1")?;
        write("other.hdb", "x")?;
        assert_eq!(version()?, 0);
        write("daily.cvd", "ClamAV-VDB:21 Nov 2026 07-20 +0000:27500:2066000:90:0:0:builder:1763709600")?;
        assert_eq!(version()?, 27500);
        write("daily.cld", "ClamAV-VDB:22 Nov 2026 07-20 +0000:27501:2066001:90:0:0:builder:1763796000")?;
        assert_eq!(version()?, 27501);
        for wrong in ["", "ClamAV-VDB:now", "ClamAV-VDB:now:-1:2", "ClamAV-VDB:now:99999999999:2", "other:now:27502:2"] {
            write("daily.cld", wrong)?;
            assert_eq!(version()?, 27500, "{wrong}");
        }
        Ok(())
    }

    #[test]
    fn the_fingerprint_is_of_the_content_alone() -> Result<(), Box<dyn Error>> {
        let make = |content: &str| -> Result<String, Box<dyn Error>> {
            let dir = tempfile::tempdir()?;
            fs::write(dir.path().join("a.hdb"), content)?;
            Ok(Snapshot::take(dir.path())?.fingerprint()?)
        };
        assert_eq!(make("one")?, make("one")?);
        assert_ne!(make("one")?, make("two")?);
        Ok(())
    }
}
