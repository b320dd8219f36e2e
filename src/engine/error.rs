//! Why a database could not be loaded.

use std::io;
use std::path::PathBuf;

/// Why [`EngineBuilder::load`](super::EngineBuilder::load) gave no engine. An engine that is in use is never affected.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// `cl_init` failed; nothing in this process can scan.
    #[error("libclamav could not be initialised: {0}")]
    Initialise(String),
    /// The database directory, or a file in it, could not be read.
    #[error("cannot read the definitions in {}: {error}", path.display())]
    Read {
        /// The directory or the file.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
    /// The directory holds no file that libclamav would load.
    #[error("no signature database in {}; run freshclam, or name another directory", .0.display())]
    NoDatabase(PathBuf),
    /// A database without which the definitions are not complete is missing.
    #[error("the database {name} is missing in {}; an update was left unfinished, or definitions.required names too much", path.display())]
    Incomplete {
        /// The directory.
        path: PathBuf,
        /// The missing database, without its ending.
        name: String,
    },
    /// A limit has a value that must not be used; see [`Limits::problems`](super::Limits::problems).
    #[error("the limit {0}")]
    Limits(String),
    /// libclamav refused an option.
    #[error("libclamav refused the option {option} = {value}: {message}")]
    Option {
        /// The option's name in the configuration.
        option: &'static str,
        /// The value that was refused.
        value: String,
        /// libclamav's text.
        message: String,
    },
    /// `cl_load` failed. libclamav would go on with the part that it had; this crate does not.
    #[error("cannot load the definitions in {}: {message}", path.display())]
    Load {
        /// The database directory.
        path: PathBuf,
        /// libclamav's text.
        message: String,
    },
    /// The database loaded and holds no signature at all.
    #[error("the definitions in {} hold no signature", .0.display())]
    Empty(PathBuf),
    /// `cl_engine_compile` failed.
    #[error("cannot compile the definitions in {}: {message}", path.display())]
    Compile {
        /// The database directory.
        path: PathBuf,
        /// libclamav's text.
        message: String,
    },
    /// A file of the database was replaced while it was loaded: try again.
    #[error("the definitions in {} changed while they were loaded", .0.display())]
    Changed(PathBuf),
    /// The canary was not detected: the engine would miss what it exists to find.
    #[error("the canary ({canary}) was not detected with the definitions in {}: {outcome}", path.display())]
    Canary {
        /// The database directory.
        path: PathBuf,
        /// Which canary: `EICAR`, or a file's path.
        canary: String,
        /// What the scan of the canary gave instead.
        outcome: String,
    },
}
