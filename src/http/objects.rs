//! `POST /v1/scan/s3`: the client names an object; and `GET /v1/scans/{id}`.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use utoipa::ToSchema;
use uuid::Uuid;

use super::api::Api;
use super::body;
use super::callback::Callback;
use super::error::{AnyRefusal, ApiError, ErrorBody, ScanRefusal};
use super::remembered::Pending;
use crate::key::NULL_VERSION;
use crate::object::S3Store;
use crate::pipeline::{Delivery, Done, Failure, Mode, Objects};
use crate::queue::ObjectEvent;
use crate::queue::job::check_trace_id;
use crate::report::{ScanReport, Target};
use crate::s3::ObjectId;
use crate::telemetry::events;

/// The longest key, in bytes, as S3 has it.
const KEY_BYTES: usize = 1024;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ScanOrder {
    /// The bucket, one of `http.s3_buckets`.
    bucket: String,
    /// The key, as it is: not percent-encoded. None with a segment `.` or `..`.
    #[schema(min_length = 1, max_length = 1024)]
    key: String,
    /// The version; the current one when it is not given. The null version cannot be named.
    version_id: Option<String>,
    /// Whether the object is tagged, moved and reported as the configuration says, as if its event had come from the queue.
    /// It is then done to its end, even if the client goes away.
    #[serde(default)]
    act: bool,
    /// Whether the answer waits for the verdict.
    #[serde(default = "yes")]
    #[schema(default = true)]
    wait: bool,
    /// Who gets the report as a POST when there is one. It must begin with one of `http.callbacks`.
    callback: Option<String>,
    /// Comes back in the report.
    #[schema(max_length = 256)]
    trace_id: Option<String>,
    /// Comes back in the report.
    #[schema(value_type = Option<Object>)]
    custom: Option<serde_json::Map<String, serde_json::Value>>,
}

fn yes() -> bool {
    true
}

/// A scan that nobody waits for.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Accepted {
    /// For `GET /v1/scans/{id}`.
    id: String,
}

/// How far a scan is.
#[derive(Serialize, ToSchema)]
#[serde(tag = "state", rename_all = "lowercase")]
pub(super) enum ScanState {
    /// It is under way.
    Pending {
        /// The scan's id.
        id: String,
    },
    /// There is a verdict.
    Done {
        /// The scan's id.
        id: String,
        /// The report.
        report: Box<ScanReport>,
    },
    /// There is none, and there will be none; the object may be all right.
    Failed {
        /// The scan's id.
        id: String,
        /// Why.
        #[serde(flatten)]
        error: ErrorBody,
    },
}

type Outcome = Result<Box<ScanReport>, ApiError>;

/// An order that was taken.
pub(super) struct Job {
    pub(super) objects: Arc<Objects<S3Store>>,
    pub(super) event: ObjectEvent,
    pub(super) mode: Mode,
    /// Its place among the scans that are under way.
    pub(super) scanning: OwnedSemaphorePermit,
}

/// Scan an object in S3.
#[utoipa::path(
    post,
    path = "/v1/scan/s3",
    tag = "scan",
    request_body = ScanOrder,
    responses(
        (status = 200, description = "The verdict", body = ScanReport),
        (status = 202, description = "Without `wait`: it will be scanned. This is forgotten at a restart; what must not be forgotten belongs \
                                      on the queue", body = Accepted,
            headers(("Location" = String, description = "Where the verdict will be"))),
        (status = 403, description = "The bucket is none of `http.s3_buckets`, or the callback begins with none of `http.callbacks`. \
                                      Or a web page asked (`Origin`), and no token is needed",
            body = ErrorBody),
        (status = 404, description = "There is no such object or version, or it was replaced meanwhile", body = ErrorBody),
        (status = 413, description = "The JSON is too long", body = ErrorBody),
        (status = 502, description = "S3 did not hand the object out, or it could not be acted on", body = ErrorBody),
        ScanRefusal,
    ),
    security((), ("token" = [])),
)]
pub(super) async fn scan(State(api): State<Arc<Api>>, request: Request) -> Result<Response, ApiError> {
    let order: ScanOrder = body::json(request, &api.config).await?;
    check(&order, &api)?;
    let (scanning, parts) = api.begin_scan().await?;
    let objects = parts.objects.clone().ok_or_else(|| ApiError::unavailable("this service has no access to S3"))?;
    let callback = order.callback.as_deref().map(|url| api.callbacks.prepare(url)).transpose()?;
    let event = ObjectEvent {
        bucket: order.bucket,
        key: order.key,
        version_id: order.version_id,
        trace_id: order.trace_id,
        custom: order.custom,
        ..ObjectEvent::default()
    };
    let job = Job { objects, event, mode: if order.act { Mode::Act } else { Mode::Look }, scanning };
    if order.wait && !order.act && callback.is_none() {
        // Given up with its client.
        return job.run(&api).await.map(|report| Json(report).into_response());
    }
    if order.wait {
        let outcome = spawn(&api, job, None, callback);
        let report = outcome.await.map_err(|_| ApiError::unavailable("the service is shutting down"))??;
        return Ok(Json(report).into_response());
    }
    let pending = api.remembered.begin();
    let id = pending.id().to_string();
    drop(spawn(&api, job, Some(pending), callback));
    let location = format!("/v1/scans/{id}");
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(Accepted { id })).into_response())
}

fn check(order: &ScanOrder, api: &Api) -> Result<(), ApiError> {
    if !api.config.s3_buckets.contains(&order.bucket) {
        return Err(ApiError::forbidden("the bucket is none of http.s3_buckets"));
    }
    check_object(&order.key, order.version_id.as_deref())?;
    if let Some(trace_id) = &order.trace_id {
        check_trace_id(trace_id).map_err(|error| ApiError::malformed(error.to_string()))?;
    }
    Ok(())
}

/// Whether an object can be named like this.
pub(super) fn check_object(key: &str, version_id: Option<&str>) -> Result<(), ApiError> {
    if !(1..=KEY_BYTES).contains(&key.len()) {
        return Err(ApiError::malformed(format!("a key has 1 to {KEY_BYTES} bytes")));
    }
    if version_id.is_some_and(|version| !(1..=KEY_BYTES).contains(&version.len())) {
        return Err(ApiError::malformed(format!("a version id has 1 to {KEY_BYTES} bytes")));
    }
    // S3 takes such keys; much on the way to it resolves them, and another object would be read.
    if key.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(ApiError::malformed("keys with a segment `.` or `..` are not taken: rename the object, or use its event"));
    }
    if version_id == Some(NULL_VERSION) {
        return Err(ApiError::malformed("the null version cannot be named; leave version_id out for the latest version"));
    }
    Ok(())
}

/// Does a job whether or not its client waits.
pub(super) fn spawn(
    api: &Arc<Api>,
    job: Job,
    pending: Option<Pending>,
    callback: Option<Callback>,
) -> oneshot::Receiver<Outcome> {
    let (sender, receiver) = oneshot::channel();
    let shared = Arc::clone(api);
    api.work.spawn(async move {
        let api = &shared;
        let work = async {
            let outcome = job.run(api).await;
            let id = pending.as_ref().map_or_else(Uuid::new_v4, Pending::id);
            if let Some(pending) = pending {
                pending.finish(json(&state(id, outcome.clone())));
            }
            let told = match &outcome {
                Ok(report) => json(report),
                Err(error) => json(&error.body()),
            };
            let _ = sender.send(outcome);
            if let Some(callback) = callback {
                api.callbacks.call(callback, id, told).await;
            }
        };
        tokio::select! {
            () = work => {}
            () = api.abandon.cancelled() => {}
        }
    });
    receiver
}

fn state(id: Uuid, outcome: Outcome) -> ScanState {
    let id = id.to_string();
    match outcome {
        Ok(report) => ScanState::Done { id, report },
        Err(error) => ScanState::Failed { id, error: error.body() },
    }
}

fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

impl Job {
    async fn run(self, api: &Api) -> Outcome {
        let Self { objects, event, mode, scanning } = self;
        let done = objects.work(&event, Delivery::default(), mode).await;
        drop(scanning);
        let id = |target: &Target| match target {
            Target::S3 { bucket, key, version_id, etag, .. } => {
                Some(ObjectId { bucket: bucket.clone(), key: key.clone(), version_id: version_id.clone(), etag: etag.clone() })
            }
            _ => None,
        };
        match done {
            Ok(Done::Reported(report)) => {
                if let Some(id) = id(&report.target) {
                    events::object_scanned("http", &id, &report);
                }
                Ok(report)
            }
            Ok(Done::Skipped(rule)) => Err(ApiError::not_found(format!("the object was skipped by the rule {rule}"))),
            Ok(Done::Gone(error)) => Err(ApiError::not_found(format!("the object is gone or was replaced: {}", error.message))),
            Err(failure) => {
                if let Failure::Scan(error) = &failure {
                    api.note_trouble(error);
                }
                tracing::warn!(
                    bucket = event.bucket.as_str(),
                    key = event.key.as_str(),
                    error = failure.to_string(),
                    "object not done"
                );
                Err(failure.into())
            }
        }
    }
}

/// How far a scan is that nobody waited for. The last ones are remembered (`http.remembered_scans`), until a restart.
#[utoipa::path(
    get,
    path = "/v1/scans/{id}",
    tag = "scan",
    params(("id" = String, Path, description = "As `POST /v1/scan/s3` gave it")),
    responses(
        (status = 200, description = "How far it is", body = ScanState),
        (status = 404, description = "There is no such scan, or it was forgotten", body = ErrorBody),
        AnyRefusal,
    ),
    security((), ("token" = [])),
)]
pub(super) async fn scan_state(
    State(api): State<Arc<Api>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let known = id.ok().and_then(|Path(id)| Some((api.remembered.get(&id)?, id)));
    match known {
        None => Err(ApiError::not_found("there is no such scan, or it was forgotten")),
        Some((None, id)) => Ok(Json(ScanState::Pending { id }).into_response()),
        Some((Some(answer), _)) => Ok(([(header::CONTENT_TYPE, "application/json")], answer).into_response()),
    }
}
