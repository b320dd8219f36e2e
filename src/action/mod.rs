//! What happens to an object: tags, promotion, quarantine, deletion, a placeholder in its place.
//!
//! Every change names the version that was scanned, or is made on the condition that the ETag still is the scanned one. Every
//! step can be done twice without a second effect. Nothing here knows where the verdict came from or who is told.

mod definitions;
mod destinations;
mod dialect;
mod notes;
mod place;
mod placeholder;
mod policy;
mod release;
mod relocate;
mod tag;

use std::borrow::Cow;

use aws_sdk_s3::Client;

pub use definitions::ScannedWith;
pub(crate) use dialect::Dialects;
pub use policy::{Fate, Kind, Move, Plan, plan};
pub use release::{ReleaseError, Released};
pub(crate) use tag::Pairs as Tags;

use crate::config::{ActionsConfig, Destination, Location};
use crate::s3::{self, LONGEST_KEY, ObjectId, ObjectInfo, S3Error, S3ErrorKind};

/// What is where an object out of quarantine shall go.
enum Occupant {
    /// The copy that an earlier attempt made.
    Ours,
    /// Something else.
    Another,
}

/// Why an object stays in quarantine.
const TAKEN: &str = "something else is at the destination, and nothing out of quarantine overwrites it";

/// Where an object in quarantine was before, if it is one of our copies. Only there does the metadata say so: anywhere else, an uploader could have
/// written it.
#[must_use]
pub fn source(info: &ObjectInfo) -> Option<ObjectId> {
    notes::source(&info.metadata)
}

/// How an object was moved.
struct Relocated {
    outcome: StepOutcome,
    /// Where it is, or would have been.
    key: String,
    /// Why not every status found room in the copy's tags, if so.
    no_room: Option<String>,
}

/// Carries out what the policy says.
#[derive(Debug, Clone)]
pub struct Actions {
    client: Client,
    config: ActionsConfig,
    /// The SHA-256 of what replaces objects, if any are replaced.
    placeholder: Option<String>,
}

/// An object, as it was scanned.
#[derive(Debug, Clone)]
pub struct ScannedObject<'a> {
    /// Which state of which object.
    pub id: &'a ObjectId,
    /// Where it was before, if it is a copy in quarantine ([`source`]). It never overwrites what is at its destination.
    pub source: Option<&'a ObjectId>,
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
        Self { id, source: None, info: None, sha256: None, sequencer: None, unreadable: None, redelivered }
    }
}

/// One step and how it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// `tag`, `promote`, `quarantine`, `delete` or `replace`.
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
    /// [`Actions::finish`] does it.
    Follows,
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
    /// What is left to do once everybody has been told.
    pub rest: Rest,
}

/// What [`Actions::finish`] has to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    #[default]
    Nothing,
    /// The original, which has been copied to its destination or is just to go, is removed.
    Remove,
    /// A placeholder object takes the original's place.
    Replace,
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

    /// Whether something else has taken the object's place.
    #[must_use]
    pub fn is_replaced(&self) -> bool {
        matches!(self, Self::S3(S3Error { kind: S3ErrorKind::Replaced, .. }))
    }
}

impl Actions {
    /// Actions on an S3 client, as configured.
    #[must_use]
    pub fn new(client: Client, config: ActionsConfig) -> Self {
        let placeholder = placeholder::digest(&config);
        Self { client, config, placeholder }
    }

    /// Checks that no destination, and no other place where this service writes, would feed the queue with this ARN.
    ///
    /// # Errors
    ///
    /// [`ActionError::Loop`] if one would, [`ActionError::Unchecked`] if that cannot be found out.
    pub async fn check_destinations(&self, queue_arn: &str, others: &[Location]) -> Result<(), ActionError> {
        for destination in self.config.destinations().map(Destination::root).chain(others.iter().cloned()) {
            destinations::check(&self.client, &destination, queue_arn).await?;
        }
        Ok(())
    }

    /// Whether the object lies where objects are quarantined.
    #[must_use]
    pub fn is_quarantined(&self, id: &ObjectId) -> bool {
        self.config.quarantines().any(|place| place.holds(&id.bucket, &id.key))
    }

    /// Whether content with this SHA-256 is what this service itself puts in the place of objects that it replaces.
    #[must_use]
    pub fn is_placeholder(&self, sha256: Option<&str>) -> bool {
        sha256.is_some() && sha256 == self.placeholder.as_deref()
    }

    /// Tags the object, or copies it, tagged, to its destination. The original is kept until [`Actions::finish`]. What S3 will
    /// never do (too many tags, too long a key) is a failed step, not an error: the verdict still has to be told.
    ///
    /// # Errors
    ///
    /// [`ActionError`]; with [`ActionError::is_moot`] the object is not there any more as it was scanned.
    pub async fn apply(&self, object: &ScannedObject<'_>, plan: &Plan) -> Result<Applied, ActionError> {
        let mut applied = Applied::default();
        if let Fate::Move(to) = &plan.fate {
            let Relocated { outcome, key, no_room } = self.relocate(object, plan, to).await?;
            let is_done = outcome == StepOutcome::Done;
            let destination = is_done.then(|| format!("s3://{}/{key}", to.destination.bucket()));
            if is_done {
                applied.rest = Rest::Remove;
            }
            applied.steps.push(Step { action: to.kind.name(), destination: destination.clone(), outcome });
            applied.steps.extend(no_room.map(|why| Step { action: "tag", destination, outcome: StepOutcome::Failed(why) }));
        }
        let is_moved = applied.rest == Rest::Remove;
        if !plan.tags.is_empty() && !is_moved {
            let outcome = match tag::apply(&self.client, object, &plan.tags, self.dialects()).await {
                Ok(Some(no_room)) => StepOutcome::Failed(no_room),
                Ok(None) => StepOutcome::Done,
                Err(error) => impossible(error)?,
            };
            applied.steps.push(Step { action: "tag", destination: None, outcome });
        }
        let rest = match plan.fate {
            Fate::Delete => Rest::Remove,
            Fate::Replace => Rest::Replace,
            Fate::Leave | Fate::Move(_) => return Ok(applied),
        };
        let mut outcome = StepOutcome::Follows;
        if object.id.is_pinned() {
            applied.rest = rest;
        } else {
            // Something else could be there by now.
            outcome = StepOutcome::Skipped("neither the object's version nor its ETag is known".to_owned());
        }
        applied.steps.extend(plan.fate.name().map(|action| Step { action, destination: None, outcome }));
        Ok(applied)
    }

    /// Tags an object as being scanned, if that is wanted, unless it carries a verdict. That says nothing which anybody may
    /// rely on: when it fails, the work goes on. True if it failed: the tags may be on what took the object's place.
    pub async fn begin(&self, object: &ScannedObject<'_>) -> bool {
        if !self.config.tag_in_progress || !object.id.is_pinned() {
            return false;
        }
        let begun = self.tag_unless_judged(object, &self.dialects().in_progress()).await;
        if let Err(error) = &begun
            && !error.is_moot()
        {
            tracing::warn!(%error, "cannot tag an object as being scanned");
        }
        begun.is_err()
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

    /// Removes the original, if it was copied to its destination or is to be deleted, or puts a placeholder in its place. One that S3 does not
    /// let us remove (Object Lock, a missing permission) is tagged with the verdict at least.
    ///
    /// # Errors
    ///
    /// [`ActionError::S3`]. An object that is gone or replaced is no error: the original is not there any more.
    pub async fn finish(&self, object: &ScannedObject<'_>, plan: &Plan, applied: &Applied) -> Result<(), ActionError> {
        let done = match applied.rest {
            Rest::Nothing => return Ok(()),
            Rest::Remove => relocate::remove(&self.client, object.id).await,
            Rest::Replace => self.replace(object, plan).await,
        };
        // Not its copy alone.
        let is_tagged = applied.steps.iter().any(|step| step.action == "tag" && step.destination.is_none());
        if let Err(error) = done {
            if error.kind != S3ErrorKind::Transient && !plan.tags.is_empty() && !is_tagged {
                tag::apply(&self.client, object, &plan.tags, self.dialects()).await?;
            }
            return Err(error.into());
        }
        Ok(())
    }

    /// Puts a placeholder in the object's place, with the object's own tags and the verdict.
    async fn replace(&self, object: &ScannedObject<'_>, plan: &Plan) -> Result<(), S3Error> {
        let id = object.id;
        let etag = match id.quoted_etag() {
            Some(etag) => Some(etag),
            None => match self.info(object).await {
                Ok(info) => info.etag.as_ref().map(|etag| format!("\"{etag}\"")),
                Err(error) => return gone(error),
            },
        };
        let Some(etag) = etag else { return Ok(()) };
        let own = match s3::tags(&self.client, id).await {
            Ok(own) => own,
            Err(error) => return gone(error),
        };
        let tag::Merged { tags, .. } = tag::merge(&own, &plan.tags, self.dialects());
        placeholder::Placeholder { id, etag, tags: &tags, notes: &plan.notes, config: &self.config }.put(&self.client).await
    }

    /// The object's headers.
    async fn info<'a>(&self, object: &ScannedObject<'a>) -> Result<Cow<'a, ObjectInfo>, S3Error> {
        match object.info {
            Some(info) => Ok(Cow::Borrowed(info)),
            None => s3::head(&self.client, object.id).await.map(Cow::Owned),
        }
    }

    /// Copies the object to its destination, unless that has been done, or a newer version is there; how that went.
    async fn relocate(&self, object: &ScannedObject<'_>, plan: &Plan, to: &Move) -> Result<Relocated, ActionError> {
        let not_moved = |outcome| Relocated { outcome, key: String::new(), no_room: None };
        if let Some(why) = object.unreadable {
            return Ok(not_moved(StepOutcome::Skipped(why.to_owned())));
        }
        let info = self.info(object).await?;
        let key = match place::key(&to.destination, object, &info) {
            Ok(key) if key.len() <= LONGEST_KEY => key,
            Ok(_) => {
                let why = format!("the key at the destination would be longer than {LONGEST_KEY} bytes");
                return Ok(not_moved(StepOutcome::Failed(why)));
            }
            Err(why) => return Ok(not_moved(StepOutcome::Failed(why))),
        };
        let there = ObjectId { bucket: to.destination.bucket().to_owned(), key, version_id: None, etag: None };
        let own = s3::tags(&self.client, object.id).await?;
        let dialects = self.dialects();
        let sequencer_tag = dialects.sequencer_key();
        let sequencer = match object.source {
            // The event was the copy's.
            Some(_) => own.iter().find(|(name, _)| *name == sequencer_tag).map(|(_, value)| value.as_str()),
            None => object.sequencer.filter(|_| object.id.version_id.is_some()),
        };
        // The versions of a key can be scanned in any order, but go to one place, unless its name tells them or their contents apart. What is
        // quarantined may go on to such a place.
        let is_shared = to.destination.is_shared_by_versions();
        let sequencer = sequencer.filter(|_| (is_shared || to.kind == Kind::Quarantine) && !plan.tags.is_empty());
        let ours = dialects.in_order(&plan.tags, sequencer);
        let tag::Merged { tags, no_room } = tag::merge(&own, &ours, dialects);
        let done = |no_room| Relocated { outcome: StepOutcome::Done, key: there.key.clone(), no_room };
        let sequencer = sequencer.filter(|_| is_shared);
        if object.redelivered || sequencer.is_some() {
            let found = self.tags_at(&there).await?;
            if self.is_there(&there, &found, plan, to.kind, object.redelivered).await? {
                // What did not fit is told again, as the first delivery told it.
                return Ok(done(no_room));
            }
            let newer = |(name, value): &(String, String)| *name == sequencer_tag && later(value, sequencer.unwrap_or(""));
            if sequencer.is_some() && found.iter().any(newer) {
                return Ok(not_moved(StepOutcome::Skipped("a newer version is there already".to_owned())));
            }
        }
        // What comes out of quarantine overwrites nothing.
        let mark = object.source.map(|_| notes::mark(object.id));
        if let Some(mark) = &mark {
            match self.occupant(&there, mark).await? {
                Some(Occupant::Ours) => return Ok(done(no_room)),
                Some(Occupant::Another) => return Ok(not_moved(StepOutcome::Skipped(TAKEN.to_owned()))),
                None => {}
            }
        }
        let has_notes = || info.metadata.iter().any(|(name, _)| notes::is_note(name));
        let metadata = match (to.kind, &mark) {
            (Kind::Quarantine, _) => Some(notes::with_notes(&info.metadata, object.id, &plan.notes)),
            (_, Some(mark)) => Some(notes::with_mark(&info.metadata, mark)),
            (_, None) => has_notes().then(|| notes::without_notes(&info.metadata)),
        };
        let copy = relocate::Copy {
            id: object.id,
            info: &info,
            sha256: object.sha256,
            bucket: &there.bucket,
            key: &there.key,
            tags: &tags,
            metadata: metadata.as_ref(),
            only_if_free: mark.is_some(),
            kms_key_id: self.config.kms_key_id.as_deref(),
            in_parts_above: self.config.multipart_copy_bytes,
        };
        match (copy.run(&self.client).await, &mark) {
            (Ok(()), _) => Ok(done(no_room)),
            // Something came to the destination in between: perhaps our copy, in an attempt whose answer was lost.
            (Err(error @ S3Error { kind: S3ErrorKind::Replaced, .. }), Some(mark)) => {
                match self.occupant(&there, mark).await? {
                    Some(Occupant::Ours) => Ok(done(no_room)),
                    Some(Occupant::Another) => Ok(not_moved(StepOutcome::Skipped(TAKEN.to_owned()))),
                    None => Err(error.into()),
                }
            }
            (Err(error), _) => Ok(Relocated { outcome: impossible(error)?, key: there.key, no_room }),
        }
    }

    /// Whether what is at the destination is the copy that an earlier delivery made: its tags say so, or, where there was no room for them,
    /// its metadata.
    async fn is_there(
        &self,
        there: &ObjectId,
        tags: &tag::Pairs,
        plan: &Plan,
        kind: Kind,
        redelivered: bool,
    ) -> Result<bool, S3Error> {
        // The same verdict alone could be on a copy of another content.
        if self.dialects().are_of_one_scan(tags, &plan.tags) {
            return Ok(true);
        }
        if kind != Kind::Quarantine || !redelivered {
            return Ok(false);
        }
        match s3::head(&self.client, there).await {
            Ok(info) => Ok(notes::are_of(&info.metadata, &plan.notes)),
            Err(error) if may_not_look(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What the key holds. Whether it holds anything must be known.
    async fn occupant(&self, there: &ObjectId, mark: &str) -> Result<Option<Occupant>, S3Error> {
        match s3::head(&self.client, there).await {
            Ok(info) if notes::is_marked(&info.metadata, mark) => Ok(Some(Occupant::Ours)),
            Ok(_) | Err(S3Error { kind: S3ErrorKind::NoDetails, .. }) => Ok(Some(Occupant::Another)),
            Err(S3Error { kind: S3ErrorKind::Gone, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The tags of what is at the destination; none if nothing is, or if we may not look.
    async fn tags_at(&self, there: &ObjectId) -> Result<tag::Pairs, S3Error> {
        match s3::tags(&self.client, there).await {
            Err(error) if may_not_look(&error) => Ok(Vec::new()),
            tags => tags,
        }
    }
}

/// Whether nothing is there, or nothing that we may know of.
fn may_not_look(error: &S3Error) -> bool {
    matches!(error.kind, S3ErrorKind::Gone | S3ErrorKind::Denied | S3ErrorKind::Permanent | S3ErrorKind::NoDetails)
}

/// An original that is gone or replaced needs nothing any more.
fn gone(error: S3Error) -> Result<(), S3Error> {
    match error.kind {
        S3ErrorKind::Gone | S3ErrorKind::Replaced => Ok(()),
        _ => Err(error),
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
