//! 7z: whether the header that lists the members is there, whole, and packed in a way that libclamav unpacks.
//!
//! libclamav calls an archive clean when it cannot open it (`7z_iface.c: cli_7unz`). What is wrong with single members shows
//! elsewhere: they are announced. The format: `7zFormat.txt` of the LZMA SDK.

use flate2::Crc;
use memchr::memmem;

use super::Findings;
use super::deadline::Deadline;

const SIGNATURE: &[u8] = b"7z\xbc\xaf\x27\x1c";
const START_HEADER: usize = 32;

/// How a header is packed when it is packed alone: not at all, with LZMA, with LZMA2.
const METHODS: &[&[u8]] = &[&[0], &[3, 1, 1], &[0x21]];

/// 7-Zip's encryption, AES-256 with SHA-256.
const ENCRYPTION: &[u8] = &[0x06, 0xf1, 0x07, 0x01];

/// Looks at a layer of type `CL_TYPE_7Z`, or at a program that unpacks itself.
pub(super) fn inspect(bytes: &[u8], deadline: &Deadline, found: &mut Findings) {
    // No two archives share a header, so all headers together are not longer than the file.
    let mut unread = bytes.len();
    for start in memmem::find_iter(bytes, SIGNATURE) {
        if deadline.spend(START_HEADER).is_err() {
            return;
        }
        let archive = bytes.get(start..).unwrap_or_default();
        let verdict = match next_header(archive) {
            // Without a start header that its checksum confirms, this is a mention of the signature, except at the very start.
            Next::None if start > 0 => continue,
            Next::None => Some("damaged 7z"),
            Next::Beyond => Some("truncated 7z, or one volume of several"),
            Next::Header { bytes: header, crc } => match unread.checked_sub(header.len()) {
                None => Some("7z archives that overlap"),
                Some(rest) => {
                    unread = rest;
                    if deadline.spend(header.len()).is_err() {
                        return;
                    }
                    if crc32(header) != crc {
                        Some("damaged 7z")
                    } else if is_encrypted(header) {
                        found.encrypted.push("7z with encrypted headers".to_owned());
                        None
                    } else {
                        (!is_readable(header)).then_some("7z with an unusual header")
                    }
                }
            },
        };
        if let Some(what) = verdict {
            // One finding decides; a hostile file could cause any number.
            return found.unsupported.push(what.to_owned());
        }
    }
}

/// Where the start header says the header is.
enum Next<'archive> {
    /// There is no valid start header.
    None,
    /// Behind the end of what we have.
    Beyond,
    /// Here, with the checksum it should have.
    Header { bytes: &'archive [u8], crc: u32 },
}

fn next_header(archive: &[u8]) -> Next<'_> {
    let Some((start_header, rest)) = archive.split_at_checked(START_HEADER) else { return Next::None };
    let Some((crc, fields)) = start_header.get(8..).and_then(|bytes| bytes.split_first_chunk::<4>()) else { return Next::None };
    if crc32(fields) != u32::from_le_bytes(*crc) {
        return Next::None;
    }
    let number = |at: usize| fields.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let (Some(offset), Some(size)) = (number(0), number(8)) else { return Next::None };
    let Some(crc) = fields.last_chunk().map(|bytes| u32::from_le_bytes(*bytes)) else { return Next::None };
    let header = usize::try_from(offset)
        .ok()
        .and_then(|offset| rest.get(offset..))
        .and_then(|rest| rest.get(..usize::try_from(size).ok()?));
    header.map_or(Next::Beyond, |bytes| Next::Header { bytes, crc })
}

/// Whether the header is packed with a method that encrypts. Its description is short; the packed header itself is elsewhere.
fn is_encrypted(header: &[u8]) -> bool {
    header.first() == Some(&0x17) && memmem::find(header, ENCRYPTION).is_some()
}

/// Whether libclamav can read the header: it is empty, plain, or packed with one common method.
fn is_readable(header: &[u8]) -> bool {
    match header.first() {
        None | Some(0x01) => true,
        Some(0x17) => packing_method(header).is_some_and(|method| METHODS.contains(&method)),
        Some(_) => false,
    }
}

/// The one method that a header is packed with: the `EncodedHeader` structure up to the first coder.
fn packing_method(header: &[u8]) -> Option<&[u8]> {
    let mut rest = header.strip_prefix(&[0x17, 0x06])?;
    let _position = read_number(&mut rest)?;
    let streams = read_number(&mut rest)?;
    if streams != 1 {
        return None;
    }
    rest = rest.strip_prefix(&[0x09])?;
    let _packed_size = read_number(&mut rest)?;
    if let [0x0a, 1, _, _, _, _, after @ ..] = rest {
        rest = after;
    }
    // The end of the packed streams; then the folders: one, described here, of one coder.
    rest = rest.strip_prefix(&[0x00, 0x07, 0x0b, 1, 0, 1])?;
    let (&coder, rest) = rest.split_first()?;
    // The high bits stand for several streams and for alternatives.
    if coder & 0xd0 != 0 {
        return None;
    }
    rest.get(..usize::from(coder & 0x0f))
}

/// Takes a number off the front: the leading one bits of the first byte tell how many bytes follow, the lowest first.
fn read_number(bytes: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = bytes.split_first()?;
    let extra = first.leading_ones();
    let (low, rest) = rest.split_at_checked(extra as usize)?;
    *bytes = rest;
    let high = if extra >= 7 { 0 } else { u64::from(first & (0x7f >> extra)) << (8 * extra) };
    Some(low.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)) | high)
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(packed: &[u8], header: &[u8]) -> Vec<u8> {
        let mut fields = (packed.len() as u64).to_le_bytes().to_vec();
        fields.extend((header.len() as u64).to_le_bytes());
        fields.extend(crc32(header).to_le_bytes());
        [SIGNATURE, &[0, 4], &crc32(&fields).to_le_bytes(), &fields, packed, header].concat()
    }

    #[test]
    fn the_header_must_be_there_and_readable() {
        let lzma = [0x17, 6, 0x10, 1, 9, 0x80, 0x90, 0x0a, 1, 1, 2, 3, 4, 0, 7, 0x0b, 1, 0, 1, 0x23, 3, 1, 1, 5];
        let bzip2 = [0x17, 6, 0, 1, 9, 0x10, 0, 7, 0x0b, 1, 0, 1, 0x03, 4, 2, 2, 0];
        let aes = [0x17, 6, 0, 1, 9, 0x10, 0, 7, 0x0b, 1, 0, 2, 0x24, 6, 0xf1, 7, 1, 0];
        let plain = archive(b"packed", b"\x01header");
        let last = plain.len() - 1;
        let mut wrong = plain.clone();
        wrong[last] ^= 1;
        let mut wrong_start = plain.clone();
        wrong_start[12] ^= 1;
        for (bytes, encrypted, unsupported) in [
            (plain.clone(), "", ""),
            (archive(b"", b""), "", ""),
            (archive(b"packed", &lzma), "", ""),
            (archive(b"packed", &bzip2), "", "7z with an unusual header"),
            (archive(b"packed", &aes), "7z with encrypted headers", ""),
            (plain[..last].to_vec(), "", "truncated 7z, or one volume of several"),
            (wrong, "", "damaged 7z"),
            (wrong_start.clone(), "", "damaged 7z"),
            ([b"MZ", &wrong_start[..]].concat(), "", ""),
            ([b"MZ", &plain[..last]].concat(), "", "truncated 7z, or one volume of several"),
            (SIGNATURE.to_vec(), "", "damaged 7z"),
        ] {
            let mut found = Findings::default();
            inspect(&bytes, &Deadline::far(), &mut found);
            assert_eq!((found.encrypted.concat(), found.unsupported.concat()), (encrypted.to_owned(), unsupported.to_owned()));
        }
    }
}
