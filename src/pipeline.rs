//! Message → records → fetch → scan → act → report → acknowledge: the one place that joins the parts.
//!
//! A message is acknowledged only after every record in it has been acted on and reported.

mod giving_up;
mod object;
mod tell;
mod work;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;

pub use object::Objects;
pub use work::{Delivery, Done, Failure, Mode};

use crate::backoff::backoff;
use crate::object::ObjectStore;
use crate::queue::{Event, Message, ObjectEvent, Outcome, Slot};
use crate::telemetry::events;
use work::ObjectWork;

/// How many records of one message are worked on at once.
const RECORDS_AT_ONCE: usize = 8;

/// The delay before the second attempt at a message; it doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// The same for a message that is not understood: soon given up, but no busy loop on a queue without a redrive policy.
const FIRST_RETRY_OF_NOTHING: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_mins(15);

/// What is done about the messages of a queue.
pub struct Pipeline<S> {
    /// What works on the objects.
    pub objects: Arc<Objects<S>>,
    /// The delivery after which the queue gives a message up, if it ever does.
    pub most_receives: Option<u32>,
    /// Called when this machine, not the object, kept it from being scanned.
    pub on_trouble: Box<dyn Fn() + Send + Sync>,
}

impl<S: ObjectStore> Pipeline<S> {
    /// Does all the work of one message, and says what becomes of it. While it waits for somebody who is to be told, it steps aside.
    pub async fn handle(&self, message: Message, slot: &Slot) -> Outcome {
        let objects = match Event::parse(&message.body) {
            Ok(Event::Objects(objects)) => objects,
            Ok(Event::Nothing(why)) => {
                tracing::debug!(message_id = message.id, why, "nothing to scan");
                return Outcome::Done;
            }
            Err(error) => {
                events::message_not_understood(&message, &error);
                return Outcome::Retry(backoff(FIRST_RETRY_OF_NOTHING, message.receive_count, LONGEST_RETRY));
            }
        };
        let failures = futures_util::stream::iter(objects)
            .map(|event| self.record(event, &message, slot))
            .buffer_unordered(RECORDS_AT_ONCE)
            .filter(|done| std::future::ready(!done))
            .count()
            .await;
        if failures == 0 { Outcome::Done } else { Outcome::Retry(backoff(FIRST_RETRY, message.receive_count, LONGEST_RETRY)) }
    }

    /// Works on one record and logs how it ended; true when it is done.
    async fn record(&self, event: ObjectEvent, message: &Message, slot: &Slot) -> bool {
        let delivery = Delivery { queued: queued(message), redelivered: message.receive_count > 1 };
        let step_aside = || slot.step_aside();
        let mut work = ObjectWork::new(&event, delivery, Mode::Filter).on_wait(&step_aside);
        let mut done = self.objects.carry_on(&mut work).await;
        if let Ok(Done::Gone(error)) = done {
            events::object_gone(&work.id, &error, event.must_exist);
            done = self.objects.tell_missing(&work, error).await;
        }
        match done {
            Ok(Done::Reported(report)) => events::object_scanned("queue", &work.id, &report),
            Ok(Done::Skipped(rule)) => events::object_skipped(&work.id, &rule),
            Ok(Done::Gone(_)) => {}
            Err(error) => {
                if error.is_trouble() {
                    (self.on_trouble)();
                }
                let last = self.most_receives.is_some_and(|most| message.receive_count >= most);
                events::object_failed(&work.id, message, &error, last);
                // The message stays, for the dead-letter queue.
                if last && !error.is_closing() {
                    let id = work.id.clone();
                    let report = self.objects.give_up(work, &error).await;
                    events::object_scanned("queue", &id, &report);
                }
                return false;
            }
        }
        true
    }
}

/// How long the message waited before this delivery.
fn queued(message: &Message) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let sent = message.sent_at_ms.and_then(|ms| u64::try_from(ms).ok()).map_or(now, Duration::from_millis);
    now.saturating_sub(sent)
}
