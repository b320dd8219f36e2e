//! Deletes finished messages in batches.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::{BATCH, Queue, QueueError};

/// How long a finished message waits for others to be deleted with, if there are others. Nobody waits for its deletion.
const GATHER: Duration = Duration::from_millis(100);

/// How often the deletion of one message is tried.
const ATTEMPTS: u32 = 4;

type Request = (String, oneshot::Sender<Result<(), QueueError>>);

/// A handle to the task that deletes. The task ends when the last handle is dropped.
#[derive(Debug, Clone)]
pub(super) struct Acknowledger(mpsc::Sender<Request>);

impl Acknowledger {
    /// Deletes messages of a queue, each of which is one of the `handlers` until it is deleted.
    pub(super) fn start<Q: Queue>(queue: Arc<Q>, handlers: TaskTracker) -> Self {
        let (sender, requests) = mpsc::channel(BATCH * 4);
        tokio::spawn(run(queue, requests, handlers));
        Self(sender)
    }

    /// Deletes the message, together with others that end at about the same time.
    pub(super) async fn delete(&self, receipt: String) -> Result<(), QueueError> {
        let ended =
            || QueueError { operation: "DeleteMessageBatch", message: "the deleting task has ended".into(), lost: false };
        let (reply, answer) = oneshot::channel();
        self.0.send((receipt, reply)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

async fn run<Q: Queue>(queue: Arc<Q>, mut requests: mpsc::Receiver<Request>, handlers: TaskTracker) {
    while let Some(first) = requests.recv().await {
        let mut batch = vec![first];
        let gather = async {
            // The last of those under way need not wait for anybody.
            while batch.len() < BATCH.min(handlers.len()) {
                let Some(next) = requests.recv().await else { break };
                batch.push(next);
            }
        };
        let _ = tokio::time::timeout(GATHER, gather).await;
        // Deleting must not keep the next batch waiting.
        tokio::spawn(delete(Arc::clone(&queue), batch));
    }
}

/// Deletes a batch, and again those entries that failed for a reason that may pass.
async fn delete<Q: Queue>(queue: Arc<Q>, mut batch: Vec<Request>) {
    for attempt in 1..=ATTEMPTS {
        let receipts: Vec<String> = batch.iter().map(|(receipt, _)| receipt.clone()).collect();
        let results = match queue.delete(&receipts).await {
            Ok(results) => results,
            Err(error) => vec![Err(error); batch.len()],
        };
        let mut failed = Vec::new();
        for ((receipt, reply), result) in batch.into_iter().zip(results) {
            match result {
                Err(error) if !error.lost && attempt < ATTEMPTS => {
                    tracing::debug!(%error, attempt, "deleting a message again");
                    failed.push((receipt, reply));
                }
                result => {
                    // The one who asked may have gone.
                    let _ = reply.send(result);
                }
            }
        }
        if failed.is_empty() {
            return;
        }
        batch = failed;
        tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
    }
}
