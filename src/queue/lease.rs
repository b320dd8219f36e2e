//! The lease on a message: a heartbeat keeps it hidden from others for as long as the lease lives.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;

use super::acknowledge::Acknowledger;
use super::{Message, Queue, QueueError};

/// The right to work on a message. Dropped without a word, it lets the message come back when its visibility ends.
#[derive(Debug)]
pub struct Lease<Q> {
    queue: Arc<Q>,
    acknowledger: Acknowledger,
    receipt: String,
    message_id: String,
    heartbeat: AbortHandle,
}

impl<Q: Queue> Lease<Q> {
    /// Takes over a message that was received with `visibility`, and extends that every third of it.
    pub(super) fn new(queue: Arc<Q>, acknowledger: Acknowledger, message: &Message, visibility: Duration) -> Self {
        let heartbeat =
            tokio::spawn(heartbeat(Arc::clone(&queue), message.id.clone(), message.receipt.clone(), visibility)).abort_handle();
        Self { queue, acknowledger, receipt: message.receipt.clone(), message_id: message.id.clone(), heartbeat }
    }

    /// Deletes the message: its work is done. If even repeated attempts fail, the message comes back, and doing the work
    /// again changes nothing.
    pub(super) async fn acknowledge(self) {
        if let Err(error) = self.acknowledger.delete(self.receipt.clone()).await {
            tracing::warn!(message_id = self.message_id, %error, "cannot delete a message whose work is done; it will come back");
        }
    }

    /// Gives the message back, to be delivered again after `delay`.
    pub(super) async fn release(self, delay: Duration) {
        self.heartbeat.abort();
        match self.queue.set_visibility(&self.receipt, delay).await {
            Ok(()) => {}
            Err(QueueError { lost: true, .. }) => {}
            Err(error) => {
                tracing::warn!(message_id = self.message_id, %error, "cannot give a message back; it returns when its visibility ends");
            }
        }
    }
}

impl<Q> Drop for Lease<Q> {
    fn drop(&mut self) {
        self.heartbeat.abort();
    }
}

/// Extends the visibility until it is aborted, or the message is no longer ours.
async fn heartbeat<Q: Queue>(queue: Arc<Q>, message_id: String, receipt: String, visibility: Duration) {
    loop {
        tokio::time::sleep(visibility / 3).await;
        // A request that hangs must not take the time of the next ones.
        let extended = tokio::time::timeout(visibility / 4, queue.set_visibility(&receipt, visibility)).await;
        let hung = QueueError { operation: "ChangeMessageVisibility", message: "no answer in time".to_owned(), lost: false };
        match extended.unwrap_or(Err(hung)) {
            Ok(()) => tracing::debug!(message_id, "extended the visibility"),
            Err(error @ QueueError { lost: true, .. }) => {
                tracing::warn!(message_id, %error, "the message is no longer ours; somebody else may work on it too");
                return;
            }
            // Two thirds of the visibility are left for further attempts.
            Err(error) => tracing::warn!(message_id, %error, "cannot extend the visibility"),
        }
    }
}
