//! Work on an object: how it got here, how far it has come, and how it ended.

use std::time::Duration;

use crate::action;
use crate::object::FetchError;
use crate::queue::ObjectEvent;
use crate::report::{ScanReport, SinkError, Source, Target, Timings};
use crate::s3::{ObjectId, S3Error, S3ErrorKind};
use crate::scan::{ScanError, Scanned};

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

/// Work on an object, and how far it has come.
pub(super) struct ObjectWork<'event> {
    pub(super) event: &'event ObjectEvent,
    pub(super) delivery: Delivery,
    pub(super) mode: Mode,
    /// Pinned as soon as that is possible.
    pub(super) id: ObjectId,
    pub(super) size: u64,
    pub(super) judged: Option<Scanned>,
    /// Where it was before, if it is in quarantine.
    pub(super) source: Option<ObjectId>,
    /// What everybody was told.
    pub(super) reported: Option<Box<ScanReport>>,
    /// It could not be tagged as being scanned.
    pub(super) is_begun_badly: bool,
    /// Another object had taken its place when it was to be tagged.
    pub(super) is_overwritten: bool,
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
    pub(super) fn may_have_tagged_another(&self, done: Option<&Done>) -> bool {
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
    pub(super) fn report(&self, judged: Scanned) -> ScanReport {
        let mut report = ScanReport::new(self.target(), judged, Timings::default(), Vec::new());
        report.source = self.source.as_ref().map(Source::from);
        report.trace_id.clone_from(&self.event.trace_id);
        report.custom.clone_from(&self.event.custom);
        report
    }
}
