//! A reader of OLE2 files ([MS-CFB]) that hostile input neither stops nor slows down.
//!
//! It lists the entries of the directory in the order of the file and leaves the tree aside: an entry that the tree does not
//! reach, or reaches twice, is listed as well, once. It copies no content.

use std::iter::successors;

/// The only sizes for which libclamav reads the tables as Office does: it takes the sectors of the directory and of the tables
/// to have 512 bytes (`ole2_extract.c: ole2_walk_property_tree`, `ole2_get_next_bat_block`).
const SECTOR: usize = 512;
const MINI_SECTOR: usize = 64;
/// Streams below this size lie in sectors of the small size.
const MINI_STREAM_CUTOFF: u32 = 4096;

const SIGNATURE: [u8; 8] = [0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1];
const LINKS_IN_SECTOR: usize = SECTOR / 4;
const END_OF_CHAIN: u32 = 0xffff_fffe;
/// Where the header lists the first sectors of the allocation table, and how many.
const TABLE_LIST: (usize, usize) = (76, 109);

/// The size of a directory entry, and the kinds of entries that matter here ([MS-CFB] 2.6.1).
const ENTRY: usize = 128;
const STREAM: u8 = 2;
const ROOT: u8 = 5;

/// Where libclamav stops without a word (`ole2_extract.c: ole2_walk_property_tree`). One stream more is listed.
pub(super) const MOST_STREAMS: usize = 100_000;

/// An OLE2 file whose header is as usual.
pub(super) struct CompoundFile<'file> {
    bytes: &'file [u8],
    /// The sectors of the allocation table, which holds the number of each sector's successor.
    table: Vec<u32>,
    /// The same for the small sectors.
    mini_table: Vec<u32>,
    /// The sectors of the root entry, which hold the small sectors.
    mini_stream: Vec<u32>,
}

/// A stream's directory entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stream {
    /// In lower case.
    pub(super) name: String,
    pub(super) size: u32,
    start: u32,
}

/// Where in the file a stream's content lies.
pub(super) struct Content<'file> {
    bytes: &'file [u8],
    size: u32,
    sector_size: usize,
    sectors: Vec<usize>,
}

impl<'file> CompoundFile<'file> {
    /// `None` if Office and libclamav may read this file in different ways, or not at all.
    pub(super) fn open(bytes: &'file [u8]) -> Option<(Self, Vec<Stream>)> {
        let sector_sizes = u16_at(bytes, 30)? == 9 && u32_at(bytes, 32)? == 6;
        if !bytes.starts_with(&SIGNATURE) || !sector_sizes || u32_at(bytes, 56)? != MINI_STREAM_CUTOFF {
            return None;
        }
        let mut file = Self { bytes, table: Vec::new(), mini_table: Vec::new(), mini_stream: Vec::new() };
        file.table = file.table_sectors();
        let directory = file.chain(u32_at(bytes, 48)?);
        if file.next(*directory.last()?)? != END_OF_CHAIN {
            return None;
        }
        let sectors = directory.iter().filter_map(|&sector| bytes.get(file.offset(sector)?..));
        let mut entries = sectors.flat_map(|sector| sector.chunks(ENTRY).take(SECTOR / ENTRY));
        let root = entries.next().filter(|entry| entry.get(66) == Some(&ROOT))?;
        let streams = entries.filter_map(Stream::parse).take(MOST_STREAMS + 1).collect();
        file.mini_table = file.chain(u32_at(bytes, 60)?);
        file.mini_stream = file.chain(u32_at(root, 116)?);
        Some((file, streams))
    }

    /// Where a stream's content lies. It ends early where its chain does.
    pub(super) fn content(&self, stream: &Stream) -> Content<'file> {
        let is_small = stream.size < MINI_STREAM_CUTOFF;
        let sector_size = if is_small { MINI_SECTOR } else { SECTOR };
        let successor = |&sector: &u32| if is_small { self.link(&self.mini_table, sector) } else { self.next(sector) };
        let place = |sector: u32| if is_small { self.mini_offset(sector) } else { self.offset(sector) };
        let most = (stream.size as usize).div_ceil(sector_size);
        let sectors = successors(Some(stream.start), successor).take(most).map_while(place).collect();
        Content { bytes: self.bytes, size: stream.size, sector_size, sectors }
    }

    /// The allocation table's sectors: the header names some, a chain of sectors of its own the others.
    fn table_sectors(&self) -> Vec<u32> {
        let most = self.sectors().div_ceil(LINKS_IN_SECTOR);
        let numbers = |at: usize, count: usize| (0..count).filter_map(move |n| u32_at(self.bytes, at + 4 * n));
        let mut table: Vec<u32> = numbers(TABLE_LIST.0, TABLE_LIST.1).take(most).collect();
        let mut list = u32_at(self.bytes, 68);
        while let Some(at) = list.and_then(|sector| self.offset(sector)).filter(|_| table.len() < most) {
            let links = LINKS_IN_SECTOR - 1;
            table.extend(numbers(at, links).take(most - table.len()));
            list = u32_at(self.bytes, at + 4 * links);
        }
        table
    }

    /// The sectors of a chain, at most as many as the file has.
    fn chain(&self, start: u32) -> Vec<u32> {
        let inside = |&sector: &u32| self.offset(sector).is_some();
        successors(Some(start), |&sector| self.next(sector)).take_while(inside).take(self.sectors()).collect()
    }

    fn next(&self, sector: u32) -> Option<u32> {
        self.link(&self.table, sector)
    }

    fn link(&self, table: &[u32], sector: u32) -> Option<u32> {
        let at = self.offset(*table.get(sector as usize / LINKS_IN_SECTOR)?)?;
        u32_at(self.bytes, at + 4 * (sector as usize % LINKS_IN_SECTOR))
    }

    /// Where a sector lies, unless it is beyond the end. The last one may be cut short (`ole2_extract.c: ole2_read_block`).
    fn offset(&self, sector: u32) -> Option<usize> {
        let at = (sector as usize).checked_add(1)?.checked_mul(SECTOR)?;
        (at < self.bytes.len()).then_some(at)
    }

    fn mini_offset(&self, sector: u32) -> Option<usize> {
        let at = (sector as usize).checked_mul(MINI_SECTOR)?;
        Some(self.offset(*self.mini_stream.get(at / SECTOR)?)? + at % SECTOR)
    }

    fn sectors(&self) -> usize {
        self.bytes.len() / SECTOR
    }
}

impl Stream {
    fn parse(entry: &[u8]) -> Option<Self> {
        if entry.get(66) != Some(&STREAM) {
            return None;
        }
        // The size counts the zero at the end of the name.
        let name = entry.get(..usize::from(u16_at(entry, 64)?).saturating_sub(2).min(64))?;
        let units = name.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
        let name = char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER).to_ascii_lowercase()).collect();
        Some(Self { name, size: u32_at(entry, 120)?, start: u32_at(entry, 116)? })
    }
}

impl Content<'_> {
    /// How many sectors the content takes.
    pub(super) fn sectors(&self) -> usize {
        self.sectors.len()
    }

    /// Some bytes of the content.
    pub(super) fn read<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        let mut read = [0; N];
        for (byte, at) in read.iter_mut().zip(at as usize..self.size as usize) {
            *byte = *self.bytes.get(self.sectors.get(at / self.sector_size)? + at % self.sector_size)?;
        }
        (at as usize + N <= self.size as usize).then_some(read)
    }

    /// Whether the content is complete and its sectors follow each other.
    pub(super) fn is_in_one_piece(&self) -> bool {
        self.sectors.len() == (self.size as usize).div_ceil(self.sector_size)
            && self.sectors.is_sorted_by(|first, second| first + self.sector_size == *second)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// An OLE2 file with these streams, for tests: header, allocation table, directory, small sectors and their table, large
/// streams.
#[cfg(test)]
pub(in crate::engine::formats) fn build(streams: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut table, mut mini_table, mut small, mut large) = (vec![0xffff_fffd_u32], Vec::new(), Vec::new(), Vec::new());
    let chain = |table: &mut Vec<u32>, length: usize, sector: usize| {
        let start = table.len() as u32;
        table.extend((1..length.div_ceil(sector).max(1) as u32).map(|next| start + next));
        table.push(END_OF_CHAIN);
        start
    };
    let fill = |data: &mut Vec<u8>, byte: u8, sector: usize| data.resize(data.len().next_multiple_of(sector), byte);
    let entry = |name: &str, kind: u8, start: u32, size: usize| {
        let mut entry: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
        let length = entry.len() as u8;
        entry.resize(ENTRY, 0);
        (entry[64], entry[66]) = (length, kind);
        entry[116..120].copy_from_slice(&start.to_le_bytes());
        entry[120..124].copy_from_slice(&(size as u32).to_le_bytes());
        entry
    };
    let is_small = |data: &[u8]| data.len() < MINI_STREAM_CUTOFF as usize;
    let small_size =
        streams.iter().filter(|(_, data)| is_small(data)).map(|(_, data)| data.len().next_multiple_of(MINI_SECTOR)).sum();
    let directory_start = chain(&mut table, (1 + streams.len()) * ENTRY, SECTOR);
    let small_start = chain(&mut table, small_size, SECTOR);
    let mini_table_start = chain(&mut table, 1, SECTOR);
    let mut directory = entry("Root Entry", ROOT, small_start, small_size);
    for (name, data) in streams {
        let (table, part, sector) = match is_small(data) {
            true => (&mut mini_table, &mut small, MINI_SECTOR),
            false => (&mut table, &mut large, SECTOR),
        };
        directory.extend(entry(name, STREAM, chain(table, data.len(), sector), data.len()));
        part.extend_from_slice(data);
        fill(part, 0, sector);
    }
    let mut header = SIGNATURE.to_vec();
    header.resize(SECTOR, 0xff);
    (header[30], header[31]) = (9, 0);
    let numbers =
        [(32, 6), (48, directory_start), (56, MINI_STREAM_CUTOFF), (60, mini_table_start), (68, END_OF_CHAIN), (76, 0)];
    for (at, number) in numbers {
        header[at..at + 4].copy_from_slice(&number.to_le_bytes());
    }
    let [table, mini_table] =
        [table, mini_table].map(|table| table.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
    let mut small = if small.is_empty() { vec![0] } else { small };
    fill(&mut small, 0, SECTOR);
    let mut parts = [table, directory, small, if mini_table.is_empty() { vec![0] } else { mini_table }];
    for part in &mut parts {
        fill(part, 0, SECTOR);
    }
    [header, parts.concat(), large].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_found_and_read() -> Result<(), &'static str> {
        let (small, large): (Vec<u8>, Vec<u8>) = ((0..200).collect(), (0..9000_u32).map(|n| (n / 100) as u8).collect());
        let bytes = build(&[("First", &small), ("Second", &large), ("Third", &[])]);
        let (file, streams) = CompoundFile::open(&bytes).ok_or("not opened")?;
        assert_eq!(
            streams.iter().map(|stream| (stream.name.as_str(), stream.size)).collect::<Vec<_>>(),
            [("first", 200), ("second", 9000), ("third", 0)]
        );
        let contents: Vec<_> = streams.iter().map(|stream| file.content(stream)).collect();
        assert_eq!(contents[0].read(126), Some([126, 127, 128, 129]));
        assert_eq!(contents[1].read(5118), Some([51, 51]));
        assert_eq!(contents[1].read::<2>(8999), None);
        assert!(contents.iter().all(Content::is_in_one_piece));
        Ok(())
    }

    #[test]
    fn broken_chains_end() -> Result<(), &'static str> {
        let sound = build(&[("a", &[7; 9000])]);
        // The link of the first sector of the stream, which is the fifth: beyond the end, a loop, another place.
        for link in [0xffff_u32, 4, 0] {
            let mut bytes = sound.clone();
            bytes[SECTOR + 16..SECTOR + 20].copy_from_slice(&link.to_le_bytes());
            let (file, streams) = CompoundFile::open(&bytes).ok_or("not opened")?;
            let content = file.content(&streams[0]);
            assert!(content.sectors() <= 18 && !content.is_in_one_piece(), "{link}");
        }
        for length in 0..sound.len() {
            let Some((file, streams)) = CompoundFile::open(&sound[..length]) else { continue };
            assert!(streams.iter().all(|stream| file.content(stream).sectors() <= 18));
        }
        Ok(())
    }
}
