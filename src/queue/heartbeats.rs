//! Keeps messages hidden from others for as long as they are worked on: one task for all of them, ten in a request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as Turn, Notify, OwnedMutexGuard};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{BATCH, Message, Queue, QueueError};

/// How long the end of a heartbeat waits for a request under way, which could hide the message again after it was given back.
const PATIENCE: Duration = Duration::from_secs(1);

/// The task that extends the visibility of messages, every third of it. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Heartbeats {
    messages: Arc<Messages>,
    _task: AbortOnDropHandle<()>,
}

/// The heartbeat of one message; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Heartbeat {
    messages: Arc<Messages>,
    number: u64,
    turn: Arc<Turn<()>>,
}

/// The messages that are kept hidden.
#[derive(Debug)]
struct Messages {
    visibility: Duration,
    all: Mutex<All>,
    /// There is one, and there may have been none.
    begun: Notify,
}

#[derive(Debug, Default)]
struct All {
    next: u64,
    by_number: BTreeMap<u64, Hidden>,
}

#[derive(Debug)]
struct Hidden {
    message_id: String,
    receipt: String,
    due: Instant,
    /// It is being deleted.
    ending: bool,
    /// Taken while a request about the message is under way.
    turn: Arc<Turn<()>>,
}

/// A message in a request.
struct Beat {
    number: u64,
    message_id: String,
    _turn: OwnedMutexGuard<()>,
}

impl Heartbeats {
    pub(super) fn start<Q: Queue>(queue: Arc<Q>, visibility: Duration) -> Self {
        let messages = Arc::new(Messages { visibility, all: Mutex::default(), begun: Notify::new() });
        let task = tokio::spawn(run(queue, Arc::clone(&messages)));
        Self { messages, _task: AbortOnDropHandle::new(task) }
    }

    /// Keeps a message hidden that was just received.
    pub(super) fn begin(&self, message: &Message) -> Heartbeat {
        let turn = Arc::default();
        let hidden = Hidden {
            message_id: message.id.clone(),
            receipt: message.receipt.clone(),
            due: Instant::now() + self.messages.visibility / 3,
            ending: false,
            turn: Arc::clone(&turn),
        };
        let mut all = self.messages.lock();
        let number = all.next;
        all.next += 1;
        all.by_number.insert(number, hidden);
        drop(all);
        self.messages.begun.notify_one();
        Heartbeat { messages: Arc::clone(&self.messages), number, turn }
    }
}

impl Heartbeat {
    /// The message is about to be deleted: from now on it is no surprise when it is there no more.
    pub(super) fn expect_end(&self) {
        if let Some(hidden) = self.messages.lock().by_number.get_mut(&self.number) {
            hidden.ending = true;
        }
    }

    /// Ends it, and waits for a request that is under way.
    pub(super) async fn end(self) {
        self.messages.forget(self.number);
        let _ = timeout(PATIENCE, self.turn.lock()).await;
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.messages.forget(self.number);
    }
}

impl Messages {
    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, number: u64) -> Option<Hidden> {
        self.lock().by_number.remove(&number)
    }

    fn is_held(&self, number: u64) -> bool {
        self.lock().by_number.contains_key(&number)
    }

    fn next_due(&self) -> Option<Instant> {
        self.lock().by_number.values().map(|hidden| hidden.due).min()
    }

    /// What is due, and what is due next: a request has room for ten, and costs the same. So a few messages soon have one
    /// request together.
    fn take_due(&self, now: Instant) -> Vec<(Beat, String)> {
        let mut all = self.lock();
        let mut by_due: Vec<(&u64, &mut Hidden)> = all.by_number.iter_mut().collect();
        by_due.sort_by_key(|(_, hidden)| hidden.due);
        let due = by_due.iter().take_while(|(_, hidden)| hidden.due <= now).count();
        let mut beats = Vec::new();
        for (&number, hidden) in by_due.into_iter().take(due.next_multiple_of(BATCH)) {
            hidden.due = now + self.visibility / 3;
            // It is being given back, or the last request hangs: two requests could overtake each other.
            let Ok(turn) = Arc::clone(&hidden.turn).try_lock_owned() else { continue };
            beats.push((Beat { number, message_id: hidden.message_id.clone(), _turn: turn }, hidden.receipt.clone()));
        }
        beats
    }
}

async fn run<Q: Queue>(queue: Arc<Q>, messages: Arc<Messages>) {
    loop {
        let Some(due) = messages.next_due() else {
            messages.begun.notified().await;
            continue;
        };
        sleep_until(due).await;
        let mut beats = messages.take_due(Instant::now()).into_iter();
        loop {
            let (batch, receipts): (Vec<_>, Vec<_>) = beats.by_ref().take(BATCH).unzip();
            if batch.is_empty() {
                break;
            }
            // A request that hangs must not keep the others waiting.
            tokio::spawn(extend(Arc::clone(&queue), Arc::clone(&messages), batch, receipts));
        }
    }
}

async fn extend<Q: Queue>(queue: Arc<Q>, messages: Arc<Messages>, batch: Vec<Beat>, receipts: Vec<String>) {
    // Nor must it take the time of the next one: two thirds of the visibility are left for further attempts.
    let answer = timeout(messages.visibility / 4, queue.extend(&receipts, messages.visibility)).await;
    let failed = |error: QueueError| vec![Err(QueueError { lost: false, ..error }); batch.len()];
    let results = match answer {
        Ok(Ok(results)) => results,
        Ok(Err(error)) => failed(error),
        Err(_) => failed(QueueError {
            operation: "ChangeMessageVisibilityBatch",
            message: "no answer in time".to_owned(),
            lost: false,
        }),
    };
    for (beat, result) in batch.iter().zip(results) {
        let message_id = &beat.message_id;
        match result {
            Ok(()) => tracing::debug!(message_id, "extended the visibility"),
            Err(error) if error.lost => {
                // What was done or given back meanwhile was ours.
                if messages.forget(beat.number).is_some_and(|hidden| !hidden.ending) {
                    tracing::warn!(message_id, %error, "the message is no longer ours; somebody else may work on it too");
                }
            }
            Err(error) if messages.is_held(beat.number) => {
                tracing::warn!(message_id, %error, "cannot extend the visibility");
            }
            Err(_) => {}
        }
    }
}
