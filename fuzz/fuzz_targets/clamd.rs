//! `Frames::next` and `Command::parse` on arbitrary bytes in arbitrary pieces, as a connection would feed them.

#![no_main]

use std::os::unix::ffi::OsStrExt;

use clamgate::clamd::{Command, Frame, Frames, LONGEST_COMMAND, Style};
use libfuzzer_sys::fuzz_target;

/// What was said, independent of how it was cut: neighbouring pieces of data are one.
#[derive(Debug, PartialEq)]
enum Said {
    Command(Vec<u8>, Style),
    Chunk(u32),
    Data(Vec<u8>),
    EndOfStream,
    Carrier,
    TooLong,
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&size, bytes)) = bytes.split_first() else { return };
    let whole = frames([bytes].into_iter());
    let cut = frames(bytes.chunks(usize::from(size).max(1)));
    // A command of the old style is whatever arrived at once: from there on, the cut counts.
    let is_old = |said: &Said| matches!(said, Said::Command(_, Style::Old));
    let same = whole.iter().chain(&cut).all(|said| !is_old(said));
    if same {
        assert_eq!(whole, cut);
    }
    for said in &whole {
        let Said::Command(text, style) = said else { continue };
        assert!(text.len() < LONGEST_COMMAND);
        if let Some(Command::Scan(_, path)) = Command::parse(text, *style) {
            let path = path.as_os_str().as_bytes();
            assert!(!path.contains(&0) && text.ends_with(path), "another path than was named: {path:?}");
        }
    }
});

/// All that is said in these pieces.
fn frames<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Said> {
    let (mut parser, mut kept, mut said) = (Frames::default(), Vec::new(), Vec::new());
    let mut missing = 0;
    for piece in pieces {
        kept.extend_from_slice(piece);
        let mut input = kept.as_slice();
        loop {
            let before = input.len();
            let frame = match parser.next(&mut input) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(_) => {
                    said.push(Said::TooLong);
                    return said;
                }
            };
            assert!(input.len() < before, "nothing was taken: {frame:?}");
            match frame {
                Frame::Command { text, style } => {
                    said.push(Said::Command(text.to_vec(), style));
                    match Command::parse(text, style) {
                        Some(Command::Instream) => parser.begin_stream(),
                        Some(Command::Fildes) => parser.expect_carrier(),
                        _ => {}
                    }
                }
                Frame::Chunk(length) => {
                    assert!(missing == 0 && length > 0);
                    missing = length;
                    said.push(Said::Chunk(length));
                }
                Frame::Data(data) => {
                    assert!(!data.is_empty());
                    missing = missing.checked_sub(u32::try_from(data.len()).unwrap()).expect("more data than claimed");
                    match said.last_mut() {
                        Some(Said::Data(all)) => all.extend_from_slice(data),
                        _ => said.push(Said::Data(data.to_vec())),
                    }
                }
                Frame::EndOfStream => {
                    assert_eq!(missing, 0);
                    said.push(Said::EndOfStream);
                }
                Frame::Carrier => said.push(Said::Carrier),
            }
        }
        assert!(input.len() < LONGEST_COMMAND, "{} bytes wait", input.len());
        kept = input.to_vec();
    }
    said
}
