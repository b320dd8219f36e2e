//! Where objects come from.
//!
//! This module fetches; it never changes an object.

mod listing;
mod s3;

use std::io;

pub use listing::{Listed, Which, list};
pub use s3::S3Store;

use crate::s3::{ObjectId, ObjectInfo, S3Error};

/// A store of objects that can be looked up and fetched.
pub trait ObjectStore: Send + Sync + 'static {
    /// What is known of the object, without its content.
    ///
    /// # Errors
    ///
    /// [`S3Error`], whose kind says whether the object is gone and whether a retry can help.
    fn head(&self, id: &ObjectId) -> impl Future<Output = Result<ObjectInfo, S3Error>> + Send;

    /// The object's tags, name and value.
    ///
    /// # Errors
    ///
    /// [`S3Error`]
    fn tags(&self, id: &ObjectId) -> impl Future<Output = Result<Vec<(String, String)>, S3Error>> + Send;

    /// Hands the content to `sink`, chunk by chunk in order, and returns what is known of the object. The content is that of
    /// the named version, or of the named ETag, and of nothing else. It is complete when this returns `Ok`.
    ///
    /// # Errors
    ///
    /// [`FetchError`]. What `sink` got until then must be thrown away.
    fn fetch(
        &self,
        id: &ObjectId,
        sink: &mut (dyn FnMut(&[u8]) -> io::Result<()> + Send),
    ) -> impl Future<Output = Result<ObjectInfo, FetchError>> + Send;
}

/// Why an object could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// S3 did not hand it out.
    #[error(transparent)]
    S3(#[from] S3Error),
    /// This machine could not take it: no space, above all. A retry can help.
    #[error("cannot spool {id}: {error}")]
    Sink {
        /// The object.
        id: ObjectId,
        /// What the operating system said.
        error: io::Error,
    },
}
