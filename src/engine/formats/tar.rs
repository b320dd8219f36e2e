//! tar: the members' sizes, and where libclamav would lose its way among them.
//!
//! libclamav's reader (`untar.c: cli_untar`) knows only sizes of up to 2 GiB in octal digits, no sizes in pax headers and no
//! sparse files. It ends at a header whose name is empty, skips a header after an extension of no content, and never says so.
//! Here the archive is walked as tar programs do, and everything that the two would read differently is a finding. So is a
//! block that is no header where one must be. The format: <https://www.gnu.org/software/tar/manual/html_node/Standard.html>.

use super::Findings;
use super::deadline::Deadline;

const BLOCK: usize = 512;

/// How many members are listed.
const MOST_MEMBERS: usize = 100_000;

/// Looks at a layer of type `CL_TYPE_POSIX_TAR` or `CL_TYPE_OLD_TAR`.
pub(super) fn inspect(bytes: &[u8], deadline: &Deadline, found: &mut Findings) {
    // libclamav also takes this for a tar, since some scanners took tars for something else (filetypes_int.h: TAR-POSIX-CVE-2012-1419).
    // Python's setup.cfg begins like that.
    let is_tar = |block| field(block, 257, 5) == b"ustar" || is_header(block);
    if bytes.starts_with(b"[aliases]") && !bytes.get(..BLOCK).is_some_and(is_tar) {
        return;
    }
    if let Err(what) = walk(bytes, deadline, found) {
        found.unsupported.push(what.to_owned());
    }
}

/// Looks at a layer of any other type. A tar begins with a member's name, and libclamav tries some formats before tar: it takes
/// an archive whose first member is called `GIFs` for a picture (`filetypes_int.h`: the later entries go first).
pub(super) fn inspect_other(bytes: &[u8], found: &mut Findings) {
    if bytes.get(..BLOCK).is_some_and(|block| field(block, 257, 5) == b"ustar" && is_header(block)) {
        found.unsupported.push("tar that looks like another format".to_owned());
    }
}

fn walk(bytes: &[u8], deadline: &Deadline, found: &mut Findings) -> Result<(), &'static str> {
    let mut rest = bytes;
    let mut is_posix = None;
    let mut announced_size = None;
    while let Some((block, after)) = rest.split_first_chunk::<BLOCK>() {
        deadline.spend(BLOCK)?;
        if is_zero(block) {
            for block in after.chunks_exact(BLOCK) {
                deadline.spend(BLOCK)?;
                if is_header(block) {
                    return Err("tar after the end of a tar");
                }
            }
            return Ok(());
        }
        if !is_header(block) {
            return Err("damaged tar");
        }
        if block.starts_with(&[0]) {
            return Err("tar member without a name");
        }
        // An archive that begins with a POSIX header may hold no other (untar.c: cli_untar).
        let has_magic = field(block, 257, 5) == b"ustar";
        if *is_posix.get_or_insert(has_magic) && !has_magic {
            return Err("tar with headers of several formats");
        }
        rest = after;
        let kind = field(block, 156, 1).first().copied().unwrap_or_default();
        if matches!(kind, b'1'..=b'6' | b'V') {
            // Links, directories, devices and a volume's name have no content. If this one has, the next block is no header.
            announced_size = None;
            continue;
        }
        let size = octal(field(block, 124, 12)).ok_or("tar member whose size is not in octal digits")?;
        let padded = size.checked_next_multiple_of(BLOCK as u64).filter(|&padded| padded <= i32::MAX as u64);
        let padded = padded.and_then(|padded| usize::try_from(padded).ok()).ok_or("tar member of more than 2 GiB")?;
        let Some(content) = usize::try_from(size).ok().and_then(|size| after.get(..size)) else { return Err("truncated tar") };
        rest = after.get(padded..).unwrap_or_default();
        match kind {
            b'K' | b'L' | b'g' | b'x' | b'X' | b'A' | b'E' | b'I' | b'N' if size == 0 => {
                return Err("tar with an empty extension header");
            }
            b'K' | b'L' => {}
            b'g' | b'x' | b'X' => {
                deadline.spend(content.len())?;
                announced_size = read_pax_header(content)?.or(announced_size);
            }
            // libclamav skips them; GNU tar and others take them for files.
            b'A' | b'E' | b'I' | b'N' => return Err("tar member of an unusual type"),
            b'M' => return Err("tar (one volume of several)"),
            b'S' => return Err("sparse tar member"),
            _ if announced_size.take().is_some_and(|announced| announced != size) => {
                return Err("tar member whose size is in a pax header");
            }
            _ if found.expected.len() >= MOST_MEMBERS => return Err("tar of too many members"),
            _ => found.expected.extend((size > 5).then_some(size)),
        }
    }
    if is_zero(rest) { Ok(()) } else { Err("truncated tar") }
}

fn field(block: &[u8], start: usize, length: usize) -> &[u8] {
    block.get(start..).and_then(|rest| rest.get(..length)).unwrap_or_default()
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// Whether a block's checksum is right: the sum of its bytes, with spaces in place of the checksum. Some programs of old add
/// them up as signed.
fn is_header(block: &[u8]) -> bool {
    let checksum = field(block, 148, 8);
    let Some(expected) = octal(checksum).and_then(|sum| i64::try_from(sum).ok()) else { return false };
    let sum = |value: fn(&u8) -> i64| -> i64 {
        let all: i64 = block.iter().map(value).sum();
        let own: i64 = checksum.iter().map(value).sum();
        all - own + 8 * i64::from(b' ')
    };
    expected == sum(|&byte| i64::from(byte)) || expected == sum(|&byte| i64::from(byte.cast_signed()))
}

/// A number that every reader understands in the same way: spaces, octal digits, and a space or NUL unless the field is full.
fn octal(field: &[u8]) -> Option<u64> {
    let field = field.trim_ascii_start();
    let length = field.iter().position(|byte| !(b'0'..=b'7').contains(byte)).unwrap_or(field.len());
    let (digits, rest) = field.split_at_checked(length)?;
    if digits.is_empty() || !matches!(rest, [] | [0 | b' ', ..]) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

/// The size that a pax header announces for the next member, if any. Its records are `LENGTH KEY=VALUE\n`.
fn read_pax_header(content: &[u8]) -> Result<Option<u64>, &'static str> {
    const DAMAGED: &str = "damaged tar";
    let mut announced = None;
    let mut rest = content;
    while !is_zero(rest.get(..1).unwrap_or_default()) {
        let space = rest.iter().take(20).position(|&byte| byte == b' ').ok_or(DAMAGED)?;
        let (length, _) = rest.split_at_checked(space).ok_or(DAMAGED)?;
        let length = std::str::from_utf8(length).ok().and_then(|digits| digits.parse().ok()).ok_or(DAMAGED)?;
        let (record, after) = rest.split_at_checked(length).ok_or(DAMAGED)?;
        let record = record.get(space..).and_then(|record| record.strip_prefix(b" ")).ok_or(DAMAGED)?;
        let record = record.strip_suffix(b"\n").ok_or(DAMAGED)?;
        rest = after;
        if record.starts_with(b"GNU.sparse.") {
            return Err("sparse tar member");
        }
        if let Some(size) = record.strip_prefix(b"size=") {
            announced = Some(std::str::from_utf8(size).ok().and_then(|digits| digits.parse().ok()).ok_or(DAMAGED)?);
        }
    }
    Ok(announced)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header with its checksum, and content that fills its last block.
    fn member(kind: u8, size: &[u8], content: &[u8]) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        block[..4].copy_from_slice(b"name");
        block[124..124 + size.len()].copy_from_slice(size);
        block[156] = kind;
        block[257..265].copy_from_slice(b"ustar\x0000");
        with_checksum(&mut block);
        block.extend(content);
        block.resize(block.len().next_multiple_of(BLOCK), 0);
        block
    }

    fn with_checksum(block: &mut [u8]) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }

    fn pax(records: &str) -> Vec<u8> {
        member(b'x', format!("{:o}", records.len()).as_bytes(), records.as_bytes())
    }

    #[test]
    fn a_setup_cfg_was_a_truncated_tar() {
        let mut found = Findings::default();
        inspect(b"[aliases]\ntest = pytest\n", &Deadline::far(), &mut found);
        assert_eq!(found, Findings::default());
    }

    #[test]
    fn a_tar_is_found_in_disguise() {
        let mut picture = member(b'0', b"14", b"hello, world");
        picture[..4].copy_from_slice(b"GIFs");
        with_checksum(&mut picture[..BLOCK]);
        let mut found = Findings::default();
        inspect_other(&picture, &mut found);
        assert_eq!(found.unsupported, ["tar that looks like another format"]);
        picture[0] = b'g';
        let mut found = Findings::default();
        inspect_other(&picture, &mut found);
        assert_eq!(found, Findings::default());
    }

    #[test]
    fn whatever_libclamav_reads_differently_shows() {
        let hello = member(b'0', b"00000000014", b"hello, world");
        let end = [0; 2 * BLOCK];
        let mut nameless = hello.clone();
        nameless[..4].fill(0);
        with_checksum(&mut nameless[..BLOCK]);
        let mut old = hello.clone();
        old[257..265].fill(0);
        with_checksum(&mut old[..BLOCK]);
        let link = member(b'1', b"14", b"");
        for (parts, expected, unsupported) in [
            (&[&hello[..], &hello, &end][..], &[12, 12][..], ""),
            (&[&hello], &[12], ""),
            (&[&old, &hello, &end], &[12, 12], ""),
            (&[&link, &member(b'5', b"", b""), &hello], &[12], ""),
            (&[&member(b'L', b"5", b"long\0"), &hello], &[12], ""),
            (&[&pax("14 path=a b=c\n"), &hello], &[12], ""),
            (&[&pax("11 size=12\n"), &hello], &[12], ""),
            (&[&pax("11 size=13\n"), &hello], &[], "tar member whose size is in a pax header"),
            (&[&pax("22 GNU.sparse.major=1\n"), &hello], &[], "sparse tar member"),
            (&[&pax("99 size=12\n"), &hello], &[], "damaged tar"),
            (&[&hello, &nameless], &[12], "tar member without a name"),
            (&[&hello, &old], &[12], "tar with headers of several formats"),
            (&[&hello, &end, &hello], &[12], "tar after the end of a tar"),
            (&[&hello, &link, &hello[BLOCK..]], &[12], "damaged tar"),
            (&[&hello[..BLOCK + 12]], &[12], ""),
            (&[&hello[..BLOCK + 11]], &[], "truncated tar"),
            (&[&hello, &hello[..100]], &[12], "truncated tar"),
            (
                &[&member(b'0', b"\x80\0\0\0\0\0\0\0\0\0\0\x0c", b"hello, world")],
                &[],
                "tar member whose size is not in octal digits",
            ),
            (&[&member(b'0', b"40000000014", b"hello, world")], &[], "tar member of more than 2 GiB"),
            (&[&member(b'x', b"0", b""), &hello], &[], "tar with an empty extension header"),
            (&[&member(b'A', b"14", b"hello, world")], &[], "tar member of an unusual type"),
            (&[&member(b'S', b"14", b"hello, world")], &[], "sparse tar member"),
            (&[&member(b'M', b"14", b"hello, world")], &[], "tar (one volume of several)"),
        ] {
            let mut found = Findings::default();
            inspect(&parts.concat(), &Deadline::far(), &mut found);
            assert_eq!((&found.expected[..], found.unsupported.concat()), (expected, unsupported.to_owned()));
        }
    }
}
