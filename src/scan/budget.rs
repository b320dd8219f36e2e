//! How many bytes of objects may be in flight at once.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bounds the bytes in memory and the bytes spooled to disk, whatever the size or number of objects.
///
/// A reservation is taken before the first byte is fetched and returned when it is dropped. Small objects wait for memory,
/// large ones for disk, each in the order of arrival.
#[derive(Debug, Clone)]
pub struct Budget {
    memory: Share,
    spool: Share,
    in_memory_max: u64,
}

#[derive(Debug, Clone)]
struct Share {
    units: Arc<Semaphore>,
    total: u32,
}

/// Bytes that one permit stands for: a semaphore counts to 2^32, budgets go beyond.
const UNIT: u64 = 64 * 1024;

/// Room for one object, held while the object is in flight.
#[derive(Debug)]
pub struct Reservation {
    _units: OwnedSemaphorePermit,
    spooled: bool,
}

impl Reservation {
    /// Whether the object is too large for memory and goes to disk.
    #[must_use]
    pub fn is_spooled(&self) -> bool {
        self.spooled
    }
}

impl Share {
    fn new(bytes: u64) -> Self {
        // Tokio's own bound is usize::MAX >> 3; a u32 of 64 KiB units is 256 TiB.
        let total = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX).max(1);
        Self { units: Arc::new(Semaphore::new(total as usize)), total }
    }

    async fn take(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        // An object beyond the whole budget takes all of it, alone.
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).clamp(1, self.total);
        Arc::clone(&self.units).acquire_many_owned(units).await.ok()
    }
}

impl Budget {
    /// A budget of `memory_bytes` for objects up to `in_memory_max` bytes, and of `spool_bytes` for those above.
    #[must_use]
    pub fn new(memory_bytes: u64, spool_bytes: u64, in_memory_max: u64) -> Self {
        Self { memory: Share::new(memory_bytes), spool: Share::new(spool_bytes), in_memory_max }
    }

    /// Waits for room for an object of `size` bytes; `None` after [`Budget::close`].
    pub async fn reserve(&self, size: u64) -> Option<Reservation> {
        let spooled = size > self.in_memory_max;
        let share = if spooled { &self.spool } else { &self.memory };
        share.take(size).await.map(|units| Reservation { _units: units, spooled })
    }

    /// Lets nobody in any more: who waits gets `None`.
    pub fn close(&self) {
        self.memory.units.close();
        self.spool.units.close();
    }
}
