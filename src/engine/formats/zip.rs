//! Zip archives: members that libclamav does not see, or sees differently from the program that will open the archive.
//!
//! libclamav reads one central directory and trusts the local headers that it lists (`unzip.c: cli_unzip`). Other programs
//! find another directory, trust other fields, or read the members one after the other from the start. So an archive passes
//! only if there is one way to read it: its directory is where the end record says, each entry agrees with its local header,
//! and there are no local headers besides.

mod records;

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use memchr::memmem;

use self::records::{
    Checked, Directory, END_RECORD, END_RECORD_SIZE, END_SEARCH, LOCAL_HEADER, LOCAL_HEADER_SIZE, LoneMember, MOST_MEMBERS,
    Member, number,
};
use super::Findings;
use super::deadline::Deadline;

/// Stands before an archive that was made to span disks and then fitted on one (APPNOTE.TXT, 8.5.4).
const SPANNING_MARKER: &[u8] = b"PK00PK\x03\x04";

/// Sizes up to this are not scanned (`scanners.c: scan_common`), so there is no layer to expect.
const NOT_SCANNED: usize = 5;

const STREAMED_AFTER_OTHER_DATA: &str = "data descriptors in an archive after other data";

/// Reports what libclamav does not read of an archive, or of one that follows other data: a picture, a program that unpacks
/// it.
///
/// For layers of every type except those for [`inspect_container`].
pub(super) fn inspect(bytes: &[u8], deadline: &Deadline, found: &mut Findings) {
    let is_archive = bytes.starts_with(LOCAL_HEADER) || bytes.starts_with(SPANNING_MARKER);
    let outcome = if is_archive { check_archive(bytes, deadline) } else { check_appended(bytes, deadline, found) };
    report(outcome, found);
}

/// The same for a layer that keeps files as they are, such as a tar archive. What looks like an archive after it may be its
/// last file, so that is expected to be a layer.
pub(super) fn inspect_container(bytes: &[u8], deadline: &Deadline, found: &mut Findings) {
    // On containers, programs are not tried with every archive inside.
    let Some(end) = end_records(bytes, deadline).next() else { return };
    let outcome = Directory::read(bytes, end, deadline);
    // Few programs look for the end record further away (JSZip), and those take the archive only if it is whole.
    if outcome.is_err() && bytes.len() - end > END_SEARCH {
        return;
    }
    let outcome = outcome.map(|directory| {
        let size = (directory.end - directory.prefix) as u64;
        // A member that the container itself lists.
        if found.expected.contains(&size) {
            return;
        }
        // A part of a member, such as a theme in a document of Office: libclamav unpacks it in place. In pieces, nobody can.
        let is_in_pieces = |member: &Checked<Member>| matches!(member, Err("a local header is missing"));
        let members = directory.entries.iter().map(|&entry| Member::read(bytes, entry, directory.prefix));
        match members.filter(|member| !is_in_pieces(member)).collect::<Checked<Vec<_>>>() {
            Ok(members) if members.iter().all(|member| !member.is_encrypted && !member.is_streamed) => {
                let sizes = members.iter().map(|member| member.unpacked_size as u64);
                found.expected_below.extend(sizes.filter(|&size| size > NOT_SCANNED as u64));
            }
            _ => found.expected_below.push(size),
        }
    });
    report(outcome, found);
}

fn report(outcome: Checked<()>, found: &mut Findings) {
    if let Err(problem) = outcome {
        found.unsupported.push(format!("zip: {problem}"));
    }
}

/// An archive from the first byte on. libclamav unpacks what the central directory lists.
fn check_archive(bytes: &[u8], deadline: &Deadline) -> Checked<()> {
    // libclamav takes the last end record, however far it is from the end of the file.
    let end = memmem::rfind(bytes, END_RECORD).ok_or("no central directory")?;
    let directory = Directory::read(bytes, end, deadline)?;
    if directory.prefix != 0 || (!directory.is_firm && end_records(bytes, deadline).nth(1).is_some()) {
        return Err("several archives in one");
    }
    let members = directory.entries.iter().map(|&entry| Member::read(bytes, entry, 0)).collect::<Checked<Vec<_>>>()?;
    let mut known: Vec<Range<usize>> = members.iter().map(|member| member.header..member.end).collect();
    known.push(directory.start..end + END_RECORD_SIZE);
    known.sort_unstable_by_key(|area| area.start);
    check_gaps(bytes, &known, deadline)?;
    check_streams(bytes, &members, deadline)
}

/// Archives after other data. libclamav unpacks what follows any local header there (`scanners.c: scanraw`), unless the sizes
/// are in a data descriptor (`unzip.c: parse_local_file_header`); of too many headers it drops the rest without a word
/// (`matcher-ac.c: ac_addtype`), and in some types of files it does not look for them. Of several archives some programs open
/// the first and some the last, so each counts that is not inside a member of another.
fn check_appended(bytes: &[u8], deadline: &Deadline, found: &mut Findings) -> Checked<()> {
    let mut known = BTreeMap::new();
    let mut listed = HashSet::new();
    let is_inside = |known: &BTreeMap<usize, usize>, at| known.range(..=at).next_back().is_some_and(|(_, &end)| at < end);
    let mut all_firm = true;
    let mut looked_at = 0;
    for end in end_records(bytes, deadline) {
        deadline.spend(END_RECORD_SIZE)?;
        if is_inside(&known, end) {
            if !all_firm {
                return Err("several archives in one");
            }
            continue;
        }
        let directory = Directory::read(bytes, end, deadline)?;
        all_firm &= directory.is_firm;
        looked_at += directory.entries.len() + 1;
        if looked_at > MOST_MEMBERS {
            return Err("too many members");
        }
        for &entry in &directory.entries {
            let member = Member::read(bytes, entry, directory.prefix)?;
            if member.is_streamed && member.data < member.end {
                return Err(STREAMED_AFTER_OTHER_DATA);
            }
            if member.is_encrypted && found.encrypted.is_empty() {
                found.encrypted.push("zip".to_owned());
            }
            if !member.is_encrypted && member.unpacked_size > NOT_SCANNED {
                found.expected_below.push(member.unpacked_size as u64);
            }
            known.insert(member.data, member.end);
            listed.insert(member.header);
        }
    }
    // Some programs also find members that no directory lists: from one to the next.
    let mut next = None;
    for header in memmem::find_iter(bytes, LOCAL_HEADER) {
        deadline.spend(LOCAL_HEADER_SIZE)?;
        if is_inside(&known, header) {
            continue;
        }
        let Some(member) = LoneMember::read(bytes, header, next == Some(header), deadline) else { continue };
        next = Some(member.end);
        if member.is_streamed {
            return Err(STREAMED_AFTER_OTHER_DATA);
        }
        if looked_at > MOST_MEMBERS {
            return Err("too many members");
        }
        if listed.contains(&header) {
            continue;
        }
        looked_at += 1;
        if member.is_encrypted && found.encrypted.is_empty() {
            found.encrypted.push("zip".to_owned());
        }
        if !member.is_encrypted && member.unpacked_size > NOT_SCANNED {
            found.expected_below.push(member.unpacked_size as u64);
        }
    }
    Ok(())
}

/// What looks like an end record and belongs to a directory, from the last to the first.
fn end_records(bytes: &[u8], deadline: &Deadline) -> impl Iterator<Item = usize> {
    memmem::rfind_iter(bytes, END_RECORD).filter(|&end| Directory::is_near(bytes, end, deadline))
}

/// Looks for local headers outside the listed members: some programs, and all that repair archives, read by these.
fn check_gaps(bytes: &[u8], known: &[Range<usize>], deadline: &Deadline) -> Checked<()> {
    let rest = bytes.len()..bytes.len();
    let mut covered = 0;
    for area in known.iter().chain([&rest]) {
        deadline.spend(LOCAL_HEADER_SIZE)?;
        if bytes.get(covered..area.start).is_some_and(|gap| memmem::find(gap, LOCAL_HEADER).is_some()) {
            return Err("a member that the directory does not list");
        }
        covered = covered.max(area.end);
    }
    Ok(())
}

/// A program that reads an archive as it arrives unpacks a streamed member to find its end, and expects a data descriptor
/// there and then a local header. It must not find them where the directory says that the data go on, or are over.
fn check_streams(bytes: &[u8], members: &[Member], deadline: &Deadline) -> Checked<()> {
    let streamed = || members.iter().filter(|member| member.is_streamed && member.data < member.end);
    if streamed().any(|member| !member.has_descriptor(bytes)) {
        return Err("no data descriptor after a streamed member");
    }
    let streams: HashSet<usize> = streamed().map(|member| member.data).collect();
    if streams.is_empty() {
        return Ok(());
    }
    let listed: HashSet<usize> = members.iter().map(|member| member.header).collect();
    for header in memmem::find_iter(bytes, LOCAL_HEADER) {
        deadline.spend(LOCAL_HEADER_SIZE)?;
        if listed.contains(&header) {
            continue;
        }
        // The descriptor's sizes have 4 or 8 bytes; before them stand a checksum and perhaps a signature of 4 bytes each.
        for (size, descriptor) in [(4, 12), (4, 16), (8, 20), (8, 24)] {
            let packed_size = header.checked_sub(2 * size).and_then(|offset| number(bytes, offset, size));
            let end = header.checked_sub(descriptor);
            let start = end.zip(packed_size).and_then(|(end, packed_size)| end.checked_sub(packed_size));
            if start.is_some_and(|start| streams.contains(&start)) {
                return Err("a local header inside a streamed member");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: (u16, u16) = (0, 0);
    const STREAMED: (u16, u16) = (8, 8);

    /// The fields of a record: values and their sizes in bytes.
    fn record(signature: &[u8], fields: &[(usize, usize)]) -> Vec<u8> {
        let fields = fields.iter().flat_map(|&(value, size)| value.to_le_bytes().into_iter().take(size));
        signature.iter().copied().chain(fields).collect()
    }

    /// A local header with data and perhaps a data descriptor.
    fn member((flags, method): (u16, u16), data: &[u8]) -> Vec<u8> {
        let is_streamed = flags & 8 != 0;
        let size = if is_streamed { 0 } else { data.len() };
        let (flags, method) = (usize::from(flags), usize::from(method));
        let fields = [(20, 2), (flags, 2), (method, 2), (0, 8), (size, 4), (size, 4), (1, 2), (0, 2)];
        let mut bytes = record(LOCAL_HEADER, &fields);
        bytes.push(b'a');
        bytes.extend(data);
        if is_streamed {
            bytes.extend(record(b"PK\x07\x08", &[(0, 4), (data.len(), 4), (data.len(), 4)]));
        }
        bytes
    }

    fn entry((flags, method): (u16, u16), size: usize, offset: usize) -> Vec<u8> {
        let (flags, method) = (usize::from(flags), usize::from(method));
        let fields = [(20, 4), (flags, 2), (method, 2), (0, 8), (size, 4), (size, 4), (1, 2), (0, 8), (0, 4), (offset, 4)];
        let mut bytes = record(b"PK\x01\x02", &fields);
        bytes.push(b'a');
        bytes
    }

    fn end(count: usize, size: usize, offset: usize, comment: &[u8]) -> Vec<u8> {
        let fields = [(0, 4), (count, 2), (count, 2), (size, 4), (offset, 4), (comment.len(), 2)];
        [record(END_RECORD, &fields), comment.to_vec()].concat()
    }

    /// Members, and a directory of what is listed as kind, size and offset.
    fn archive(members: &[Vec<u8>], listed: &[((u16, u16), usize, usize)]) -> Vec<u8> {
        let members = members.concat();
        let directory: Vec<u8> = listed.iter().flat_map(|&(kind, size, offset)| entry(kind, size, offset)).collect();
        let end = end(listed.len(), directory.len(), members.len(), b"");
        [members, directory, end].concat()
    }

    fn inspected(bytes: &[u8]) -> Findings {
        let mut found = Findings::default();
        inspect(bytes, &Deadline::far(), &mut found);
        found
    }

    fn inspected_container(bytes: &[u8]) -> Findings {
        let mut found = Findings::default();
        inspect_container(bytes, &Deadline::far(), &mut found);
        found
    }

    #[test]
    fn archives() {
        let plain = member(PLAIN, b"0123456789");
        let streamed = member(STREAMED, b"0123456789");
        let size = plain.len();
        let good = archive(std::slice::from_ref(&plain), &[(PLAIN, 10, 0)]);
        let inner = member(STREAMED, &[b"01234", &record(b"PK\x07\x08", &[(0, 4), (5, 4), (5, 4)])[..], &plain].concat());
        let inner_size = inner.len() - 31 - 16;
        let fake = [good.clone(), end(1, 47, 0, b"")].concat();
        let longer = [plain.clone(), entry(PLAIN, 10, 0), end(1, 47, size, b"..")].concat();

        let table: Vec<(&str, Vec<u8>, Option<&str>)> = vec![
            ("good", good.clone(), None),
            ("streamed", archive(std::slice::from_ref(&streamed), &[(STREAMED, 10, 0)]), None),
            ("comment", longer.clone(), None),
            ("padding", archive(&[plain.clone(), vec![0; 9], plain.clone()], &[(PLAIN, 10, 0), (PLAIN, 10, size + 9)]), None),
            ("trailing", [&good[..], &[0; 9]].concat(), None),
            ("zip in zip", archive(&[member(PLAIN, &good)], &[(PLAIN, good.len(), 0)]), None),
            ("no directory", plain.clone(), Some("no central directory")),
            ("comment cut off", longer[..longer.len() - 1].to_vec(), Some("truncated")),
            ("not listed", archive(&[plain.clone(), plain.clone()], &[(PLAIN, 10, 0)]), Some("does not list")),
            ("after the end", [&good[..], &plain].concat(), Some("does not list")),
            ("two archives", [&good[..], &good].concat(), Some("several archives")),
            ("second end record", fake, Some("contradictory end record")),
            ("wrong count", [plain.clone(), entry(PLAIN, 10, 0), end(2, 47, size, b"")].concat(), Some("contradictory")),
            ("wrong offset", archive(std::slice::from_ref(&plain), &[(PLAIN, 10, 1)]), Some("a local header is missing")),
            ("wrong method", archive(std::slice::from_ref(&plain), &[((0, 8), 10, 0)]), Some("contradict each other")),
            ("wrong size", archive(std::slice::from_ref(&plain), &[(PLAIN, 9, 0)]), Some("contradict each other")),
            ("LZMA", archive(&[member((0, 14), b"012345")], &[((0, 14), 6, 0)]), Some("compression method")),
            ("masked", archive(&[member((1 << 13, 0), b"012345")], &[((1 << 13, 0), 6, 0)]), Some("masked")),
            ("streamed, cut short", archive(&[streamed], &[(STREAMED, 9, 0)]), Some("no data descriptor")),
            ("streamed, too long", archive(&[inner], &[(STREAMED, inner_size, 0)]), Some("inside a streamed member")),
        ];
        for (case, bytes, expected) in table {
            let found = inspected(&bytes);
            assert_eq!(found.unsupported.len(), usize::from(expected.is_some()), "{case}: {found:?}");
            assert!(found.unsupported.iter().all(|text| expected.is_some_and(|part| text.contains(part))), "{case}: {found:?}");
            assert!(found.encrypted.is_empty() && found.expected_below.is_empty(), "{case}: {found:?}");
        }
    }

    #[test]
    fn archives_after_other_data() {
        let after = |archive: Vec<u8>| [b"#!/bin/sh\n".to_vec(), archive].concat();
        let plain = after(archive(&[member(PLAIN, b"0123456789")], &[(PLAIN, 10, 0)]));
        assert_eq!(inspected(&plain), Findings { expected_below: vec![10], ..Findings::default() });
        let decoy = [&plain[..], END_RECORD, &[0; 18]].concat();
        assert_eq!(inspected(&decoy), inspected(&plain));
        let streamed = after(archive(&[member(STREAMED, b"0123456789")], &[(STREAMED, 10, 0)]));
        let streamed_first = [&streamed[..], &plain].concat();
        let not_listed = after(member(STREAMED, b"0123456789"));
        for bytes in [&streamed, &streamed_first, &not_listed] {
            assert_eq!(inspected(bytes).unsupported, ["zip: data descriptors in an archive after other data"]);
        }
        let inside = inspected(&after(archive(&[member(PLAIN, &streamed)], &[(PLAIN, streamed.len(), 0)])));
        assert_eq!(inside, Findings { expected_below: vec![streamed.len() as u64], ..Findings::default() });
        let encrypted = inspected(&after(archive(&[member((1, 99), b"0123456789")], &[((1, 99), 10, 0)])));
        assert_eq!(encrypted.encrypted, ["zip"]);
        assert_eq!(inspected(b"unzip looks for PK\x05\x06 and more of the kind"), Findings::default());

        let far_away = [&plain[..], &[0; END_SEARCH]].concat();
        for bytes in [&plain, &far_away] {
            assert_eq!(inspected_container(bytes), Findings { expected_below: vec![10], ..Findings::default() });
        }
    }

    /// These end records lead to no directory. Some programs search for it.
    #[test]
    fn directories_that_have_to_be_searched() {
        let first = b"Some text".to_vec();
        let (listed, header) = (entry(PLAIN, 10, 0), member(PLAIN, b"0123456789"));
        let (size, offset) = (listed.len(), header.len());
        let table = [
            ("size too small", end(1, size - 2, offset, b""), "contradictory end record"),
            ("size too large", end(1, size + 2, offset, b""), "contradictory end record"),
            ("no size", end(1, 0, offset, b""), "contradictory end record"),
            ("no members", end(0, 0, 0, b""), "contradictory end record"),
            ("offset too large", end(1, size - 2, 10_000, b""), "the beginning is missing"),
            ("not next to the directory", [b"gap".to_vec(), end(1, size, offset, b"")].concat(), "contradictory end record"),
        ];
        for (case, end, problem) in table {
            let bytes = [&first[..], &header, &listed, &end].concat();
            let expected = [format!("zip: {problem}")];
            assert_eq!(inspected(&bytes).unsupported, expected, "{case}");
            assert_eq!(inspected_container(&bytes).unsupported, expected, "{case}");
        }
        // What programs look for, with nothing where it leads to.
        let text = [b"A directory's entries begin with PK\x01\x02, ".to_vec(), vec![b' '; 60], end(1, 9, 9, b"")].concat();
        assert_eq!((inspected(&text), inspected_container(&text)), Default::default());
    }

    /// 7-Zip unpacks members whose headers have what no program writes.
    #[test]
    fn members_with_odd_headers() {
        // A member of which something is replaced: the version, the flags, the method, the name's length.
        let with = |place: usize, value: u16, bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            bytes[place..place + 2].copy_from_slice(&value.to_le_bytes());
            [b"Some text".to_vec(), bytes].concat()
        };
        let (plain, streamed) = (member(PLAIN, b"0123456789"), member(STREAMED, b"0123456789"));
        let second =
            [plain.clone(), member(PLAIN, b"987654").iter().map(|&byte| if byte == b'a' { 0 } else { byte }).collect()];
        for (case, bytes, expected) in [
            ("version", with(4, 0x0314, &plain), vec![10]),
            ("flags", with(6, 0x80, &plain), vec![10]),
            ("no name", with(26, 0, &plain), vec![10]),
            ("NUL in the name of the second", with(4, 20, &second.concat()), vec![10, 6]),
            ("NUL in the name", with(30, 0, &plain), vec![]),
            ("unknown method", with(8, 0x0208, &plain), vec![]),
        ] {
            assert_eq!(inspected(&bytes), Findings { expected_below: expected, ..Findings::default() }, "{case}");
        }
        for (case, bytes) in [
            ("version", with(4, 100, &streamed)),
            ("flags", with(6, 0x88, &streamed)),
            ("no name", with(26, 0, &streamed)),
            ("NUL in the name", with(30, 0, &streamed)),
        ] {
            assert_eq!(inspected(&bytes).unsupported, ["zip: data descriptors in an archive after other data"], "{case}");
        }
        // Constants of programs, one after the other.
        let constants = [LOCAL_HEADER, END_RECORD, &[0; 60]].concat();
        assert_eq!(inspected(&[b"Some text".to_vec(), constants].concat()), Findings::default());
    }
}
