//! Reports as messages on an SQS queue.

use aws_sdk_sqs::Client;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::answer::failed;
use super::{Notice, Sink, SinkError, fifo};
use crate::aws;

/// Sends each report's JSON as a message's body.
#[derive(Debug, Clone)]
pub struct SqsSink {
    client: Client,
    queue_url: String,
}

impl SqsSink {
    /// A sink on the queue with this URL.
    #[must_use]
    pub fn new(client: Client, queue_url: String) -> Self {
        Self { client, queue_url }
    }
}

impl Sink for SqsSink {
    fn deliver<'a>(&'a self, notice: &'a Notice<'a>) -> BoxFuture<'a, Result<(), SinkError>> {
        async move {
            let body = aws::sqs_text(&notice.report.to_json()?);
            let (group, id) = fifo::ids(&self.queue_url, notice.report)?.unzip();
            let request = self.client.send_message().queue_url(&self.queue_url).message_body(body);
            let sent = request.set_message_group_id(group).set_message_deduplication_id(id).send().await;
            sent.map(drop).map_err(|error| failed("SendMessage", &error))
        }
        .boxed()
    }
}
