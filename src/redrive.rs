//! Moves dead letters back to the queue that they came from.
//!
//! Each is deleted only after it was sent: an interruption or a crash can double a message, which changes nothing, and never
//! loses one. Any number of messages takes the memory of one batch. What was sent after the move began is left alone: a message
//! that fails again at once must not go round for ever.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{
    Message, MessageSystemAttributeName, MessageSystemAttributeNameForSends, MessageSystemAttributeValue, QueueAttributeName,
};
use futures_util::future::join_all;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::backoff::backoff;
use crate::engine::hex;
use crate::enqueue::pace::Pace;
use crate::queue::{BATCH, Event, Queue, QueueError, SqsQueue};

/// How long a dead letter stays hidden while it is moved. A message that must be left alone is seen once in that time.
const HIDDEN: Duration = Duration::from_secs(60);

/// How long to wait for messages before there are none. With any wait, SQS asks all of its servers.
const WAIT: Duration = Duration::from_secs(1);

/// How often one request is tried.
const ATTEMPTS: u32 = 5;

/// How many dead letters [`Redrive::look`] shows at most: it hides all of them from others meanwhile.
pub const MOST_SHOWN: u64 = 1000;

/// A queue of dead letters, and the one that they are moved to.
#[derive(Debug, Clone)]
pub struct Redrive {
    /// For both queues.
    pub client: Client,
    /// The URL of the dead letters' queue.
    pub from: String,
    /// The URL of the queue that they are moved to.
    pub to: String,
    /// End after so many.
    pub limit: Option<u64>,
    /// So many a second, at most.
    pub rate: Option<NonZeroU32>,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Messages that were moved.
    pub moved: u64,
    /// Messages that arrived after the beginning, and were left.
    pub left: u64,
    /// Messages that were sent and could not be deleted: they are on both queues.
    pub doubled: u64,
    /// Whether somebody wanted it to stop before the end.
    pub interrupted: bool,
}

/// A dead letter, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// SQS's id of the message.
    pub id: String,
    /// When it was sent first.
    pub sent_at: Option<OffsetDateTime>,
    /// The objects that it is about, as `s3://bucket/key`, or why it is not understood.
    pub objects: Result<Vec<String>, String>,
}

impl Redrive {
    /// Moves messages until there are no more, or `stop`; those under way are finished then. `note` is told of every step.
    ///
    /// # Errors
    ///
    /// [`QueueError`]: what `note` was told last is done. Messages that could not be sent are still where they were.
    pub async fn run(&self, stop: &CancellationToken, mut note: impl FnMut(&Progress)) -> Result<Progress, QueueError> {
        let began = OffsetDateTime::now_utc();
        let source = self.source();
        let mut pace = Pace::new(self.rate);
        let mut progress = Progress::default();
        while !stop.is_cancelled() {
            let room = self.limit.map_or(u64::MAX, |limit| limit.saturating_sub(progress.moved));
            if room == 0 {
                return Ok(progress);
            }
            let messages = self.receive(room).await?;
            if stop.is_cancelled() {
                let receipts: Vec<String> = messages.into_iter().filter_map(|message| message.receipt_handle).collect();
                show_again(&source, &receipts).await;
                break;
            }
            if messages.is_empty() {
                return Ok(progress);
            }
            let (later, dead): (Vec<_>, Vec<_>) =
                messages.into_iter().partition(|message| sent_at(message).is_some_and(|at| at >= began));
            progress.left += later.len() as u64;
            let sent = self.send_all(&dead).await;
            let (mut done, mut undone, mut failure) = (Vec::new(), Vec::new(), None);
            for (message, sent) in dead.iter().zip(sent) {
                let receipt = message.receipt_handle().unwrap_or_default().to_owned();
                match sent {
                    Ok(()) => done.push(receipt),
                    Err(error) => {
                        undone.push(receipt);
                        failure = Some(error);
                    }
                }
            }
            let doubled = delete(&source, &done).await;
            progress.moved += done.len() as u64;
            progress.doubled += doubled;
            note(&progress);
            if let Some(error) = failure {
                show_again(&source, &undone).await;
                return Err(error);
            }
            pace.reserve(done.len(), Instant::now());
            let next = pace.reserve(0, Instant::now());
            tokio::select! {
                () = tokio::time::sleep_until(next.into()) => {}
                () = stop.cancelled() => {}
            }
        }
        Ok(Progress { interrupted: true, ..progress })
    }

    /// Shows up to [`MOST_SHOWN`] messages, or the limit, and moves none. They are hidden from others until it ends.
    ///
    /// # Errors
    ///
    /// [`QueueError`]
    pub async fn look(&self, stop: &CancellationToken, mut show: impl FnMut(&DeadLetter)) -> Result<Progress, QueueError> {
        let most = self.limit.unwrap_or(MOST_SHOWN).min(MOST_SHOWN);
        let mut receipts: Vec<String> = Vec::new();
        let mut ended = Ok(());
        while (receipts.len() as u64) < most && !stop.is_cancelled() {
            let messages = match self.receive(most - receipts.len() as u64).await {
                Ok(messages) if messages.is_empty() => break,
                Ok(messages) => messages,
                Err(error) => {
                    ended = Err(error);
                    break;
                }
            };
            for message in messages {
                show(&dead_letter(&message));
                receipts.extend(message.receipt_handle);
            }
        }
        show_again(&self.source(), &receipts).await;
        let progress = Progress { moved: receipts.len() as u64, interrupted: stop.is_cancelled(), ..Progress::default() };
        ended.map(|()| progress)
    }

    /// About how many messages are on the dead letters' queue.
    ///
    /// # Errors
    ///
    /// [`QueueError`], above all when the queue does not exist or `sqs:GetQueueAttributes` is denied.
    pub async fn waiting(&self) -> Result<u64, QueueError> {
        let name = QueueAttributeName::ApproximateNumberOfMessages;
        let asked = self.client.get_queue_attributes().queue_url(&self.from).attribute_names(name.clone()).send().await;
        let found = asked.map_err(|error| QueueError::new("GetQueueAttributes", &error))?;
        Ok(found.attributes().and_then(|all| all.get(&name)?.parse().ok()).unwrap_or(0))
    }

    fn source(&self) -> SqsQueue {
        SqsQueue::new(self.client.clone(), self.from.clone(), WAIT)
    }

    async fn receive(&self, most: u64) -> Result<Vec<Message>, QueueError> {
        let most = i32::try_from(most.min(BATCH as u64)).unwrap_or(1);
        let request = self
            .client
            .receive_message()
            .queue_url(&self.from)
            .max_number_of_messages(most)
            .wait_time_seconds(WAIT.as_secs() as i32)
            .visibility_timeout(HIDDEN.as_secs() as i32)
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .message_attribute_names("All");
        let received = request.send().await.map_err(|error| QueueError::new("ReceiveMessage", &error))?;
        Ok(received.messages.unwrap_or_default())
    }

    /// Sends messages: the answer has one entry for each. On a FIFO queue one after the other, and none after one that failed.
    async fn send_all(&self, messages: &[Message]) -> Vec<Result<(), QueueError>> {
        if !is_fifo(&self.to) {
            return join_all(messages.iter().map(|message| self.send(message))).await;
        }
        let mut results: Vec<Result<(), QueueError>> = Vec::new();
        for message in messages {
            let result = match results.last() {
                Some(Err(error)) => Err(error.clone()),
                _ => self.send(message).await,
            };
            results.push(result);
        }
        results
    }

    /// Sends a message with all that it carried.
    async fn send(&self, message: &Message) -> Result<(), QueueError> {
        let group = attribute(message, &MessageSystemAttributeName::MessageGroupId);
        for attempt in 1.. {
            let mut request = self
                .client
                .send_message()
                .queue_url(&self.to)
                .message_body(message.body().unwrap_or_default())
                .set_message_attributes(message.message_attributes.clone())
                .set_message_system_attributes(trace_header(message))
                .set_message_group_id(group.map(str::to_owned));
            if is_fifo(&self.to) {
                request = request.message_deduplication_id(deduplication_id(message));
            }
            match request.send().await.map_err(|error| QueueError::new("SendMessage", &error)) {
                Ok(_) => break,
                Err(error) if attempt == ATTEMPTS => return Err(error),
                Err(error) => tracing::debug!(%error, attempt, "sending a dead letter again"),
            }
            pause(attempt).await;
        }
        Ok(())
    }
}

/// Whether a queue's URL is that of a FIFO queue.
#[must_use]
pub fn is_fifo(url: &str) -> bool {
    url.ends_with(".fifo")
}

/// The URL of the queue with this ARN.
///
/// # Errors
///
/// [`QueueError`], above all when the queue does not exist or `sqs:GetQueueUrl` is denied.
pub async fn url_of(client: &Client, arn: &str) -> Result<String, QueueError> {
    let mut parts = arn.rsplit(':');
    let (name, account) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let request = client.get_queue_url().queue_name(name).queue_owner_aws_account_id(account);
    let found = request.send().await.map_err(|error| QueueError::new("GetQueueUrl", &error))?;
    Ok(found.queue_url.unwrap_or_default())
}

/// Deletes messages that were sent; how many could not be deleted.
async fn delete(source: &SqsQueue, receipts: &[String]) -> u64 {
    let mut left = receipts.to_vec();
    for attempt in 1..=ATTEMPTS {
        if left.is_empty() {
            break;
        }
        let results = match source.delete(&left).await {
            Ok(results) => results,
            Err(error) => vec![Err(error); left.len()],
        };
        let failed = left.into_iter().zip(results).filter_map(|(receipt, result)| result.is_err().then_some(receipt));
        left = failed.collect();
        if !left.is_empty() && attempt < ATTEMPTS {
            pause(attempt).await;
        }
    }
    left.len() as u64
}

/// Lets others see messages at once. What fails is visible again later by itself.
async fn show_again(source: &SqsQueue, receipts: &[String]) {
    for receipts in receipts.chunks(BATCH) {
        join_all(receipts.iter().map(|receipt| source.set_visibility(receipt, Duration::ZERO))).await;
    }
}

async fn pause(attempt: u32) {
    tokio::time::sleep(backoff(Duration::from_millis(200), attempt, Duration::from_secs(5))).await;
}

/// A new id: within five minutes of the message's first sending, a queue takes its own for a duplicate and drops it. It is
/// always the same for one dead letter, so that a second sending of that is dropped.
fn deduplication_id(message: &Message) -> String {
    let own = attribute(message, &MessageSystemAttributeName::MessageDeduplicationId).unwrap_or_default();
    let sent = attribute(message, &MessageSystemAttributeName::SentTimestamp).unwrap_or_default();
    hex(&Sha256::digest(format!("{own}\n{}\n{sent}", message.message_id().unwrap_or_default())))
}

/// X-Ray's header.
fn trace_header(message: &Message) -> Option<HashMap<MessageSystemAttributeNameForSends, MessageSystemAttributeValue>> {
    let header = attribute(message, &MessageSystemAttributeName::AwsTraceHeader)?;
    let value = MessageSystemAttributeValue::builder().data_type("String").string_value(header).build().ok()?;
    Some(HashMap::from([(MessageSystemAttributeNameForSends::AwsTraceHeader, value)]))
}

fn attribute<'a>(message: &'a Message, name: &MessageSystemAttributeName) -> Option<&'a str> {
    message.attributes().and_then(|all| all.get(name)).map(String::as_str)
}

fn sent_at(message: &Message) -> Option<OffsetDateTime> {
    let ms: i128 = attribute(message, &MessageSystemAttributeName::SentTimestamp)?.parse().ok()?;
    OffsetDateTime::from_unix_timestamp_nanos(ms.checked_mul(1_000_000)?).ok()
}

fn dead_letter(message: &Message) -> DeadLetter {
    let objects = match Event::parse(message.body().unwrap_or_default()) {
        Ok(Event::Objects(objects)) => {
            Ok(objects.into_iter().map(|object| format!("s3://{}/{}", object.bucket, object.key)).collect())
        }
        Ok(_) => Ok(Vec::new()),
        Err(error) => Err(error.to_string()),
    };
    DeadLetter { id: message.message_id().unwrap_or_default().to_owned(), sent_at: sent_at(message), objects }
}
