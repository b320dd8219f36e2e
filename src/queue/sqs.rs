//! Amazon SQS.

use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
    MessageSystemAttributeName, QueueAttributeName, SendMessageBatchRequestEntry,
};

use super::{Message, Queue, QueueError};
use crate::aws;

/// One SQS queue. Standard queues and FIFO queues both work; S3 itself only sends to standard ones.
#[derive(Debug, Clone)]
pub struct SqsQueue {
    client: Client,
    url: String,
    wait: Duration,
}

impl SqsQueue {
    /// A queue by its URL; `wait` is the long poll's length, at most 20 seconds.
    #[must_use]
    pub fn new(client: Client, url: String, wait: Duration) -> Self {
        Self { client, url, wait }
    }

    /// The queue's ARN; asking for it shows that the queue exists and may be used.
    ///
    /// # Errors
    ///
    /// [`QueueError`], above all when the queue does not exist or `sqs:GetQueueAttributes` is denied.
    pub async fn arn(&self) -> Result<String, QueueError> {
        self.attribute(QueueAttributeName::QueueArn).await?.ok_or_else(|| QueueError {
            operation: "GetQueueAttributes",
            message: "no QueueArn in the answer".to_owned(),
            lost: false,
        })
    }

    /// How often a message is received before it goes to the dead-letter queue; `None` when that never happens.
    ///
    /// # Errors
    ///
    /// As [`SqsQueue::arn`].
    pub async fn most_receives(&self) -> Result<Option<u32>, QueueError> {
        let policy = self.attribute(QueueAttributeName::RedrivePolicy).await?;
        Ok(policy.and_then(|text| most_receives(&text)))
    }

    /// The ARN of the queue that gets what could not be worked off; `None` when there is none.
    ///
    /// # Errors
    ///
    /// As [`SqsQueue::arn`].
    pub async fn dead_letters(&self) -> Result<Option<String>, QueueError> {
        let policy = self.attribute(QueueAttributeName::RedrivePolicy).await?;
        Ok(policy.and_then(|text| {
            let policy: serde_json::Value = serde_json::from_str(&text).ok()?;
            policy.get("deadLetterTargetArn")?.as_str().map(str::to_owned)
        }))
    }

    /// Sends up to [`BATCH`](super::BATCH) messages. The answer has one entry for each, in order.
    ///
    /// # Errors
    ///
    /// [`QueueError`] when the request as a whole failed.
    pub async fn send_batch(&self, bodies: &[String]) -> Result<Vec<Result<(), QueueError>>, QueueError> {
        let operation = "SendMessageBatch";
        let entries = bodies
            .iter()
            .enumerate()
            .map(|(index, body)| SendMessageBatchRequestEntry::builder().id(index.to_string()).message_body(body).build())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| QueueError { operation, message: error.to_string(), lost: false })?;
        let request = self.client.send_message_batch().queue_url(&self.url).set_entries(Some(entries));
        let output = request.send().await.map_err(|error| QueueError::new(operation, &error))?;
        let successful = output.successful().iter().map(|entry| entry.id());
        Ok(by_entry(operation, bodies.len(), successful, output.failed()))
    }

    async fn attribute(&self, name: QueueAttributeName) -> Result<Option<String>, QueueError> {
        let request = self.client.get_queue_attributes().queue_url(&self.url).attribute_names(name.clone());
        let output = request.send().await.map_err(|error| QueueError::new("GetQueueAttributes", &error))?;
        Ok(output.attributes.and_then(|mut attributes| attributes.remove(&name)))
    }
}

impl Queue for SqsQueue {
    async fn receive(&self, most: usize, visibility: Duration) -> Result<Vec<Message>, QueueError> {
        let output = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(i32::try_from(most.clamp(1, super::BATCH)).unwrap_or(1))
            .wait_time_seconds(seconds(self.wait))
            .visibility_timeout(seconds(visibility))
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .send()
            .await
            .map_err(|error| QueueError::new("ReceiveMessage", &error))?;
        Ok(output.messages.unwrap_or_default().into_iter().map(message).collect())
    }

    async fn extend(&self, receipts: &[String], visibility: Duration) -> Result<Vec<Result<(), QueueError>>, QueueError> {
        let operation = "ChangeMessageVisibilityBatch";
        let entries = receipts
            .iter()
            .enumerate()
            .map(|(index, receipt)| {
                ChangeMessageVisibilityBatchRequestEntry::builder()
                    .id(index.to_string())
                    .receipt_handle(receipt)
                    .visibility_timeout(seconds(visibility))
                    .build()
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| QueueError { operation, message: error.to_string(), lost: false })?;
        let request = self.client.change_message_visibility_batch().queue_url(&self.url).set_entries(Some(entries));
        let output = request.send().await.map_err(|error| QueueError::new(operation, &error))?;
        let successful = output.successful().iter().map(|entry| entry.id());
        Ok(by_entry(operation, receipts.len(), successful, output.failed()))
    }

    async fn set_visibility(&self, receipt: &str, visibility: Duration) -> Result<(), QueueError> {
        self.client
            .change_message_visibility()
            .queue_url(&self.url)
            .receipt_handle(receipt)
            .visibility_timeout(seconds(visibility))
            .send()
            .await
            .map(|_| ())
            .map_err(|error| QueueError::new("ChangeMessageVisibility", &error))
    }

    async fn delete(&self, receipts: &[String]) -> Result<Vec<Result<(), QueueError>>, QueueError> {
        let entries = receipts
            .iter()
            .enumerate()
            .map(|(index, receipt)| {
                DeleteMessageBatchRequestEntry::builder().id(index.to_string()).receipt_handle(receipt).build()
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| QueueError { operation: "DeleteMessageBatch", message: error.to_string(), lost: false })?;
        let output = self
            .client
            .delete_message_batch()
            .queue_url(&self.url)
            .set_entries(Some(entries))
            .send()
            .await
            .map_err(|error| QueueError::new("DeleteMessageBatch", &error))?;
        let successful = output.successful().iter().map(|entry| entry.id());
        Ok(by_entry("DeleteMessageBatch", receipts.len(), successful, output.failed()))
    }
}

/// The results of a batch by its entries, whose ids are their places. An entry that is neither among the successes nor the failures
/// has failed.
fn by_entry<'a>(
    operation: &'static str,
    entries: usize,
    successful: impl Iterator<Item = &'a str>,
    failed: &[BatchResultErrorEntry],
) -> Vec<Result<(), QueueError>> {
    let unanswered = QueueError { operation, message: "no answer for the entry".into(), lost: false };
    let mut results = vec![Err(unanswered); entries];
    let mut put = |id: &str, result| {
        if let Some(slot) = id.parse::<usize>().ok().and_then(|index| results.get_mut(index)) {
            *slot = result;
        }
    };
    for id in successful {
        put(id, Ok(()));
    }
    for entry in failed {
        let message = format!("{}: {}", entry.code(), entry.message().unwrap_or(""));
        put(entry.id(), Err(QueueError { operation, lost: is_lost(entry.code()), message }));
    }
    results
}

impl QueueError {
    pub(crate) fn new<E>(operation: &'static str, error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let code = error.code().unwrap_or("");
        let message = match error.message() {
            Some(text) => format!("{code}: {text}"),
            None if !code.is_empty() => code.to_owned(),
            None => aws::causes(error),
        };
        Self { operation, message, lost: is_lost(code) }
    }
}

/// The codes for a receipt that is no longer worth anything
/// (<https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ChangeMessageVisibility.html>).
fn is_lost(code: &str) -> bool {
    ["ReceiptHandleIsInvalid", "MessageNotInflight"].iter().any(|known| code.ends_with(known))
}

/// `maxReceiveCount` of a redrive policy; SQS itself writes it as a number, and takes a string as well.
fn most_receives(policy: &str) -> Option<u32> {
    let policy: serde_json::Value = serde_json::from_str(policy).ok()?;
    let count = policy.get("maxReceiveCount")?;
    let number = count.as_u64().or_else(|| count.as_str()?.parse().ok())?;
    u32::try_from(number).ok()
}

fn message(received: aws_sdk_sqs::types::Message) -> Message {
    let number = |name| received.attributes.as_ref().and_then(|all| all.get(&name)).and_then(|text| text.parse::<i64>().ok());
    Message {
        receive_count: number(MessageSystemAttributeName::ApproximateReceiveCount)
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(1),
        sent_at_ms: number(MessageSystemAttributeName::SentTimestamp),
        id: received.message_id.unwrap_or_default(),
        receipt: received.receipt_handle.unwrap_or_default(),
        body: received.body.unwrap_or_default(),
    }
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}
