//! Where objects come from.
//!
//! This module fetches; it never changes an object.

mod listing;
mod ranges;
mod s3;

use std::io;

pub use listing::{Listed, Which, list};
pub use s3::S3Store;

use crate::s3::{ObjectId, ObjectInfo, S3Error};

/// Takes bytes of an object, and where in it they begin. A large object's parts come in any order, each of them in its own
/// order.
pub type Sink<'a> = dyn FnMut(u64, &[u8]) -> io::Result<()> + Send + 'a;

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

    /// Hands the content to `sink`, and returns what is known of the object. The content is that of the named version, or of
    /// the named ETag, and of nothing else. It is complete when this returns `Ok`: then each byte was handed over once. `size`
    /// is what the object should have; it decides how the object is fetched, and the content can be shorter or longer.
    ///
    /// # Errors
    ///
    /// [`FetchError`]. What `sink` got until then must be thrown away.
    fn fetch(
        &self,
        id: &ObjectId,
        size: u64,
        sink: &mut Sink<'_>,
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
