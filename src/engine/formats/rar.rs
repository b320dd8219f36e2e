//! RAR: where an archive is, at whatever offset.
//!
//! RAR programs search for an archive behind a program, a picture or anything else. libclamav does so only in some types of
//! file, only for one of the markers (`filetypes_int.h: RAR-SFX`), and without its unrar module skips the archive silently. A
//! marker alone is no archive, programs and texts mention it: a plausible header must follow. The checksums are not asked for,
//! since a wrong one only makes the RAR programs complain. The formats: <https://www.rarlab.com/technote.htm>, and the source
//! of unrar (`arcread.cpp`) for those before RAR 5.

use memchr::memmem;

use super::Findings;
use super::deadline::Deadline;

const MARKER: &[u8] = b"Rar!\x1a\x07";
const OLD_MARKER: &[u8] = b"RE~^";

/// Looks at a layer of any type for an archive. For a libclamav without the unrar module.
pub(super) fn inspect(bytes: &[u8], deadline: &Deadline, found: &mut Findings) {
    let after = |at: usize| bytes.get(at..).unwrap_or_default();
    let in_time = |_: &usize| deadline.spend(MARKER.len()).is_ok();
    let archive = memmem::find_iter(bytes, MARKER)
        .take_while(in_time)
        .find_map(|at| match after(at.saturating_add(MARKER.len())) {
            [0, header @ ..] => rar_4(header),
            [1, 0, header @ ..] => rar_5(header),
            _ => None,
        })
        .or_else(|| memmem::find_iter(bytes, OLD_MARKER).take_while(in_time).find_map(|at| rar_1(after(at), at == 0)))
        .or_else(|| bytes.starts_with(MARKER).then(Archive::default));
    let Some(archive) = archive else { return };
    if archive.has_encrypted_headers {
        found.encrypted.push("RAR".to_owned());
    }
    let what = if archive.is_one_of_several { "RAR (one volume of several)" } else { "RAR" };
    found.unsupported.push(what.to_owned());
}

/// What the first header of an archive says.
#[derive(Default)]
struct Archive {
    is_one_of_several: bool,
    has_encrypted_headers: bool,
}

/// RAR 5: an encryption header, or a main header with another header behind it.
fn rar_5(bytes: &[u8]) -> Option<Archive> {
    let (mut header, next) = header_5(bytes)?;
    let kind = read_number(&mut header)?;
    let flags = read_number(&mut header)?;
    let has_extra = flags & 1 != 0;
    match kind {
        1 => {
            if has_extra {
                read_number(&mut header)?;
            }
            let archive_flags = read_number(&mut header)?;
            let (mut second, _) = header_5(next)?;
            let is_plausible = (2..=5).contains(&read_number(&mut second)?);
            is_plausible.then_some(Archive { is_one_of_several: archive_flags & 1 != 0, has_encrypted_headers: false })
        }
        4 => {
            let version = read_number(&mut header)?;
            let encryption_flags = read_number(&mut header)?;
            let is_plausible = version == 0 && encryption_flags <= 1 && *header.first()? <= 24;
            is_plausible.then_some(Archive { is_one_of_several: false, has_encrypted_headers: true })
        }
        _ => None,
    }
}

/// A header after its checksum and size, and what follows it.
fn header_5(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut rest = bytes.get(4..)?;
    let size = read_number(&mut rest)?;
    rest.split_at_checked(usize::try_from(size).ok()?)
}

/// RAR 1.5 to 4: a main header of the ordinary size, or with another header behind it.
fn rar_4(bytes: &[u8]) -> Option<Archive> {
    let &[_, _, 0x73, flags_low, flags_high, size_low, size_high, ..] = bytes else { return None };
    let flags = u16::from_le_bytes([flags_low, flags_high]);
    let size = u16::from_le_bytes([size_low, size_high]);
    let next_kind = bytes.get(usize::from(size)..).and_then(|next| next.get(2));
    let is_plausible = size == 13 || size > 13 && next_kind.is_some_and(|kind| (0x72..=0x7b).contains(kind));
    is_plausible.then_some(Archive { is_one_of_several: flags & 0x0001 != 0, has_encrypted_headers: flags & 0x0080 != 0 })
}

/// RAR before 1.5: a header of 7 bytes or more that begins with the marker, and a file's header behind it. The latter is not
/// asked for where nothing stands before the marker.
fn rar_1(bytes: &[u8], is_at_start: bool) -> Option<Archive> {
    let &[_, _, _, _, size_low, size_high, flags, ..] = bytes else { return None };
    let size = u16::from_le_bytes([size_low, size_high]);
    let has_file = || {
        let file = bytes.get(usize::from(size)..).unwrap_or_default();
        let &[_, _, _, _, _, _, _, _, _, _, file_size_low, file_size_high, _, _, _, _, _, _, _, name_size, method, ..] = file
        else {
            return false;
        };
        name_size > 0 && u16::from_le_bytes([file_size_low, file_size_high]) == 21 + u16::from(name_size) && method <= 5
    };
    let is_plausible = size >= 7 && (is_at_start && size_high == 0 || has_file());
    is_plausible.then_some(Archive { is_one_of_several: flags & 0x01 != 0, has_encrypted_headers: false })
}

/// Takes a number off the front: seven bits a byte, the lowest first.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_a_marker_and_a_header() {
        let marker_5 = [MARKER, &[1, 0]].concat();
        let marker_4 = [MARKER, &[0]].concat();
        let main_5 = [&marker_5[..], b"CRC4\x03\x01\0\0CRC4\x02\x05\0"].concat();
        let volume_5 = [&marker_5[..], b"CRC4\x05\x01\x01\x01\x01xCRC4\x02\x02\0"].concat();
        let encrypted_5 = [&marker_5[..], b"CRC4\x15\x04\0\0\x01\x0fsaltsaltsaltsalt"].concat();
        let main_4 = [&marker_4[..], b"CR\x73\x01\0\x0d\0"].concat();
        let encrypted_4 = [&marker_4[..], b"CR\x73\x80\0\x0d\0"].concat();
        let commented_4 = [&marker_4[..], b"CR\x73\0\0\x10\0---------CR\x74"].concat();
        let old = b"RE~^\x07\0\0sizesizeCR\x16\0timeAF\x02\x01\x03n";
        for (bytes, encrypted, unsupported) in [
            (main_5.clone(), "", "RAR"),
            ([&[0xff; 5000], &main_5[..]].concat(), "", "RAR"),
            ([&marker_5[..], &main_5].concat(), "", "RAR"),
            (volume_5, "", "RAR (one volume of several)"),
            (encrypted_5, "RAR", "RAR"),
            (main_4, "", "RAR (one volume of several)"),
            (encrypted_4, "RAR", "RAR"),
            (commented_4, "", "RAR"),
            (old.to_vec(), "", "RAR"),
            ([b"MZ", &old[..]].concat(), "", "RAR"),
            (old[..7].to_vec(), "", "RAR"),
            (marker_5.clone(), "", "RAR"),
            ([b"The marker is ", &marker_5[..], b", and nothing else."].concat(), "", ""),
            ([b"The marker was ", &marker_4[..], b", and nothing else."].concat(), "", ""),
            (b"Before, it was RE~^, and nothing else, I am told.".to_vec(), "", ""),
            (b"RE~^ at the start is a text, too.".to_vec(), "", ""),
            (b"RE~^".to_vec(), "", ""),
        ] {
            let mut found = Findings::default();
            inspect(&bytes, &Deadline::far(), &mut found);
            assert_eq!((found.encrypted.concat(), found.unsupported.concat()), (encrypted.to_owned(), unsupported.to_owned()));
        }
    }
}
