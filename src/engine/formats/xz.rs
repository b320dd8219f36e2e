//! xz: one layer that holds the content of all streams.
//!
//! libclamav stops at the end of a stream that falls together with the end of one of its reads (`xz_iface.c: cli_XzDecode`),
//! and goes on to the next stream otherwise. Each stream ends in an index with the sizes of its blocks, so nothing has to be
//! unpacked: the streams are walked from the last to the first. The format: <https://tukaani.org/xz/xz-file-format.txt>.

use flate2::Crc;

use super::Findings;
use super::deadline::Deadline;

const HEADER: usize = 12;
const FOOTER: usize = 12;

/// Looks at a layer of type `CL_TYPE_XZ`.
pub(super) fn inspect(bytes: &[u8], deadline: &Deadline, found: &mut Findings) {
    match unpacked_size(bytes, deadline) {
        Some(size) => found.expected.extend((size > 5).then_some(size)),
        None => found.unsupported.push("damaged or truncated xz, or data after its end".to_owned()),
    }
}

fn unpacked_size(bytes: &[u8], deadline: &Deadline) -> Option<u64> {
    let mut rest = bytes;
    let mut total = 0u64;
    while !rest.is_empty() {
        deadline.spend(4).ok()?;
        // Zeros in fours may follow a stream (section 2.2).
        match rest.strip_suffix(&[0; 4]) {
            Some(shorter) => rest = shorter,
            None => {
                let (size, before) = last_stream(rest, deadline)?;
                total = total.checked_add(size)?;
                rest = before;
            }
        }
    }
    Some(total)
}

/// The unpacked size of the last stream, and what stands before it.
fn last_stream<'bytes>(bytes: &'bytes [u8], deadline: &Deadline) -> Option<(u64, &'bytes [u8])> {
    let (rest, footer) = bytes.split_at_checked(bytes.len().checked_sub(FOOTER)?)?;
    let (crc, footer) = footer.split_first_chunk::<4>()?;
    let (backward_size, footer_end) = footer.split_first_chunk::<4>()?;
    let (flags, magic) = footer_end.split_first_chunk::<2>()?;
    let checked = [&backward_size[..], flags].concat();
    if magic != b"YZ" || crc32(&checked) != u32::from_le_bytes(*crc) {
        return None;
    }
    let index_size = usize::try_from(u32::from_le_bytes(*backward_size)).ok()?.checked_add(1)?.checked_mul(4)?;
    let (rest, index) = rest.split_at_checked(rest.len().checked_sub(index_size)?)?;
    let (packed, unpacked) = read_index(index, deadline)?;
    let (rest, _blocks) = rest.split_at_checked(rest.len().checked_sub(usize::try_from(packed).ok()?)?)?;
    let (before, header) = rest.split_at_checked(rest.len().checked_sub(HEADER)?)?;
    header.starts_with(b"\xfd7zXZ\0").then_some((unpacked, before))
}

/// The sizes of a stream's blocks together, as they stand in the file and unpacked (section 4).
fn read_index(index: &[u8], deadline: &Deadline) -> Option<(u64, u64)> {
    let (records, crc) = index.split_last_chunk::<4>()?;
    if crc32(records) != u32::from_le_bytes(*crc) {
        return None;
    }
    let mut records = records.strip_prefix(&[0])?;
    let count = read_number(&mut records)?;
    let (mut packed, mut unpacked) = (0u64, 0u64);
    // A record takes two bytes at least, so that a count that lies ends the loop soon.
    for _ in 0..count {
        deadline.spend(2).ok()?;
        // Each block is followed by up to three zeros that its size does not count.
        packed = packed.checked_add(read_number(&mut records)?.checked_next_multiple_of(4)?)?;
        unpacked = unpacked.checked_add(read_number(&mut records)?)?;
    }
    Some((packed, unpacked))
}

/// Takes a number off the front: seven bits a byte, the lowest first (section 1.2).
fn read_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..63).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream of one block, whose 7 bytes are never looked at.
    fn stream(unpacked: u8) -> Vec<u8> {
        let mut bytes = b"\xfd7zXZ\0\0\x01\x69\x22\xde\x36-------\0".to_vec();
        let index = [0, 1, 7, unpacked];
        bytes.extend(index);
        bytes.extend(crc32(&index).to_le_bytes());
        let footer = [1, 0, 0, 0, 0, 1];
        bytes.extend(crc32(&footer).to_le_bytes());
        bytes.extend(footer);
        bytes.extend(b"YZ");
        bytes
    }

    #[test]
    fn the_indexes_tell_the_size() {
        let one = stream(100);
        let damaged = ["damaged or truncated xz, or data after its end"];
        for (bytes, expected, unsupported) in [
            (one.clone(), &[100][..], &[][..]),
            (stream(5), &[], &[]),
            ([&one[..], &[0; 8]].concat(), &[100], &[]),
            ([&one[..], &[0; 4], &stream(7)].concat(), &[107], &[]),
            ([&one[..], &[0; 3]].concat(), &[], &damaged),
            ([&one[..], b"more"].concat(), &[], &damaged),
            (one[..one.len() - 1].to_vec(), &[], &damaged),
            (one[1..].to_vec(), &[], &damaged),
            ([&[0], &one[..]].concat(), &[], &damaged),
        ] {
            let mut found = Findings::default();
            inspect(&bytes, &Deadline::far(), &mut found);
            assert_eq!(
                (&found.expected[..], found.unsupported),
                (expected, unsupported.iter().map(|&text| text.to_owned()).collect())
            );
        }
    }
}
