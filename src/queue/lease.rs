//! The lease on a message: a heartbeat keeps it hidden from others for as long as the lease lives.

use std::sync::Arc;
use std::time::Duration;

use super::acknowledge::Acknowledger;
use super::heartbeats::{Heartbeat, Heartbeats};
use super::{Message, Queue, QueueError};

/// The right to work on a message. Dropped without a word, it lets the message come back when its visibility ends.
#[derive(Debug)]
pub struct Lease<Q> {
    queue: Arc<Q>,
    acknowledger: Acknowledger,
    receipt: String,
    message_id: String,
    heartbeat: Heartbeat,
}

impl<Q: Queue> Lease<Q> {
    /// Takes over a message that was just received.
    pub(super) fn new(queue: Arc<Q>, acknowledger: Acknowledger, heartbeats: &Heartbeats, message: &Message) -> Self {
        let heartbeat = heartbeats.begin(message);
        Self { queue, acknowledger, receipt: message.receipt.clone(), message_id: message.id.clone(), heartbeat }
    }

    /// Deletes the message: its work is done. If even repeated attempts fail, the message comes back, and doing the work
    /// again changes nothing.
    pub(super) async fn acknowledge(self) {
        self.heartbeat.expect_end();
        if let Err(error) = self.acknowledger.delete(self.receipt.clone()).await {
            tracing::warn!(message_id = self.message_id, %error, "cannot delete a message whose work is done; it will come back");
        }
    }

    /// Gives the message back, to be delivered again after `delay`.
    pub(super) async fn release(self, delay: Duration) {
        self.heartbeat.end().await;
        match self.queue.set_visibility(&self.receipt, delay).await {
            Ok(()) => {}
            Err(QueueError { lost: true, .. }) => {}
            Err(error) => {
                let message_id = self.message_id;
                tracing::warn!(message_id, %error, "cannot give a message back; it returns when its visibility ends");
            }
        }
    }
}
