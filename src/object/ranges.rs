//! A large object in several requests at once, all of them for the same state of it.
//!
//! Each request names the version, or makes the ETag its condition, and each answer is compared with the first one: the store
//! may not care about conditions. Whatever does not fit together is an error, never content.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::get_object::{GetObjectError, GetObjectOutput};
use aws_sdk_s3::primitives::ByteStream;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::s3::{broken, pour, refused};
use super::{FetchError, S3Store, Sink};
use crate::backoff::backoff;
use crate::s3::{ObjectId, ObjectInfo};

/// How many parts of one object are fetched at once. AWS advises one for each 85 to 90 MB/s (ADR 19).
const AT_ONCE: usize = 4;

/// How often a part whose body breaks off is asked for, each time from where it broke off.
const ATTEMPTS: u32 = 4;

/// The pause before the second attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

impl S3Store {
    /// Fetches an object that should have `size` bytes, or says `None`, before anything was handed to the sink, when the store
    /// does not give parts of it.
    pub(super) async fn fetch_ranges(
        &self,
        id: &ObjectId,
        size: u64,
        sink: &mut Sink<'_>,
    ) -> Result<Option<ObjectInfo>, FetchError> {
        let step = step(size, self.range_bytes);
        let first = match self.get(id, Some(&(0..step))).await {
            Ok(first) => first,
            // There is no first byte: it is empty, whatever its event says.
            Err(error) if is_unsatisfiable(&error) => return Ok(None),
            Err(error) => return Err(refused(id, &error).into()),
        };
        let mut info = ObjectInfo::from(&first);
        let Some(content_range) = first.content_range() else {
            // The whole of it, as if no part had been asked for. Only if it looks whole: a part without a label would pass for
            // an object.
            if info.size != size || id.is_other_state(&info) {
                return Ok(None);
            }
            pour(id, first.body, &mut (0..size), sink).await?;
            return Ok(Some(info));
        };
        let total = total(content_range).ok_or_else(|| unexpected(id, &(0..step), content_range))?;
        if total > size {
            return Err(broken(id, format!("the object has {total} bytes instead of {size}")).into());
        }
        if info.etag.is_none() && info.version_id.is_none() {
            return Ok(None);
        }
        let state = State::of(&info, total);
        let head = 0..step.min(total);
        state.check(id, &head, &first)?;
        info.size = total;
        // An event may lack the version; the parts that follow are of this one.
        let pinned = ObjectId {
            version_id: info.version_id.clone().or_else(|| id.version_id.clone()),
            etag: info.etag.clone().or_else(|| id.etag.clone()),
            ..id.clone()
        };

        let part = Part { store: self, id: &pinned, state: &state, sink: &Mutex::new(sink) };
        let rest = (1..).map_while(|n| {
            Some(step.saturating_mul(n)..total.min(step.saturating_mul(n + 1))).filter(|range| !range.is_empty())
        });
        let parts = std::iter::once((Some(first.body), head)).chain(rest.map(|range| (None, range)));
        stream::iter(parts).map(|(body, range)| part.fetch(body, range)).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        Ok(Some(info))
    }
}

/// What all parts have in common.
struct Part<'a, 'sink> {
    store: &'a S3Store,
    id: &'a ObjectId,
    state: &'a State,
    sink: &'a Mutex<&'a mut Sink<'sink>>,
}

impl Part<'_, '_> {
    /// Fetches one part, whose first answer may be there already. When the body breaks off, what is missing is asked for again.
    async fn fetch(&self, mut body: Option<ByteStream>, mut range: Range<u64>) -> Result<(), FetchError> {
        let _turn = match body {
            Some(_) => None,
            None => self.store.turns.acquire().await.ok(),
        };
        let mut attempt = 1;
        loop {
            let arriving = match body.take() {
                Some(body) => body,
                None => self.ask(&range).await?,
            };
            // One task polls all parts, so that nobody waits for the lock.
            let mut sink = |at, chunk: &[u8]| (self.sink.lock().unwrap_or_else(PoisonError::into_inner))(at, chunk);
            match pour(self.id, arriving, &mut range, &mut sink).await {
                // What broke off after the last byte was refused as a whole, by a checksum for example.
                Err(FetchError::S3(error)) if attempt < ATTEMPTS && !range.is_empty() => {
                    tracing::debug!(bucket = self.id.bucket, %error, attempt, "asking for the rest of a part again");
                }
                ended => return ended,
            }
            tokio::time::sleep(backoff(FIRST_PAUSE, attempt, LONGEST_PAUSE)).await;
            attempt += 1;
        }
    }

    async fn ask(&self, range: &Range<u64>) -> Result<ByteStream, FetchError> {
        let output = self.store.get(self.id, Some(range)).await.map_err(|error| refused(self.id, &error))?;
        self.state.check(self.id, range, &output)?;
        Ok(output.body)
    }
}

/// What must be the same in all answers.
#[derive(Debug, PartialEq)]
struct State {
    etag: Option<String>,
    version_id: Option<String>,
    /// Two contents can have the same ETag: MD5 can be forged.
    last_modified: Option<time::OffsetDateTime>,
    total: u64,
}

impl State {
    fn of(info: &ObjectInfo, total: u64) -> Self {
        Self { etag: info.etag.clone(), version_id: info.version_id.clone(), last_modified: info.last_modified, total }
    }

    /// Whether an answer is what was asked for: this part, of this state, which is the one that `id` names.
    fn check(&self, id: &ObjectId, asked: &Range<u64>, output: &GetObjectOutput) -> Result<(), FetchError> {
        let content_range = output.content_range().unwrap_or("nothing");
        let length = asked.end - asked.start;
        let is_asked = content_range == format!("bytes {}-{}/{}", asked.start, asked.end.saturating_sub(1), self.total);
        if !is_asked || output.content_length().is_some_and(|answered| u64::try_from(answered) != Ok(length)) {
            return Err(unexpected(id, asked, content_range));
        }
        let info = ObjectInfo::from(output);
        let state = Self::of(&info, self.total);
        if id.is_other_state(&info) || *self != state {
            let text = format!("the answer for bytes {asked:?} is about another state of the object ({state:?})");
            return Err(broken(id, text).into());
        }
        Ok(())
    }
}

/// Parts of the same size, none of them larger than `most`.
fn step(size: u64, most: u64) -> u64 {
    let most = most.max(1);
    size.div_ceil(size.div_ceil(most).max(1)).max(1)
}

/// The size in `bytes 0-9/20`.
fn total(content_range: &str) -> Option<u64> {
    content_range.rsplit_once('/')?.1.parse().ok().filter(|&total| total > 0)
}

fn is_unsatisfiable(error: &SdkError<GetObjectError>) -> bool {
    error.raw_response().is_some_and(|response| response.status().as_u16() == 416)
}

fn unexpected(id: &ObjectId, asked: &Range<u64>, answered: &str) -> FetchError {
    let text = format!(
        "asked for bytes {asked:?}, the store answers with {answered:?} (scan.ranged_fetch_bytes says from which size on parts \
         are asked for)"
    );
    broken(id, text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_even_and_never_larger_than_they_may_be() {
        for (size, most, expected) in [
            (0, 10, 1),
            (1, 1, 1),
            (10, 10, 10),
            (11, 10, 6),
            (20, 10, 10),
            (21, 10, 7),
            (u64::MAX, u64::MAX, u64::MAX),
            (5, 0, 1),
        ] {
            assert_eq!(step(size, most), expected, "{size} by {most}");
        }
    }

    #[test]
    fn sizes_in_content_range() {
        for (text, expected) in [
            ("bytes 0-9/20", Some(20)),
            ("bytes 0-9/*", None),
            ("bytes */20", Some(20)),
            ("", None),
            ("bytes 0-9/-1", None),
            ("bytes 0-9/0", None),
            ("bytes 0-9/18446744073709551616", None),
        ] {
            assert_eq!(total(text), expected, "{text}");
        }
    }
}
