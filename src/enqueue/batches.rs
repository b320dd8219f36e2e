//! Gathers what is to be enqueued into batches, in order, each with the key up to which everything is done once it is sent.

use std::pin::Pin;
use std::time::Instant;

use futures_util::{Stream, StreamExt, stream};

use super::pace::Pace;
use super::{Ending, EnqueueError, Progress, Request};
use crate::aws;
use crate::object::Listed;
use crate::queue::{BATCH, Job, JobObject, QueueError};

/// How many objects that are not enqueued may pass before the progress is noted.
const LONGEST: u64 = 1000;

/// What becomes of a listed object.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Decision {
    Enqueue(JobObject),
    Skip,
    Gone,
    Unpinned,
}

/// Objects to enqueue, and what has been passed by.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) objects: Vec<JobObject>,
    /// What this batch adds to the progress; `start_after` holds for everything up to here.
    pub(super) tally: Progress,
    /// Whether this is the last one, and why.
    pub(super) ending: Option<Ending>,
}

type Decided = Result<(Listed, Decision), EnqueueError>;

/// The state of the gathering.
pub(super) struct Batches<'a> {
    decisions: Pin<Box<dyn Stream<Item = Decided> + 'a>>,
    pace: Pace,
    limit: u64,
    enqueued: u64,
    /// Whether a key can come several times.
    versions: bool,
    /// The key of the last object.
    last: Option<String>,
    /// The last key of which no more versions follow.
    complete: Option<String>,
    ended: bool,
}

impl<'a> Batches<'a> {
    pub(super) fn new(decisions: impl Stream<Item = Decided> + 'a, request: &Request) -> Self {
        Self {
            decisions: Box::pin(decisions),
            pace: Pace::new(request.rate),
            limit: request.limit.unwrap_or(u64::MAX),
            enqueued: 0,
            versions: request.versions,
            last: None,
            complete: request.start_after.clone(),
            ended: false,
        }
    }

    /// The batches; at least one, the last with its ending.
    pub(super) fn stream(self) -> impl Stream<Item = Result<Batch, EnqueueError>> + 'a {
        stream::try_unfold(self, |mut batches| async move {
            if batches.ended {
                return Ok(None);
            }
            let batch = batches.next().await?;
            batches.ended = batch.ending.is_some();
            let then = batches.pace.reserve(batch.objects.len(), Instant::now());
            tokio::time::sleep_until(then.into()).await;
            Ok(Some((batch, batches)))
        })
    }

    async fn next(&mut self) -> Result<Batch, EnqueueError> {
        let mut batch = Batch::default();
        while batch.objects.len() < BATCH && batch.tally.listed < LONGEST {
            let Some(decided) = self.decisions.next().await else {
                batch.ending = Some(Ending::Complete);
                self.complete = self.last.take().or(self.complete.take());
                break;
            };
            let (listed, decision) = decided?;
            if self.last.as_ref() != Some(&listed.key) {
                self.complete = self.last.take().or(self.complete.take());
                if self.enqueued >= self.limit {
                    batch.ending = Some(Ending::Limit);
                    break;
                }
                self.last = Some(listed.key);
            }
            let tally = &mut batch.tally;
            tally.listed += 1;
            match decision {
                Decision::Enqueue(object) => {
                    batch.objects.push(object);
                    tally.enqueued += 1;
                    self.enqueued += 1;
                }
                Decision::Skip => tally.skipped += 1,
                Decision::Gone => tally.gone += 1,
                Decision::Unpinned => tally.unpinned += 1,
            }
            if !self.versions {
                self.complete.clone_from(&self.last);
            }
        }
        batch.tally.start_after.clone_from(&self.complete);
        Ok(batch)
    }
}

/// One message for each object.
pub(super) fn bodies(objects: &[JobObject]) -> Result<Vec<String>, QueueError> {
    let body = |object: &JobObject| Ok(aws::sqs_text(&serde_json::to_string(&Job::new(vec![object.clone()]))?));
    objects.iter().map(body).collect::<Result<_, _>>().map_err(|error: serde_json::Error| QueueError {
        operation: "SendMessageBatch",
        message: error.to_string(),
        lost: false,
    })
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use futures_util::TryStreamExt;

    use super::super::{Selection, TagRule};
    use super::*;
    use crate::config::Location;
    use crate::object::Which;

    fn request(versions: bool, limit: Option<u64>) -> Request {
        Request {
            source: Location { bucket: "b".to_owned(), prefix: String::new() },
            versions,
            selection: Selection { since: None, tags: TagRule::Any, tag_prefix: String::new(), tag_dialects: Vec::new() },
            start_after: Some("before".to_owned()),
            limit,
            rate: None,
            trace_id: None,
            custom: None,
        }
    }

    /// The batches of keys, where a key in capitals is skipped: keys enqueued, the key to go on after, how it ended.
    async fn batches(keys: &[String], request: &Request) -> Result<Vec<(usize, Option<String>, Option<Ending>)>, EnqueueError> {
        let decided = keys.iter().map(|key| {
            let listed = Listed { key: key.clone(), which: Which::Latest, etag: None, size: None, last_modified: None };
            let skipped = key.starts_with(char::is_uppercase);
            Ok((listed, if skipped { Decision::Skip } else { Decision::Enqueue(JobObject::new("b", key)) }))
        });
        let all = Batches::new(stream::iter(decided.collect::<Vec<_>>()), request).stream();
        all.map_ok(|batch| (batch.objects.len(), batch.tally.start_after, batch.ending)).try_collect().await
    }

    fn keys(keys: &str) -> Vec<String> {
        keys.split_whitespace().map(str::to_owned).collect()
    }

    fn batch(objects: usize, start_after: &str, ending: Option<Ending>) -> (usize, Option<String>, Option<Ending>) {
        (objects, Some(start_after.to_owned()), ending)
    }

    #[tokio::test]
    async fn everything_up_to_the_key_is_in_the_batch_or_before() -> Result<(), EnqueueError> {
        let (complete, limit) = (Some(Ending::Complete), Some(Ending::Limit));
        let letters = "a b c d e f g h i j k l";
        for (versions, most, listed, expected) in [
            (false, None, "", vec![batch(0, "before", complete)]),
            (false, None, letters, vec![batch(10, "j", None), batch(2, "l", complete)]),
            (false, None, "a b c d e f g h i j", vec![batch(10, "j", None), batch(0, "j", complete)]),
            (false, None, "A B c", vec![batch(1, "c", complete)]),
            (false, Some(2), "a B c D e", vec![batch(2, "c", limit)]),
            (false, Some(2), "a b", vec![batch(2, "b", complete)]),
            (false, Some(10), letters, vec![batch(10, "j", None), batch(0, "j", limit)]),
            // The last key of a batch may have more versions in the next.
            (true, None, letters, vec![batch(10, "i", None), batch(2, "l", complete)]),
            (true, None, "a a a a a a a a a a a b", vec![batch(10, "before", None), batch(2, "b", complete)]),
            (true, Some(1), "a a a b", vec![batch(3, "a", limit)]),
            (true, Some(3), "a a a", vec![batch(3, "a", complete)]),
        ] {
            assert_eq!(batches(&keys(listed), &request(versions, most)).await?, expected, "{versions} {most:?} {listed}");
        }
        Ok(())
    }

    #[test]
    fn a_body_is_what_sqs_takes() -> Result<(), Box<dyn Error>> {
        let key: String = (0..0x1_0000).filter_map(char::from_u32).collect();
        let body = bodies(&[JobObject::new("b", &key)])?.remove(0);
        let refused = |c: char| !matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
        assert_eq!(body.chars().find(|&c| refused(c)), None);
        assert_eq!(serde_json::from_str::<Job>(&body)?.objects[0].key, key);
        Ok(())
    }

    #[tokio::test]
    async fn what_is_skipped_makes_progress_too() -> Result<(), EnqueueError> {
        let many: Vec<String> = (0..2500).map(|n| format!("S{n:04}")).collect();
        let expected = vec![batch(0, "S0999", None), batch(0, "S1999", None), batch(0, "S2499", Some(Ending::Complete))];
        assert_eq!(batches(&many, &request(false, None)).await?, expected);
        Ok(())
    }
}
