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
const ARCHIVES: &[&str] = &["ZIP", "OOXML", "7Z", "CAB", "CHM", "ARJ", "EGG", "LHA", "RAR"];

/// The members that archives announced, what our own look expects of each layer, and the layers that were scanned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Digests of announcements, to take a repeated one for one: some parsers read an archive's directory twice.
    known: HashSet<u64>,
    /// The sizes of the members that were announced.
    announced: Vec<u64>,
    /// A member's size was not announced at all.
    unknown: bool,
    /// The layers that were looked at (`formats`), in the order in which libclamav came upon them.
    layers: Vec<Layer>,
    /// The same layers in the metadata: each before those that were unpacked from it.
    scanned: Vec<Scanned>,
}

/// A layer that is about to be scanned.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Layer {
    size: u64,
    /// The sizes of what must be unpacked from it.
    expected: Vec<u64>,
}

/// A layer that was scanned.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Scanned {
    size: u64,
    /// How many layers there were after all that was unpacked from it.
    end: usize,
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
            self.announced.push(size);
        }
    }

    /// Notes a layer that is about to be scanned, and what must be unpacked from it.
    pub(super) fn look_at(&mut self, size: u64, mut expected: Vec<u64>) {
        expected.retain(|&size| size > NOT_SCANNED);
        self.layers.push(Layer { size, expected });
    }

    /// Notes a layer of the metadata; [`Members::leave`] ends it.
    pub(super) fn enter(&mut self, size: u64) -> usize {
        self.scanned.push(Scanned { size, end: 0 });
        self.scanned.len() - 1
    }

    /// Ends the layer that [`Members::enter`] gave a number.
    pub(super) fn leave(&mut self, layer: usize) {
        let end = self.scanned.len();
        if let Some(layer) = self.scanned.get_mut(layer) {
            layer.end = end;
        }
    }

    /// The size in bytes of the largest layer below the input itself.
    pub(super) fn largest(&self) -> u64 {
        self.scanned.iter().skip(1).map(|layer| layer.size).max().unwrap_or(0)
    }

    /// How many members have no layer of their size.
    pub(super) fn missing(&self) -> usize {
        let below = self.scanned.get(1..).unwrap_or_default();
        let announced = missing(&self.announced, below) + usize::from(self.unknown);
        // The same member can be announced and expected.
        announced.max(self.missing_from_layers().unwrap_or_else(|| {
            // A layer that was put into another list of the metadata than its neighbours: then all count together.
            let expected: Vec<u64> = self.layers.iter().flat_map(|layer| &layer.expected).copied().collect();
            missing(&expected, below)
        }))
    }

    /// The same for each layer by itself, so that nothing makes up for what is missing elsewhere; `None` when the layers that were
    /// looked at are not those of the metadata.
    fn missing_from_layers(&self) -> Option<usize> {
        if self.layers.len() != self.scanned.len() {
            return None;
        }
        let mut sum = 0;
        for (index, (looked_at, scanned)) in self.layers.iter().zip(&self.scanned).enumerate() {
            if looked_at.size != scanned.size {
                return None;
            }
            if !looked_at.expected.is_empty() {
                sum += missing(&looked_at.expected, self.scanned.get(index + 1..scanned.end)?);
            }
        }
        Some(sum)
    }
}

/// How many of these sizes have no layer.
fn missing(wanted: &[u64], layers: &[Scanned]) -> usize {
    let mut left: HashMap<u64, usize> = HashMap::new();
    for layer in layers {
        *left.entry(layer.size).or_default() += 1;
    }
    let is_missing = |size: &&u64| match left.get_mut(*size) {
        Some(count @ 1..) => {
            *count -= 1;
            false
        }
        _ => true,
    };
    wanted.iter().filter(is_missing).count()
}

#[cfg(test)]
mod tests {
    use super::Members;

    /// The metadata of an input that holds layers of these sizes.
    fn scan(members: &mut Members, sizes: &[u64]) {
        members.scanned.clear();
        let input = members.enter(1000);
        for &size in sizes {
            let layer = members.enter(size);
            members.leave(layer);
        }
        members.leave(input);
    }

    #[test]
    fn every_member_needs_a_layer_of_its_size() {
        let mut members = Members::default();
        members.announce("CL_TYPE_ZIP", "a", 100, 0);
        members.announce("CL_TYPE_ZIP", "b", 100, 50);
        members.announce("CL_TYPE_ZIP", "b", 100, 50);
        members.announce("CL_TYPE_ZIP", "tiny", 5, 60);
        members.announce("CL_TYPE_ISO9660", "directory", 2048, 0);
        for (sizes, missing) in [(&[][..], 2), (&[100], 1), (&[100, 99], 1), (&[100, 100], 0)] {
            scan(&mut members, sizes);
            assert_eq!(members.missing(), missing, "{sizes:?}");
        }
        members.announce("CL_TYPE_ZIP", "zip64", u64::from(u32::MAX), 70);
        assert_eq!(members.missing(), 1);
    }

    #[test]
    fn the_parts_of_a_document_are_announced_twice() {
        let mut members = Members::default();
        members.announce("CL_TYPE_OOXML_WORD", "word/document.xml", 900, 10);
        members.announce("CL_TYPE_OOXML_WORD", "word/document.xml", 900, 20);
        scan(&mut members, &[900]);
        assert_eq!(members.missing(), 0);
    }

    /// A member that was not unpacked was made up for by another archive's layer of the same size.
    #[test]
    fn a_layer_counts_for_its_own_container() {
        let mut members = Members::default();
        members.look_at(1000, vec![300, 200, 5]);
        members.look_at(300, vec![70]);
        members.look_at(200, vec![]);
        members.look_at(70, vec![]);
        let input = members.enter(1000);
        let first = members.enter(300);
        members.leave(first);
        let second = members.enter(200);
        let decoy = members.enter(70);
        members.leave(decoy);
        members.leave(second);
        members.leave(input);
        assert_eq!(members.missing(), 1);
        // In an order that does not fit, all count together.
        members.layers.swap(1, 2);
        assert_eq!(members.missing(), 0);
    }
}
