//! What is sent to one place at the same time goes together, without waiting for more: what comes while a call is under way goes with the next.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::SinkError;

/// Sends several entries in one call.
pub(super) trait SendBatch: Send + Sync + 'static {
    /// What is sent.
    type Entry: Send + 'static;

    /// How many bytes it takes of [`SendBatch::MOST_BYTES`].
    fn bytes(entry: &Self::Entry) -> usize;

    /// The most entries of one call.
    const MOST: usize;
    /// The most bytes of one call with more than one entry.
    const MOST_BYTES: usize;

    /// Sends them. The answer has one result for each, in order.
    fn send(&self, entries: Vec<Self::Entry>) -> BoxFuture<'_, Vec<Result<(), SinkError>>>;
}

/// Gathers entries into batches.
pub(super) struct Batches<S: SendBatch>(Arc<Inner<S>>);

struct Inner<S: SendBatch> {
    sender: S,
    state: Mutex<State<S::Entry>>,
}

struct State<E> {
    waiting: VecDeque<Waiting<E>>,
    /// Whether a call is under way that takes what waits with the next. Full batches do not wait for it.
    under_way: bool,
}

struct Waiting<E> {
    entry: E,
    reply: oneshot::Sender<Result<(), SinkError>>,
}

impl<S: SendBatch> Batches<S> {
    pub(super) fn new(sender: S) -> Self {
        Self(Arc::new(Inner { sender, state: Mutex::new(State { waiting: VecDeque::new(), under_way: false }) }))
    }

    /// Sends the entry, alone or with others. What was begun goes on when this is dropped: others may be in the same call.
    pub(super) async fn send(&self, entry: S::Entry) -> Result<(), SinkError> {
        let (reply, answer) = oneshot::channel();
        {
            let mut state = self.0.lock();
            state.waiting.push_back(Waiting { entry, reply });
            if !state.under_way {
                state.under_way = true;
                tokio::spawn(Arc::clone(&self.0).send_all());
            } else if state.waiting.len() >= S::MOST {
                let batch = state.take::<S>();
                tokio::spawn(Arc::clone(&self.0).send_batch(batch));
            }
        }
        answer.await.unwrap_or_else(|_| Err(SinkError::transient("the call ended without an answer")))
    }
}

impl<E> State<E> {
    /// The first ones, as many as one call takes.
    fn take<S: SendBatch<Entry = E>>(&mut self) -> Vec<Waiting<E>> {
        // Who was to be told of them has gone, and sends them again.
        self.waiting.retain(|waiting| !waiting.reply.is_closed());
        let mut bytes = 0;
        let fit = self.waiting.iter().take(S::MOST).take_while(|waiting| {
            bytes += S::bytes(&waiting.entry);
            bytes <= S::MOST_BYTES
        });
        // One that is too long is told so by the other side.
        let count = fit.count().max(1).min(self.waiting.len());
        self.waiting.drain(..count).collect()
    }
}

impl<S: SendBatch> Inner<S> {
    fn lock(&self) -> MutexGuard<'_, State<S::Entry>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends until nothing waits.
    async fn send_all(self: Arc<Self>) {
        loop {
            let batch = {
                let mut state = self.lock();
                let batch = state.take::<S>();
                state.under_way = !batch.is_empty();
                batch
            };
            if batch.is_empty() {
                return;
            }
            // A task of its own: should it panic, those after it are sent all the same.
            let _ = tokio::spawn(Arc::clone(&self).send_batch(batch)).await;
        }
    }

    async fn send_batch(self: Arc<Self>, batch: Vec<Waiting<S::Entry>>) {
        let (entries, replies): (Vec<_>, Vec<_>) = batch.into_iter().map(|waiting| (waiting.entry, waiting.reply)).unzip();
        for (reply, result) in replies.into_iter().zip(self.sender.send(entries).await) {
            // Who asked may have gone.
            let _ = reply.send(result);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    /// Notes what it is given, and says no to odd numbers. Each call waits for a permit.
    struct Noted {
        calls: Arc<Mutex<Vec<Vec<usize>>>>,
        gate: Arc<Semaphore>,
    }

    impl SendBatch for Noted {
        type Entry = usize;
        const MOST: usize = 3;
        const MOST_BYTES: usize = 100;

        fn bytes(entry: &usize) -> usize {
            *entry
        }

        fn send(&self, entries: Vec<usize>) -> BoxFuture<'_, Vec<Result<(), SinkError>>> {
            async move {
                self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(entries.clone());
                if let Ok(permit) = self.gate.acquire().await {
                    permit.forget();
                }
                let answer = |number: usize| {
                    if number.is_multiple_of(2) { Ok(()) } else { Err(SinkError::permanent(number.to_string())) }
                };
                assert!(!entries.contains(&66), "a call that panics");
                entries.into_iter().map(answer).collect()
            }
            .boxed()
        }
    }

    /// The calls for these numbers, which all come before the first call begins.
    async fn calls_for(numbers: &[usize]) -> (Vec<Vec<usize>>, Vec<Result<(), SinkError>>) {
        let (calls, gate) = (Arc::default(), Arc::new(Semaphore::new(0)));
        let batches = Batches::new(Noted { calls: Arc::clone(&calls), gate: Arc::clone(&gate) });
        let mut sent = Box::pin(join_all(numbers.iter().map(|&number| batches.send(number))));
        assert!(futures_util::poll!(&mut sent).is_pending());
        while calls.lock().map_or(0, |calls| calls.len()) == 0 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(100);
        let results = sent.await;
        let calls = calls.lock().map(|calls| calls.clone()).unwrap_or_default();
        (calls, results)
    }

    #[tokio::test]
    async fn what_comes_at_the_same_time_goes_together() {
        for (numbers, expected) in [
            (&[2][..], &[&[2][..]][..]),
            // Nothing runs between the first poll of one and of the next: they are there together.
            (&[2, 4], &[&[2, 4]]),
            (&[2, 4, 6], &[&[2, 4, 6]]),
            (&[2, 50, 60, 4], &[&[2, 50], &[60, 4]]),
            (&[200, 2], &[&[200], &[2]]),
        ] {
            let (mut calls, results) = calls_for(numbers).await;
            calls.sort_by_key(|call| numbers.iter().position(|number| Some(number) == call.first()));
            assert_eq!(calls, expected);
            assert!(results.iter().all(Result::is_ok));
        }
    }

    #[tokio::test]
    async fn what_comes_during_a_call_goes_together_with_the_next() {
        let (calls, gate) = (Arc::<Mutex<Vec<Vec<usize>>>>::default(), Arc::new(Semaphore::new(0)));
        let batches = Batches::new(Noted { calls: Arc::clone(&calls), gate: Arc::clone(&gate) });
        let so_far = || calls.lock().map(|calls| calls.clone()).unwrap_or_default();
        let mut first = Box::pin(batches.send(2));
        assert!(futures_util::poll!(&mut first).is_pending());
        while so_far().is_empty() {
            tokio::task::yield_now().await;
        }
        let mut given_up = Box::pin(batches.send(4));
        assert!(futures_util::poll!(&mut given_up).is_pending());
        drop(given_up);
        let mut later = Box::pin(join_all([10, 12].map(|number| batches.send(number))));
        assert!(futures_util::poll!(&mut later).is_pending());
        gate.add_permits(100);
        assert_eq!((first.await, later.await), (Ok(()), vec![Ok(()), Ok(())]));
        assert_eq!(so_far(), [vec![2], vec![10, 12]], "what was given up is not sent");
    }

    #[tokio::test]
    async fn each_gets_its_own_answer() {
        let (_, results) = calls_for(&[2, 3, 4]).await;
        assert_eq!(results, [Ok(()), Err(SinkError::permanent("3")), Ok(())]);
        let (_, results) = calls_for(&[66, 200, 4]).await;
        assert!(results[0].as_ref().is_err_and(|error| error.can_retry), "{results:?}");
        assert_eq!(results[1..], [Ok(()), Ok(())], "a call that ended badly keeps nobody waiting");
    }
}
