//! What arrives on a connection, cut into commands and pieces of streams. It keeps no bytes and allocates nothing: what it
//! cannot use yet stays with the caller, and that is never more than [`LONGEST_COMMAND`] bytes.

/// The longest command in bytes, with its prefix and terminator: clamd's buffer, which holds a path of `PATH_MAX`
/// (`others.c: buf_init`).
pub const LONGEST_COMMAND: usize = 4096 + 8;

/// How a command was sent, and hence how its reply ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Without a prefix: as much as arrived at once.
    Old,
    /// `nCOMMAND\n`
    Newline,
    /// `zCOMMAND\0`
    Null,
}

impl Style {
    /// What ends a reply.
    #[must_use]
    pub fn terminator(self) -> u8 {
        match self {
            Self::Old | Self::Newline => b'\n',
            Self::Null => 0,
        }
    }
}

/// One thing that a client said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A command without its prefix and terminator.
    Command {
        /// Its text.
        text: &'a [u8],
        /// How it was sent.
        style: Style,
    },
    /// So many bytes of a stream come next, or so the client claims.
    Chunk(u32),
    /// A piece of a stream, not empty.
    Data(&'a [u8]),
    /// The end of a stream.
    EndOfStream,
    /// The byte that a descriptor came with.
    Carrier,
}

/// A command is longer than [`LONGEST_COMMAND`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the command is longer than {LONGEST_COMMAND} bytes")]
pub struct TooLong;

/// Where in the protocol a connection is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Command,
    /// A chunk's length comes next.
    ChunkLength,
    /// So much of a chunk is missing. Up to 4 GiB can be claimed; nothing is ever reserved by this number.
    Chunk(u32),
    Carrier,
}

/// The parser of one connection.
#[derive(Debug, Default)]
pub struct Frames(Mode);

impl Frames {
    /// After INSTREAM: chunks come next.
    pub fn begin_stream(&mut self) {
        self.0 = Mode::ChunkLength;
    }

    /// After FILDES: the byte that carries the descriptor comes next.
    pub fn expect_carrier(&mut self) {
        self.0 = Mode::Carrier;
    }

    /// Takes the next frame off the front of `input`; `None` when more has to arrive first.
    ///
    /// # Errors
    ///
    /// [`TooLong`]; the connection cannot be read any further.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Frame<'a>>, TooLong> {
        match self.0 {
            Mode::Command => command(input),
            Mode::ChunkLength => {
                let Some((length, rest)) = input.split_first_chunk::<4>() else { return Ok(None) };
                *input = rest;
                match u32::from_be_bytes(*length) {
                    0 => {
                        self.0 = Mode::Command;
                        Ok(Some(Frame::EndOfStream))
                    }
                    length => {
                        self.0 = Mode::Chunk(length);
                        Ok(Some(Frame::Chunk(length)))
                    }
                }
            }
            Mode::Chunk(missing) => {
                let (data, rest) = input.split_at(input.len().min(usize::try_from(missing).unwrap_or(usize::MAX)));
                if data.is_empty() {
                    return Ok(None);
                }
                *input = rest;
                let missing = missing - u32::try_from(data.len()).unwrap_or(missing);
                self.0 = if missing == 0 { Mode::ChunkLength } else { Mode::Chunk(missing) };
                Ok(Some(Frame::Data(data)))
            }
            Mode::Carrier => Ok(input.split_off_first().map(|_| {
                self.0 = Mode::Command;
                Frame::Carrier
            })),
        }
    }
}

fn command<'a>(input: &mut &'a [u8]) -> Result<Option<Frame<'a>>, TooLong> {
    let style = match input.first() {
        None => return Ok(None),
        Some(b'n') => Style::Newline,
        Some(b'z') => Style::Null,
        Some(_) => Style::Old,
    };
    let window = &input[..input.len().min(LONGEST_COMMAND)];
    let end = memchr::memchr(style.terminator(), window);
    if end.is_none() && window.len() == LONGEST_COMMAND {
        return Err(TooLong);
    }
    let (text, taken) = match (end, style) {
        (Some(end), _) => (&input[..end], end + 1),
        (None, Style::Old) => (*input, input.len()),
        (None, _) => return Ok(None),
    };
    *input = &input[taken..];
    // As clamd does it (`server-th.c: get_cmd`): a carriage return before the newline is no part of the command.
    let text = match style {
        Style::Old => trim_end(text, &[b'\r', b'\n', 0]),
        Style::Newline => trim_end(&text[1..], b"\r\n"),
        Style::Null => &text[1..],
    };
    Ok(Some(Frame::Command { text, style }))
}

fn trim_end<'a>(text: &'a [u8], unwanted: &[u8]) -> &'a [u8] {
    let end = text.iter().rposition(|byte| !unwanted.contains(byte)).map_or(0, |last| last + 1);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(text: &[u8], style: Style) -> Frame<'_> {
        Frame::Command { text, style }
    }

    /// All frames of `input`, with a stream after each INSTREAM, and what is left.
    fn frames(mut input: &[u8]) -> Result<(Vec<Frame<'_>>, &[u8]), TooLong> {
        let (mut parser, mut found) = (Frames::default(), Vec::new());
        while let Some(frame) = parser.next(&mut input)? {
            found.push(frame);
            match frame {
                Frame::Command { text: b"INSTREAM", .. } => parser.begin_stream(),
                Frame::Command { text: b"FILDES", .. } => parser.expect_carrier(),
                _ => {}
            }
        }
        Ok((found, input))
    }

    #[test]
    fn commands() {
        use Style::*;
        for (input, text, style) in [
            (&b"nPING\n"[..], &b"PING"[..], Newline),
            (b"nPING\r\n", b"PING", Newline),
            (b"zPING\0", b"PING", Null),
            (b"zSCAN /a\nb\0", b"SCAN /a\nb", Null),
            (b"PING", b"PING", Old),
            (b"PING\n", b"PING", Old),
            (b"PING\r\n", b"PING", Old),
            (b"PING\0", b"PING", Old),
            (b"\n", b"", Old),
            (b"n\n", b"", Newline),
            (b"z\0", b"", Null),
        ] {
            assert_eq!(frames(input), Ok((vec![command(text, style)], &b""[..])), "{input:?}");
        }
        for partial in [&b""[..], b"n", b"nPING", b"nPING\0", b"zPING\n"] {
            assert_eq!(frames(partial), Ok((vec![], partial)));
        }
    }

    #[test]
    fn streams_and_what_follows() -> Result<(), TooLong> {
        let input = b"zINSTREAM\0\0\0\0\x03abc\0\0\0\x01d\0\0\0\0zFILDES\0xzPING\0";
        let expected = [
            command(b"INSTREAM", Style::Null),
            Frame::Chunk(3),
            Frame::Data(b"abc"),
            Frame::Chunk(1),
            Frame::Data(b"d"),
            Frame::EndOfStream,
            command(b"FILDES", Style::Null),
            Frame::Carrier,
            command(b"PING", Style::Null),
        ];
        assert_eq!(frames(input)?, (expected.into(), &b""[..]));
        let claimed = [Frame::Chunk(u32::MAX), Frame::Data(b"ab")];
        assert_eq!(frames(b"zINSTREAM\0\xff\xff\xff\xffab")?.0[1..], claimed, "what is there, whatever is claimed");
        assert_eq!(frames(b"zINSTREAM\0\0\0\0")?, (vec![expected[0]], &b"\0\0\0"[..]));
        Ok(())
    }

    #[test]
    fn the_longest_command() {
        for prefix in [b'n', b'z', b'S'] {
            let mut text = vec![b'a'; LONGEST_COMMAND];
            text[0] = prefix;
            assert_eq!(Frames::default().next(&mut &text[..]), Err(TooLong));
            text[LONGEST_COMMAND - 1] = if prefix == b'z' { 0 } else { b'\n' };
            assert!(matches!(Frames::default().next(&mut &text[..]), Ok(Some(_))));
        }
    }
}
