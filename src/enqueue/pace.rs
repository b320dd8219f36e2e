//! No more than so many objects a second.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// Lets work through at a rate, without catching up on time that was not used.
#[derive(Debug)]
pub(crate) struct Pace {
    /// The time that one object takes up; `None` for no limit.
    each: Option<Duration>,
    next: Option<Instant>,
}

impl Pace {
    pub(crate) fn new(a_second: Option<NonZeroU32>) -> Self {
        Self { each: a_second.map(|rate| Duration::from_secs(1) / rate.get()), next: None }
    }

    /// When so many objects may be let through, at `now` or later.
    pub(crate) fn reserve(&mut self, objects: usize, now: Instant) -> Instant {
        let Some(each) = self.each else { return now };
        let begin = self.next.map_or(now, |next| next.max(now));
        self.next = Some(begin + each * u32::try_from(objects).unwrap_or(u32::MAX));
        begin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_and_unused_time_is_lost() {
        let began = Instant::now();
        let mut pace = Pace::new(NonZeroU32::new(100));
        for (at_ms, objects, let_through_ms) in
            [(0, 10, 0), (0, 10, 100), (150, 0, 200), (160, 5, 200), (160, 10, 250), (10_000, 10, 10_000), (10_000, 10, 10_100)]
        {
            let then = pace.reserve(objects, began + Duration::from_millis(at_ms));
            assert_eq!((then - began).as_millis(), let_through_ms, "at {at_ms}");
        }
        assert_eq!(Pace::new(None).reserve(1_000_000, began), began);
    }
}
