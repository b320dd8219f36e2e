//! UDF images of discs (ECMA-167 and the OSTA UDF specification).
//!
//! libclamav looks at images that are UDF and nothing else, and there only at one arrangement of the structures, without
//! extended entries (`udf.c: cli_scanudf`). Most images are ISO 9660 as well and libclamav scans those files; systems prefer
//! the UDF side. So each of its files has to be one of the ISO 9660 side, bytes and all; everything else counts as not scanned.

use std::collections::{BTreeSet, HashSet};

use super::Findings;
use super::deadline::Deadline;
use super::iso::{self, Extent};

const SECTOR: usize = 2048;
/// Where the descriptors begin that say what is on a disc, and how many are looked at.
const FIRST_DESCRIPTOR: usize = 16;
const MOST_DESCRIPTORS: usize = 64;
/// Numbers of descriptors (ECMA-167 3/7.2.1, 4/7.2.1).
const ANCHOR: u16 = 2;
const PARTITION: u16 = 5;
const LOGICAL_VOLUME: u16 = 6;
const END: u16 = 8;
const FILE_SET: u16 = 256;
const NAME: u16 = 257;
const ENTRY: u16 = 261;
const EXTENDED_ENTRY: u16 = 266;
/// libclamav scans no layer up to this size.
const NOT_SCANNED: u32 = 5;
const MOST_FILES: usize = 100_000;
/// The fixed part of a name's descriptor.
const SHORTEST_NAME: usize = 38;

/// Looks at a layer of any type.
pub(super) fn inspect(bytes: &[u8], deadline: &Deadline, found: &mut Findings) {
    let descriptors = bytes.chunks_exact(SECTOR).skip(FIRST_DESCRIPTOR).take(MOST_DESCRIPTORS);
    if !descriptors.into_iter().any(|sector| matches!(sector.get(1..6), Some(b"NSR02" | b"NSR03"))) {
        return;
    }
    let scanned: HashSet<Extent> = iso::files(bytes, deadline, &mut BTreeSet::new()).into_iter().collect();
    let is_scanned = |file: &Extent| file.size <= NOT_SCANNED || scanned.contains(file);
    if !files(bytes, deadline).is_some_and(|files| files.iter().all(is_scanned)) {
        found.unsupported.push("UDF".to_owned());
    }
}

/// Lists all files of a simple image, as writers of discs make them; `None` for all others.
fn files(bytes: &[u8], deadline: &Deadline) -> Option<Vec<Extent>> {
    let partition = Partition::open(bytes)?;
    let file_set = tagged(partition.block(partition.file_set)?, &[FILE_SET])?;
    let mut waiting = vec![u32_at(file_set, 404)?];
    let mut seen = HashSet::new();
    let mut files = Vec::new();
    let mut bytes_left = bytes.len();
    while let Some(entry) = waiting.pop() {
        if !seen.insert(entry) {
            continue;
        }
        deadline.spend(SECTOR).ok()?;
        let entry = partition.entry(entry)?;
        if !entry.is_directory {
            files.push(entry.content);
            continue;
        }
        bytes_left = bytes_left.checked_sub(entry.content.size as usize)?;
        let start = (entry.content.sector as usize).checked_mul(SECTOR)?;
        let mut names = bytes.get(start..)?.get(..entry.content.size as usize)?;
        while !names.is_empty() {
            deadline.spend(SHORTEST_NAME).ok()?;
            let name = tagged(names, &[NAME])?;
            let (flags, length) = (*name.get(18)?, usize::from(*name.get(19)?) + usize::from(u16_at(name, 36)?));
            // The entry of the directory above, and one that was deleted.
            if flags & 0x0c == 0 {
                waiting.push(u32_at(name, 24)?);
            }
            names = names.get((SHORTEST_NAME + length).next_multiple_of(4)..)?;
        }
        if files.len() + waiting.len() > MOST_FILES {
            return None;
        }
    }
    Some(files)
}

/// The one partition of a simple image.
struct Partition<'image> {
    bytes: &'image [u8],
    start: u32,
    /// The block with the descriptor of all files.
    file_set: u32,
}

/// What is known of a file or directory whose content is one run of bytes.
struct Entry {
    is_directory: bool,
    content: Extent,
}

impl<'image> Partition<'image> {
    fn open(bytes: &'image [u8]) -> Option<Self> {
        let mut found = Self { bytes, start: 0, file_set: 0 };
        let anchor = tagged(found.block(256)?, &[ANCHOR])?;
        let first = u32_at(anchor, 20)?;
        let (mut start, mut file_set) = (None, None);
        for number in 0..MOST_DESCRIPTORS as u32 {
            let descriptor = found.block(first.checked_add(number)?)?;
            match u16_at(descriptor, 0)? {
                PARTITION if start.is_none() => start = u32_at(descriptor, 188),
                LOGICAL_VOLUME if file_set.is_none() => {
                    // One partition, which is a plain one, and blocks of the usual size.
                    let is_simple = u32_at(descriptor, 268)? == 1 && descriptor.get(440) == Some(&1);
                    file_set = u32_at(descriptor, 252).filter(|_| is_simple && u32_at(descriptor, 212) == Some(SECTOR as u32));
                    file_set?;
                }
                PARTITION | LOGICAL_VOLUME => return None,
                END => break,
                _ => {}
            }
        }
        (found.start, found.file_set) = (start?, file_set?);
        Some(found)
    }

    /// A block of the partition, to the end of the image.
    fn block(&self, number: u32) -> Option<&'image [u8]> {
        self.bytes.get((self.start.checked_add(number)? as usize).checked_mul(SECTOR)?..)
    }

    fn entry(&self, block: u32) -> Option<Entry> {
        let entry = tagged(self.block(block)?, &[ENTRY, EXTENDED_ENTRY])?;
        let lengths = if u16_at(entry, 0)? == ENTRY { 168 } else { 208 };
        let is_directory = match entry.get(27)? {
            4 => true,
            5 => false,
            _ => return None,
        };
        let size = u32_at(entry, 56).filter(|_| u32_at(entry, 60) == Some(0))?;
        let runs_start = (lengths + 8_usize).checked_add(u32_at(entry, lengths)? as usize)?;
        let runs = entry.get(runs_start..)?.get(..u32_at(entry, lengths + 4)? as usize)?;
        // Descriptors of runs: short or long ones. Others, and contents inside the entry, are not usual.
        let run_size = match u16_at(entry, 34)? & 7 {
            0 => 8,
            1 => 16,
            _ => return None,
        };
        let mut content = Extent { sector: 0, size: 0 };
        for run in runs.chunks(run_size) {
            let (length, sector) = (u32_at(run, 0)?, self.start.checked_add(u32_at(run, 4)?)?);
            if content.size == 0 {
                content.sector = sector;
            } else if length != 0 && content.sector.checked_add(content.size.div_ceil(SECTOR as u32))? != sector {
                return None;
            }
            content.size = content.size.checked_add(length)?;
        }
        (content.size == size).then_some(Entry { is_directory, content })
    }
}

/// The descriptor at the beginning of some bytes, if it is one of these.
fn tagged<'image>(bytes: &'image [u8], kinds: &[u16]) -> Option<&'image [u8]> {
    kinds.contains(&u16_at(bytes, 0)?).then_some(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::iso::{build, record};
    use super::*;

    fn put(image: &mut [u8], sector: usize, numbers: &[(usize, u32)]) {
        for &(at, number) in numbers {
            image[sector * SECTOR + at..][..4].copy_from_slice(&number.to_le_bytes());
        }
    }

    /// An image of both kinds. On the UDF side there is one file, with 300 bytes at sector 19.
    fn both(records: &[Vec<u8>]) -> Vec<u8> {
        let mut image = build(records);
        image.resize(SECTOR * 270, 0);
        put(&mut image, 256, &[(0, ANCHOR.into()), (20, 257)]);
        put(&mut image, 257, &[(0, PARTITION.into()), (188, 10)]);
        put(&mut image, 258, &[(0, LOGICAL_VOLUME.into()), (212, 2048), (252, 250), (268, 1), (440, 1)]);
        put(&mut image, 259, &[(0, END.into())]);
        put(&mut image, 260, &[(0, FILE_SET.into()), (404, 251)]);
        put(&mut image, 261, &[(0, ENTRY.into()), (24, 4 << 24), (56, 40), (172, 8), (176, 40), (180, 252)]);
        put(&mut image, 262, &[(0, NAME.into()), (24, 253)]);
        put(&mut image, 263, &[(0, EXTENDED_ENTRY.into()), (24, 5 << 24), (56, 300), (212, 8), (216, 300), (220, 9)]);
        image[SECTOR * 17 + 1..][..5].copy_from_slice(b"NSR02");
        image
    }

    #[test]
    fn files_that_iso_9660_does_not_have_are_unsupported() {
        let cases = [
            (both(&[record("A", 19, 300, 0)]), 0),
            (both(&[record("A", 19, 299, 0)]), 1),
            (both(&[]), 1),
            (build(&[]), 0),
            (both(&[record("A", 19, 300, 0)])[..SECTOR * 262].to_vec(), 1),
        ];
        for (number, (image, findings)) in cases.iter().enumerate() {
            let mut found = Findings::default();
            inspect(image, &Deadline::far(), &mut found);
            assert_eq!(found.unsupported.len(), *findings, "{number}");
        }
    }
}
