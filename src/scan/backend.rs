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
    /// Scans the input with the newest definitions.
    ///
    /// # Errors
    ///
    /// When the input cannot be read. That says nothing about the input's content.
    fn scan(&self, input: &Input) -> io::Result<Observed>;
}

/// What a scan gave, and what it was done with.
#[derive(Debug, Clone)]
pub struct Observed {
    /// What libclamav said.
    pub observations: Observations,
    /// The definitions that the scan began with.
    pub definitions: Arc<Definitions>,
    /// The digest of the engine's options.
    pub options_digest: Arc<str>,
}
