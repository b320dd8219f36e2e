//! cpio: the members' sizes, and whether the archive comes to its end.
//!
//! libclamav stops silently at anything that is no header (`cpio.c`). The format:
//! <https://man.freebsd.org/cgi/man.cgi?query=cpio&sektion=5>.

use super::Findings;
use super::deadline::Deadline;

/// How many members are listed.
const MOST_MEMBERS: usize = 100_000;

/// Looks at a layer of type `CL_TYPE_CPIO_OLD`, `CL_TYPE_CPIO_ODC`, `CL_TYPE_CPIO_NEWC` or `CL_TYPE_CPIO_CRC`.
pub(super) fn inspect(bytes: &[u8], deadline: &Deadline, found: &mut Findings) {
    if let Err(what) = walk(bytes, deadline, found) {
        found.unsupported.push(what.to_owned());
    }
}

fn walk(bytes: &[u8], deadline: &Deadline, found: &mut Findings) -> Result<(), &'static str> {
    const DAMAGED: &str = "damaged or truncated cpio";
    let mut rest = bytes;
    loop {
        let header = Header::read(rest).ok_or(DAMAGED)?;
        let name_end = header.length.checked_add(header.name_size).ok_or(DAMAGED)?;
        deadline.spend(name_end)?;
        let name = rest.get(header.length..name_end).ok_or(DAMAGED)?;
        let start = name_end.checked_next_multiple_of(header.alignment).ok_or(DAMAGED)?;
        let end = start.checked_add(header.size).ok_or(DAMAGED)?;
        if name == b"TRAILER!!!\0" {
            let behind = rest.get(end..).unwrap_or_default();
            // Further archives follow in the memory image that Linux starts from, mostly compressed.
            return if behind.iter().all(|&byte| byte == 0) { Ok(()) } else { Err("data after the end of a cpio archive") };
        }
        if rest.len() < end || name.is_empty() {
            return Err(DAMAGED);
        }
        if found.expected.len() >= MOST_MEMBERS {
            return Err("cpio of too many members");
        }
        found.expected.extend((header.is_scanned && header.size > 5).then_some(header.size as u64));
        rest = rest.get(end.checked_next_multiple_of(header.alignment).ok_or(DAMAGED)?..).unwrap_or_default();
    }
}

/// What the headers of the different formats have in common.
struct Header {
    length: usize,
    name_size: usize,
    size: usize,
    /// The header and the name together, and the content, are filled up to a multiple of this.
    alignment: usize,
    /// The old binary format's links and directories are passed over.
    is_scanned: bool,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [b'0', b'7', b'0', b'7', b'0', b'1' | b'2', ..] => Some(Self {
                length: 110,
                name_size: number(bytes, 94, 8, 16)?,
                size: number(bytes, 54, 8, 16)?,
                alignment: 4,
                is_scanned: true,
            }),
            [b'0', b'7', b'0', b'7', b'0', b'7', ..] => Some(Self {
                length: 76,
                name_size: number(bytes, 59, 6, 8)?,
                size: number(bytes, 65, 11, 8)?,
                alignment: 1,
                is_scanned: true,
            }),
            [0xc7, 0x71, ..] => Self::read_binary(bytes, u16::from_le_bytes),
            [0x71, 0xc7, ..] => Self::read_binary(bytes, u16::from_be_bytes),
            _ => None,
        }
    }

    /// The old binary format: words of 16 bits, of a long number the high one first.
    fn read_binary(bytes: &[u8], word: fn([u8; 2]) -> u16) -> Option<Self> {
        let word_at = |at: usize| Some(word(*bytes.get(at..)?.first_chunk()?));
        let size = u32::from(word_at(22)?) << 16 | u32::from(word_at(24)?);
        Some(Self {
            length: 26,
            name_size: word_at(20)?.into(),
            size: usize::try_from(size).ok()?,
            alignment: 2,
            is_scanned: word_at(6)? & 0o170_000 == 0o100_000,
        })
    }
}

/// A number in digits that fill their field. libclamav would read fewer, and overflow on more than 32 bits.
fn number(bytes: &[u8], start: usize, length: usize, base: u32) -> Option<usize> {
    let digits = bytes.get(start..)?.get(..length)?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let number = u32::from_str_radix(std::str::from_utf8(digits).ok()?, base).ok()?;
    usize::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newc(name: &str, content: &str) -> Vec<u8> {
        let fields = [0, 0o100_644, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
        let mut bytes = b"070701".to_vec();
        bytes.extend(fields.iter().flat_map(|field| format!("{field:08x}").into_bytes()));
        bytes.extend(name.bytes().chain([0]));
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(content.bytes());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn odc(name: &str, content: &str) -> Vec<u8> {
        let header = format!("070707{:053o}{:06o}{:011o}", 0, name.len() + 1, content.len());
        [header.as_bytes(), name.as_bytes(), &[0], content.as_bytes()].concat()
    }

    fn binary(name: &str, mode: u16, content: &str) -> Vec<u8> {
        let words = [0o070_707, 0, 0, mode, 0, 0, 1, 0, 0, 0, name.len() as u16 + 1, 0, content.len() as u16];
        let mut bytes: Vec<u8> = words.into_iter().flat_map(u16::to_be_bytes).collect();
        bytes.extend(name.bytes().chain([0]));
        bytes.resize(bytes.len().next_multiple_of(2), 0);
        bytes.extend(content.bytes());
        bytes.resize(bytes.len().next_multiple_of(2), 0);
        bytes
    }

    #[test]
    fn members_up_to_the_trailer_are_listed() {
        const END: &str = "TRAILER!!!";
        let one = newc("name", "hello, world!");
        let damaged = "damaged or truncated cpio";
        for (parts, expected, unsupported) in [
            (&[&one[..], &newc("empty", ""), &one, &newc(END, ""), &[0; 512]][..], &[13, 13][..], ""),
            (&[&odc("name", "hello, world!"), &odc("tiny", "12345"), &odc(END, "")], &[13], ""),
            (&[&binary("name", 0o100_644, "hello!!"), &binary("link", 0o120_777, "target"), &binary(END, 0, "")], &[7], ""),
            (&[&one, &newc(END, ""), &one], &[13], "data after the end of a cpio archive"),
            (&[&one], &[13], damaged),
            (&[&one[..one.len() - 8]], &[], damaged),
            (&[&one, b"something else"], &[13], damaged),
            (&[&b"070701"[..], &[b'+'; 104]], &[], damaged),
        ] {
            let mut found = Findings::default();
            inspect(&parts.concat(), &Deadline::far(), &mut found);
            assert_eq!((&found.expected[..], found.unsupported.concat()), (expected, unsupported.to_owned()));
        }
    }
}
