//! The records of a zip archive, as far as there is only one way to read them. Sections are of PKWARE's APPNOTE.TXT.

use memchr::memmem;

use crate::engine::formats::deadline::Deadline;

pub(super) const LOCAL_HEADER: &[u8] = b"PK\x03\x04";
const DIRECTORY_ENTRY: &[u8] = b"PK\x01\x02";
pub(super) const END_RECORD: &[u8] = b"PK\x05\x06";
const END_RECORD_64: &[u8] = b"PK\x06\x06";
const END_LOCATOR_64: &[u8] = b"PK\x06\x07";
const DESCRIPTOR: &[u8] = b"PK\x07\x08";

pub(super) const LOCAL_HEADER_SIZE: usize = 30;
const DIRECTORY_ENTRY_SIZE: usize = 46;
pub(super) const END_RECORD_SIZE: usize = 22;
const END_RECORD_64_SIZE: usize = 56;
const END_LOCATOR_64_SIZE: usize = 20;

// Flags (4.4.4).
const ENCRYPTED: usize = 1;
/// How data were imploded. For other methods these are only hints.
const PARAMETERS: usize = 0b110;
/// The sizes follow the data in a data descriptor, so that the archive can be written without seeking.
const STREAMED: usize = 1 << 3;
/// With an encrypted directory the local headers hold no true values.
const MASKED: usize = 1 << 13;

// Methods (4.4.5).
const STORED: usize = 0;
const IMPLODED: usize = 6;
/// What libclamav unpacks: besides these deflate, deflate64 and bzip2 (`unzip.c: unz`).
const METHODS: &[usize] = &[STORED, IMPLODED, 8, 9, 12];

/// Stands for a size that is in an extra field (4.5.3), which libclamav does not read.
const IN_EXTRA_FIELD: usize = u32::MAX as usize;

/// How many of the last bytes are searched for an end record. A comment of up to 64 KiB follows it; some programs look
/// further.
pub(super) const END_SEARCH: usize = 128 * 1024;

/// More members than this are not looked at.
pub(super) const MOST_MEMBERS: usize = 100_000;

/// Something, or why it cannot be had.
pub(super) type Checked<T> = Result<T, &'static str>;

/// The little-endian number of `size` bytes at `offset`.
pub(super) fn number(bytes: &[u8], offset: usize, size: usize) -> Option<usize> {
    let field = bytes.get(offset..offset.checked_add(size)?)?;
    Some(field.iter().rev().fold(0, |number, &byte| (number << 8) | usize::from(byte)))
}

/// Whether a record with this signature starts at `offset`.
fn starts_at(bytes: &[u8], offset: usize, signature: &[u8]) -> bool {
    bytes.get(offset..).is_some_and(|rest| rest.starts_with(signature))
}

/// The end record of the ZIP64 extension (4.3.15), when its locator stands before the end record at `end`.
fn locator_before(bytes: &[u8], end: usize) -> Option<usize> {
    end.checked_sub(END_LOCATOR_64_SIZE).filter(|&locator| starts_at(bytes, locator, END_LOCATOR_64))
}

/// Where the directory entry at `entry` ends: behind its name, extra field and comment.
fn entry_end(bytes: &[u8], entry: usize) -> Option<usize> {
    let length = |offset| number(bytes, entry + offset, 2);
    Some(entry + DIRECTORY_ENTRY_SIZE + length(28)? + length(30)? + length(32)?)
}

/// The central directory (4.3.12) and the end record after it (4.3.16).
pub(super) struct Directory {
    pub(super) start: usize,
    /// Where each entry starts.
    pub(super) entries: Vec<usize>,
    /// How many bytes come before the archive.
    pub(super) prefix: usize,
    /// Where the archive ends, its comment included.
    pub(super) end: usize,
    /// Every program takes this end record. Java's goes on to an earlier one if other data follow and ZIP64 records or no
    /// local header are where it expects the directory or the first member (`ZipFile.Source.findEND`).
    pub(super) is_firm: bool,
}

impl Directory {
    /// Whether some program would find a directory by what looks like an end record at `end`. The signature alone proves
    /// nothing: each program that reads zips contains it.
    pub(super) fn is_near(bytes: &[u8], end: usize, deadline: &Deadline) -> bool {
        let by_size = number(bytes, end + 12, 4).and_then(|size| end.checked_sub(size));
        let by_offset = number(bytes, end + 16, 4);
        let mut starts = [by_size, by_offset].into_iter().flatten();
        if starts.clone().any(|start| starts_at(bytes, start, DIRECTORY_ENTRY)) || locator_before(bytes, end).is_some() {
            return true;
        }
        // Those that search for a directory have searched for the end record, too.
        bytes.len() - end <= END_SEARCH
            && (Self::ends_at(bytes, end, deadline) || starts.any(|start| Self::is_after(bytes, start, end, deadline)))
    }

    /// Whether an entry of a directory ends where the end record starts, whatever that says. Yes if the time is over.
    fn ends_at(bytes: &[u8], end: usize, deadline: &Deadline) -> bool {
        let first = end.saturating_sub(DIRECTORY_ENTRY_SIZE + 3 * usize::from(u16::MAX));
        let mut entries = memmem::rfind_iter(bytes.get(first..end).unwrap_or_default(), DIRECTORY_ENTRY);
        deadline.spend(end - first).is_err() || entries.any(|entry| entry_end(bytes, first + entry) == Some(end))
    }

    /// Whether the first directory after `from` lists a member. Some programs look there for one if the end record does not
    /// lead to any, and take the difference to be what was put before the archive: libarchive
    /// (`archive_read_support_format_zip.c: slurp_central_directory`), Rust's zip crate. Yes if the time is over.
    fn is_after(bytes: &[u8], from: usize, end: usize, deadline: &Deadline) -> bool {
        let Some(place) = bytes.get(from..end) else { return false };
        let Some(start) = memmem::find(place, DIRECTORY_ENTRY) else { return deadline.spend(place.len()).is_err() };
        let start = from + start;
        let mut next = Some(start);
        let mut is_late = deadline.spend(start - from).is_err();
        while let Some(entry) = next.filter(|&entry| !is_late && starts_at(bytes, entry, DIRECTORY_ENTRY)) {
            let shifted = number(bytes, entry + 42, 4).map(|header| header.saturating_add(start));
            let header = shifted.zip(number(bytes, end + 16, 4)).and_then(|(header, offset)| header.checked_sub(offset));
            if header.is_some_and(|header| starts_at(bytes, header, LOCAL_HEADER)) {
                return true;
            }
            next = entry_end(bytes, entry);
            is_late = deadline.spend(DIRECTORY_ENTRY_SIZE).is_err();
        }
        is_late
    }

    /// The directory that belongs to the end record at `end`, if every program will find this one: by its offset, as libclamav
    /// does, by its size, by the number of its entries, or by the end record of the ZIP64 extension.
    pub(super) fn read(bytes: &[u8], end: usize, deadline: &Deadline) -> Checked<Self> {
        const CONTRADICTION: &str = "contradictory end record";
        let field = |offset, size| number(bytes, end + offset, size).ok_or("truncated");
        let (disk, first_disk, count_here, count) = (field(4, 2)?, field(6, 2)?, field(8, 2)?, field(10, 2)?);
        let (size, offset, comment) = (field(12, 4)?, field(16, 4)?, field(20, 2)?);
        if disk != 0 || first_disk != 0 || count_here != count {
            return Err("one of several volumes");
        }
        let archive_end = end + END_RECORD_SIZE + comment;
        if archive_end > bytes.len() {
            return Err("truncated");
        }

        let locator = locator_before(bytes, end);
        let stop = match locator {
            Some(locator) => locator.checked_sub(END_RECORD_64_SIZE).ok_or(CONTRADICTION)?,
            None => end,
        };
        let start = stop.checked_sub(size).ok_or("the beginning is missing")?;
        let prefix = start.checked_sub(offset).ok_or("the beginning is missing")?;
        if let Some(locator) = locator {
            let agrees = starts_at(bytes, stop, END_RECORD_64)
                && number(bytes, locator + 8, 8) == Some(stop - prefix)
                && number(bytes, stop + 40, 8) == Some(size)
                && number(bytes, stop + 48, 8) == Some(offset);
            if !agrees {
                return Err(CONTRADICTION);
            }
        }

        let mut entries = Vec::new();
        let mut next = start;
        while next < stop {
            deadline.spend(DIRECTORY_ENTRY_SIZE)?;
            if !starts_at(bytes, next, DIRECTORY_ENTRY) {
                return Err(CONTRADICTION);
            }
            if entries.len() == MOST_MEMBERS {
                return Err("too many members");
            }
            entries.push(next);
            next = entry_end(bytes, next).ok_or("truncated")?;
        }
        // A count of 16 bits; with ZIP64 it may be "see there".
        let most = usize::from(u16::MAX);
        if next != stop || (entries.len() & most != count && (locator.is_none() || count != most)) {
            return Err(CONTRADICTION);
        }
        // It says that there are no members. Some programs find a directory with some.
        if entries.is_empty() && locator.is_none() && Self::is_near(bytes, end, deadline) {
            return Err(CONTRADICTION);
        }
        let is_firm = archive_end == bytes.len() || (locator.is_none() && starts_at(bytes, prefix, LOCAL_HEADER));
        Ok(Self { start, entries, prefix, end: archive_end, is_firm })
    }
}

/// A member that no directory lists, by its local header.
pub(super) struct LoneMember {
    pub(super) end: usize,
    pub(super) unpacked_size: usize,
    pub(super) is_encrypted: bool,
    pub(super) is_streamed: bool,
}

impl LoneMember {
    /// What is likely to be a member: programs hold the four bytes of a local header as a constant, often beside those of
    /// other records, and packed data by chance. A name has no NUL; where a member is sure to begin (`is_sure`), other
    /// programs do not care.
    pub(super) fn read(bytes: &[u8], header: usize, is_sure: bool, deadline: &Deadline) -> Option<Self> {
        // The version has 7 bits, and so has the system that some write into the byte after it.
        const NO_VERSION: usize = 0x8080;
        // Bits of the flags that nobody sets, and most programs ignore.
        const RESERVED: usize = 0xd780;
        // Stands before encrypted data (6.1.3).
        const ENCRYPTION_HEADER_SIZE: usize = 12;
        let field = |offset, size| number(bytes, header + offset, size);
        let (version, flags, method) = (field(4, 2)?, field(6, 2)?, field(8, 2)?);
        let (packed_size, unpacked_size) = (field(18, 4)?, field(22, 4)?);
        let (name_length, data) = (field(26, 2)?, header + LOCAL_HEADER_SIZE + field(26, 2)? + field(28, 2)?);
        let (is_encrypted, is_streamed) = (flags & ENCRYPTED != 0, flags & STREAMED != 0);
        let end = data.saturating_add(packed_size);

        let name = bytes.get(header + LOCAL_HEADER_SIZE..)?.get(..name_length)?;
        if version & NO_VERSION != 0 || method >= 100 || deadline.spend(name_length).is_err() {
            return None;
        }
        let is_odd = flags & RESERVED != 0 || !(1..4096).contains(&name_length);
        let has_data = if is_encrypted { packed_size >= ENCRYPTION_HEADER_SIZE && end <= bytes.len() } else { packed_size > 0 };
        if !is_streamed && ((is_odd && !has_data) || (!is_sure && name.contains(&0))) {
            return None;
        }
        Some(Self { end, unpacked_size, is_encrypted, is_streamed })
    }
}

/// A member: its local header (4.3.7) and its data.
pub(super) struct Member {
    pub(super) header: usize,
    pub(super) data: usize,
    pub(super) end: usize,
    pub(super) unpacked_size: usize,
    pub(super) is_encrypted: bool,
    pub(super) is_streamed: bool,
}

impl Member {
    /// The member that the directory entry at `entry` lists, if libclamav unpacks it and every program finds the same data.
    pub(super) fn read(bytes: &[u8], entry: usize, prefix: usize) -> Checked<Self> {
        let listed = |offset, size| number(bytes, entry + offset, size).ok_or("truncated");
        let (flags, method, packed_size, unpacked_size) = (listed(8, 2)?, listed(10, 2)?, listed(20, 4)?, listed(24, 4)?);
        let header = prefix.saturating_add(listed(42, 4)?);
        if !starts_at(bytes, header, LOCAL_HEADER) {
            return Err("a local header is missing");
        }
        let local = |offset, size| number(bytes, header + offset, size).ok_or("truncated");
        let local_flags = local(6, 2)?;
        let data = header + LOCAL_HEADER_SIZE + local(26, 2)? + local(28, 2)?;
        let is_encrypted = local_flags & ENCRYPTED != 0;
        let is_streamed = local_flags & STREAMED != 0;
        let member = Self { header, data, end: data + packed_size, unpacked_size, is_encrypted, is_streamed };

        let decisive = ENCRYPTED | MASKED | if method == IMPLODED { PARAMETERS } else { 0 };
        let agrees = |local, listed| local == listed || (is_streamed && (local == 0 || local == IN_EXTRA_FIELD));
        if (flags ^ local_flags) & decisive != 0
            || local(8, 2)? != method
            || !agrees(local(18, 4)?, packed_size)
            || !agrees(local(22, 4)?, unpacked_size)
        {
            return Err("local header and directory contradict each other");
        }
        if flags & MASKED != 0 {
            return Err("masked local header");
        }
        if !is_encrypted {
            if !METHODS.contains(&method) {
                return Err("compression method");
            }
            // libclamav skips a member without data, and inflates a stored one that seems to grow (`unzip.c: unz`).
            if (packed_size == 0 && unpacked_size != 0) || (method == STORED && packed_size != unpacked_size) {
                return Err("contradictory sizes");
            }
        }
        // However little data there is, libclamav asks for as many bytes as a header has (`unzip.c: cli_unzip`).
        if packed_size != 0 && data + packed_size.max(LOCAL_HEADER_SIZE) > bytes.len() {
            return Err("truncated");
        }
        Ok(member)
    }

    /// Whether the data descriptor (4.3.9) follows the data: perhaps a signature, a checksum, and both sizes in 4 or 8 bytes.
    pub(super) fn has_descriptor(&self, bytes: &[u8]) -> bool {
        let signature = if starts_at(bytes, self.end, DESCRIPTOR) { DESCRIPTOR.len() } else { 0 };
        let sizes = self.end + signature + 4;
        [4, 8].into_iter().any(|size| {
            number(bytes, sizes, size) == Some(self.end - self.data)
                && number(bytes, sizes + size, size) == Some(self.unpacked_size)
        })
    }
}
