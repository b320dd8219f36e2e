//! A message's place among those that are worked on at once.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One place, given back when it is dropped.
#[derive(Debug)]
pub struct Slot {
    place: Mutex<Place>,
    aside: Arc<Semaphore>,
}

#[derive(Debug)]
enum Place {
    AtWork(#[expect(dead_code, reason = "held until it is dropped")] OwnedSemaphorePermit),
    Aside(#[expect(dead_code, reason = "held until it is dropped")] OwnedSemaphorePermit),
}

impl Slot {
    pub(super) fn new(at_work: OwnedSemaphorePermit, aside: Arc<Semaphore>) -> Self {
        Self { place: Mutex::new(Place::AtWork(at_work)), aside }
    }

    /// From now on the message only waits for somebody else: its place goes to the next one, unless too many wait already.
    pub fn step_aside(&self) {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*place, Place::AtWork(_))
            && let Ok(aside) = Arc::clone(&self.aside).try_acquire_owned()
        {
            *place = Place::Aside(aside);
        }
    }
}
