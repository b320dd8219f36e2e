//! The seam between the pool and whatever does the scanning.

use std::io;
use std::sync::Arc;

use super::input::Input;
use crate::engine::{Definitions, Observations};

/// Scans one input to the end, on the calling thread.
///
/// An implementation may be called from any number of threads at once, must return for every input within the engine's
/// timeout plus some seconds, and must not keep the input. It may panic: the pool turns that into `ENGINE_ERROR`.
pub trait Backend: Send + Sync {
    /// What the next scan will be done with.
    fn current(&self) -> Current;

    /// Scans the input with the newest definitions.
    ///
    /// # Errors
    ///
    /// When the input cannot be read. That says nothing about the input's content.
    fn scan(&self, input: &Input) -> io::Result<Observed>;
}

/// What decides a verdict, apart from the input.
#[derive(Debug, Clone)]
pub struct Current {
    /// The definitions.
    pub definitions: Arc<Definitions>,
    /// The digest of the engine's options.
    pub options_digest: Arc<str>,
}

/// What a scan gave, and what it was done with.
#[derive(Debug, Clone)]
pub struct Observed {
    /// What libclamav said.
    pub observations: Observations,
    /// What the scan began with, even if a reload came while it ran.
    pub with: Current,
}
