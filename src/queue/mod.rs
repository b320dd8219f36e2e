//! Where work comes from: messages about objects, each held under a lease until it is acknowledged.
//!
//! This module knows what a message says, and never what is done about it.

#[cfg(feature = "service")]
mod acknowledge;
#[cfg(feature = "service")]
mod consumer;
mod event;
#[cfg(feature = "service")]
mod heartbeats;
pub mod job;
#[cfg(feature = "service")]
mod lease;
#[cfg(feature = "service")]
mod slot;
#[cfg(feature = "service")]
mod sqs;

use std::time::Duration;

#[cfg(feature = "service")]
pub use consumer::{Consumer, Outcome};
pub use event::{Event, EventError, MOST_BODY_BYTES, MOST_RECORDS, ObjectEvent};
pub use job::{Job, JobObject};
#[cfg(feature = "service")]
pub use lease::Lease;
#[cfg(feature = "service")]
pub use slot::Slot;
#[cfg(feature = "service")]
pub use sqs::SqsQueue;

/// How many messages one request can receive, extend or delete (SQS's own bound).
pub const BATCH: usize = 10;

/// A queue that hides a message from others while it is worked on, and delivers it again unless it is deleted in time.
///
/// Delivery is at least once, in any order. Every call may be made at any time from any task.
pub trait Queue: Send + Sync + 'static {
    /// Waits up to the queue's poll time for at most `most` messages (1 to [`BATCH`]); none is a normal answer. Each
    /// message is hidden from others for `visibility`.
    ///
    /// # Errors
    ///
    /// [`QueueError`]; messages that were on their way come back after `visibility`.
    fn receive(&self, most: usize, visibility: Duration) -> impl Future<Output = Result<Vec<Message>, QueueError>> + Send;

    /// Hides up to [`BATCH`] received messages for another `visibility` from now. The answer has one entry for each, in order.
    ///
    /// # Errors
    ///
    /// [`QueueError`] when the request as a whole failed.
    fn extend(
        &self,
        receipts: &[String],
        visibility: Duration,
    ) -> impl Future<Output = Result<Vec<Result<(), QueueError>>, QueueError>> + Send;

    /// Hides a received message for another `visibility` from now; zero makes it visible at once.
    ///
    /// # Errors
    ///
    /// [`QueueError`], with [`QueueError::lost`] when the message is no longer ours.
    fn set_visibility(&self, receipt: &str, visibility: Duration) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Deletes up to [`BATCH`] received messages. The answer has one entry for each, in order.
    ///
    /// # Errors
    ///
    /// [`QueueError`] when the request as a whole failed.
    fn delete(&self, receipts: &[String]) -> impl Future<Output = Result<Vec<Result<(), QueueError>>, QueueError>> + Send;
}

/// One delivery of a message.
#[derive(Debug, Clone)]
pub struct Message {
    /// The queue's id of the message, the same for every delivery.
    pub id: String,
    /// The handle of this delivery.
    pub receipt: String,
    /// What it says.
    pub body: String,
    /// How often it has been delivered, this time included.
    pub receive_count: u32,
    /// When it was sent, in milliseconds since 1970.
    pub sent_at_ms: Option<i64>,
}

/// A request to the queue that failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation}: {message}")]
pub struct QueueError {
    /// The queue's name of the operation.
    pub operation: &'static str,
    /// The queue's code and text.
    pub message: String,
    /// Whether the message is no longer ours: the lease ran out, or it was deleted.
    pub lost: bool,
}
