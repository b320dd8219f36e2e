//! `POST /v1/quarantine/rescan` and `POST /v1/quarantine/release`: for operators, who have a token of their own.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::oneshot;
use utoipa::ToSchema;

use super::api::Api;
use super::body;
use super::error::{ApiError, ErrorBody, ScanRefusal};
use super::objects::{Job, check_object, spawn};
use crate::action::{ActionError, ReleaseError, Released};
use crate::object::S3Store;
use crate::pipeline::{Mode, Objects};
use crate::queue::ObjectEvent;
use crate::report::ScanReport;
use crate::s3::{ObjectId, S3ErrorKind};

/// An object in quarantine.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Quarantined {
    /// The bucket that it is quarantined in.
    bucket: String,
    /// Its key there, as it is: not percent-encoded. None with a segment `.` or `..`.
    #[schema(min_length = 1, max_length = 1024)]
    key: String,
    /// The version; the current one when it is not given. The null version cannot be named.
    version_id: Option<String>,
}

/// What works on objects, if this is one in quarantine.
async fn admitted(api: &Api, request: Request) -> Result<(Quarantined, Arc<Objects<S3Store>>), ApiError> {
    let order: Quarantined = body::json(request, &api.config).await?;
    check_object(&order.key, order.version_id.as_deref())?;
    let objects = api.parts()?.objects.clone();
    let objects = objects.ok_or_else(|| ApiError::unavailable("this service has no access to S3"))?;
    if !objects.policy.quarantines().any(|place| place.holds(&order.bucket, &order.key)) {
        return Err(ApiError::forbidden("it is in none of the configured quarantines (actions.quarantine_to)"));
    }
    Ok((order, objects))
}

/// Scan an object in quarantine again, with the definitions of now. What is clean goes to where clean objects go; the verdict is told as
/// any other.
#[utoipa::path(
    post,
    path = "/v1/quarantine/rescan",
    tag = "quarantine",
    request_body = Quarantined,
    responses(
        (status = 200, description = "The verdict, and what was done", body = ScanReport),
        (status = 403, description = "It is in none of the configured quarantines", body = ErrorBody),
        (status = 404, description = "There is no such object or version", body = ErrorBody),
        (status = 413, description = "The JSON is too long", body = ErrorBody),
        (status = 502, description = "S3 did not hand the object out, or it could not be acted on", body = ErrorBody),
        ScanRefusal,
    ),
    security(("admin" = [])),
)]
pub(super) async fn rescan(State(api): State<Arc<Api>>, request: Request) -> Result<Response, ApiError> {
    let (order, objects) = admitted(&api, request).await?;
    let (scanning, _) = api.begin_scan().await?;
    let event = ObjectEvent { bucket: order.bucket, key: order.key, version_id: order.version_id, ..ObjectEvent::default() };
    let outcome = spawn(&api, Job { objects, event, mode: Mode::Act, scanning }, None, None);
    let report = outcome.await.map_err(|_| ApiError::unavailable("the service is shutting down"))??;
    Ok(Json(report).into_response())
}

/// Take an object out of quarantine, whatever was found in it, to where clean objects go. Its status tag says `RELEASED` then. The same
/// request again does what was left undone.
#[utoipa::path(
    post,
    path = "/v1/quarantine/release",
    tag = "quarantine",
    request_body = Quarantined,
    responses(
        (status = 200, description = "Where it is now", body = Released),
        (status = 403, description = "It is in none of the configured quarantines", body = ErrorBody),
        (status = 404, description = "There is no such object or version", body = ErrorBody),
        (status = 409, description = "It is not known where it shall go, or something else is there: see `clamgate release --to`",
            body = ErrorBody),
        (status = 413, description = "The JSON is too long", body = ErrorBody),
        (status = 502, description = "S3 refused", body = ErrorBody),
        ScanRefusal,
    ),
    security(("admin" = [])),
)]
pub(super) async fn release(State(api): State<Arc<Api>>, request: Request) -> Result<Json<Released>, ApiError> {
    let (order, objects) = admitted(&api, request).await?;
    let id = ObjectId { bucket: order.bucket, key: order.key, version_id: order.version_id, etag: None };
    let (permit, _) = api.begin_scan().await?;
    // Done to its end, even if the client goes away.
    let (sender, receiver) = oneshot::channel();
    let abandon = api.abandon.clone();
    api.work.spawn(async move {
        tokio::select! {
            // It goes to a place that was found safe when the service started.
            released = objects.actions.release(&id, None, None) => {
                if let Err(error) = &released {
                    tracing::warn!(bucket = id.bucket, key = id.key, error = error.to_string(), "object not released");
                }
                drop(permit);
                let _ = sender.send(released);
            }
            () = abandon.cancelled() => {}
        }
    });
    let released = receiver.await.map_err(|_| ApiError::unavailable("the service is shutting down"))?;
    released.map(Json).map_err(ApiError::from)
}

impl From<ReleaseError> for ApiError {
    fn from(error: ReleaseError) -> Self {
        let text = error.to_string();
        match error {
            ReleaseError::NotQuarantined(_) => Self::forbidden(text),
            ReleaseError::Gone(_) => Self::not_found(text),
            ReleaseError::Nowhere(..) | ReleaseError::Stays { .. } => Self::new(StatusCode::CONFLICT, "stays", text),
            ReleaseError::Action(ActionError::S3(error)) if matches!(error.kind, S3ErrorKind::Gone | S3ErrorKind::Replaced) => {
                Self::not_found(text)
            }
            ReleaseError::Action(_) | ReleaseError::NotRemoved { .. } => Self::new(StatusCode::BAD_GATEWAY, "s3", text),
        }
    }
}
