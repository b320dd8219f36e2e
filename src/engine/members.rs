//! Whether everything that an archive announces was unpacked.
//!
//! libclamav's parsers skip what they cannot unpack (a zip's LZMA, a solid 7z block beyond its allocation limit, a cabinet beyond
//! what is left of MaxScanSize) and say so at most in the debug log. But each member is announced through the `meta` callback, and
//! each layer that was scanned stands in the metadata with its size.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Sizes up to this are not scanned (`scanners.c: scan_common`), so there is no layer to look for.
const NOT_SCANNED: u64 = 5;

/// The size of a zip's member whose real one stands in a ZIP64 field that libclamav does not read (`unzip.c`).
const UNKNOWN: u64 = u32::MAX as u64;

/// Containers whose announcements are members and nothing else; an ISO's, for one, are directories as well.
const ARCHIVES: &[&str] = &["ZIP", "OOXML", "7Z", "CAB", "CHM", "ARJ", "EGG", "RAR"];

/// The members that archives announced, and the layers that were scanned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Digests of announcements, to take a repeated one for one: some parsers read an archive's directory twice.
    known: HashSet<u64>,
    /// How many members of each size were announced.
    announced: HashMap<u64, u32>,
    /// How many layers of each size there must be, by our own reading of their containers (`formats`).
    expected: HashMap<u64, u32>,
    /// How many layers of each size were scanned.
    scanned: HashMap<u64, u32>,
    /// A member's size was not announced at all.
    unknown: bool,
}

impl Members {
    /// Notes a member that is not encrypted.
    pub(super) fn announce(&mut self, container: &str, name: &str, size: u64, position: u32) {
        if size <= NOT_SCANNED || !ARCHIVES.iter().any(|kind| container.contains(kind)) {
            return;
        }
        if size >= UNKNOWN {
            self.unknown = true;
            return;
        }
        // The parts of an OOXML document are announced again and again, with positions of their own.
        let position = if container.contains("OOXML") { 0 } else { position };
        let mut hasher = DefaultHasher::new();
        (container, name, size, position).hash(&mut hasher);
        if self.known.insert(hasher.finish()) {
            *self.announced.entry(size).or_default() += 1;
        }
    }

    /// Notes that something of this size must have been unpacked and scanned.
    pub(super) fn expect(&mut self, size: u64) {
        if size > NOT_SCANNED {
            *self.expected.entry(size).or_default() += 1;
        }
    }

    /// Notes a layer below the input itself.
    pub(super) fn scan(&mut self, size: u64) {
        *self.scanned.entry(size).or_default() += 1;
    }

    /// How many members have no layer of their size.
    pub(super) fn missing(&self) -> u32 {
        let missing = |wanted: &HashMap<u64, u32>| -> u32 {
            let of_size = |(size, count): (&u64, &u32)| count.saturating_sub(self.scanned.get(size).copied().unwrap_or(0));
            wanted.iter().map(of_size).fold(0, u32::saturating_add)
        };
        // The same member can be in both.
        missing(&self.announced).max(missing(&self.expected)).saturating_add(self.unknown.into())
    }
}

#[cfg(test)]
mod tests {
    use super::Members;

    #[test]
    fn every_member_needs_a_layer_of_its_size() {
        let mut members = Members::default();
        members.announce("CL_TYPE_ZIP", "a", 100, 0);
        members.announce("CL_TYPE_ZIP", "b", 100, 50);
        members.announce("CL_TYPE_ZIP", "b", 100, 50);
        members.announce("CL_TYPE_ZIP", "tiny", 5, 60);
        members.announce("CL_TYPE_ISO9660", "directory", 2048, 0);
        assert_eq!(members.missing(), 2);
        members.scan(100);
        assert_eq!(members.missing(), 1);
        members.scan(100);
        assert_eq!(members.missing(), 0);
        members.announce("CL_TYPE_ZIP", "zip64", u64::from(u32::MAX), 70);
        assert_eq!(members.missing(), 1);
    }

    #[test]
    fn the_parts_of_a_document_are_announced_twice() {
        let mut members = Members::default();
        members.announce("CL_TYPE_OOXML_WORD", "word/document.xml", 900, 10);
        members.announce("CL_TYPE_OOXML_WORD", "word/document.xml", 900, 20);
        members.scan(900);
        assert_eq!(members.missing(), 0);
    }
}
