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

/// The layers of a scan: what was to be unpacked from each, and what was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Digests of announcements, to take a repeated one for one: some parsers read an archive's directory twice.
    known: HashSet<u64>,
    /// A member's size was not announced at all, or that of no layer's.
    unknown: bool,
    /// The layers that were looked at, in the order in which libclamav came upon them.
    layers: Vec<Layer>,
    /// Those of them whose scan has begun and not ended.
    open: Vec<usize>,
    /// The same layers in the metadata: each before those that were unpacked from it.
    scanned: Vec<ScannedLayer>,
    /// Those of them that the reader of the metadata is in.
    entered: Vec<usize>,
}

/// A layer that is about to be scanned.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Layer {
    /// Whether libclamav takes the layer itself for a zip.
    is_zip: bool,
    size: u64,
    /// The sizes of what must be unpacked from it, by our own look at it (`formats`).
    expected: Vec<u64>,
    /// The same at any depth.
    expected_below: Vec<u64>,
    /// The sizes of the members that libclamav announced.
    announced: Vec<u64>,
}

/// A layer that was scanned.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ScannedLayer {
    size: u64,
    /// What it was unpacked from; `None` for the input.
    parent: Option<usize>,
}

impl Members {
    /// Notes a layer that is about to be scanned, and what must be unpacked from it. [`Members::close`] ends it.
    pub(super) fn open(&mut self, kind: &str, size: u64, mut expected: Vec<u64>, mut expected_below: Vec<u64>) {
        expected.retain(|&size| size > NOT_SCANNED);
        expected_below.retain(|&size| size > NOT_SCANNED);
        self.open.push(self.layers.len());
        let is_zip = kind == "CL_TYPE_ZIP" || kind.starts_with("CL_TYPE_OOXML");
        self.layers.push(Layer { is_zip, size, expected, expected_below, announced: Vec::new() });
    }

    /// Ends the layer that was opened last and is open.
    pub(super) fn close(&mut self) {
        self.open.pop();
    }

    /// Whether libclamav only tries whether there is a zip in a layer of another type, at each `PK\3\4` (`scanners.c: scanraw`). It then
    /// announces whatever follows these bytes, before it looks whether that makes sense (`unzip.c: parse_local_file_header`).
    pub(super) fn is_trial(&self, container: &str) -> bool {
        let is_zip = self.open.last().and_then(|&layer| self.layers.get(layer)).is_some_and(|layer| layer.is_zip);
        container.starts_with("CL_TYPE_ZIP") && !is_zip
    }

    /// Notes a member of the layer that is being scanned. One that is encrypted does not count.
    pub(super) fn announce(&mut self, container: &str, name: &str, size: u64, position: u32) {
        if size <= NOT_SCANNED || !ARCHIVES.iter().any(|kind| container.contains(kind)) {
            return;
        }
        // The parts of an OOXML document are announced again and again, with positions of their own.
        let position = if container.contains("OOXML") { 0 } else { position };
        let layer = self.open.last().copied();
        let mut hasher = DefaultHasher::new();
        (layer, name, size, position).hash(&mut hasher);
        if !self.known.insert(hasher.finish()) {
            return;
        }
        match layer.and_then(|layer| self.layers.get_mut(layer)) {
            Some(layer) if size < UNKNOWN => layer.announced.push(size),
            _ => self.unknown = true,
        }
    }

    /// Notes a layer of the metadata; [`Members::leave`] ends it.
    pub(super) fn enter(&mut self, size: u64) {
        let parent = self.entered.last().copied();
        self.entered.push(self.scanned.len());
        self.scanned.push(ScannedLayer { size, parent });
    }

    /// Ends the layer that was entered last and not left.
    pub(super) fn leave(&mut self) {
        self.entered.pop();
    }

    /// The size in bytes of the largest layer below the input itself.
    pub(super) fn largest(&self) -> u64 {
        self.scanned.iter().skip(1).map(|layer| layer.size).max().unwrap_or(0)
    }

    /// How many members have no layer of their size. Each layer has to make up for its own: what came out of another, or was
    /// unpacked from a member, does not count.
    pub(super) fn missing(&self) -> usize {
        let sizes = |layers: &[Layer]| layers.iter().map(|layer| layer.size).collect::<Vec<_>>();
        if sizes(&self.layers) != self.scanned.iter().map(|layer| layer.size).collect::<Vec<_>>() {
            // The metadata is of other layers than those that we looked at: nothing can be compared.
            return 1;
        }
        let mut unpacked: Vec<HashMap<u64, usize>> = vec![HashMap::new(); self.layers.len()];
        for layer in &self.scanned {
            if let Some(parent) = layer.parent.and_then(|parent| unpacked.get_mut(parent)) {
                *parent.entry(layer.size).or_default() += 1;
            }
        }
        // The same member can be announced and expected.
        let missing_from = |(number, layer): (usize, &Layer)| {
            let unpacked = &unpacked[number];
            let direct = missing(&layer.announced, unpacked).max(missing(&layer.expected, unpacked));
            let below = if layer.expected_below.is_empty() { 0 } else { missing(&layer.expected_below, &self.below(number)) };
            direct.max(below)
        };
        self.layers.iter().enumerate().map(missing_from).sum::<usize>() + usize::from(self.unknown)
    }

    /// The sizes of all layers below one, which stand behind it.
    fn below(&self, number: usize) -> HashMap<u64, usize> {
        let mut sizes = HashMap::new();
        for layer in
            self.scanned.iter().skip(number + 1).take_while(|layer| layer.parent.is_some_and(|parent| parent >= number))
        {
            *sizes.entry(layer.size).or_default() += 1;
        }
        sizes
    }
}

/// How many of these sizes were not unpacked.
fn missing(wanted: &[u64], unpacked: &HashMap<u64, usize>) -> usize {
    let mut counts: HashMap<u64, usize> = HashMap::new();
    for &size in wanted {
        *counts.entry(size).or_default() += 1;
    }
    counts.iter().map(|(size, count)| count.saturating_sub(unpacked.get(size).copied().unwrap_or(0))).sum()
}

#[cfg(test)]
mod tests {
    use super::Members;

    /// The metadata of an input that holds layers of these sizes.
    fn scan(members: &mut Members, sizes: &[u64]) {
        members.scanned.clear();
        members.layers.truncate(1);
        members.enter(1000);
        for &size in sizes {
            members.open("CL_TYPE_ZIP", size, vec![], vec![]);
            members.close();
            members.enter(size);
            members.leave();
        }
        members.leave();
    }

    #[test]
    fn every_member_needs_a_layer_of_its_size() {
        let mut members = Members::default();
        members.open("CL_TYPE_ZIP", 1000, vec![100], vec![]);
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
        members.open("CL_TYPE_ZIP", 1000, vec![], vec![]);
        members.announce("CL_TYPE_OOXML_WORD", "word/document.xml", 900, 10);
        members.announce("CL_TYPE_OOXML_WORD", "word/document.xml", 900, 20);
        scan(&mut members, &[900]);
        assert_eq!(members.missing(), 0);
    }

    /// A member that was not unpacked was made up for by a layer of the same size out of another member.
    #[test]
    fn a_layer_counts_for_its_own_container() {
        for (decoy_in, missing) in [(None, 0), (Some(200), 1)] {
            let mut members = Members::default();
            members.open("CL_TYPE_ZIP", 1000, vec![], vec![]);
            members.announce("CL_TYPE_7Z", "tar", 200, 0);
            members.open("CL_TYPE_ZIP", 200, vec![70], vec![]);
            members.close();
            members.announce("CL_TYPE_7Z", "hidden", 70, 1);
            members.open("CL_TYPE_ZIP", 70, vec![], vec![]);
            members.close();
            members.close();
            members.layers[1].expected.retain(|_| decoy_in.is_some());
            members.enter(1000);
            members.enter(200);
            if decoy_in.is_none() {
                members.leave();
            }
            members.enter(70);
            assert_eq!(members.missing(), missing, "{decoy_in:?}");
        }
    }

    #[test]
    fn layers_that_do_not_fit_the_metadata_are_not_compared() {
        let mut members = Members::default();
        members.open("CL_TYPE_ZIP", 1000, vec![], vec![]);
        assert_eq!(members.missing(), 1);
        members.enter(999);
        assert_eq!(members.missing(), 1);
    }
}
