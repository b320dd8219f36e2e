//! clamd's protocol, so that its clients work unchanged: `clamdscan`, freshclam's `NotifyClamd`, and the libraries of many
//! languages.
//!
//! The replies are clamd 1.4's, byte for byte, except where clamd says `OK` of what it has not scanned. The parser knows no
//! connection, and can be fuzzed without the service.

mod command;
mod frame;
#[cfg(feature = "service")]
mod server;

pub use command::{COMMANDS, Command, Mode};
pub use frame::{Frame, Frames, LONGEST_COMMAND, Style, TooLong};
#[cfg(feature = "service")]
pub use server::serve;
