//! `clamgate release`: takes an object out of quarantine.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use super::enqueue::failed;
use super::{OK, usage};
use crate::action::{ActionError, Actions, ReleaseError};
use crate::aws;
use crate::config::{Config, Destination};
use crate::key::NULL_VERSION;
use crate::queue::SqsQueue;
use crate::s3::ObjectId;

/// The command's arguments.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The object in quarantine: s3://bucket/key.
    #[arg(value_name = "OBJECT", value_parser = object)]
    object: ObjectId,
    /// Its version; the current one when it is not given.
    #[arg(long, value_name = "V")]
    version_id: Option<String>,
    /// Where it goes, in the form of actions.promote_to, instead of where it would have been promoted: s3://bucket/prefix/
    #[arg(long, value_name = "DESTINATION")]
    to: Option<Destination>,
    /// Even to where the service scans it again, and may quarantine it again.
    #[arg(long)]
    allow_rescan: bool,
}

fn object(text: &str) -> Result<ObjectId, String> {
    let object = text.strip_prefix("s3://").and_then(|rest| rest.split_once('/'));
    match object {
        Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() => {
            Ok(ObjectId { bucket: bucket.to_owned(), key: key.to_owned(), version_id: None, etag: None })
        }
        _ => Err("write s3://bucket/key".to_owned()),
    }
}

/// Releases; 0 when the object is out of quarantine, 2 when not, 64 when it cannot be asked for.
#[must_use]
pub fn run(config: &Config, arguments: &Arguments) -> ExitCode {
    if arguments.version_id.as_deref() == Some(NULL_VERSION) {
        return usage(&"the version null is overwritten in place; leave --version-id out for what the key holds now");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start");
    match runtime.and_then(|runtime| runtime.block_on(release(config, arguments))) {
        Ok(()) => ExitCode::from(OK),
        Err(error) => {
            let code = failed(&error);
            match error.downcast_ref() {
                Some(ReleaseError::Nowhere(..)) => eprintln!("hint: --to s3://bucket/prefix/"),
                Some(ReleaseError::Action(ActionError::Loop { .. })) => eprintln!(
                    "hint: --to somewhere else; or put the signature into scan.allowed_signatures and `clamgate rescan` it"
                ),
                _ => {}
            }
            code
        }
    }
}

async fn release(config: &Config, arguments: &Arguments) -> Result<()> {
    let sdk = aws::config().await;
    let arn = match &config.queue.url {
        Some(url) if !arguments.allow_rescan => {
            let queue = SqsQueue::new(aws::sqs(&sdk), url.clone(), Duration::ZERO);
            Some(queue.arn().await.context("cannot use queue.url")?)
        }
        _ => None,
    };
    let actions = Actions::new(aws::s3(&sdk), config.actions.clone());
    let id = ObjectId { version_id: arguments.version_id.clone(), ..arguments.object.clone() };
    let released = actions.release(&id, arguments.to.as_ref(), arn.as_deref()).await?;
    writeln!(io::stdout(), "{}", serde_json::to_string(&released)?).context("cannot write to standard output")
}
