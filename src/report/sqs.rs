//! Reports as messages on an SQS queue.

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::answer::{failed, refused};
use super::batches::{Batches, SendBatch};
use super::{Notice, Sink, SinkError, fifo};
use crate::aws;

const OPERATION: &str = "SendMessageBatch";

/// Sends each report's JSON as a message's body; those of the same time together.
pub struct SqsSink {
    queue_url: String,
    batches: Batches<Queue>,
}

impl SqsSink {
    /// A sink on the queue with this URL.
    #[must_use]
    pub fn new(client: Client, queue_url: String) -> Self {
        Self { queue_url: queue_url.clone(), batches: Batches::new(Queue { client, url: queue_url }) }
    }
}

impl Sink for SqsSink {
    fn deliver<'a>(&'a self, notice: &'a Notice<'a>) -> BoxFuture<'a, Result<(), SinkError>> {
        async move {
            let body = aws::sqs_text(&notice.report.to_json()?);
            let fifo = fifo::ids(&self.queue_url, notice.report)?;
            self.batches.send(Message { body, fifo }).await
        }
        .boxed()
    }
}

struct Queue {
    client: Client,
    url: String,
}

#[derive(Clone)]
struct Message {
    body: String,
    /// Its group and deduplication id, on a FIFO queue.
    fifo: Option<(String, String)>,
}

/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html>
impl SendBatch for Queue {
    type Entry = Message;
    const MOST: usize = 10;
    /// What every server takes; AWS takes four times as much since 2025.
    const MOST_BYTES: usize = 256 * 1024;

    fn bytes(message: &Message) -> usize {
        message.body.len()
    }

    fn send(&self, messages: Vec<Message>) -> BoxFuture<'_, Vec<Result<(), SinkError>>> {
        async move {
            match self.call(&messages).await {
                Ok(results) => results,
                // It may be one message's fault.
                Err(error) if !error.can_retry && messages.len() > 1 => {
                    let mut results = Vec::with_capacity(messages.len());
                    for message in messages {
                        results.push(self.call(&[message]).await.and_then(|only| only.into_iter().collect()));
                    }
                    results
                }
                Err(error) => vec![Err(error); messages.len()],
            }
        }
        .boxed()
    }
}

impl Queue {
    async fn call(&self, messages: &[Message]) -> Result<Vec<Result<(), SinkError>>, SinkError> {
        let mut request = self.client.send_message_batch().queue_url(&self.url);
        for (n, message) in messages.iter().cloned().enumerate() {
            let (group, id) = message.fifo.unzip();
            let entry = SendMessageBatchRequestEntry::builder().id(n.to_string()).message_body(message.body);
            let entry = entry.set_message_group_id(group).set_message_deduplication_id(id).build();
            request = request.entries(entry.map_err(|error| SinkError::permanent(format!("{OPERATION}: {error}")))?);
        }
        let output = request.send().await.map_err(|error| failed(OPERATION, &error))?;
        let result = |n: usize| {
            let id = n.to_string();
            if output.successful().iter().any(|entry| entry.id() == id) {
                return Ok(());
            }
            Err(match output.failed().iter().find(|entry| entry.id() == id) {
                Some(entry) => refused(OPERATION, entry.code(), entry.message().unwrap_or("")),
                None => SinkError::transient(format!("{OPERATION}: the answer does not mention the message")),
            })
        };
        Ok((0..messages.len()).map(result).collect())
    }
}
