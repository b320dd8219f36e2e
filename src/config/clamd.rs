//! `[clamd]`: clamd's protocol.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::those_that_are;

/// `[clamd]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClamdConfig {
    /// Where it listens for TCP, `127.0.0.1:3310` for example. The protocol knows no passwords: whoever can connect can scan.
    pub listen: Option<SocketAddr>,
    /// The Unix socket it listens on, `/run/clamav/clamd.ctl` for example.
    pub socket: Option<PathBuf>,
    /// The socket's permissions, in octal digits.
    pub socket_mode: String,
    /// How many connections are open at once. When all are taken, more wait, and those that have said nothing for a second are closed,
    /// then the slowest streams.
    pub max_connections: usize,
    /// How long a client may take for a command, or for the next piece of a stream.
    pub read_timeout_secs: u64,
    /// How long a client may take for a whole stream.
    pub stream_timeout_secs: u64,
    /// How long a session may be silent between commands.
    pub idle_timeout_secs: u64,
    /// What is answered when something could not be scanned completely.
    pub unscannable: Unscannable,
    /// Whether SCAN and its relatives take paths from TCP clients: they can find out which files exist.
    pub allow_paths_over_tcp: bool,
    /// Whether SHUTDOWN ends the service.
    pub allow_shutdown: bool,
}

/// The answer for what could not be scanned completely. The protocol has no word for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unscannable {
    /// `Clamgate.Unscannable.ENCRYPTED FOUND`: understood, and refused, by every client.
    Found,
    /// `… ERROR`: some clients take that for clean, or try again for ever.
    Error,
}

impl Default for ClamdConfig {
    fn default() -> Self {
        Self {
            listen: None,
            socket: None,
            socket_mode: "660".to_owned(),
            max_connections: 200,
            read_timeout_secs: 30,
            stream_timeout_secs: 600,
            idle_timeout_secs: 30,
            unscannable: Unscannable::Found,
            allow_paths_over_tcp: false,
            allow_shutdown: false,
        }
    }
}

impl ClamdConfig {
    /// Whether it is served at all.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.listen.is_some() || self.socket.is_some()
    }

    /// The socket's permissions; `None` if that is no number of three octal digits.
    #[must_use]
    pub fn mode(&self) -> Option<u32> {
        u32::from_str_radix(&self.socket_mode, 8).ok().filter(|&mode| mode <= 0o777)
    }

    /// How many files its clients can have open here: connections, and for each a stream on disk or a descriptor that it passed.
    #[must_use]
    pub fn open_files(&self) -> usize {
        if self.is_enabled() { self.max_connections.saturating_mul(2) } else { 0 }
    }

    /// What cannot work.
    pub(super) fn problems(&self) -> Vec<&'static str> {
        those_that_are([
            (self.mode().is_none(), "clamd.socket_mode must be permissions in octal digits, such as 660"),
            (self.max_connections == 0, "clamd.max_connections must be at least 1"),
            (self.max_connections > 1_000_000, "clamd.max_connections must be at most 1000000"),
            (self.read_timeout_secs == 0, "clamd.read_timeout_secs must be at least 1"),
            (self.stream_timeout_secs == 0, "clamd.stream_timeout_secs must be at least 1"),
            (self.idle_timeout_secs == 0, "clamd.idle_timeout_secs must be at least 1"),
            (
                self.read_timeout_secs.max(self.stream_timeout_secs).max(self.idle_timeout_secs) > 24 * 3600,
                "clamd's times must be at most 86400",
            ),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_without_end_ended_every_connection() -> Result<(), toml::de::Error> {
        for (text, works) in [
            ("read_timeout_secs = 86400", true),
            ("read_timeout_secs = 86401", false),
            ("stream_timeout_secs = 9223372036854775807", false),
            ("idle_timeout_secs = 9223372036854775807", false),
            ("max_connections = 9223372036854775807", false),
        ] {
            let config: ClamdConfig = toml::from_str(text)?;
            assert_eq!(config.problems().is_empty(), works, "{text}");
        }
        Ok(())
    }
}
