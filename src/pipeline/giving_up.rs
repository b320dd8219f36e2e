//! Objects on which there will be no other attempt: what is known of them is said.

use std::fmt::Display;
use std::time::Duration;

use super::object::{Objects, undone};
use super::work::{Done, Failure, ObjectWork};
use crate::action;
use crate::engine::{Status, Verdict};
use crate::object::ObjectStore;
use crate::report::{ActionReport, ScanReport, Timings};
use crate::s3::{S3Error, S3ErrorKind};
use crate::scan::Scanned;

impl<S: ObjectStore> Objects<S> {
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
}
