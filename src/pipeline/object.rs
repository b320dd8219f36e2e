//! One object's way: fetch → scan → act → report.
//!
//! Every step can be done again after a crash without a second effect. An original that was copied away is removed last, after
//! the report, and so is one that is deleted or replaced: as long as it is there, a redelivery does the same work with the same result.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::work::{Delivery, Done, Failure, Mode, ObjectWork};
use crate::action::{self, Actions, Applied, Plan, StepOutcome};
use crate::backoff::backoff;
use crate::config::{ActionsConfig, FilterConfig};
use crate::engine::{Reason, Verdict};
use crate::filter;
use crate::object::{FetchError, ObjectStore};
use crate::queue::ObjectEvent;
use crate::report::{ActionReport, Outbox, ScanReport, Sinks, Timings};
use crate::s3::{ObjectId, ObjectInfo, S3Error, S3ErrorKind};
use crate::scan::{Budget, Incoming, Input, Pool, Scanned};

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
    pub(super) async fn judge_what_is_there(&self, work: &ObjectWork<'_>) -> Result<(), Failure> {
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

    pub(super) fn plan(&self, id: &ObjectId, source: Option<&ObjectId>, judged: &Scanned, scan_id: &str) -> Plan {
        action::plan(&self.policy, id, source, &judged.verdict, scan_id, &judged.with.definitions, judged.scanned_at)
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
pub(super) fn undone(plan: &Plan, outcome: &'static str, error: &action::ActionError) -> ActionReport {
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
