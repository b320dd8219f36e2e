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

/// What fetching an object takes at most beside its bytes: four connections (`object/ranges.rs`) whose buffers grow to 408 KiB each (hyper's
/// `DEFAULT_MAX_BUFFER_SIZE`). Those of a small object stay small.
const FETCHING_MAX: u64 = 2 * 1024 * 1024;

/// Room for one object, held while the object is in flight.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    /// `None` as long as nothing was reserved.
    units: Option<OwnedSemaphorePermit>,
    spooled: bool,
}

impl Reservation {
    /// Whether the object is too large for memory and goes to disk.
    #[must_use]
    pub fn is_spooled(&self) -> bool {
        self.spooled
    }

    /// Makes it room for `size` bytes without waiting: two that wait for each other's room would wait for ever. What does not fit
    /// into memory any more moves to disk; false when there is no room there either. A quarter of each is left to objects, which
    /// wait in line: streams must not keep them out for as long as clients like.
    #[must_use]
    pub(super) fn grow_to(&mut self, size: u64) -> bool {
        if !self.spooled && size <= self.budget.in_memory_max && self.budget.memory.extend(&mut self.units, size) {
            return true;
        }
        let spool = &self.budget.spool;
        if self.spooled {
            return spool.extend(&mut self.units, size);
        }
        let mut units = None;
        self.spooled = spool.extend(&mut units, size);
        if self.spooled {
            self.units = units;
        }
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
        Arc::clone(&self.units).acquire_many_owned(self.units_of(bytes)).await.ok()
    }

    /// Adds what is missing for `bytes`, if that is free at once and a quarter is left besides. Who is alone may have all of it: the largest stream
    /// must fit into the smallest share.
    fn extend(&self, held: &mut Option<OwnedSemaphorePermit>, bytes: u64) -> bool {
        let count = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = self.units_of(bytes).saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
        if missing == 0 {
            return true;
        }
        let (free, total) = (self.units.available_permits(), self.total as usize);
        let left = if free + count == total { 0 } else { total / 4 };
        if free < missing as usize + left {
            return false;
        }
        let Ok(more) = Arc::clone(&self.units).try_acquire_many_owned(missing) else { return false };
        match held {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        true
    }

    /// An object beyond the whole budget takes all of it, alone.
    fn units_of(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).clamp(1, self.total)
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
        let units = if spooled {
            self.spool.take(size).await
        } else {
            self.memory.take(size.saturating_add(FETCHING_MAX.min(size / 8))).await
        };
        units.map(|units| Reservation { budget: self.clone(), units: Some(units), spooled })
    }

    /// A reservation of nothing, for a stream whose size is not known: it grows with what arrives.
    #[must_use]
    pub fn open_ended(&self) -> Reservation {
        Reservation { budget: self.clone(), units: None, spooled: false }
    }

    /// Lets nobody in any more: who waits gets `None`.
    pub fn close(&self) {
        self.memory.units.close();
        self.spool.units.close();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn what_fetching_takes_was_not_in_the_budget() {
        const MIB: u64 = 1024 * 1024;
        for (size, fit) in [(31 * MIB, 15), (8 * MIB, 56), (UNIT, 4096), (64 * MIB, 7), (512 * MIB, 1), (u64::MAX, 1)] {
            let budget = Budget::new(512 * MIB, 1, u64::MAX);
            let held: Vec<_> = std::iter::from_fn(|| budget.reserve(size).now_or_never()).collect();
            assert_eq!(held.len(), fit, "{size}");
        }
    }

    #[test]
    fn streams_take_memory_then_disk_then_nothing_and_leave_a_quarter() {
        let budget = Budget::new(8 * UNIT, 12 * UNIT, 2 * UNIT);
        let [mut first, mut second, mut third, mut fourth] = std::array::from_fn(|_| budget.open_ended());
        assert!(first.grow_to(2 * UNIT) && !first.is_spooled());
        assert!(second.grow_to(UNIT) && !second.is_spooled());
        assert!(third.grow_to(2 * UNIT) && !third.is_spooled());
        assert!(fourth.grow_to(2 * UNIT) && fourth.is_spooled(), "one unit of memory was left to streams");
        assert!(first.grow_to(3 * UNIT) && first.is_spooled(), "larger than in_memory_max");
        assert!(!fourth.grow_to(7 * UNIT), "six of the nine units of disk are left to it");
        assert!(fourth.grow_to(6 * UNIT));
        assert!(second.grow_to(2 * UNIT) && !second.is_spooled(), "the first one's memory is free again");
        drop((first, second, third, fourth));
        assert_eq!((budget.memory.units.available_permits(), budget.spool.units.available_permits()), (8, 12));
    }

    /// Four streams of a gigabyte each, which stop before their last bytes, kept every large object of the queue waiting.
    #[tokio::test]
    async fn streams_took_all_of_the_disk() {
        let budget = Budget::new(UNIT, 8 * UNIT, UNIT);
        let mut streams: [_; 4] = std::array::from_fn(|_| budget.open_ended());
        let fit = streams.iter_mut().filter_map(|stream| stream.grow_to(2 * UNIT).then_some(())).count();
        assert_eq!(fit, 3);
        assert!(budget.reserve(2 * UNIT).await.is_some(), "an object finds room at once");
        drop(streams);
        assert!(budget.open_ended().grow_to(8 * UNIT), "who is alone may have all of it");
    }
}
