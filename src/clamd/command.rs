//! The commands.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::frame::Style;

/// What VERSIONCOMMANDS lists, as clamd 1.4 does.
pub const COMMANDS: &str = "SCAN QUIT RELOAD PING CONTSCAN VERSIONCOMMANDS VERSION END SHUTDOWN MULTISCAN FILDES STATS \
                            IDSESSION INSTREAM DETSTATSCLEAR DETSTATS ALLMATCHSCAN";

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// An answer.
    Ping,
    /// The version of libclamav and of the definitions.
    Version,
    /// The same, and the list of commands.
    VersionCommands,
    /// New definitions.
    Reload,
    /// The end of the service.
    Shutdown,
    /// The state of the scan threads.
    Stats,
    /// A scan of a file or a directory.
    Scan(Mode, PathBuf),
    /// A scan of the stream that follows.
    Instream,
    /// A scan of the descriptor that follows.
    Fildes,
    /// Any number of commands on this connection.
    Idsession,
    /// The end of that.
    End,
    /// DETSTATS and DETSTATSCLEAR: clamd 1.4 answers nothing.
    Nothing,
}

/// How a directory is scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// SCAN: up to the first file with a name to tell.
    Scan,
    /// CONTSCAN: all files.
    Continue,
    /// MULTISCAN: all files, several at once.
    Multi,
    /// ALLMATCHSCAN: up to the first file with names to tell, and all of its names.
    AllMatch,
}

impl Command {
    /// Reads a command; `None` when there is no such command.
    #[must_use]
    pub fn parse(text: &[u8], style: Style) -> Option<Self> {
        let name = text.split(|&byte| byte == b' ').next().unwrap_or_default();
        let path = text.get(name.len() + 1..);
        let scan = |mode| {
            // What C would take for the end of the path can be no part of it.
            path.filter(|path| !path.contains(&0)).map(|path| Self::Scan(mode, PathBuf::from(OsStr::from_bytes(path))))
        };
        let command = match name {
            b"SCAN" => return scan(Mode::Scan),
            b"CONTSCAN" => return scan(Mode::Continue),
            b"MULTISCAN" => return scan(Mode::Multi),
            b"ALLMATCHSCAN" if style != Style::Old => return scan(Mode::AllMatch),
            _ if path.is_some() => return None,
            b"PING" => Self::Ping,
            b"VERSION" => Self::Version,
            b"RELOAD" => Self::Reload,
            b"SHUTDOWN" | b"QUIT" => Self::Shutdown,
            b"FILDES" => Self::Fildes,
            b"DETSTATS" | b"DETSTATSCLEAR" => Self::Nothing,
            // The younger ones have no old style.
            _ if style == Style::Old => return None,
            b"VERSIONCOMMANDS" => Self::VersionCommands,
            b"STATS" => Self::Stats,
            b"INSTREAM" => Self::Instream,
            b"IDSESSION" => Self::Idsession,
            b"END" => Self::End,
            _ => return None,
        };
        Some(command)
    }

    /// Whether it can be sent between IDSESSION and END.
    #[must_use]
    pub fn is_for_sessions(&self) -> bool {
        match self {
            Self::Ping | Self::Version | Self::VersionCommands | Self::Stats | Self::Instream | Self::Fildes | Self::End => {
                true
            }
            Self::Scan(mode, _) => *mode == Mode::Scan,
            Self::Reload | Self::Shutdown | Self::Idsession | Self::Nothing => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        use Command::*;
        use Style::*;
        let scan = |mode, path: &str| Some(Scan(mode, path.into()));
        for (text, style, expected) in [
            ("PING", Old, Some(Ping)),
            ("PING ", Newline, None),
            ("PINGx", Newline, None),
            ("ping", Newline, None),
            ("", Null, None),
            (" ", Null, None),
            ("QUIT", Newline, Some(Shutdown)),
            ("STATS", Newline, Some(Stats)),
            ("STATS", Old, None),
            ("INSTREAM", Old, None),
            ("INSTREAM x", Null, None),
            ("IDSESSION", Old, None),
            ("END", Old, None),
            ("VERSIONCOMMANDS", Old, None),
            ("VERSION", Old, Some(Version)),
            ("FILDES", Old, Some(Fildes)),
            ("SCAN /a b ", Old, scan(Mode::Scan, "/a b ")),
            ("SCAN", Newline, None),
            ("SCAN ", Newline, scan(Mode::Scan, "")),
            ("SCANx", Newline, None),
            ("SCAN /a\0b", Newline, None),
            ("CONTSCAN /", Null, scan(Mode::Continue, "/")),
            ("MULTISCAN /", Null, scan(Mode::Multi, "/")),
            ("ALLMATCHSCAN /", Null, scan(Mode::AllMatch, "/")),
            ("ALLMATCHSCAN /", Old, None),
        ] {
            assert_eq!(Command::parse(text.as_bytes(), style), expected, "{text:?} {style:?}");
        }
        // STREAM went with clamd 0.9x; all others are understood.
        for name in COMMANDS.split(' ') {
            let text = if name.ends_with("SCAN") { format!("{name} /") } else { name.to_owned() };
            assert!(Command::parse(text.as_bytes(), Newline).is_some(), "{name}");
        }
    }
}
