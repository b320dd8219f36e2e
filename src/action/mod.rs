//! What happens to an object: tags, promotion, quarantine.
//!
//! Every change names the version that was scanned, or is made on the condition that the ETag still is the scanned one. Every
//! step can be done twice without a second effect. Nothing here knows where the verdict came from or who is told.

mod definitions;
mod destinations;
mod dialect;
mod policy;
mod relocate;
mod tag;

use aws_sdk_s3::Client;

pub use definitions::ScannedWith;
pub(crate) use dialect::Dialects;
pub use policy::{Kind, Move, Plan, plan};
pub(crate) use tag::Pairs as Tags;

use crate::config::{ActionsConfig, Location};
use crate::s3::{self, ObjectId, ObjectInfo, S3Error, S3ErrorKind};

/// The longest key that S3 takes, in bytes.
const LONGEST_KEY: usize = 1024;

/// Carries out what the policy says.
#[derive(Debug, Clone)]
pub struct Actions {
    client: Client,
    config: ActionsConfig,
}

/// An object, as it was scanned.
#[derive(Debug, Clone)]
pub struct ScannedObject<'a> {
    /// Which state of which object.
    pub id: &'a ObjectId,
    /// Its headers, if they are known; looked up when they are needed.
    pub info: Option<&'a ObjectInfo>,
    /// The SHA-256 of its content, in hexadecimal digits.
    pub sha256: Option<&'a str>,
    /// The event's place among those of the key.
    pub sequencer: Option<&'a str>,
    /// Why S3 does not hand out its content, if so: then it cannot be copied either.
    pub unreadable: Option<&'static str>,
    /// Whether an earlier delivery of the same message may have done part of the work.
    pub redelivered: bool,
}

impl<'a> ScannedObject<'a> {
    /// An object whose content was not read.
    #[must_use]
    pub fn unread(id: &'a ObjectId, redelivered: bool) -> Self {
        Self { id, info: None, sha256: None, sequencer: None, unreadable: None, redelivered }
    }
}

/// One step and how it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// `tag`, `promote` or `quarantine`.
    pub action: &'static str,
    /// Where the object went.
    pub destination: Option<String>,
    /// How it went.
    pub outcome: StepOutcome,
}

/// How a step went. What a retry could mend is an [`ActionError`] instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepOutcome {
    /// As planned.
    Done,
    /// It was not to be done after all, and why.
    Skipped(String),
    /// It cannot be done, and why.
    Failed(String),
}

/// What [`Actions::apply`] did, and what [`Actions::finish`] still has to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// The object has been copied to its destination; the original is still there.
    pub remove_source: bool,
}

/// An action that failed.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    /// S3 refused or failed.
    #[error(transparent)]
    S3(#[from] S3Error),
    /// A destination would bring the object back to the queue that it came from.
    #[error("{destination} would be scanned again: {why}")]
    Loop {
        /// The destination.
        destination: Location,
        /// The rule that would do it.
        why: String,
    },
    /// Whether a destination is safe could not be found out.
    #[error("cannot check that {destination} would not be scanned again (needs s3:GetBucketNotification): {error}")]
    Unchecked {
        /// The destination.
        destination: Location,
        /// What S3 said.
        error: S3Error,
    },
}

impl ActionError {
    /// Whether the object is gone or replaced, so that there is nothing left to act on.
    #[must_use]
    pub fn is_moot(&self) -> bool {
        matches!(self, Self::S3(S3Error { kind: S3ErrorKind::Gone | S3ErrorKind::Replaced, .. }))
    }
}

impl Actions {
    /// Actions on an S3 client, as configured.
    #[must_use]
    pub fn new(client: Client, config: ActionsConfig) -> Self {
        Self { client, config }
    }

    /// Checks that no destination, and no other place where this service writes, would feed the queue with this ARN.
    ///
    /// # Errors
    ///
    /// [`ActionError::Loop`] if one would, [`ActionError::Unchecked`] if that cannot be found out.
    pub async fn check_destinations(&self, queue_arn: &str, other: Option<&Location>) -> Result<(), ActionError> {
        for destination in [self.config.promote_to.as_ref(), self.config.quarantine_to.as_ref(), other].into_iter().flatten() {
            destinations::check(&self.client, destination, queue_arn).await?;
        }
        Ok(())
    }

    /// Tags the object, or copies it, tagged, to its destination. The original is kept until [`Actions::finish`]. What S3 will
    /// never do (too many tags, too long a key) is a failed step, not an error: the verdict still has to be told.
    ///
    /// # Errors
    ///
    /// [`ActionError`]; with [`ActionError::is_moot`] the object is not there any more as it was scanned.
    pub async fn apply(&self, object: &ScannedObject<'_>, plan: &Plan) -> Result<Applied, ActionError> {
        let mut applied = Applied::default();
        if let Some(destination) = &plan.destination {
            let (outcome, no_room) = self.relocate(object, plan, destination).await?;
            applied.remove_source = outcome == StepOutcome::Done;
            let place = format!("s3://{}/{}", destination.bucket, destination.key);
            let destination_of = applied.remove_source.then_some(place);
            applied.steps.push(Step { action: destination.kind.name(), destination: destination_of.clone(), outcome });
            applied.steps.extend(no_room.map(|why| Step {
                action: "tag",
                destination: destination_of,
                outcome: StepOutcome::Failed(why),
            }));
        }
        if !plan.tags.is_empty() && !applied.remove_source {
            let outcome = match tag::apply(&self.client, object, &plan.tags, self.dialects()).await {
                Ok(Some(no_room)) => StepOutcome::Failed(no_room),
                Ok(None) => StepOutcome::Done,
                Err(error) => impossible(error)?,
            };
            applied.steps.push(Step { action: "tag", destination: None, outcome });
        }
        Ok(applied)
    }

    /// Tags an object as being scanned, if that is wanted, unless it carries a verdict. That says nothing which anybody may
    /// rely on: when it fails, the work goes on.
    pub async fn begin(&self, object: &ScannedObject<'_>) {
        if !self.config.tag_in_progress || !object.id.is_pinned() {
            return;
        }
        if let Err(error) = self.tag_unless_judged(object, &self.dialects().in_progress()).await
            && !error.is_moot()
        {
            tracing::warn!(%error, "cannot tag an object as being scanned");
        }
    }

    /// Tags an object that is not scanned, unless it carries a verdict.
    ///
    /// # Errors
    ///
    /// [`ActionError`], as for [`Actions::apply`].
    pub async fn skip(&self, object: &ScannedObject<'_>, why: &str) -> Result<(), ActionError> {
        self.tag_unless_judged(object, &self.dialects().skipped(why)).await
    }

    async fn tag_unless_judged(&self, object: &ScannedObject<'_>, tags: &Tags) -> Result<(), ActionError> {
        if !tags.is_empty() && !self.has_status(object.id).await? {
            let no_room = tag::apply(&self.client, object, tags, self.dialects()).await?;
            if let Some(why) = no_room {
                tracing::warn!(bucket = object.id.bucket, key = object.id.key, why, "no room for tags");
            }
        }
        Ok(())
    }

    /// Whether the object is tagged with a status, other than that it is being scanned.
    ///
    /// # Errors
    ///
    /// [`ActionError::S3`]
    pub async fn has_status(&self, id: &ObjectId) -> Result<bool, ActionError> {
        Ok(self.dialects().has_status(&s3::tags(&self.client, id).await?))
    }

    fn dialects(&self) -> Dialects<'_> {
        Dialects::of(&self.config)
    }

    /// Removes the original, if the object was copied to its destination. One that S3 does not let us remove (Object Lock, a
    /// missing permission) is tagged with the verdict at least.
    ///
    /// # Errors
    ///
    /// [`ActionError::S3`]. An object that is gone or replaced is no error: the original is not there any more.
    pub async fn finish(&self, object: &ScannedObject<'_>, plan: &Plan, applied: &Applied) -> Result<(), ActionError> {
        if !applied.remove_source {
            return Ok(());
        }
        if let Err(error) = relocate::remove(&self.client, object.id).await {
            if error.kind != S3ErrorKind::Transient && !plan.tags.is_empty() {
                tag::apply(&self.client, object, &plan.tags, self.dialects()).await?;
            }
            return Err(error.into());
        }
        Ok(())
    }

    /// Copies the object to its destination, unless that has been done, or a newer version is there. Also says why not every
    /// status found room in the copy's tags, if so.
    async fn relocate(
        &self,
        object: &ScannedObject<'_>,
        plan: &Plan,
        to: &Move,
    ) -> Result<(StepOutcome, Option<String>), ActionError> {
        if let Some(why) = object.unreadable {
            return Ok((StepOutcome::Skipped(why.to_owned()), None));
        }
        if to.key.len() > LONGEST_KEY {
            let why = format!("the key at the destination would be longer than {LONGEST_KEY} bytes");
            return Ok((StepOutcome::Failed(why), None));
        }
        let dialects = self.dialects();
        // The versions of a key can be scanned in any order, but go to one place.
        let sequencer = object.sequencer.filter(|_| object.id.version_id.is_some() && !plan.tags.is_empty());
        let sequencer_tag = dialects.sequencer_key();
        if object.redelivered || sequencer.is_some() {
            let there = self.tags_at(to).await?;
            if dialects.are_of_one_scan(&there, &plan.tags) {
                return Ok((StepOutcome::Done, None));
            }
            let newer = |(name, value): &(String, String)| *name == sequencer_tag && later(value, sequencer.unwrap_or(""));
            if sequencer.is_some() && there.iter().any(newer) {
                return Ok((StepOutcome::Skipped("a newer version is there already".to_owned()), None));
            }
        }
        let mut ours = plan.tags.clone();
        if let Some(sequencer) = sequencer {
            // Next to the status: when room is short, what keeps versions in order matters more than what explains.
            ours.insert(dialects.statuses(&ours).min(ours.len()), (sequencer_tag, sequencer.to_owned()));
        }
        match self.copy(object, to, &ours).await {
            Ok(no_room) => Ok((StepOutcome::Done, no_room)),
            Err(error) => Ok((impossible(error)?, None)),
        }
    }

    async fn copy(&self, object: &ScannedObject<'_>, to: &Move, ours: &Tags) -> Result<Option<String>, S3Error> {
        let tag::Merged { tags, no_room } = tag::merge(&s3::tags(&self.client, object.id).await?, ours, self.dialects());
        let looked_up;
        let info = match object.info {
            Some(info) => info,
            None => {
                looked_up = s3::head(&self.client, object.id).await?;
                &looked_up
            }
        };
        let copy = relocate::Copy {
            id: object.id,
            info,
            sha256: object.sha256,
            destination: to,
            tags: &tags,
            kms_key_id: self.config.kms_key_id.as_deref(),
            in_parts_above: self.config.multipart_copy_bytes,
        };
        copy.run(&self.client).await?;
        Ok(no_room)
    }

    /// The tags of what is at the destination; none if nothing is, or if we may not look.
    async fn tags_at(&self, to: &Move) -> Result<tag::Pairs, S3Error> {
        let id = ObjectId { bucket: to.bucket.clone(), key: to.key.clone(), version_id: None, etag: None };
        match s3::tags(&self.client, &id).await {
            Err(S3Error { kind: S3ErrorKind::Gone | S3ErrorKind::Denied | S3ErrorKind::Permanent, .. }) => Ok(Vec::new()),
            tags => tags,
        }
    }
}

/// What no retry can mend is a failed step; everything else stays an error.
fn impossible(error: S3Error) -> Result<StepOutcome, S3Error> {
    match error.kind {
        S3ErrorKind::Permanent | S3ErrorKind::Unsupported(_) | S3ErrorKind::NoDetails => Ok(StepOutcome::Failed(error.message)),
        _ => Err(error),
    }
}

/// Whether one sequencer is later than another: they are hexadecimal numbers of different lengths.
fn later(one: &str, other: &str) -> bool {
    let (one, other) = (one.trim_start_matches('0'), other.trim_start_matches('0'));
    (one.len(), one.to_ascii_uppercase()) > (other.len(), other.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::later;

    #[test]
    fn sequencers_are_numbers() {
        for (one, other, expected) in
            [("0A", "9", true), ("10", "0F", true), ("0055", "55", false), ("aB", "AA", true), ("1", "2", false)]
        {
            assert_eq!(later(one, other), expected, "{one} {other}");
        }
    }
}
