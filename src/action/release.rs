//! Takes an object out of quarantine because somebody says so, whatever was found in it.

use serde::Serialize;
use time::OffsetDateTime;
use time::serde::rfc3339;
use utoipa::ToSchema;

use super::{ActionError, Actions, Fate, Kind, Move, Plan, ScannedObject, StepOutcome, destinations, notes, place, relocate};
use crate::config::{Destination, Placeholder, TagDialect};
use crate::key;
use crate::s3::{self, ObjectId, S3Error, S3ErrorKind};

/// The name and version of the form.
const SCHEMA: &str = "clamgate.release/1";

/// What our own status tag says of a released object: it never claims to be clean.
const RELEASED: &str = "RELEASED";

/// An object that is not in quarantine any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Released {
    /// `clamgate.release/1`
    schema: &'static str,
    /// Where it was in quarantine: `s3://bucket/key`.
    pub from: String,
    /// Its version there.
    pub version_id: Option<String>,
    /// Where it is now: `s3://bucket/key`.
    pub to: String,
    /// Where it was uploaded, percent-encoded as `x-amz-copy-source` is, if its copy says so.
    pub source: Option<String>,
    /// The verdict that it was quarantined with.
    pub status: Option<String>,
    /// What was found.
    pub detail: Option<String>,
    /// The scan that found it.
    pub scan_id: Option<String>,
    /// When that was.
    pub scanned_at: Option<String>,
    /// When it was released.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub released_at: OffsetDateTime,
}

/// Why an object stays in quarantine.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// It is not where objects are quarantined.
    #[error("{0} is in none of the configured quarantines (actions.quarantine_to): there is nothing to release")]
    NotQuarantined(ObjectId),
    /// There is no such object.
    #[error("there is no such object, or no such version of it: {0}")]
    Gone(ObjectId),
    /// Nobody says where it shall go.
    #[error("it is not known where {0} shall go: {1}")]
    Nowhere(ObjectId, &'static str),
    /// It could not be copied to its destination.
    #[error("{id} stays in quarantine: {why}")]
    Stays {
        /// The object.
        id: ObjectId,
        /// Why.
        why: String,
    },
    /// The copy was made, but the one in quarantine could not be removed. The same command does the rest.
    #[error("{} is there, but the object in quarantine is not removed: {error}", key::printable(.to))]
    NotRemoved {
        /// The copy.
        to: String,
        /// What S3 said.
        error: S3Error,
    },
    /// S3 refused or failed, or the destination would be scanned again.
    #[error(transparent)]
    Action(#[from] ActionError),
}

impl From<S3Error> for ReleaseError {
    fn from(error: S3Error) -> Self {
        Self::Action(error.into())
    }
}

impl Actions {
    /// Moves an object out of quarantine: to `to`, or else to where it would have been promoted. It keeps the tags and metadata that it was
    /// uploaded with, and the status `RELEASED`. Nothing is overwritten. Doing it again after a crash does what was left undone.
    ///
    /// `queue_arn`: the queue that must not be told of the copy, which would be quarantined again.
    ///
    /// # Errors
    ///
    /// [`ReleaseError`]; the object is still in quarantine.
    pub async fn release(
        &self,
        id: &ObjectId,
        to: Option<&Destination>,
        queue_arn: Option<&str>,
    ) -> Result<Released, ReleaseError> {
        if !self.is_quarantined(id) {
            return Err(ReleaseError::NotQuarantined(id.clone()));
        }
        let info = match s3::head(&self.client, id).await {
            Ok(info) => info,
            Err(S3Error { kind: S3ErrorKind::Gone, .. }) => return Err(ReleaseError::Gone(id.clone())),
            Err(error) => return Err(error.into()),
        };
        let id = &ObjectId { version_id: info.version_id.clone(), etag: info.etag.clone(), ..id.clone() };
        let source = notes::source(&info.metadata);
        let destination = self.destination_of(source.as_ref(), to).map_err(|why| ReleaseError::Nowhere(id.clone(), why))?;
        if let Some(arn) = queue_arn {
            destinations::check(&self.client, &destination.root(), arn).await?;
        }
        let note = |name| notes::note(&info.metadata, name).map(str::to_owned);
        let scan_id = note(notes::SCAN_ID);
        let plan = Plan {
            tags: self.release_tags(&scan_id.clone().unwrap_or_else(|| place::uuid(id, None).to_string())),
            fate: Fate::Move(Move { kind: Kind::Release, destination }),
            scan_id: scan_id.clone().unwrap_or_default(),
            notes: Vec::new(),
        };
        // Whatever is at the destination may be what an earlier attempt left there.
        let object =
            ScannedObject { info: Some(&info), source: Some(source.as_ref().unwrap_or(id)), ..ScannedObject::unread(id, true) };
        let Fate::Move(to) = &plan.fate else { return Err(ReleaseError::NotQuarantined(id.clone())) };
        let moved = self.relocate(&object, &plan, to).await?;
        let why = match moved.outcome {
            StepOutcome::Done => None,
            StepOutcome::Skipped(why) | StepOutcome::Failed(why) => Some(why),
            StepOutcome::Follows => Some("nothing was done".to_owned()),
        };
        if let Some(why) = why {
            return Err(ReleaseError::Stays { id: id.clone(), why });
        }
        let to = format!("s3://{}/{}", to.destination.bucket(), moved.key);
        let (status, detail) = (note(notes::STATUS), note(notes::DETAIL));
        tracing::warn!(
            bucket = id.bucket,
            key = id.key,
            version_id = id.version_id,
            to,
            status,
            detail,
            "object released from quarantine"
        );
        if let Some(why) = moved.no_room {
            tracing::warn!(to, why, "the released object has no tag that says so");
        }
        if let Err(error) = relocate::remove(&self.client, id).await {
            return Err(ReleaseError::NotRemoved { to, error });
        }
        Ok(Released {
            schema: SCHEMA,
            from: format!("s3://{}/{}", id.bucket, id.key),
            version_id: id.version_id.clone(),
            to,
            source: source.map(|source| format!("s3://{}", source.copy_source())),
            status,
            detail,
            scan_id,
            scanned_at: note(notes::SCANNED_AT),
            released_at: OffsetDateTime::now_utc(),
        })
    }

    /// Where it shall go, or why that is not known.
    fn destination_of(&self, source: Option<&ObjectId>, to: Option<&Destination>) -> Result<Destination, &'static str> {
        let destination = match (to, source) {
            (Some(to), _) => to,
            (None, None) => return Err("its metadata does not say where it came from; name the destination"),
            (None, Some(source)) => {
                let promote_to = self.config.policy(&source.bucket, &source.key).promote_to;
                promote_to.ok_or("actions.promote_to is not set; name the destination")?
            }
        };
        if source.is_none() && destination.uses(Placeholder::Bucket) {
            return Err("its metadata does not say which bucket it came from, and {bucket} stands for that");
        }
        if destination.uses(Placeholder::Uuid) && source.is_none_or(|source| source.version_id.is_none()) {
            return Err(
                "for an upload without a version, {uuid} stands for its content, which is not read; name another destination",
            );
        }
        if destination.uses(Placeholder::Sha256) {
            return Err("its content is not read, so {sha256} is not known; name another destination");
        }
        let root = destination.root();
        if self.config.quarantines().any(|place| place.root().overlaps(&root)) {
            return Err("that is, or can be, in quarantine, where it is");
        }
        Ok(destination.clone())
    }

    /// Our own status, and what tells this object from others; nothing in other scanners' words, which have none for this.
    fn release_tags(&self, scan_id: &str) -> super::Tags {
        let prefix = &self.config.tag_prefix;
        vec![(TagDialect::Clamgate.status_key(prefix), RELEASED.to_owned()), (format!("{prefix}scan-id"), scan_id.to_owned())]
    }
}
