//! When a look at a layer has to end: hostile bytes can be made to take long.

use std::cell::Cell;
use std::time::Instant;

/// How much work is done between two looks at the clock, in bytes read. It takes less than a hundredth of a second.
const STRIDE: usize = 64 * 1024;

/// The time that is left for one layer.
pub(super) struct Deadline {
    at: Instant,
    /// The work since the last look at the clock.
    work: Cell<usize>,
    has_passed: Cell<bool>,
}

impl Deadline {
    /// What to say of a layer that takes longer.
    pub(super) const TOO_SLOW: &'static str = "layer that takes too long to look at";

    pub(super) fn new(at: Instant) -> Self {
        Self { at, work: Cell::new(STRIDE), has_passed: Cell::new(false) }
    }

    /// Counts work: bytes that were read, or what takes as long. Every loop over parts of a layer calls this.
    ///
    /// # Errors
    ///
    /// When the time is over, from then on always.
    pub(super) fn spend(&self, work: usize) -> Result<(), &'static str> {
        let work = self.work.get().saturating_add(work);
        self.work.set(work);
        if work >= STRIDE {
            self.work.set(0);
            self.has_passed.set(self.has_passed.get() || Instant::now() > self.at);
        }
        if self.has_passed.get() { Err(Self::TOO_SLOW) } else { Ok(()) }
    }

    /// Whether something was left out because the time was over.
    pub(super) fn has_passed(&self) -> bool {
        self.has_passed.get()
    }

    /// One that no test comes near.
    #[cfg(test)]
    pub(super) fn far() -> Self {
        Self::new(Instant::now() + std::time::Duration::from_secs(600))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_stays_passed() {
        let deadline = Deadline::new(Instant::now());
        assert!(!deadline.has_passed(), "nothing was left out so far");
        while deadline.spend(1).is_ok() {}
        assert_eq!((deadline.spend(0), deadline.has_passed()), (Err(Deadline::TOO_SLOW), true));
        assert_eq!(Deadline::far().spend(usize::MAX), Ok(()));
    }
}
