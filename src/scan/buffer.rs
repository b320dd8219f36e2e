//! Bytes in memory that arrive at their places.

use std::io;
use std::ops::Deref;

use memmap2::MmapMut;

/// Buffers from this capacity on are mappings of their own, whose memory is the system's again at once. An allocator keeps what another
/// thread frees until the one that asked for it comes by, and all of that would count beside the budget.
const MAPPED_MIN: usize = 1024 * 1024;

/// Bytes, with room for more.
#[derive(Debug)]
pub(super) enum Buffer {
    Heap(Vec<u8>),
    /// Behind the first `len` bytes nothing was written: they are zero.
    Mapped {
        map: MmapMut,
        len: usize,
    },
}

impl Buffer {
    /// Room for so many bytes.
    ///
    /// # Errors
    ///
    /// When the system has no address space left.
    pub(super) fn with_capacity(capacity: usize) -> io::Result<Self> {
        if capacity < MAPPED_MIN {
            return Ok(Self::Heap(Vec::with_capacity(capacity)));
        }
        Ok(Self::Mapped { map: MmapMut::map_anon(capacity)?, len: 0 })
    }

    /// How many bytes have room.
    pub(super) fn capacity(&self) -> usize {
        match self {
            Self::Heap(bytes) => bytes.capacity(),
            Self::Mapped { map, .. } => map.len(),
        }
    }

    /// Makes room for `capacity` bytes.
    ///
    /// # Errors
    ///
    /// As [`Buffer::with_capacity`].
    pub(super) fn grow_to(&mut self, capacity: usize) -> io::Result<()> {
        match self {
            Self::Heap(bytes) if capacity < MAPPED_MIN => bytes.reserve_exact(capacity.saturating_sub(bytes.len())),
            _ => {
                let mut larger = Self::with_capacity(capacity)?;
                larger.write_at(self, 0)?;
                *self = larger;
            }
        }
        Ok(())
    }

    /// Writes bytes at their place. What is skipped is zero until it is written.
    ///
    /// # Errors
    ///
    /// When a mapping has no room for them.
    pub(super) fn write_at(&mut self, bytes: &[u8], offset: usize) -> io::Result<()> {
        let to = offset.checked_add(bytes.len()).ok_or(io::ErrorKind::InvalidInput)?;
        match self {
            Self::Heap(held) if offset == held.len() => held.extend_from_slice(bytes),
            Self::Heap(held) => {
                // Only what came early, or fills a gap, gets here.
                if held.len() < to {
                    held.resize(to, 0);
                }
                held[offset..to].copy_from_slice(bytes);
            }
            Self::Mapped { map, len } => {
                let place = map.get_mut(offset..to).ok_or_else(|| io::Error::other("the content is longer than was said"))?;
                place.copy_from_slice(bytes);
                *len = to.max(*len);
            }
        }
        Ok(())
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Heap(bytes) => bytes,
            Self::Mapped { map, len } => &map[..*len],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_hold_the_same() -> io::Result<()> {
        for capacity in [1_000, MAPPED_MIN - 1, MAPPED_MIN, 3 * MAPPED_MIN] {
            let mut buffer = Buffer::with_capacity(capacity)?;
            assert_eq!(matches!(buffer, Buffer::Mapped { .. }), capacity >= MAPPED_MIN);
            assert!(buffer.is_empty() && buffer.capacity() >= capacity);
            buffer.write_at(b"end", capacity - 3)?;
            buffer.write_at(b"begin", 0)?;
            assert_eq!((buffer.len(), &buffer[..7], &buffer[capacity - 4..]), (capacity, &b"begin\0\0"[..], &b"\0end"[..]));
            buffer.grow_to(2 * capacity)?;
            buffer.write_at(b"more", capacity)?;
            assert_eq!((buffer.len(), &buffer[..5], &buffer[capacity - 3..]), (capacity + 4, &b"begin"[..], &b"endmore"[..]));
            assert!(buffer.capacity() >= 2 * capacity);
        }
        Ok(())
    }

    #[test]
    fn a_mapping_takes_no_more_than_it_has_room_for() -> io::Result<()> {
        let mut buffer = Buffer::with_capacity(MAPPED_MIN)?;
        for offset in [MAPPED_MIN - 2, MAPPED_MIN, usize::MAX - 1, usize::MAX] {
            assert!(buffer.write_at(b"xyz", offset).is_err(), "{offset}");
        }
        assert!(buffer.is_empty());
        Ok(())
    }
}
