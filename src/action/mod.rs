//! What happens to an object: tags, promotion, quarantine.
//!
//! Every change names the version that was scanned, or is made on the condition that the ETag still is the scanned one. Every
//! step can be done twice without a second effect. Nothing here knows where the verdict came from or who is told.

mod destinations;
mod policy;
mod relocate;
mod tag;

use aws_sdk_s3::Client;

pub use policy::{Kind, Move, Plan, plan};
pub use tag::TagError;

use crate::config::{ActionsConfig, Location};
use crate::s3::{ObjectId, ObjectInfo, S3Error, S3ErrorKind};

/// Carries out what the policy says.
#[derive(Debug, Clone)]
pub struct Actions {
    client: Client,
    config: ActionsConfig,
}

/// An object, as it was scanned.
#[derive(Debug, Clone)]
pub struct Scanned<'a> {
    /// Which state of which object.
    pub id: &'a ObjectId,
    /// Its headers, if they are known; looked up when they are needed.
    pub info: Option<&'a ObjectInfo>,
    /// Why S3 does not hand out its content, if so: then it cannot be copied either.
    pub unreadable: Option<&'static str>,
    /// Whether an earlier delivery of the same message may have done part of the work.
    pub redelivered: bool,
}

/// One step and how it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// `tag`, `promote` or `quarantine`.
    pub action: &'static str,
    /// Where the object went.
    pub destination: Option<String>,
    /// Why the step was not taken; `None` when it was.
    pub skipped: Option<String>,
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
    /// The tags do not fit.
    #[error(transparent)]
    Tag(#[from] TagError),
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

    /// Checks that no destination would feed the queue with this ARN.
    ///
    /// # Errors
    ///
    /// [`ActionError::Loop`] if one would, [`ActionError::Unchecked`] if that cannot be found out.
    pub async fn check_destinations(&self, queue_arn: &str) -> Result<(), ActionError> {
        for destination in [&self.config.promote_to, &self.config.quarantine_to].into_iter().flatten() {
            destinations::check(&self.client, destination, queue_arn).await?;
        }
        Ok(())
    }

    /// Tags the object, or copies it, tagged, to its destination. The original is kept until [`Actions::finish`].
    ///
    /// # Errors
    ///
    /// [`ActionError`]; with [`ActionError::is_moot`] the object is not there any more as it was scanned.
    pub async fn apply(&self, object: &Scanned<'_>, plan: &Plan) -> Result<Applied, ActionError> {
        let mut applied = Applied::default();
        if let Some(destination) = &plan.destination {
            let action = destination.kind.name();
            if let Some(why) = object.unreadable {
                // Tagged where it is instead.
                applied.steps.push(Step { action, destination: None, skipped: Some(why.to_owned()) });
            } else {
                self.copy(object, plan, destination).await?;
                let place = format!("s3://{}/{}", destination.bucket, destination.key);
                applied.steps.push(Step { action, destination: Some(place), skipped: None });
                applied.remove_source = true;
                return Ok(applied);
            }
        }
        if !plan.tags.is_empty() {
            tag::apply(&self.client, object.id, &plan.tags, &self.config.tag_prefix).await?;
            applied.steps.push(Step { action: "tag", destination: None, skipped: None });
        }
        Ok(applied)
    }

    /// Removes the original, if the object was copied to its destination.
    ///
    /// # Errors
    ///
    /// [`ActionError::S3`]. An object that is gone or replaced is no error: the original is not there any more.
    pub async fn finish(&self, id: &ObjectId, applied: &Applied) -> Result<(), ActionError> {
        if applied.remove_source {
            relocate::remove(&self.client, id).await?;
        }
        Ok(())
    }

    async fn copy(&self, object: &Scanned<'_>, plan: &Plan, destination: &Move) -> Result<(), ActionError> {
        let own = tag::of(&self.client, object.id).await?;
        let tags = tag::merge(&own, &plan.tags, &self.config.tag_prefix)?;
        if object.redelivered && tag::stand_on(&self.client, destination, &plan.tags).await? {
            tracing::debug!(object = %object.id, "the copy of an earlier delivery is in place");
            return Ok(());
        }
        let looked_up;
        let info = match object.info {
            Some(info) => info,
            None => {
                looked_up = relocate::head(&self.client, object.id).await?;
                &looked_up
            }
        };
        let copy = relocate::Copy {
            id: object.id,
            info,
            destination,
            tags: &tags,
            kms_key_id: self.config.kms_key_id.as_deref(),
            in_parts_above: self.config.multipart_copy_bytes,
        };
        Ok(copy.run(&self.client).await?)
    }
}
