//! Message → records → fetch → scan → act → report → acknowledge: the one place that joins the parts.
//!
//! Every step can be done again after a crash without a second effect, and a message is acknowledged only after every record
//! in it has been acted on and reported. An original that was copied away is removed last, after the report: as long as it is
//! there, a redelivery does the same work with the same result.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use time::OffsetDateTime;

use crate::action::{self, Actions, Applied, Plan, StepOutcome};
use crate::config::ActionsConfig;
use crate::engine::{Reason, Status, Verdict};
use crate::object::{FetchError, ObjectStore};
use crate::queue::{Event, Message, ObjectEvent, Outcome, backoff};
use crate::report::{ActionReport, EngineVersions, SCHEMA, ScanReport, Sink, Target, Timings, scan_id};
use crate::s3::{ObjectId, ObjectInfo, S3Error, S3ErrorKind};
use crate::scan::{Budget, Current, Incoming, Input, Pool, ScanError};
use crate::telemetry::events;

/// How many records of one message are worked on at once.
const RECORDS_AT_ONCE: usize = 8;

/// The delay before the second attempt at a message; it doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// The same for a message that is not understood: soon given up, but no busy loop on a queue without a redrive policy.
const FIRST_RETRY_OF_NOTHING: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_mins(15);

/// Everything that the work on a message needs.
pub struct Pipeline<S> {
    /// Where objects are fetched from.
    pub store: S,
    /// What scans them.
    pub pool: Arc<Pool>,
    /// Bounds the bytes in flight.
    pub budget: Budget,
    /// What acts on them.
    pub actions: Actions,
    /// What the actions shall be.
    pub policy: ActionsConfig,
    /// Who is told.
    pub sinks: Vec<Box<dyn Sink>>,
    /// Where large objects are spooled.
    pub scratch_dir: PathBuf,
    /// Larger objects are not fetched at all.
    pub max_file_size_bytes: u64,
    /// The delivery after which the queue gives a message up, if it ever does.
    pub most_receives: Option<u32>,
    /// Called when this machine, not the object, kept it from being scanned.
    pub on_trouble: Box<dyn Fn() + Send + Sync>,
}

/// Why the work on a record did not come to its end.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Scan(#[from] ScanError),
    #[error(transparent)]
    Action(#[from] action::ActionError),
    #[error(transparent)]
    Report(#[from] crate::report::SinkError),
    #[error("the service is shutting down")]
    Closed,
}

impl Failure {
    /// Whether this machine is to blame: no space, no descriptors, no scratch directory, no scan thread.
    fn is_trouble(&self) -> bool {
        matches!(self, Self::Fetch(FetchError::Sink { .. }) | Self::Scan(ScanError::Trouble(_) | ScanError::Stuck))
    }

    /// Whether the process is just ending: then nothing has failed.
    fn is_closing(&self) -> bool {
        matches!(self, Self::Closed | Self::Scan(ScanError::Closed))
    }
}

/// What came out of fetching an object.
enum Fetched {
    /// Its content, ready to scan.
    Input(Input, Box<ObjectInfo>),
    /// It is too large to be fetched.
    TooLarge,
    /// S3 does not hand it out.
    Unreadable(&'static str),
    /// The object is gone or replaced.
    Moot(S3Error),
}

/// How far the work on a record has come.
struct Work {
    /// Pinned as soon as that is possible.
    id: ObjectId,
    size: u64,
    judged: Option<Judged>,
}

/// A verdict, whether it came from a scan or not.
#[derive(Clone)]
struct Judged {
    verdict: Verdict,
    sha256: Option<String>,
    with: Current,
    at: OffsetDateTime,
}

impl Judged {
    fn scan_id(&self, target: &Target) -> String {
        scan_id(target, self.sha256.as_deref(), &self.with.definitions.fingerprint, &self.with.options_digest)
    }

    fn report(self, target: Target, scan_id: String, timings_ms: Timings, actions: Vec<ActionReport>) -> ScanReport {
        ScanReport {
            schema: SCHEMA,
            scan_id,
            status: self.verdict.status,
            signatures: self.verdict.signatures,
            allowed: self.verdict.allowed,
            reason: self.verdict.reason,
            detail: self.verdict.detail,
            target,
            sha256: self.sha256,
            definitions: self.with.definitions,
            engine: EngineVersions::current(),
            scanned_at: self.at,
            timings_ms,
            actions,
        }
    }
}

impl<S: ObjectStore> Pipeline<S> {
    /// Does all the work of one message, and says what becomes of it.
    pub async fn handle(&self, message: Message) -> Outcome {
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
            .map(|event| self.record(event, &message))
            .buffer_unordered(RECORDS_AT_ONCE)
            .filter(|done| std::future::ready(!done))
            .count()
            .await;
        if failures == 0 { Outcome::Done } else { Outcome::Retry(backoff(FIRST_RETRY, message.receive_count, LONGEST_RETRY)) }
    }

    /// Works on one record and logs how it ended; true when it is done.
    async fn record(&self, event: ObjectEvent, message: &Message) -> bool {
        let id = ObjectId { bucket: event.bucket, key: event.key, version_id: event.version_id, etag: event.etag };
        let mut work = Work { id, size: event.size.unwrap_or(0), judged: None };
        match self.object(&mut work, event.size, event.sequencer, message).await {
            Ok(()) => true,
            Err(error) => {
                if error.is_trouble() {
                    (self.on_trouble)();
                }
                let last = self.most_receives.is_some_and(|most| message.receive_count >= most);
                events::object_failed(&work.id, message, &error, last);
                if last && !error.is_closing() {
                    self.give_up(work, message, &error).await;
                }
                false
            }
        }
    }

    /// Says what is known of an object whose message the queue will give up, in its tags and in a report, as far as that works: the
    /// verdict, if there is one and only acting on it or telling it failed, or else `FAILED`. The message stays, for the dead-letter
    /// queue.
    async fn give_up(&self, work: Work, message: &Message, error: &Failure) {
        let id = &work.id;
        let failed = || Verdict {
            status: Status::Failed,
            signatures: Vec::new(),
            allowed: Vec::new(),
            reason: None,
            detail: Some(error.to_string()),
        };
        let judged = work.judged.unwrap_or_else(|| Judged {
            verdict: failed(),
            sha256: None,
            with: self.pool.current(),
            at: OffsetDateTime::now_utc(),
        });
        let target = target(id, work.size);
        let scan_id = judged.scan_id(&target);
        // Nothing is moved any more, and a state that is not known for sure is not tagged.
        let mut plan = action::plan(&self.policy, id, &judged.verdict, &scan_id);
        let wanted = plan.destination.take().map(|destination| destination.kind.name());
        if !id.is_pinned() {
            plan.tags.clear();
        }
        let object = action::Scanned {
            id,
            info: None,
            sha256: None,
            sequencer: None,
            unreadable: None,
            redelivered: message.receive_count > 1,
        };
        let mut actions = match self.actions.apply(&object, &plan).await {
            Ok(applied) => applied.steps.iter().map(ActionReport::from).collect(),
            Err(error) => vec![undone(&plan, "failed", &error)],
        };
        actions.extend(wanted.map(|action| ActionReport {
            action,
            outcome: "failed",
            destination: None,
            detail: Some(error.to_string()),
        }));
        let timings = Timings::new(queued(message), Duration::ZERO, Duration::ZERO, Duration::ZERO);
        let report = judged.report(target, scan_id, timings, actions);
        for sink in &self.sinks {
            if let Err(error) = sink.deliver(&report).await {
                events::report_lost(id, &error);
            }
        }
        events::object_scanned(id, &report);
    }

    async fn object(
        &self,
        work: &mut Work,
        size: Option<u64>,
        sequencer: Option<String>,
        message: &Message,
    ) -> Result<(), Failure> {
        let began = Instant::now();
        let queued = queued(message);
        let mut id = work.id.clone();

        let size = match size {
            Some(size) if id.is_pinned() => size,
            // An event without identity or size: what is there now is what is scanned and acted on.
            _ => match self.store.head(&id).await {
                Ok(info) => {
                    id.etag = info.etag.or(id.etag);
                    id.version_id = info.version_id.or(id.version_id);
                    info.size
                }
                // The GET tells why.
                Err(S3Error { kind: S3ErrorKind::NoDetails, .. }) => 0,
                Err(error) if is_moot(&error) => {
                    events::object_gone(&id, &error);
                    return Ok(());
                }
                Err(error) => return Err(FetchError::from(error).into()),
            },
        };
        (work.id, work.size) = (id.clone(), size);
        let mut unreadable = None;
        let (input, info) = match self.fetch(&id, size).await? {
            Fetched::Input(input, info) => (Ok(input), Some(info)),
            Fetched::TooLarge => (Err(Verdict::unscannable(Reason::TooLarge, "MaxFileSize")), None),
            Fetched::Unreadable(why) => {
                unreadable = Some(why);
                (Err(Verdict::unscannable(Reason::Unsupported, why)), None)
            }
            Fetched::Moot(error) => {
                events::object_gone(&id, &error);
                return Ok(());
            }
        };
        // An event may lack the version; from here on, nothing else is meant.
        if let Some(version_id) = info.as_ref().and_then(|info| info.version_id.clone()) {
            id.version_id = Some(version_id);
        }
        work.id = id.clone();
        let fetched = Instant::now();

        let judged = match input {
            Ok(input) => {
                let scanned = self.pool.scan(move || Ok(input)).await?;
                Judged { verdict: scanned.verdict, sha256: scanned.sha256, with: scanned.with, at: scanned.scanned_at }
            }
            Err(verdict) => Judged { verdict, sha256: None, with: self.pool.current(), at: OffsetDateTime::now_utc() },
        };
        work.judged = Some(judged.clone());
        let scanned = Instant::now();

        let target = target(&id, size);
        let scan_id = judged.scan_id(&target);
        let sha256 = judged.sha256.clone();
        let plan = action::plan(&self.policy, &id, &judged.verdict, &scan_id);
        let object = action::Scanned {
            id: &id,
            info: info.as_deref(),
            sha256: sha256.as_deref(),
            sequencer: sequencer.as_deref(),
            unreadable,
            redelivered: message.receive_count > 1,
        };
        let (applied, actions) = match self.actions.apply(&object, &plan).await {
            Ok(applied) => {
                let actions = applied.steps.iter().map(ActionReport::from).collect();
                (applied, actions)
            }
            // The verdict stands, but what it is about has gone; whatever took its place has an event of its own.
            Err(error) if error.is_moot() => (Applied::default(), vec![undone(&plan, "skipped", &error)]),
            Err(error) => return Err(error.into()),
        };

        let timings = Timings::new(queued, fetched - began, scanned - fetched, scanned.elapsed());
        let report = judged.report(target, scan_id, timings, actions);
        for sink in &self.sinks {
            sink.deliver(&report).await?;
        }
        self.actions.finish(&object, &plan, &applied).await?;
        events::object_scanned(&id, &report);
        Ok(())
    }

    async fn fetch(&self, id: &ObjectId, size: u64) -> Result<Fetched, Failure> {
        if size > self.max_file_size_bytes {
            return Ok(Fetched::TooLarge);
        }
        let reservation = self.budget.reserve(size).await.ok_or(Failure::Closed)?;
        let spooled = reservation.is_spooled();
        let sink_error = |error| FetchError::Sink { id: id.clone(), error };
        let mut incoming = Incoming::new(reservation, size, &self.scratch_dir).map_err(sink_error)?;
        let fetched = self
            .store
            .fetch(id, &mut |chunk| {
                // A pinned object has the size that was reserved; anything else must not break the budget.
                if incoming.size() + chunk.len() as u64 > size {
                    return Err(std::io::Error::other("the object is larger than its event says"));
                }
                // Disks are slow at times, and must not keep other tasks waiting.
                if spooled { tokio::task::block_in_place(|| incoming.write(chunk)) } else { incoming.write(chunk) }
            })
            .await;
        match fetched {
            Ok(info) => Ok(Fetched::Input(incoming.finish().map_err(sink_error)?, Box::new(info))),
            Err(FetchError::S3(error)) if is_moot(&error) => Ok(Fetched::Moot(error)),
            Err(FetchError::S3(S3Error { kind: S3ErrorKind::Unsupported(why), .. })) => Ok(Fetched::Unreadable(why)),
            Err(error) => Err(error.into()),
        }
    }
}

fn is_moot(error: &S3Error) -> bool {
    matches!(error.kind, S3ErrorKind::Gone | S3ErrorKind::Replaced)
}

/// How long the message waited before this delivery.
fn queued(message: &Message) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let sent = message.sent_at_ms.and_then(|ms| u64::try_from(ms).ok()).map_or(now, Duration::from_millis);
    now.saturating_sub(sent)
}

fn target(id: &ObjectId, size: u64) -> Target {
    Target::S3 {
        bucket: id.bucket.clone(),
        key: id.key.clone(),
        version_id: id.version_id.clone(),
        etag: id.etag.clone(),
        size,
    }
}

/// The report on actions that did not take place.
fn undone(plan: &Plan, outcome: &'static str, error: &action::ActionError) -> ActionReport {
    ActionReport {
        action: plan.destination.as_ref().map_or("tag", |destination| destination.kind.name()),
        outcome,
        destination: None,
        detail: Some(error.to_string()),
    }
}

impl From<&action::Step> for ActionReport {
    fn from(step: &action::Step) -> Self {
        let (outcome, detail) = match &step.outcome {
            StepOutcome::Done => ("done", None),
            StepOutcome::Skipped(why) => ("skipped", Some(why.clone())),
            StepOutcome::Failed(why) => ("failed", Some(why.clone())),
        };
        Self { action: step.action, outcome, destination: step.destination.clone(), detail }
    }
}
