//! Telling everybody: first the outbox, then the sinks.

use super::object::Objects;
use super::work::{Failure, ObjectWork};
use crate::engine::Status;
use crate::object::{FetchError, ObjectStore};
use crate::report::{About, Notice, ScanReport};
use crate::s3::{ObjectId, ObjectInfo, S3Error, S3ErrorKind};
use crate::telemetry::events;

impl<S: ObjectStore> Objects<S> {
    /// Tells everybody, and returns what they were told: the report as it was written down first.
    pub(super) async fn tell(
        &self,
        work: &ObjectWork<'_>,
        report: ScanReport,
        info: Option<&ObjectInfo>,
    ) -> Result<ScanReport, Failure> {
        let about = self.about(&work.id, report.status, info).await?;
        let report = match &self.outbox {
            Some(outbox) => outbox.keep(report).await?,
            None => report,
        };
        self.sinks.tell(&Notice { report: &report, about: &about }, work.on_wait).await?;
        Ok(report)
    }

    /// Tells as many as can be told, when there will be no other attempt.
    pub(super) async fn tell_anyway(&self, work: &ObjectWork<'_>, mut report: ScanReport) -> ScanReport {
        let about = self.about(&work.id, report.status, None).await.unwrap_or_default();
        if let Some(outbox) = &self.outbox {
            match outbox.keep(report.clone()).await {
                Ok(kept) => report = kept,
                Err(error) => events::report_lost(&report.target, &error),
            }
        }
        if let Err(error) = self.sinks.tell(&Notice { report: &report, about: &about }, work.on_wait).await {
            events::report_lost(&report.target, &error);
        }
        report
    }

    /// What the sinks need to know about the object beside the report. What is not there any more has nothing to say.
    async fn about(&self, id: &ObjectId, status: Status, info: Option<&ObjectInfo>) -> Result<About, Failure> {
        let needs = self.sinks.needs(status);
        let mut about = About::default();
        if needs.headers {
            let looked_up = match info {
                Some(_) => None,
                None => found(self.store.head(id).await)?,
            };
            if let Some(info) = info.or(looked_up.as_ref()) {
                about.content_type.clone_from(&info.content_type);
                about.last_modified = info.last_modified;
                about.metadata = info.metadata.iter().map(|(name, value)| (name.to_lowercase(), value.clone())).collect();
            }
        }
        if needs.tags {
            about.tags = found(self.store.tags(id).await)?.unwrap_or_default().into_iter().collect();
        }
        Ok(about)
    }
}

/// `None` if the object is not there any more as it was scanned, or not to be had.
fn found<T>(answer: Result<T, S3Error>) -> Result<Option<T>, FetchError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error @ S3Error { kind: S3ErrorKind::Transient | S3ErrorKind::Denied, .. }) => Err(error.into()),
        Err(_) => Ok(None),
    }
}
