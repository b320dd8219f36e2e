//! One object's way: fetch → scan → act → report.
//!
//! Every step can be done again after a crash without a second effect. An original that was copied away is removed last, after
//! the report, and so is one that is deleted or replaced: as long as it is there, a redelivery does the same work with the same result.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::action::{self, Actions, Applied, Plan, StepOutcome};
use crate::backoff::backoff;
use crate::config::{ActionsConfig, FilterConfig};
use crate::engine::{Reason, Status, Verdict};
use crate::filter;
use crate::object::{FetchError, ObjectStore};
use crate::queue::ObjectEvent;
use crate::report::{ActionReport, Outbox, ScanReport, SinkError, Sinks, Source, Target, Timings};
use crate::s3::{ObjectId, ObjectInfo, S3Error, S3ErrorKind};
use crate::scan::{Budget, Incoming, Input, Pool, ScanError, Scanned};

/// The pauses between attempts of one's own.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Everything that the work on an object needs.
pub struct Objects<S> {
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
    /// Which objects of a queue are not scanned.
    pub filters: Vec<FilterConfig>,
    /// Where reports are written down first.
    pub outbox: Option<Outbox>,
    /// Who is told.
    pub sinks: Sinks,
    /// Where large objects are spooled.
    pub scratch_dir: PathBuf,
    /// Larger objects are not fetched at all.
    pub max_file_size_bytes: u64,
}

/// How a piece of work got here.
#[derive(Debug, Clone, Copy, Default)]
pub struct Delivery {
    /// How long it waited before.
    pub queued: Duration,
    /// Whether part of it may have been done before.
    pub redelivered: bool,
}

/// What is done beside the scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing: the verdict is only returned.
    Look,
    /// What the configuration says: tag, move, report.
    Act,
    /// The same, unless a filter says that the object is not to be scanned.
    Filter,
}

/// How work on an object ended.
#[derive(Debug)]
pub enum Done {
    /// It was judged, and all that follows was done.
    Reported(Box<ScanReport>),
    /// It was not to be scanned; the name of the rule that says so. `placeholder` if it is what this service put in another object's place.
    Skipped(String),
    /// It was deleted or replaced before it could be scanned; whatever took its place has an event of its own.
    Gone(S3Error),
}

/// Why the work on an object did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The object could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It could not be scanned, for reasons of this machine.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// It could not be acted on.
    #[error(transparent)]
    Action(#[from] action::ActionError),
    /// Somebody could not be told.
    #[error(transparent)]
    Report(#[from] SinkError),
    /// The service ends.
    #[error("the service is shutting down")]
    Closed,
}

impl Failure {
    /// Whether this machine is to blame: no space, no descriptors, no scratch directory, no scan thread.
    #[must_use]
    pub fn is_trouble(&self) -> bool {
        matches!(self, Self::Fetch(FetchError::Sink { .. }) | Self::Scan(ScanError::Trouble(_) | ScanError::Stuck))
    }

    /// Whether doing it again, some time later, can help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        let transient = |error: &S3Error| error.kind == S3ErrorKind::Transient;
        match self {
            Self::Fetch(FetchError::S3(error)) | Self::Action(action::ActionError::S3(error)) => transient(error),
            _ => self.is_trouble(),
        }
    }

    /// Whether the process is just ending: then nothing has failed.
    #[must_use]
    pub fn is_closing(&self) -> bool {
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

/// Work on an object, and how far it has come.
pub(super) struct ObjectWork<'event> {
    event: &'event ObjectEvent,
    delivery: Delivery,
    mode: Mode,
    /// Pinned as soon as that is possible.
    pub(super) id: ObjectId,
    size: u64,
    judged: Option<Scanned>,
    /// Where it was before, if it is in quarantine.
    source: Option<ObjectId>,
    /// What everybody was told.
    reported: Option<Box<ScanReport>>,
    /// It could not be tagged as being scanned.
    is_begun_badly: bool,
    /// Another object had taken its place when it was to be tagged.
    is_overwritten: bool,
    /// Called when there is nothing to do but to wait for somebody who is to be told.
    pub(super) on_wait: &'event (dyn Fn() + Sync),
}

impl<'event> ObjectWork<'event> {
    pub(super) fn new(event: &'event ObjectEvent, delivery: Delivery, mode: Mode) -> Self {
        let id = ObjectId {
            bucket: event.bucket.clone(),
            key: event.key.clone(),
            version_id: event.version_id.clone(),
            etag: event.etag.clone(),
        };
        Self {
            event,
            delivery,
            mode,
            id,
            size: event.size.unwrap_or(0),
            judged: None,
            source: None,
            reported: None,
            is_begun_badly: false,
            is_overwritten: false,
            on_wait: &|| (),
        }
    }

    pub(super) fn on_wait(self, on_wait: &'event (dyn Fn() + Sync)) -> Self {
        Self { on_wait, ..self }
    }

    /// Whether what took the object's place may carry a verdict that is not its own, or have lost its own: S3 has no condition for tags. An
    /// earlier delivery, or the tag that it is being scanned, may have got as far as that.
    fn may_have_tagged_another(&self, done: Option<&Done>) -> bool {
        let is_replaced = matches!(done, Some(Done::Gone(S3Error { kind: S3ErrorKind::Replaced, .. })));
        // Where neither version nor ETag is known, nobody can tell what took whose place.
        let can_be = self.mode != Mode::Look && self.id.version_id.is_none() && self.id.etag.is_some();
        can_be && (self.is_overwritten || (is_replaced && (self.delivery.redelivered || self.is_begun_badly)))
    }

    fn target(&self) -> Target {
        Target::S3 {
            bucket: self.id.bucket.clone(),
            key: self.id.key.clone(),
            version_id: self.id.version_id.clone(),
            etag: self.id.etag.clone(),
            size: self.size,
        }
    }

    /// The report, before anything was done.
    fn report(&self, judged: Scanned) -> ScanReport {
        let mut report = ScanReport::new(self.target(), judged, Timings::default(), Vec::new());
        report.source = self.source.as_ref().map(Source::from);
        report.trace_id.clone_from(&self.event.trace_id);
        report.custom.clone_from(&self.event.custom);
        report
    }
}

impl<S: ObjectStore> Objects<S> {
    /// Does all the work on one object.
    ///
    /// # Errors
    ///
    /// [`Failure`]; doing it again does what was left undone.
    pub async fn work(&self, event: &ObjectEvent, delivery: Delivery, mode: Mode) -> Result<Done, Failure> {
        self.carry_on(&mut ObjectWork::new(event, delivery, mode)).await
    }

    /// Does all the work on an object that no queue will bring again, in up to `attempts` attempts. When the last one fails, what is known
    /// is said in its tags and in a report, if it is to be acted on at all.
    ///
    /// # Errors
    ///
    /// The last attempt's [`Failure`], and the report on it if there is one: the verdict can be known though acting on it failed.
    pub async fn insist(
        &self,
        event: &ObjectEvent,
        mode: Mode,
        attempts: u32,
    ) -> Result<Done, (Failure, Option<Box<ScanReport>>)> {
        for attempt in 1.. {
            let delivery = Delivery { queued: Duration::ZERO, redelivered: attempt > 1 };
            let mut work = ObjectWork::new(event, delivery, mode);
            match self.carry_on(&mut work).await {
                Err(error) if attempt < attempts && error.is_transient() => {
                    tokio::time::sleep(backoff(FIRST_PAUSE, attempt, LONGEST_PAUSE)).await;
                }
                Err(error) => {
                    if mode == Mode::Look || error.is_closing() {
                        return Err((error, None));
                    }
                    let report = self.give_up(work, &error).await;
                    return Err((error, Some(Box::new(report))));
                }
                Ok(done) => return Ok(done),
            }
        }
        Err((Failure::Closed, None))
    }

    pub(super) async fn carry_on(&self, work: &mut ObjectWork<'_>) -> Result<Done, Failure> {
        let done = self.once(work).await;
        if !work.may_have_tagged_another(done.as_ref().ok()) {
            return done;
        }
        match (self.judge_what_is_there(work).await, done) {
            (Err(error), Ok(_)) => Err(error),
            (_, done) => done,
        }
    }

    /// Works on what took the object's place. Its own event may have been worked on before, and what was said then have been overwritten, or
    /// taken back with what overwrote it. No filter applies: it would see tags that are not the object's.
    async fn judge_what_is_there(&self, work: &ObjectWork<'_>) -> Result<(), Failure> {
        let ObjectId { bucket, key, .. } = &work.id;
        let event = ObjectEvent {
            bucket: bucket.clone(),
            key: key.clone(),
            version_id: None,
            etag: None,
            size: None,
            sequencer: None,
            must_exist: false,
            trace_id: None,
            custom: None,
        };
        let delivery = Delivery { redelivered: true, ..work.delivery };
        let mut there = ObjectWork::new(&event, delivery, Mode::Act).on_wait(work.on_wait);
        let done = self.once(&mut there).await?;
        let status = if let Done::Reported(report) = &done { report.status.to_string() } else { "none".to_owned() };
        tracing::info!(bucket, key, status, "replaced while it was worked on: scanned what is there now");
        if !there.may_have_tagged_another(None) {
            return Ok(());
        }
        let (bucket, key) = (bucket.clone(), key.clone());
        let message = "replaced again and again while it was tagged".to_owned();
        Err(FetchError::S3(S3Error { operation: "PutObjectTagging", bucket, key, kind: S3ErrorKind::Transient, message })
            .into())
    }

    async fn once(&self, work: &mut ObjectWork<'_>) -> Result<Done, Failure> {
        let began = Instant::now();
        let mut is_known = true;
        let mut looked_up = None;
        match work.event.size {
            Some(size) if work.id.is_pinned() => work.size = size,
            // An event without identity or size: what is there now is what is scanned and acted on.
            _ => match self.store.head(&work.id).await {
                Ok(info) => {
                    work.id.etag = info.etag.clone().or(work.id.etag.take());
                    work.id.version_id = info.version_id.clone().or(work.id.version_id.take());
                    work.size = info.size;
                    looked_up = Some(info);
                }
                // The GET tells why: without a body, HEAD cannot tell a missing bucket from a missing object.
                Err(S3Error { kind: S3ErrorKind::NoDetails | S3ErrorKind::Gone, .. }) => is_known = false,
                Err(error) if is_moot(&error) => return Ok(Done::Gone(error)),
                Err(error) => return Err(FetchError::from(error).into()),
            },
        }
        // What is not known is no ground for skipping it.
        if work.mode == Mode::Filter && is_known && !self.filters.is_empty() {
            match self.skip(work, looked_up.as_ref()).await {
                Ok(None) => {}
                Ok(Some(rule)) => return Ok(Done::Skipped(rule)),
                Err(Failure::Fetch(FetchError::S3(error)) | Failure::Action(action::ActionError::S3(error)))
                    if is_moot(&error) =>
                {
                    work.is_overwritten = error.kind == S3ErrorKind::Replaced;
                    return Ok(Done::Gone(error));
                }
                Err(error) => return Err(error),
            }
        }
        if work.mode != Mode::Look {
            let object = action::ScannedObject::unread(&work.id, work.delivery.redelivered);
            work.is_begun_badly = self.actions.begin(&object).await;
        }
        let mut unreadable = None;
        let (input, info) = match self.fetch(&work.id, work.size).await? {
            Fetched::Input(input, info) => (Ok(input), Some(info)),
            Fetched::TooLarge => (Err(Verdict::unscannable(Reason::TooLarge, "MaxFileSize")), None),
            Fetched::Unreadable(why) => {
                unreadable = Some(why);
                (Err(Verdict::unscannable(Reason::Unsupported, why)), None)
            }
            Fetched::Moot(error) => return Ok(Done::Gone(error)),
        };
        // An event may lack the version; from here on, nothing else is meant.
        if let Some(version_id) = info.as_ref().and_then(|info| info.version_id.clone()) {
            work.id.version_id = Some(version_id);
        }
        if !work.id.is_pinned() {
            work.id.etag = info.as_ref().and_then(|info| info.etag.clone());
        }
        let fetched = Instant::now();

        let judged = match input {
            Ok(input) => self.pool.judge(input).await?,
            Err(verdict) => Scanned::unread(verdict, work.size, self.pool.current()),
        };
        work.judged = Some(judged.clone());
        let scanned = Instant::now();

        work.source = self.source(&work.id, info.as_deref().or(looked_up.as_ref())).await?;
        let mut report = work.report(judged.clone());
        let id = &work.id;
        if work.mode == Mode::Look {
            report.timings_ms = Timings::new(work.delivery.queued, fetched - began, scanned - fetched, Duration::ZERO);
            return Ok(Done::Reported(Box::new(report)));
        }
        // What this service put there in place of another object has no verdict of its own, and would be replaced for ever.
        if self.actions.is_placeholder(judged.sha256.as_deref()) {
            return Ok(Done::Skipped("placeholder".to_owned()));
        }
        let plan = self.plan(id, work.source.as_ref(), &judged, &report.scan_id);
        let object = action::ScannedObject {
            id,
            source: work.source.as_ref(),
            info: info.as_deref(),
            sha256: judged.sha256.as_deref(),
            sequencer: work.event.sequencer.as_deref(),
            unreadable,
            redelivered: work.delivery.redelivered,
        };
        let applied = match self.actions.apply(&object, &plan).await {
            Ok(applied) => {
                report.actions = applied.steps.iter().map(ActionReport::from).collect();
                applied
            }
            // The verdict stands, but what it is about has gone; whatever took its place has an event of its own.
            Err(error) if error.is_moot() => {
                report.actions = vec![undone(&plan, "skipped", &error)];
                work.is_overwritten = error.is_replaced();
                Applied::default()
            }
            Err(error) => return Err(error.into()),
        };

        report.timings_ms = Timings::new(work.delivery.queued, fetched - began, scanned - fetched, scanned.elapsed());
        let report = Box::new(self.tell(work, report, info.as_deref()).await?);
        work.reported = Some(report.clone());
        self.actions.finish(&object, &plan, &applied).await?;
        Ok(Done::Reported(report))
    }

    /// The rule that skips the object, which is tagged if the rule says so.
    async fn skip(&self, work: &ObjectWork<'_>, info: Option<&ObjectInfo>) -> Result<Option<String>, Failure> {
        let rule = filter::skipping(&self.filters, &work.id, work.size, info, &self.store).await;
        let Some(rule) = rule.map_err(FetchError::from)? else { return Ok(None) };
        if rule.tag {
            let object = action::ScannedObject::unread(&work.id, work.delivery.redelivered);
            self.actions.skip(&object, &rule.name).await?;
        }
        Ok(Some(rule.name.clone()))
    }

    /// Reports an object that was asked for and does not exist as `FAILED`: the name may be misspelt, and somebody waits. Not
    /// one that was replaced, whose own event follows, and not one that an earlier delivery may have moved and reported.
    pub(super) async fn tell_missing(&self, work: &ObjectWork<'_>, error: S3Error) -> Result<Done, Failure> {
        let may_be_moved = work.delivery.redelivered && self.policy.removes();
        if !work.event.must_exist || error.kind != S3ErrorKind::Gone || may_be_moved {
            return Ok(Done::Gone(error));
        }
        let mut report = work.report(self.failed(work, &error));
        report.timings_ms = Timings::new(work.delivery.queued, Duration::ZERO, Duration::ZERO, Duration::ZERO);
        Ok(Done::Reported(Box::new(self.tell(work, report, None).await?)))
    }

    /// Where an object was before, if it is in quarantine.
    async fn source(&self, id: &ObjectId, info: Option<&ObjectInfo>) -> Result<Option<ObjectId>, Failure> {
        if !self.actions.is_quarantined(id) {
            return Ok(None);
        }
        match info {
            Some(info) => Ok(action::source(info)),
            // It was not fetched.
            None => match self.store.head(id).await {
                Ok(info) => Ok(action::source(&info)),
                Err(error) if error.kind == S3ErrorKind::Transient => Err(FetchError::from(error).into()),
                Err(_) => Ok(None),
            },
        }
    }

    fn plan(&self, id: &ObjectId, source: Option<&ObjectId>, judged: &Scanned, scan_id: &str) -> Plan {
        action::plan(&self.policy, id, source, &judged.verdict, scan_id, &judged.with.definitions, judged.scanned_at)
    }

    /// No verdict, and why.
    fn failed(&self, work: &ObjectWork<'_>, error: &dyn Display) -> Scanned {
        let verdict = Verdict {
            status: Status::Failed,
            signatures: Vec::new(),
            allowed: Vec::new(),
            reason: None,
            detail: Some(error.to_string()),
        };
        Scanned::unread(verdict, work.size, self.pool.current())
    }

    /// Says what is known of an object on which work is given up, in its tags and in a report, as far as that works: the verdict, if there
    /// is one and only acting on it or telling it failed, or else `FAILED`.
    pub(super) async fn give_up(&self, mut work: ObjectWork<'_>, error: &Failure) -> ScanReport {
        // Only removing the original failed, or scanning what took its place: a second report would contradict the first.
        if let Some(report) = work.reported {
            return *report;
        }
        let judged = work.judged.take().unwrap_or_else(|| self.failed(&work, error));
        let mut report = work.report(judged.clone());
        // Nothing is moved or removed any more, and a state that is not known for sure is not tagged.
        let mut plan = self.plan(&work.id, work.source.as_ref(), &judged, &report.scan_id);
        let wanted = std::mem::take(&mut plan.fate).name();
        let is_failed = judged.verdict.status == Status::Failed;
        // A failure is never written over a verdict.
        if !work.id.is_pinned() || (is_failed && self.actions.has_status(&work.id).await.unwrap_or(false)) {
            plan.tags.clear();
        }
        // Whatever this delivery wrote is taken back from what took the object's place.
        let object = action::ScannedObject::unread(&work.id, true);
        report.actions = match self.actions.apply(&object, &plan).await {
            Ok(applied) => applied.steps.iter().map(ActionReport::from).collect(),
            Err(error) => {
                work.is_overwritten = error.is_replaced();
                vec![undone(&plan, "failed", &error)]
            }
        };
        report.actions.extend(wanted.map(|action| ActionReport {
            action: action.into(),
            outcome: "failed".into(),
            destination: None,
            detail: Some(error.to_string()),
        }));
        report.timings_ms = Timings::new(work.delivery.queued, Duration::ZERO, Duration::ZERO, Duration::ZERO);
        let report = self.tell_anyway(&work, report).await;
        if work.may_have_tagged_another(None)
            && let Err(error) = self.judge_what_is_there(&work).await
        {
            tracing::warn!(%error, bucket = work.id.bucket, key = work.id.key, "replaced, and what is there now is not scanned");
        }
        report
    }

    async fn fetch(&self, id: &ObjectId, size: u64) -> Result<Fetched, Failure> {
        if size > self.max_file_size_bytes {
            return Ok(Fetched::TooLarge);
        }
        let reservation = self.budget.reserve(size).await.ok_or(Failure::Closed)?;
        let spooled = reservation.is_spooled();
        let sink_error = |error| FetchError::Sink { id: id.clone(), error };
        let incoming = blocking_if(spooled, || Incoming::new(reservation, size, &self.scratch_dir));
        let mut incoming = incoming.map_err(sink_error)?;
        let mut is_larger = false;
        let fetched = self
            .store
            .fetch(id, size, &mut |offset, chunk| {
                // A pinned object has the size that was reserved; anything else must not break the budget.
                if offset + chunk.len() as u64 > size {
                    is_larger = true;
                    return Err(std::io::Error::other("the object is larger than its event says"));
                }
                // Disks are slow at times, and must not keep other tasks waiting.
                blocking_if(spooled, || incoming.write_at(chunk, offset))
            })
            .await;
        match fetched {
            Ok(info) if incoming.size() == info.size => {
                let input = blocking_if(incoming.is_behind(), || incoming.finish()).map_err(sink_error)?;
                Ok(Fetched::Input(input, Box::new(info)))
            }
            Ok(info) => {
                Err(sink_error(std::io::Error::other(format!("{} of {} bytes arrived", incoming.size(), info.size))).into())
            }
            Err(_) if is_larger => Err(FetchError::S3(S3Error {
                operation: "GetObject",
                bucket: id.bucket.clone(),
                key: id.key.clone(),
                kind: S3ErrorKind::Transient,
                message: format!("the object is larger than the {size} bytes that it should have"),
            })
            .into()),
            Err(FetchError::S3(error)) if is_moot(&error) => Ok(Fetched::Moot(error)),
            Err(FetchError::S3(S3Error { kind: S3ErrorKind::Unsupported(why), .. })) => Ok(Fetched::Unreadable(why)),
            Err(error) => Err(error.into()),
        }
    }
}

/// Lets other tasks go on elsewhere if the work can take a while.
fn blocking_if<T>(takes_a_while: bool, work: impl FnOnce() -> T) -> T {
    if takes_a_while { tokio::task::block_in_place(work) } else { work() }
}

fn is_moot(error: &S3Error) -> bool {
    matches!(error.kind, S3ErrorKind::Gone | S3ErrorKind::Replaced)
}

/// The report on actions that did not take place.
fn undone(plan: &Plan, outcome: &'static str, error: &action::ActionError) -> ActionReport {
    ActionReport {
        action: plan.fate.name().unwrap_or("tag").into(),
        outcome: outcome.into(),
        destination: None,
        detail: Some(error.to_string()),
    }
}

impl From<&action::Step> for ActionReport {
    fn from(step: &action::Step) -> Self {
        let (outcome, detail) = match &step.outcome {
            StepOutcome::Done => ("done", None),
            StepOutcome::Follows => ("follows", None),
            StepOutcome::Skipped(why) => ("skipped", Some(why.clone())),
            StepOutcome::Failed(why) => ("failed", Some(why.clone())),
        };
        Self { action: step.action.into(), outcome: outcome.into(), destination: step.destination.clone(), detail }
    }
}
