//! Objects in S3: where they are, and what is done with them.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::pin::pin;

use anyhow::{Context, Result};
use aws_config::SdkConfig;
use futures_util::StreamExt;
use tokio::sync::mpsc::Sender;

use super::super::Outside;
use super::{Item, Outcome, Request};
use crate::aws;
use crate::config::{Config, Location};
use crate::intake::Intake;
use crate::key::NULL_VERSION;
use crate::object::{self, Listed, S3Store};
use crate::pipeline::{Done, Mode, Objects};
use crate::queue::job::check_trace_id;
use crate::queue::{ObjectEvent, SqsQueue};

/// How often an object is tried when S3 or this machine is in trouble.
const ATTEMPTS: u32 = 3;

/// What a target means.
#[derive(Debug, Clone)]
pub(super) enum Address {
    Local(PathBuf),
    Object(ObjectEvent),
    Prefix { bucket: String, prefix: String },
}

impl Address {
    /// What the targets mean.
    pub(super) fn of(request: &Request) -> Result<Vec<Self>, String> {
        let version = request.version_id.as_deref();
        if let Some(trace_id) = &request.trace_id {
            check_trace_id(trace_id).map_err(|error| format!("--trace-id: {error}"))?;
        }
        if version.is_some() && request.targets.len() != 1 {
            return Err("--version-id belongs to one object alone".to_owned());
        }
        request.targets.iter().map(|target| Self::parse(target, version)).collect()
    }

    /// Whether everything that it means lies where objects are quarantined.
    pub(super) fn is_quarantined(&self, config: &Config) -> bool {
        let (bucket, key) = match self {
            Self::Local(_) => return false,
            Self::Object(event) => (&event.bucket, &event.key),
            Self::Prefix { bucket, prefix } => (bucket, prefix),
        };
        config.actions.quarantines().any(|place| place.holds(bucket, key))
    }

    /// A key is taken as it stands: nothing in it is decoded.
    fn parse(target: &OsStr, version: Option<&str>) -> Result<Self, String> {
        let no_object = || format!("{}: --version-id belongs to an object in S3, s3://bucket/key", target.to_string_lossy());
        if !target.as_encoded_bytes().starts_with(b"s3://") {
            return if version.is_some() { Err(no_object()) } else { Ok(Self::Local(target.into())) };
        }
        let target = target.to_str().ok_or("a key must be UTF-8")?;
        let rest = target.strip_prefix("s3://").unwrap_or(target);
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if version == Some(NULL_VERSION) {
            return Err(
                "the version null is overwritten in place; leave --version-id out for what the key holds now".to_owned()
            );
        }
        if bucket.is_empty() {
            return Err(format!("{target}: there is no bucket; write s3://bucket/key or s3://bucket/prefix/"));
        }
        let bucket = bucket.to_owned();
        if key.is_empty() || (key.ends_with('/') && version.is_none()) {
            return if version.is_some() { Err(no_object()) } else { Ok(Self::Prefix { bucket, prefix: key.to_owned() }) };
        }
        Ok(Self::Object(ObjectEvent {
            bucket,
            key: key.to_owned(),
            // EventBridge leaves it empty where there are no versions; an input template cannot leave it out.
            version_id: version.filter(|version| !version.is_empty()).map(str::to_owned),
            ..ObjectEvent::default()
        }))
    }
}

/// The clients.
pub(super) struct Aws {
    sdk: SdkConfig,
    s3: aws_sdk_s3::Client,
}

impl Aws {
    /// Clients, if any of the addresses needs them.
    pub(super) async fn for_addresses(addresses: &[Address]) -> Option<Self> {
        if addresses.iter().all(|address| matches!(address, Address::Local(_))) {
            return None;
        }
        let sdk = aws::config().await;
        Some(Self { s3: aws::s3(&sdk), sdk })
    }

    /// What works on objects, after checking, if they are to be acted on, that this is safe and that everybody can be told.
    pub(super) async fn objects(&self, config: &Config, intake: &Intake, act: bool) -> Result<Objects<S3Store>> {
        let objects = Outside::new(config, &self.sdk)?.objects(config, intake);
        if !act {
            return Ok(objects);
        }
        objects.sinks.prepare().await?;
        if let Some(url) = &config.queue.url {
            let arn = SqsQueue::new(aws::sqs(&self.sdk), url.clone(), std::time::Duration::ZERO).arn().await;
            objects.actions.check_destinations(&arn.context("cannot use queue.url")?, &config.report.locations()).await?;
        }
        Ok(objects)
    }

    /// Sends all objects below the prefix; waits when the scan is behind.
    pub(super) async fn list(&self, bucket: &str, prefix: &str, trace_id: Option<&str>, items: &Sender<Item>) {
        let source = Location { bucket: bucket.to_owned(), prefix: prefix.to_owned() };
        let mut listed = pin!(object::list(&self.s3, &source, false, None));
        let mut is_empty = true;
        while let Some(found) = listed.next().await {
            is_empty = false;
            let item = match found {
                // What is there when its turn comes is what is scanned.
                Ok(Listed { key, .. }) => Item::Object(Box::new(ObjectEvent {
                    bucket: bucket.to_owned(),
                    key,
                    trace_id: trace_id.map(str::to_owned),
                    ..ObjectEvent::default()
                })),
                Err(error) => Item::Broken { name: source.to_string(), error: error.to_string() },
            };
            if items.send(item).await.is_err() {
                return;
            }
        }
        // S3 has no directories: a misspelt prefix looks the same, and must not look clean.
        if is_empty {
            let error = "there are no objects below it".to_owned();
            let _ = items.send(Item::Broken { name: source.to_string(), error }).await;
        }
    }
}

/// What was found about the object.
pub(super) async fn scan(objects: Option<&Objects<S3Store>>, event: &ObjectEvent, mode: Mode) -> Outcome {
    let name = format!("s3://{}/{}", event.bucket, event.key);
    let Some(objects) = objects else { return Outcome::error(name, "there is no client for S3".to_owned()) };
    match objects.insist(event, mode, ATTEMPTS).await {
        Ok(Done::Reported(report)) => {
            let failed = report.actions.iter().find(|action| action.outcome == "failed");
            let error = failed.map(|step| format!("{} failed: {}", step.action, step.detail.as_deref().unwrap_or_default()));
            Outcome { name, report: Some(*report), error }
        }
        Ok(Done::Skipped(rule)) => Outcome::error(name, format!("skipped by the rule {rule}")),
        Ok(Done::Gone(error)) => Outcome::error(name, error.to_string()),
        // The verdict can be known though acting on it failed.
        Err((error, report)) => Outcome { name, report: report.map(|report| *report), error: Some(error.to_string()) },
    }
}
