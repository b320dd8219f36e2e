//! The progress in a file, for an interrupted run to go on from.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Selection, TagRule};

/// More than any of our files has: 8 KiB of custom data, escaped, and a key.
const MOST_BYTES: u64 = 256 * 1024;

/// What a state file belongs to. Whoever goes on with other options would leave objects out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// `s3://bucket/prefix/`
    pub source: String,
    /// The queue's URL.
    pub queue_url: String,
    /// `--versions`
    pub versions: bool,
    /// `--since`, and what the tags have to say. With `--older-than-definitions`, the definitions that were current when the
    /// run began count to its end: with newer ones, what comes later would be chosen by another rule than what came before.
    pub selection: Selection,
    /// `--trace-id`
    pub trace_id: Option<String>,
    /// `--custom`
    pub custom: Option<Map<String, Value>>,
}

impl Work {
    /// Whether going on with this is what `asked` wants. The definitions need not be those that are current now.
    fn is(&self, asked: &Self) -> bool {
        let mut asked = asked.clone();
        if let (TagRule::OlderThan(then), TagRule::OlderThan(now)) = (&self.selection.tags, &mut asked.selection.tags) {
            now.clone_from(then);
        }
        *self == asked
    }
}

/// What is in the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    schema: Schema,
    work: Work,
    /// Everything up to this key has been sent.
    start_after: Option<String>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Schema {
    #[serde(rename = "clamgate.enqueue/1")]
    V1,
}

/// A state file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be read or written.
    #[error("the state file {path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
    /// It is no state file.
    #[error("the state file {path} is not one of clamgate enqueue: {error}")]
    Shape {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: serde_json::Error,
    },
    /// It belongs to another run.
    #[error("the state file {path} belongs to other options ({theirs}): use those, another file, or remove it to begin anew")]
    Other {
        /// The file.
        path: PathBuf,
        /// Those options, as JSON.
        theirs: String,
    },
}

/// A file that exists as long as there is something to go on with.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    state: State,
}

impl StateFile {
    /// Reads the file, if there is one. Its [`selection`](Self::selection) is what counts then.
    ///
    /// # Errors
    ///
    /// [`StateError`]; [`StateError::Other`] if it belongs to other work.
    pub fn open(path: &Path, work: Work) -> Result<Self, StateError> {
        let state = State { schema: Schema::V1, work, start_after: None };
        let io = |error| StateError::Io { path: path.to_owned(), error };
        let mut text = String::new();
        match File::open(path) {
            Ok(file) => file.take(MOST_BYTES).read_to_string(&mut text).map_err(io)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self { path: path.to_owned(), state }),
            Err(error) => return Err(io(error)),
        };
        let found: State = serde_json::from_str(&text).map_err(|error| StateError::Shape { path: path.to_owned(), error })?;
        if !found.work.is(&state.work) {
            let theirs = serde_json::to_string(&found.work).unwrap_or_default();
            return Err(StateError::Other { path: path.to_owned(), theirs });
        }
        Ok(Self { path: path.to_owned(), state: found })
    }

    /// Which objects this run has chosen from its beginning.
    #[must_use]
    pub fn selection(&self) -> &Selection {
        &self.state.work.selection
    }

    /// The key up to which everything has been sent, if the file says so.
    #[must_use]
    pub fn start_after(&self) -> Option<&str> {
        self.state.start_after.as_deref()
    }

    /// Replaces the file as a whole.
    ///
    /// # Errors
    ///
    /// [`StateError::Io`]; then the file is as it was.
    pub fn save(&mut self, start_after: Option<&str>) -> Result<(), StateError> {
        self.state.start_after = start_after.map(str::to_owned);
        let io = |error| StateError::Io { path: self.path.clone(), error };
        let text = serde_json::to_string(&self.state).map_err(|error| io(error.into()))?;
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(dir).map_err(io)?;
        file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(io)?;
        file.persist(&self.path).map_err(|error| io(error.error))?;
        Ok(())
    }

    /// Removes the file: nothing is left to go on with.
    ///
    /// # Errors
    ///
    /// [`StateError::Io`]
    pub fn remove(self) -> Result<(), StateError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StateError::Io { path: self.path, error }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use time::macros::datetime;

    use super::*;
    use crate::action::ScannedWith;
    use crate::config::TagDialect;

    fn work(source: &str) -> Work {
        Work {
            source: source.to_owned(),
            queue_url: "http://q/".to_owned(),
            versions: false,
            selection: Selection {
                since: Some(datetime!(2026-11-21 12:00 UTC)),
                tags: TagRule::Untagged,
                tag_prefix: "clamgate-".to_owned(),
                tag_dialects: vec![TagDialect::Clamgate],
            },
            trace_id: None,
            custom: Some(Map::from_iter([("a".to_owned(), Value::Null)])),
        }
    }

    #[test]
    fn what_is_saved_is_found_again_by_the_same_work_alone() -> Result<(), Box<dyn Error>> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("state");
        let mut file = StateFile::open(&path, work("s3://b/"))?;
        assert_eq!(file.start_after(), None);
        assert!(!path.exists());
        for key in ["a\n\u{1f41a}\"", "b"] {
            file.save(Some(key))?;
            assert_eq!(StateFile::open(&path, work("s3://b/"))?.start_after(), Some(key));
        }
        let other = |change: fn(&mut Work)| {
            let mut other = work("s3://b/");
            change(&mut other);
            other
        };
        for other in [
            work("s3://b/other/"),
            other(|work| work.versions = true),
            other(|work| work.selection.since = None),
            other(|work| work.selection.tags = TagRule::Any),
            other(|work| work.selection.tags = TagRule::OlderThan(ScannedWith::new(1, "f"))),
            // What counts as a verdict's tag: objects before and after the interruption would be chosen by different ones.
            other(|work| work.selection.tag_prefix = "other-".to_owned()),
            other(|work| work.selection.tag_dialects.push(TagDialect::Macpro)),
            other(|work| work.custom = None),
        ] {
            let opened = StateFile::open(&path, other);
            assert!(matches!(opened, Err(StateError::Other { .. })), "{opened:?}");
        }
        assert_eq!(fs::read_dir(dir.path())?.count(), 1, "nothing else is left");
        file.remove()?;
        assert!(!path.exists());
        Ok(())
    }

    /// After an update, the rest of the objects was chosen by other definitions than those before.
    #[test]
    fn the_definitions_that_a_run_began_with_count_to_its_end() -> Result<(), Box<dyn Error>> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("state");
        let older_than = |version| {
            let selection = Selection { tags: TagRule::OlderThan(ScannedWith::new(version, "0123")), ..work("").selection };
            Work { selection, ..work("s3://b/") }
        };
        StateFile::open(&path, older_than(27500))?.save(Some("k"))?;
        let mut resumed = StateFile::open(&path, older_than(27501))?;
        assert_eq!(resumed.selection(), &older_than(27500).selection);
        resumed.save(Some("l"))?;
        assert_eq!(StateFile::open(&path, older_than(27502))?.selection(), &older_than(27500).selection);
        Ok(())
    }

    #[test]
    fn what_is_no_state_is_left_alone() -> Result<(), Box<dyn Error>> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("state");
        for text in ["", "{}", "something precious", r#"{"schema":"clamgate.enqueue/2","work":{},"start_after":null}"#] {
            fs::write(&path, text)?;
            assert!(matches!(StateFile::open(&path, work("s3://b/")), Err(StateError::Shape { .. })), "{text}");
            assert_eq!(fs::read_to_string(&path)?, text);
        }
        assert!(matches!(StateFile::open(dir.path(), work("s3://b/")), Err(StateError::Io { .. })));
        let nowhere = dir.path().join("no/such/dir");
        let mut file = StateFile::open(&nowhere, work("s3://b/"))?;
        assert!(matches!(file.save(None), Err(StateError::Io { .. })));
        Ok(())
    }
}
