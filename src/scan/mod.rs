//! Scanning without waiting: a pool of scan threads behind an async bridge, inputs within a memory budget, warm reloads.
//!
//! The [`Pool`] drives a [`Backend`], which scans one [`Input`] and returns observations. The one backend today is [`Warm`],
//! an engine in this process; nothing above this module may rely on that. This module starts no async runtime of its own:
//! its futures run on any.

mod backend;
mod budget;
mod buffer;
mod fitness;
mod incoming;
mod input;
mod jobs;
mod known;
mod memory;
mod pool;
mod scratch;
mod warm;

pub use backend::{Backend, Current, Observed};
pub use budget::{Budget, Reservation};
pub use fitness::Fitness;
pub use incoming::Incoming;
pub use input::Input;
pub use memory::{Group, Memory, private_memory};
pub use pool::{Drained, Pool, ScanError, Scanned};
pub use scratch::Scratch;
pub use warm::Warm;
