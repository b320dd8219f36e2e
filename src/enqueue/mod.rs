//! Puts objects that exist already on the queue: lists, selects, sends. The scanning is left to the queue's consumers.
//!
//! Any number of objects takes the same memory: a page of the list, the tags that are being looked up, and the batches under way. What
//! has been sent is known as one key: everything up to it. Whoever goes on after that key leaves nothing out, and may send a few
//! objects twice, which changes nothing.

mod batches;
pub(crate) mod pace;
mod selection;
mod state;

use std::num::NonZeroU32;
use std::time::Duration;

use aws_sdk_s3::Client;
use futures_util::StreamExt;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

pub use selection::{Selection, TagRule};
pub use state::{StateError, StateFile, Work};

use crate::backoff::backoff;
use crate::config::Location;
use crate::object::{self, Listed, Which};
use crate::queue::{JobObject, QueueError, SqsQueue};
use crate::s3::{self, ObjectId, S3Error, S3ErrorKind};
use batches::{Batch, Batches, Decision};

/// How many batches are sent at once.
const BATCHES_AT_ONCE: usize = 4;

/// How many objects' tags are looked up at once.
const TAGS_AT_ONCE: usize = 32;

/// How often one message is tried to be sent.
const ATTEMPTS: u32 = 6;

/// What is to be enqueued.
#[derive(Debug, Clone)]
pub struct Request {
    /// The bucket and what the keys begin with.
    pub source: Location,
    /// Whether every version is enqueued, not just the latest. Delete markers are left out.
    pub versions: bool,
    /// Which objects.
    pub selection: Selection,
    /// Go on after this key.
    pub start_after: Option<String>,
    /// End when so many objects have been enqueued, and the versions of the last key are complete.
    pub limit: Option<u64>,
    /// Objects a second, at most.
    pub rate: Option<NonZeroU32>,
    /// For the reports ([`JobObject::trace_id`]).
    pub trace_id: Option<String>,
    /// For the reports ([`JobObject::custom`]).
    pub custom: Option<Map<String, Value>>,
}

/// How far it has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Objects (or versions) that were listed and decided on.
    pub listed: u64,
    /// Those that were enqueued.
    pub enqueued: u64,
    /// Those that were not selected.
    pub skipped: u64,
    /// Those that were gone before their tags could be looked at.
    pub gone: u64,
    /// `null` versions behind newer ones: nothing pins them, so they cannot be scanned.
    pub unpinned: u64,
    /// Everything up to this key is done.
    pub start_after: Option<String>,
}

/// How it ended, unless it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// There is nothing after it.
    Complete,
    /// At the limit: more may follow.
    Limit,
    /// Somebody wanted it to stop.
    Interrupted,
}

/// Why it failed.
#[derive(Debug, thiserror::Error)]
pub enum EnqueueError {
    /// The list or the tags could not be had.
    #[error("{error}{}", hint(.0), error = .0)]
    S3(S3Error),
    /// The queue did not take a message.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The progress could not be kept.
    #[error(transparent)]
    State(#[from] StateError),
}

/// What S3 said is said already: as a source, it would be shown twice.
impl From<S3Error> for EnqueueError {
    fn from(error: S3Error) -> Self {
        Self::S3(error)
    }
}

/// The permission that is missing, if one is.
fn hint(error: &S3Error) -> &'static str {
    match (error.kind, error.operation) {
        (S3ErrorKind::Denied, "ListObjectsV2") => " (needs s3:ListBucket)",
        (S3ErrorKind::Denied, "ListObjectVersions") => " (needs s3:ListBucketVersions)",
        (S3ErrorKind::Denied, _) => " (needs s3:GetObjectTagging, for versions s3:GetObjectVersionTagging)",
        _ => "",
    }
}

/// Where jobs go.
pub trait Destination {
    /// Takes up to [`BATCH`](crate::queue::BATCH) jobs of one object each, all of them or none.
    ///
    /// # Errors
    ///
    /// [`QueueError`]; some may have been taken.
    fn send(&self, objects: &[JobObject]) -> impl Future<Output = Result<(), QueueError>>;
}

impl Destination for SqsQueue {
    async fn send(&self, objects: &[JobObject]) -> Result<(), QueueError> {
        let mut bodies = batches::bodies(objects)?;
        for attempt in 1.. {
            let results = match self.send_batch(&bodies).await {
                Ok(results) => results,
                Err(error) => vec![Err(error); bodies.len()],
            };
            let mut failed = Vec::new();
            let mut last = None;
            for (body, result) in bodies.into_iter().zip(results) {
                if let Err(error) = result {
                    failed.push(body);
                    last = Some(error);
                }
            }
            match last {
                None => break,
                Some(error) if attempt == ATTEMPTS => return Err(error),
                Some(error) => tracing::debug!(%error, attempt, messages = failed.len(), "sending messages again"),
            }
            bodies = failed;
            tokio::time::sleep(backoff(Duration::from_millis(200), attempt, Duration::from_secs(5))).await;
        }
        Ok(())
    }
}

/// Enqueues what `request` describes, until `stop`: batches under way are finished then. `note` is told of every step.
///
/// # Errors
///
/// [`EnqueueError`], also when `note` fails. What `note` was told last is done, and nothing after it needs to be.
pub async fn run<D: Destination>(
    client: &Client,
    request: &Request,
    destination: &D,
    stop: &CancellationToken,
    mut note: impl FnMut(&Progress) -> Result<(), StateError>,
) -> Result<Ending, EnqueueError> {
    let listed = object::list(client, &request.source, request.versions, request.start_after.clone());
    let decisions = listed
        .map(|listed| async move {
            let listed = listed?;
            let decision = decide(client, request, &listed).await?;
            Ok::<_, EnqueueError>((listed, decision))
        })
        .buffered(TAGS_AT_ONCE);
    let batches = Batches::new(decisions, request);
    let sent = batches
        .stream()
        .take_until(stop.cancelled())
        .map(|batch| async move {
            let batch = batch?;
            if !batch.objects.is_empty() {
                destination.send(&batch.objects).await?;
            }
            Ok::<Batch, EnqueueError>(batch)
        })
        .buffered(BATCHES_AT_ONCE);
    tokio::pin!(sent);

    let mut progress = Progress { start_after: request.start_after.clone(), ..Progress::default() };
    let mut ending = Ending::Interrupted;
    while let Some(batch) = sent.next().await {
        let batch = batch?;
        progress.listed += batch.tally.listed;
        progress.enqueued += batch.tally.enqueued;
        progress.skipped += batch.tally.skipped;
        progress.gone += batch.tally.gone;
        progress.unpinned += batch.tally.unpinned;
        progress.start_after.clone_from(&batch.tally.start_after);
        note(&progress)?;
        if let Some(end) = batch.ending {
            ending = end;
        }
    }
    Ok(ending)
}

/// Whether an object is enqueued, and as what.
async fn decide(client: &Client, request: &Request, listed: &Listed) -> Result<Decision, EnqueueError> {
    if !request.selection.by_age(listed.last_modified) {
        return Ok(Decision::Skip);
    }
    let version_id = match &listed.which {
        Which::Latest => None,
        Which::Version(id) => Some(id.clone()),
        Which::Unpinned => return Ok(Decision::Unpinned),
    };
    let bucket = &request.source.bucket;
    if request.selection.needs_tags() {
        let id = ObjectId { bucket: bucket.clone(), key: listed.key.clone(), version_id: version_id.clone(), etag: None };
        match s3::tags(client, &id).await {
            Ok(tags) if request.selection.by_tags(&tags) => {}
            Ok(_) => return Ok(Decision::Skip),
            Err(S3Error { kind: S3ErrorKind::Gone, .. }) => return Ok(Decision::Gone),
            Err(error) => return Err(error.into()),
        }
    }
    // Without a version, neither ETag nor size: an object that is replaced until then is scanned as it is then, even if nothing tells of
    // the change.
    let (etag, size) = if version_id.is_some() { (listed.etag.clone(), listed.size) } else { (None, None) };
    Ok(Decision::Enqueue(JobObject {
        version_id,
        etag,
        size,
        if_exists: true,
        trace_id: request.trace_id.clone(),
        custom: request.custom.clone(),
        ..JobObject::new(bucket, &listed.key)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_list_could_not_be_had_was_said_twice() {
        let (bucket, key, message) = ("b".to_owned(), String::new(), "AccessDenied: No".to_owned());
        let error = S3Error { operation: "ListObjectsV2", bucket, key, kind: S3ErrorKind::Denied, message };
        let shown = format!("{:#}", anyhow::Error::from(EnqueueError::from(error)));
        assert_eq!(shown, "ListObjectsV2 of s3://b/: AccessDenied: No (needs s3:ListBucket)");
    }
}
