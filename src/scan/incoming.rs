//! An input that is arriving.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::budget::Reservation;
use super::buffer::Buffer;
use super::input::{Input, Source};
use crate::engine::PrivateFile;

/// How many bytes that arrived early are hashed at most when others arrive, so that nobody waits long for a write.
const CATCH_UP: u64 = 256 * 1024;

/// How many bytes are read back from the spool file at once.
const READ_BACK: usize = 128 * 1024;

/// An input that is arriving: bytes are written, in order or each at its place, and hashed in order; then [`Incoming::finish`]
/// makes it immutable.
#[derive(Debug)]
pub struct Incoming {
    store: Store,
    /// The bytes without a gap before them.
    size: u64,
    /// What has arrived beyond the first gap: beginning and end of each piece.
    ahead: BTreeMap<u64, u64>,
    digest: Sha256,
    /// How many bytes are in the digest.
    hashed: u64,
    reservation: Option<Reservation>,
}

#[derive(Debug)]
enum Store {
    Memory(Buffer),
    Spool(PrivateFile),
}

impl Incoming {
    /// Begins an input of `expected` bytes, in memory or in a nameless file in `scratch_dir`, as its reservation says.
    ///
    /// # Errors
    ///
    /// When the file cannot be made: no space, no descriptors, no directory; or no memory mapped. Trying again later can help.
    pub fn new(reservation: Reservation, expected: u64, scratch_dir: &Path) -> io::Result<Self> {
        let store = if reservation.is_spooled() {
            Store::Spool(PrivateFile::create_in(scratch_dir)?)
        } else {
            Store::Memory(Buffer::with_capacity(usize::try_from(expected).map_err(io::Error::other)?)?)
        };
        Ok(Self::in_store(store, Some(reservation)))
    }

    /// Begins an input on disk that no budget counts.
    pub(super) fn spooled(scratch_dir: &Path) -> io::Result<Self> {
        Ok(Self::in_store(Store::Spool(PrivateFile::create_in(scratch_dir)?), None))
    }

    fn in_store(store: Store, reservation: Option<Reservation>) -> Self {
        Self { store, size: 0, ahead: BTreeMap::new(), digest: Sha256::new(), hashed: 0, reservation }
    }

    /// Whether `count` more bytes fit without [`Incoming::make_room`].
    #[must_use]
    pub fn has_room(&self, count: usize) -> bool {
        matches!(&self.store, Store::Memory(buffer) if buffer.capacity() - buffer.len() >= count)
    }

    /// Makes room for `count` more bytes of a stream whose size was not known, on disk if need be; false when the budget has
    /// none.
    ///
    /// # Errors
    ///
    /// When the spool file cannot be made or written, or no memory mapped.
    pub fn make_room(&mut self, count: usize, scratch_dir: &Path) -> io::Result<bool> {
        let Some(reservation) = &mut self.reservation else { return Ok(true) };
        let Store::Memory(buffer) = &mut self.store else { return Ok(reservation.grow_to(self.size + count as u64)) };
        // What is reserved is the buffer's capacity. It doubles, or else a large stream would be copied again for each piece.
        let capacity = (buffer.len() + count).max(buffer.capacity() * 2);
        if !reservation.grow_to(capacity as u64) {
            return Ok(false);
        }
        if reservation.is_spooled() {
            let file = PrivateFile::create_in(scratch_dir)?;
            file.write_all_at(buffer, 0)?;
            self.store = Store::Spool(file);
        } else {
            buffer.grow_to(capacity)?;
        }
        Ok(true)
    }

    /// Whether what arrives goes to disk.
    #[must_use]
    pub fn is_spooled(&self) -> bool {
        matches!(self.store, Store::Spool(_))
    }

    /// Appends bytes.
    ///
    /// # Errors
    ///
    /// When the spool file cannot be written, for want of space above all.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_at(bytes, self.size)
    }

    /// Writes bytes at their place, which may be beyond what has arrived.
    ///
    /// # Errors
    ///
    /// As [`Incoming::write`]; and when some of them are there already: they may have been hashed, and could be others now.
    pub fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset + bytes.len() as u64;
        let before = self.ahead.range(..=offset).next_back().map(|(&start, &end)| (start, end));
        let after = self.ahead.range(offset..).next().map(|(&start, _)| start);
        if offset < self.size || before.is_some_and(|(_, before)| before > offset) || after.is_some_and(|after| after < end) {
            return Err(io::Error::other("bytes that had arrived arrived again"));
        }
        self.store.write_at(bytes, offset)?;
        if offset == self.size {
            if self.hashed == offset {
                // They are at hand.
                self.digest.update(bytes);
                self.hashed = end;
            }
            self.size = end;
            while let Some(further) = self.ahead.remove(&self.size) {
                self.size = further;
            }
        } else if !bytes.is_empty() {
            // A piece that goes on stays one piece.
            let start = before.filter(|&(_, before)| before == offset).map_or(offset, |(start, _)| start);
            self.ahead.insert(start, end);
        }
        self.hash_to(self.size.min(self.hashed + CATCH_UP))
    }

    /// How many bytes have arrived, up to the first gap.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether [`Incoming::finish`] takes a while, because much is still to be hashed.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.hashed < self.size
    }

    /// Ends the input.
    ///
    /// # Errors
    ///
    /// When there is a gap, or the spool file cannot be read back or mapped.
    pub fn finish(mut self) -> io::Result<Input> {
        if !self.ahead.is_empty() {
            return Err(io::Error::other(format!("the content has a gap at byte {}", self.size)));
        }
        self.hash_to(self.size)?;
        let source = match self.store {
            Store::Memory(bytes) => Source::Memory(bytes),
            Store::Spool(_) if self.size == 0 => Source::Memory(Buffer::Heap(Vec::new())),
            Store::Spool(file) => Source::Spooled(file.freeze()?),
        };
        Ok(Input { source, size: self.size, sha256: Some(self.digest.finalize().into()), _reservation: self.reservation })
    }

    /// Hashes what was passed over because it came early.
    fn hash_to(&mut self, end: u64) -> io::Result<()> {
        if self.hashed >= end {
            return Ok(());
        }
        match &self.store {
            Store::Memory(buffer) => {
                let range = usize::try_from(self.hashed).ok().zip(usize::try_from(end).ok());
                let bytes = range.and_then(|(from, to)| buffer.get(from..to));
                self.digest.update(bytes.ok_or_else(|| io::Error::other("the buffer is shorter than what was written"))?);
                self.hashed = end;
            }
            Store::Spool(file) => {
                let mut chunk = vec![0; READ_BACK];
                while self.hashed < end {
                    let count = usize::try_from(end - self.hashed).map_or(READ_BACK, |left| left.min(READ_BACK));
                    let bytes = &mut chunk[..count];
                    file.read_exact_at(bytes, self.hashed)?;
                    self.digest.update(bytes);
                    self.hashed += count as u64;
                }
            }
        }
        Ok(())
    }
}

impl Store {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self {
            Self::Spool(file) => file.write_all_at(bytes, offset),
            Self::Memory(buffer) => buffer.write_at(bytes, usize::try_from(offset).map_err(io::Error::other)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::Budget;

    const SIZE: usize = 3_000_000;

    /// In memory, and on disk.
    async fn both() -> io::Result<Vec<Incoming>> {
        let dir = std::env::temp_dir();
        let mut both = Vec::new();
        for in_memory_max in [SIZE as u64, 0] {
            let reservation = Budget::new(1 << 24, 1 << 24, in_memory_max).reserve(SIZE as u64).await;
            both.push(Incoming::new(reservation.ok_or(io::ErrorKind::Other)?, SIZE as u64, &dir)?);
        }
        assert!(both[1].is_spooled() && !both[0].is_spooled());
        Ok(both)
    }

    fn content() -> Vec<u8> {
        (0..SIZE).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect()
    }

    #[tokio::test]
    async fn in_whatever_order_the_parts_come_the_content_and_its_digest_are_the_same() -> io::Result<()> {
        let content = content();
        for step in [SIZE, SIZE - 1, SIZE / 2, SIZE / 3 + 1, 300_000] {
            let parts: Vec<(usize, &[u8])> = content.chunks(step).enumerate().map(|(n, part)| (n * step, part)).collect();
            // In order, backwards, and all in small pieces by turns.
            let backwards = parts.iter().rev().copied().collect();
            let mut by_turns = Vec::new();
            for piece in 0..step.div_ceil(50_000) {
                for &(offset, part) in &parts {
                    let rest = part.chunks(50_000).nth(piece);
                    by_turns.extend(rest.map(|bytes| (offset + piece * 50_000, bytes)));
                }
            }
            for order in [parts, backwards, by_turns] {
                for mut incoming in both().await? {
                    for &(offset, bytes) in &order {
                        incoming.write_at(bytes, offset as u64)?;
                    }
                    assert_eq!(incoming.size(), SIZE as u64);
                    let input = incoming.finish()?;
                    assert_eq!(input.sha256(), Some(crate::engine::hex(&Sha256::digest(&content))), "{step}");
                    let held: &[u8] = match &input.source {
                        Source::Memory(bytes) => bytes,
                        Source::Spooled(file) => file,
                        Source::File(_) => unreachable!(),
                    };
                    assert!(held == content, "{step}");
                }
            }
        }
        Ok(())
    }

    #[tokio::test]
    async fn what_has_a_gap_or_comes_twice_is_no_input() -> io::Result<()> {
        for mut incoming in both().await? {
            incoming.write_at(b"d", 3)?;
            incoming.write_at(b"ab", 0)?;
            assert_eq!(incoming.size(), 2);
            for (bytes, offset) in [(&b"x"[..], 0), (b"x", 1), (b"x", 3), (b"xy", 2), (b"xyz", 2)] {
                assert!(incoming.write_at(bytes, offset).is_err(), "{bytes:?} at {offset}");
            }
            assert!(incoming.finish().is_err());
        }
        Ok(())
    }
}
