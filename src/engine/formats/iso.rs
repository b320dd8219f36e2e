//! ISO 9660 images of discs (ECMA-119).
//!
//! libclamav scans each file of the first tree of directories and of the first Joliet tree as a layer (`iso9660.c:
//! cli_scaniso`). It skips without a word what is interleaved, and all that comes after a file outside the image or the 1,024th
//! block of directories. It finds an image anywhere in a layer of almost any type, so [`inspect`] is for layers of all types
//! and looks where a disc begins.

use std::collections::{BTreeSet, HashSet};

use super::Findings;
use super::deadline::Deadline;

/// What a sector holds besides the headers that copies of CDs have around it, and the only block size that images have in
/// practice.
const SECTOR: usize = 2048;
/// The sector with the first descriptor.
const FIRST_DESCRIPTOR: usize = 16;
/// The sizes of sectors as stored, and where in one the data begin: an image, and copies of CDs with all headers.
const LAYOUTS: &[(usize, usize)] = &[(SECTOR, 0), (2336, 8), (2352, 16), (2352, 24), (2448, 16), (2448, 24)];
/// More descriptors, trees, and files and directories than these do not occur.
const MOST_DESCRIPTORS: usize = 100;
const MOST_TREES: usize = 4;
const MOST_FILES: usize = 100_000;
/// libclamav scans no layer up to this size.
const NOT_SCANNED: u32 = 5;

/// Where a descriptor holds the record of the root directory.
const ROOT_RECORD: usize = 156;
const SHORTEST_RECORD: usize = 34;
/// Flags of a record (ECMA-119 9.1.6).
const DIRECTORY: u8 = 0x02;
const MORE_PARTS: u8 = 0x80;

/// A run of bytes on a disc: a file or a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Extent {
    pub(super) sector: u32,
    pub(super) size: u32,
}

/// Looks at a layer of any type.
pub(super) fn inspect(bytes: &[u8], deadline: &Deadline, found: &mut Findings) {
    let mut why = BTreeSet::new();
    let files = files(bytes, deadline, &mut why);
    found.expected.extend(files.iter().map(|file| file.size).filter(|&size| size > NOT_SCANNED).map(u64::from));
    found.unsupported.extend(why.into_iter().map(|why| format!("ISO 9660 image with {why}")));
}

/// Lists the files of an image, those of several trees several times, and notes why libclamav does not scan all of them.
pub(super) fn files(bytes: &[u8], deadline: &Deadline, why: &mut BTreeSet<&'static str>) -> Vec<Extent> {
    let mut files = Vec::new();
    let image = LAYOUTS.iter().map(|&(stride, start)| Image { bytes, stride, start });
    let Some(image) = image.into_iter().find(|image| image.descriptor(0).is_some()) else {
        return files;
    };
    for root in image.roots(why) {
        image.walk(root, deadline, &mut files, why);
    }
    files
}

struct Image<'image> {
    bytes: &'image [u8],
    stride: usize,
    start: usize,
}

impl<'image> Image<'image> {
    fn sector(&self, number: u32) -> Option<&'image [u8; SECTOR]> {
        let at = (number as usize).checked_mul(self.stride)?.checked_add(self.start)?;
        self.bytes.get(at..)?.first_chunk()
    }

    fn descriptor(&self, number: usize) -> Option<&'image [u8; SECTOR]> {
        let sector = self.sector(u32::try_from(FIRST_DESCRIPTOR + number).ok()?)?;
        sector.get(1..)?.starts_with(b"CD001").then_some(sector)
    }

    /// The records of the root directories: one for plain names, and mostly others for Joliet or for long names.
    fn roots(&self, why: &mut BTreeSet<&'static str>) -> Vec<Extent> {
        const PRIMARY: u8 = 1;
        const SUPPLEMENTARY: u8 = 2;
        const END: u8 = 255;
        let mut roots = Vec::new();
        for number in 0..MOST_DESCRIPTORS {
            let Some(descriptor) = self.descriptor(number) else { break };
            match descriptor[0] {
                END => break,
                PRIMARY if number > 0 && roots.is_empty() => why.insert("descriptors in an unusual order"),
                PRIMARY | SUPPLEMENTARY => false,
                _ => continue,
            };
            if u16::from_le_bytes([descriptor[128], descriptor[129]]) as usize != SECTOR {
                why.insert("blocks of an unusual size");
            }
            let Some(root) = descriptor.get(ROOT_RECORD..).and_then(Record::parse) else { continue };
            if root.is_interleaved {
                why.insert("interleaved files");
            }
            if !roots.contains(&root.extent) {
                roots.push(root.extent);
            }
        }
        if roots.len() > MOST_TREES {
            why.insert("many trees of directories");
            roots.truncate(MOST_TREES);
        }
        roots
    }

    /// Lists the files in a directory and below. Each sector is read once.
    fn walk(&self, root: Extent, deadline: &Deadline, files: &mut Vec<Extent>, why: &mut BTreeSet<&'static str>) {
        let mut waiting = vec![root];
        let (mut directories, mut sectors) = (HashSet::new(), HashSet::new());
        while let Some(directory) = waiting.pop() {
            if !directories.insert(directory) {
                continue;
            }
            for number in 0..directory.size.div_ceil(SECTOR as u32) {
                let sector = directory.sector.saturating_add(number);
                let Some(mut rest) = self.sector(sector).map(|sector| sector.as_slice()) else {
                    why.insert("directories outside of it");
                    break;
                };
                if !sectors.insert(sector) {
                    why.insert("directories that overlap");
                    break;
                }
                if deadline.spend(SECTOR).is_err() {
                    return;
                }
                // A length of zero: the next record is in the next sector.
                while let Some(&length @ 1..) = rest.first() {
                    let Some((bytes, others)) = rest.split_at_checked(length.into()) else {
                        why.insert("damaged directories");
                        break;
                    };
                    rest = others;
                    let Some(record) = Record::parse(bytes) else {
                        why.insert("damaged directories");
                        break;
                    };
                    record.note(why);
                    if files.len() + directories.len() + waiting.len() > MOST_FILES {
                        why.insert("very many files");
                        return;
                    }
                    if record.is_directory {
                        // The first two lead to the directory itself and to the one above.
                        if !matches!(record.name, [0 | 1]) {
                            waiting.push(record.extent);
                        }
                    } else {
                        files.push(record.extent);
                    }
                }
            }
        }
    }
}

/// A record of a directory (ECMA-119 9.1).
struct Record<'image> {
    extent: Extent,
    name: &'image [u8],
    /// What follows the name, such as Rock Ridge's attributes.
    more: &'image [u8],
    is_directory: bool,
    is_interleaved: bool,
    has_more_parts: bool,
}

impl<'image> Record<'image> {
    fn parse(bytes: &'image [u8]) -> Option<Self> {
        let fixed: &[u8; SHORTEST_RECORD] = bytes.first_chunk()?;
        let number = |at: usize| Some(u32::from_le_bytes(*fixed.get(at..)?.first_chunk()?));
        let (name, more) = bytes.get(33..)?.split_at_checked(fixed[32].into())?;
        Some(Self {
            extent: Extent { sector: number(2)?.saturating_add(fixed[1].into()), size: number(10)? },
            name,
            more,
            is_directory: fixed[25] & DIRECTORY != 0,
            is_interleaved: fixed[26] != 0 || fixed[27] != 0,
            has_more_parts: fixed[25] & MORE_PARTS != 0,
        })
    }

    /// Notes what libclamav does not read.
    fn note(&self, why: &mut BTreeSet<&'static str>) {
        if self.is_interleaved {
            why.insert("interleaved files");
        }
        if self.has_more_parts {
            why.insert("files in several parts");
        }
        // The attribute of Linux's "zisofs": the file is compressed.
        if self.more.windows(4).any(|attribute| attribute == b"ZF\x10\x01") {
            why.insert("compressed files");
        }
    }
}

/// An image with these records in its root directory, for tests.
#[cfg(test)]
pub(super) fn build(records: &[Vec<u8>]) -> Vec<u8> {
    let mut image = vec![0; SECTOR * 20];
    for (number, kind) in [(16, 1), (17, 255)] {
        image[SECTOR * number] = kind;
        image[SECTOR * number + 1..][..5].copy_from_slice(b"CD001");
    }
    image[SECTOR * 16 + 129] = 8;
    let root = record("\0", 18, 2048, DIRECTORY);
    image[SECTOR * 16 + ROOT_RECORD..][..root.len()].copy_from_slice(&root);
    let directory = [&root[..], &record("\u{1}", 18, 2048, DIRECTORY), &records.concat()].concat();
    image[SECTOR * 18..][..directory.len()].copy_from_slice(&directory);
    image
}

/// One record of a directory, for tests.
#[cfg(test)]
pub(super) fn record(name: &str, sector: u8, size: u16, flags: u8) -> Vec<u8> {
    let mut record = vec![0; 33];
    record[2] = sector;
    record[10..12].copy_from_slice(&size.to_le_bytes());
    (record[25], record[32]) = (flags, name.len() as u8);
    record.extend(name.bytes());
    record[0] = record.len() as u8;
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(bytes: &[u8]) -> Findings {
        let mut found = Findings::default();
        inspect(bytes, &Deadline::far(), &mut found);
        found
    }

    #[test]
    fn files_are_expected_as_layers() {
        let mut deeper =
            build(&[record("A", 19, 100, 0), record("B", 19, 5, 0), record("D", 19, 2048, DIRECTORY), record("C", 19, 7, 0)]);
        let inner = [record("\0", 19, 2048, DIRECTORY), record("X", 18, 9, 0), record("LOOP", 18, 2048, DIRECTORY)].concat();
        deeper[SECTOR * 19..][..inner.len()].copy_from_slice(&inner);
        let found = look(&deeper);
        assert_eq!((found.expected.as_slice(), found.unsupported.as_slice()), (&[100, 7, 9][..], &[][..]));
        // A copy of a CD with all headers.
        let copy: Vec<u8> = deeper.chunks(SECTOR).flat_map(|sector| [&[0; 16], sector, &[0; 288]].concat()).collect();
        assert_eq!(look(&copy), found);
        assert_eq!(look(&deeper[..SECTOR * 16]), Findings::default());
    }

    #[test]
    fn what_libclamav_skips_is_unsupported() {
        let with = |at: usize, byte: u8| {
            let mut record = record("A", 19, 100, 0);
            record.extend([0; 6]);
            record[0] += 6;
            record[at] = byte;
            record
        };
        let mut compressed = with(0, 40);
        compressed[36..].copy_from_slice(b"ZF\x10\x01");
        let cases =
            [with(26, 1), with(27, 1), with(25, MORE_PARTS), compressed, with(32, 99), record("D", 99, 2048, DIRECTORY)];
        for (number, case) in cases.into_iter().enumerate() {
            assert_eq!(look(&build(&[case])).unsupported.len(), 1, "{number}");
        }
        assert_eq!(look(&build(&[with(7, 0)])).unsupported.len(), 0);
        let mut order = build(&[]);
        (order[SECTOR * 16], order[SECTOR * 17]) = (0, 1);
        order.copy_within(SECTOR * 16 + 128..SECTOR * 16 + 200, SECTOR * 17 + 128);
        assert_eq!(look(&order).unsupported.len(), 1);
    }
}
