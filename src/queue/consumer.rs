//! Receives messages as long as there is room, and runs a handler on each under its lease.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::acknowledge::Acknowledger;
use super::heartbeats::Heartbeats;
use super::slot::Slot;
use super::{BATCH, Lease, Message, Queue};
use crate::backoff::backoff;

/// How long a poll under way may go on after a stop: messages that are on their way should not be lost to their visibility.
const LAST_POLL: Duration = Duration::from_secs(1);

/// How long a message stays hidden that arrived when it could not be worked on.
const GIVEN_BACK: Duration = Duration::from_secs(5);

/// How long a request for messages waits until there is room for as many as make it worth while: it costs the same for ten as
/// for one.
const GATHER_ROOM: Duration = Duration::from_millis(100);

/// What becomes of a message after its handler has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done: it is deleted.
    Done,
    /// Not done: it is delivered again after this delay, or goes to the dead-letter queue if it was delivered too often.
    Retry(Duration),
}

/// One or several receivers on one queue, with a bound on the messages in flight. One waits for messages at all times; another
/// one joins whenever ten have come at once, up to the number of receivers, and all but one rest when none have come.
#[derive(Debug)]
pub struct Consumer<Q> {
    queue: Arc<Q>,
    receivers: usize,
    visibility: Duration,
    /// For how many messages there should be room when more are asked for.
    worth_while: usize,
    room: Arc<Semaphore>,
    /// Room for messages that only wait.
    aside: Arc<Semaphore>,
    handlers: TaskTracker,
}

impl<Q: Queue> Consumer<Q> {
    /// A consumer with at most `receivers` requests for messages at once, of at most `max_in_flight` messages at once, and of
    /// `max_waiting` more that have [stepped aside](Slot::step_aside).
    #[must_use]
    pub fn new(queue: Q, receivers: usize, max_in_flight: usize, max_waiting: usize, visibility: Duration) -> Self {
        Self {
            queue: Arc::new(queue),
            receivers: receivers.max(1),
            visibility,
            // Half of them have to be left to work on.
            worth_while: (max_in_flight / 2).clamp(1, BATCH),
            room: Arc::new(Semaphore::new(max_in_flight.max(1))),
            aside: Arc::new(Semaphore::new(max_waiting)),
            handlers: TaskTracker::new(),
        }
    }

    /// How many messages are in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.handlers.len()
    }

    /// Receives until `stop`, but nothing while there are `obstacles`; then waits for the handlers under way. At `abandon`, those still running are dropped and their
    /// messages made visible at once.
    pub async fn run<H, F>(
        &self,
        handler: H,
        obstacles: watch::Receiver<Vec<String>>,
        stop: CancellationToken,
        abandon: CancellationToken,
    ) where
        H: Fn(Message, Arc<Slot>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Outcome> + Send + 'static,
    {
        let acknowledger = Acknowledger::start(Arc::clone(&self.queue), self.handlers.clone());
        let heartbeats = Arc::new(Heartbeats::start(Arc::clone(&self.queue), self.visibility));
        let receivers = TaskTracker::new();
        let needed = watch::Sender::new(1);
        for number in 0..self.receivers {
            let receiver = Receiver {
                queue: Arc::clone(&self.queue),
                room: Arc::clone(&self.room),
                aside: Arc::clone(&self.aside),
                visibility: self.visibility,
                worth_while: self.worth_while,
                needed: needed.clone(),
                most_needed: self.receivers,
                heartbeats: Arc::clone(&heartbeats),
                acknowledger: acknowledger.clone(),
                handlers: self.handlers.clone(),
                obstacles: obstacles.clone(),
                stop: stop.clone(),
                abandon: abandon.clone(),
            };
            receivers.spawn(receiver.run(number, handler.clone()));
        }
        receivers.close();
        receivers.wait().await;
        self.handlers.close();
        self.handlers.wait().await;
    }
}

struct Receiver<Q> {
    queue: Arc<Q>,
    room: Arc<Semaphore>,
    aside: Arc<Semaphore>,
    visibility: Duration,
    worth_while: usize,
    /// How many receivers there is work for.
    needed: watch::Sender<usize>,
    most_needed: usize,
    heartbeats: Arc<Heartbeats>,
    acknowledger: Acknowledger,
    handlers: TaskTracker,
    obstacles: watch::Receiver<Vec<String>>,
    stop: CancellationToken,
    abandon: CancellationToken,
}

impl<Q: Queue> Receiver<Q> {
    async fn run<H, F>(mut self, number: usize, handler: H)
    where
        H: Fn(Message, Arc<Slot>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut failures = 0_u32;
        let mut needed = self.needed.subscribe();
        loop {
            tokio::select! {
                is_needed = needed.wait_for(|&needed| number < needed) => if is_needed.is_err() { return },
                () = self.stop.cancelled() => return,
            }
            let Some(mut room) = self.wait_for_room().await else { return };
            let poll = self.queue.receive(room.len(), self.visibility);
            tokio::pin!(poll);
            let received = tokio::select! {
                received = &mut poll => received,
                () = self.stop.cancelled() => match tokio::time::timeout(LAST_POLL, poll).await {
                    Ok(received) => received,
                    Err(_) => return,
                },
            };
            match received {
                Ok(messages) => {
                    failures = 0;
                    match messages.len() {
                        0 => _ = self.needed.send_replace(1),
                        BATCH.. => self.needed.send_modify(|needed| *needed = (*needed + 1).min(self.most_needed)),
                        _ => {}
                    }
                    for message in messages {
                        let Some(permit) = room.pop() else { break };
                        self.start(message, permit, handler.clone());
                    }
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    let delay = backoff(Duration::from_millis(500), failures, Duration::from_secs(30));
                    tracing::warn!(%error, retry_in_ms = delay.as_millis(), "cannot receive messages");
                    tokio::select! {
                        () = tokio::time::sleep(delay) => {}
                        () = self.stop.cancelled() => return,
                    }
                }
            }
        }
    }

    /// Permits for one to ten messages, when nothing is in the way; `None` after a stop.
    async fn wait_for_room(&mut self) -> Option<Vec<OwnedSemaphorePermit>> {
        let first = loop {
            let first = tokio::select! {
                permit = Arc::clone(&self.room).acquire_owned() => permit.ok()?,
                () = self.stop.cancelled() => return None,
            };
            if self.obstacles.borrow().is_empty() {
                break first;
            }
            drop(first);
            tokio::select! {
                // An error means that nobody watches any more, at the end.
                cleared = self.obstacles.wait_for(Vec::is_empty) => drop(cleared.ok()?),
                () = self.stop.cancelled() => return None,
            }
        };
        let mut room = vec![first];
        self.take_room(&mut room);
        let gather = async {
            while room.len() < self.worth_while {
                let Ok(permit) = Arc::clone(&self.room).acquire_owned().await else { break };
                room.push(permit);
            }
        };
        let _ = tokio::time::timeout(GATHER_ROOM, gather).await;
        self.take_room(&mut room);
        (!self.stop.is_cancelled()).then_some(room)
    }

    /// Takes what room there is, for up to ten messages.
    fn take_room(&self, room: &mut Vec<OwnedSemaphorePermit>) {
        while room.len() < BATCH {
            let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else { break };
            room.push(permit);
        }
    }

    fn start<H, F>(&self, message: Message, permit: OwnedSemaphorePermit, handler: H)
    where
        H: Fn(Message, Arc<Slot>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Outcome> + Send + 'static,
    {
        let lease = Lease::new(Arc::clone(&self.queue), self.acknowledger.clone(), &self.heartbeats, &message);
        let (stop, abandon) = (self.stop.clone(), self.abandon.clone());
        let in_the_way = !self.obstacles.borrow().is_empty();
        let slot = Arc::new(Slot::new(permit, Arc::clone(&self.aside)));
        self.handlers.spawn(async move {
            // Received while stopping: not begun, so given back.
            if stop.is_cancelled() {
                return lease.release(Duration::ZERO).await;
            }
            // On its way when something got in the way.
            if in_the_way {
                return lease.release(GIVEN_BACK).await;
            }
            let outcome = tokio::select! {
                outcome = handler(message, Arc::clone(&slot)) => outcome,
                () = abandon.cancelled() => Outcome::Retry(Duration::ZERO),
            };
            match outcome {
                Outcome::Done => {
                    // Its deletion waits for others, and the next one need not wait for that.
                    slot.step_aside();
                    lease.acknowledge().await;
                }
                Outcome::Retry(delay) => lease.release(delay).await,
            }
            drop(slot);
        });
    }
}

#[cfg(test)]
mod tests;
