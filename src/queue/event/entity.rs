//! What S3's own notifications and EventBridge's events say alike about an object.

use serde::Deserialize;

use super::{EventError, ObjectEvent};

#[derive(Deserialize)]
pub(super) struct Entity {
    bucket: Bucket,
    object: Object,
}

#[derive(Deserialize)]
struct Bucket {
    name: String,
}

/// Two fields have a name in each of the two shapes.
#[derive(Deserialize)]
struct Object {
    key: String,
    size: Option<u64>,
    #[serde(rename = "eTag", alias = "etag")]
    etag: Option<String>,
    #[serde(rename = "versionId", alias = "version-id")]
    version_id: Option<String>,
    sequencer: Option<String>,
}

impl Entity {
    /// The object, whose key `decode` makes of how it is written.
    pub(super) fn event(self, decode: impl FnOnce(String) -> Result<String, EventError>) -> Result<ObjectEvent, EventError> {
        let Self { bucket, object: Object { key, size, etag, version_id, sequencer } } = self;
        let key = decode(key)?;
        ObjectEvent { bucket: bucket.name, key, version_id, etag, size, sequencer, ..ObjectEvent::default() }.checked()
    }
}
