//! How many requests are made, and when: on a queue that counts them, and a clock that does not wait.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::queue::QueueError;

/// How long a request takes.
const ROUND_TRIP: Duration = Duration::from_millis(10);
/// How long a request for messages waits for one.
const LONG_POLL: Duration = Duration::from_secs(20);
const VISIBILITY: Duration = Duration::from_secs(60);
const FOREVER: Duration = Duration::from_secs(100_000);

/// A request, for which receipts, and when it was answered.
#[derive(Debug, Clone, PartialEq)]
struct Request {
    operation: &'static str,
    receipts: Vec<String>,
    answered: Instant,
}

#[derive(Default)]
struct Counting {
    sent: AtomicUsize,
    waiting: Mutex<VecDeque<String>>,
    arrived: Notify,
    requests: Mutex<Vec<Request>>,
    /// How many requests for messages are being made, and how many there have been at once.
    polls: Mutex<(usize, usize)>,
    /// The receipts that are worth nothing any more.
    lost: Mutex<Vec<String>>,
    /// How long a heartbeat takes.
    heartbeat: Mutex<Duration>,
}

impl Counting {
    fn send(&self, count: usize) {
        let first = self.sent.fetch_add(count, Ordering::SeqCst);
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).extend((first..first + count).map(|n| n.to_string()));
        self.arrived.notify_waiters();
    }

    fn record(&self, operation: &'static str, receipts: Vec<String>) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.push(Request { operation, receipts, answered: Instant::now() });
    }

    fn take(&self, operation: &str) -> Vec<Request> {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.extract_if(.., |request| request.operation == operation).collect()
    }

    fn polls(&self, change: impl FnOnce(&mut (usize, usize))) -> (usize, usize) {
        let mut polls = self.polls.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut polls);
        *polls
    }
}

impl Queue for Arc<Counting> {
    async fn receive(&self, most: usize, _: Duration) -> Result<Vec<Message>, QueueError> {
        self.polls(|(now, peak)| {
            *now += 1;
            *peak = (*peak).max(*now);
        });
        sleep(ROUND_TRIP).await;
        let arrived = self.arrived.notified();
        let is_empty = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        if is_empty {
            let _ = timeout(LONG_POLL, arrived).await;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = most.min(waiting.len());
        let receipts: Vec<String> = waiting.drain(..count).collect();
        self.polls(|(now, _)| *now -= 1);
        self.record("receive", receipts.clone());
        let message =
            |receipt: String| Message { id: receipt.clone(), receipt, body: String::new(), receive_count: 1, sent_at_ms: None };
        Ok(receipts.into_iter().map(message).collect())
    }

    async fn extend(&self, receipts: &[String], _: Duration) -> Result<Vec<Result<(), QueueError>>, QueueError> {
        let takes = *self.heartbeat.lock().unwrap_or_else(PoisonError::into_inner);
        self.record("heartbeat", receipts.to_vec());
        sleep(takes).await;
        self.record("extend", receipts.to_vec());
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let error = QueueError { operation: "extend", message: "lost".to_owned(), lost: true };
        Ok(receipts.iter().map(|receipt| if lost.contains(receipt) { Err(error.clone()) } else { Ok(()) }).collect())
    }

    async fn set_visibility(&self, receipt: &str, _: Duration) -> Result<(), QueueError> {
        sleep(ROUND_TRIP).await;
        self.record("release", vec![receipt.to_owned()]);
        Ok(())
    }

    async fn delete(&self, receipts: &[String]) -> Result<Vec<Result<(), QueueError>>, QueueError> {
        sleep(ROUND_TRIP).await;
        self.record("delete", receipts.to_vec());
        Ok(vec![Ok(()); receipts.len()])
    }
}

/// A consumer whose handler takes as long as `work` says for a message.
struct Running {
    queue: Arc<Counting>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start(
        receivers: usize,
        max_in_flight: usize,
        work: impl Fn(usize) -> (Duration, Outcome) + Clone + Send + Sync + 'static,
    ) -> Self {
        let queue = Arc::new(Counting::default());
        let consumer = Consumer::new(Arc::clone(&queue), receivers, max_in_flight, 1000, VISIBILITY);
        let stop = CancellationToken::new();
        let token = stop.clone();
        let task = tokio::spawn(async move {
            let handler = move |message: Message, _| {
                let (takes, outcome) = work(message.id.parse().unwrap_or(0));
                async move {
                    sleep(takes).await;
                    outcome
                }
            };
            let (_none, obstacles) = watch::channel(Vec::new());
            consumer.run(handler, obstacles, token, CancellationToken::new()).await;
        });
        Self { queue, stop, task }
    }

    async fn end(self) -> Result<Arc<Counting>, tokio::task::JoinError> {
        self.stop.cancel();
        self.task.await?;
        Ok(self.queue)
    }
}

/// How many receipts, in how many requests.
fn totals(requests: &[Request]) -> (usize, usize) {
    (requests.iter().map(|request| request.receipts.len()).sum(), requests.len())
}

#[tokio::test(start_paused = true)]
async fn ten_messages_are_received_and_deleted_at_once() -> Result<(), tokio::task::JoinError> {
    // Short work and long, with room for all and with room for few: how many requests two hundred messages may take.
    type Work = fn(usize) -> u64;
    let cases: [(usize, Work, usize); 4] =
        [(500, |_| 5, 20), (32, |_| 50, 22), (32, |n| 20 + (n as u64 * 7919) % 200, 40), (10, |_| 50, 45)];
    for (max_in_flight, work, most) in cases {
        let running = Running::start(2, max_in_flight, move |n| (Duration::from_millis(work(n)), Outcome::Done));
        running.queue.send(200);
        sleep(Duration::from_secs(10)).await;
        let queue = running.end().await?;
        let (received, receives) = totals(&queue.take("receive"));
        let (deleted, deletes) = totals(&queue.take("delete"));
        assert_eq!((received, deleted), (200, 200), "{max_in_flight}");
        // And one or two that found nothing.
        assert!(receives <= most + 2 && deletes <= most, "{max_in_flight}: {receives} and {deletes}");
        assert_eq!(totals(&queue.take("extend")), (0, 0));
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_nearly_empty_queue_has_one_request_at_a_time_and_no_delay() -> Result<(), tokio::task::JoinError> {
    let running = Running::start(3, 100, |_| (Duration::from_millis(50), Outcome::Done));
    let queue = Arc::clone(&running.queue);
    sleep(LONG_POLL * 3).await;
    assert_eq!(queue.take("receive").len(), 2, "one after the other");
    for _ in 0..3 {
        let sent = Instant::now();
        queue.send(1);
        sleep(LONG_POLL / 2).await;
        let [request] = queue.take("delete").try_into().unwrap_or_else(|other| panic!("{other:?}"));
        assert!(request.answered - sent <= Duration::from_millis(50) + ROUND_TRIP * 2, "{request:?}");
    }
    assert_eq!(queue.polls(|_| ()).1, 1);

    queue.send(60);
    sleep(LONG_POLL * 3).await;
    assert_eq!(queue.polls(|_| ()).1, 3, "all joined in");
    queue.polls(|(now, peak)| *peak = *now);
    queue.take("receive");
    sleep(LONG_POLL * 5).await;
    assert!(queue.polls(|_| ()).1 == 1 && queue.take("receive").len() <= 5, "only one went on");
    running.end().await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_is_for_ten_messages() -> Result<(), tokio::task::JoinError> {
    for count in [1, 9, 10, 11, 25, 100] {
        let running = Running::start(2, 200, |_| (FOREVER, Outcome::Done));
        // They do not come all at once.
        for _ in 0..count {
            running.queue.send(1);
            sleep(Duration::from_millis(150)).await;
        }
        let periods = 30;
        sleep(VISIBILITY / 3 * periods).await;
        let requests = running.queue.take("extend");
        let most = (periods as usize + 1) * usize::div_ceil(count, BATCH);
        assert!(requests.len() <= most, "{count}: {} requests instead of {most}", requests.len());
        assert!(requests.iter().all(|request| request.receipts.len() <= BATCH));
        // Nobody waits longer than a third of the visibility.
        let mut last: BTreeMap<String, Instant> = BTreeMap::new();
        for Request { receipts, answered, .. } in running.queue.take("receive").into_iter().chain(requests) {
            for receipt in receipts {
                let before = last.insert(receipt, answered).unwrap_or(answered);
                assert!(answered - before <= VISIBILITY / 3 + ROUND_TRIP, "{count}: {:?}", answered - before);
            }
        }
        assert!(last.len() == count && last.values().all(|last| last.elapsed() <= VISIBILITY / 3 + ROUND_TRIP), "{count}");
        running.task.abort();
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_lost_message_has_no_heartbeat_any_more_and_the_others_go_on() -> Result<(), tokio::task::JoinError> {
    let running = Running::start(1, 100, |_| (VISIBILITY * 5 / 6, Outcome::Done));
    running.queue.lost.lock().unwrap_or_else(PoisonError::into_inner).push("1".to_owned());
    running.queue.send(3);
    sleep(VISIBILITY * 2).await;
    let queue = running.end().await?;
    let extended: Vec<_> = queue.take("extend").into_iter().map(|request| request.receipts).collect();
    assert_eq!(extended, [vec!["0", "1", "2"], vec!["0", "2"]]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_hangs_is_given_up_in_time_for_another() -> Result<(), tokio::task::JoinError> {
    let running = Running::start(1, 100, |_| (VISIBILITY * 5 / 6, Outcome::Done));
    *running.queue.heartbeat.lock().unwrap_or_else(PoisonError::into_inner) = FOREVER;
    running.queue.send(1);
    let sent = Instant::now();
    sleep(VISIBILITY * 2).await;
    let queue = running.end().await?;
    let begun: Vec<_> = queue.take("heartbeat").iter().map(|request| (request.answered - sent).as_secs()).collect();
    assert_eq!((begun, queue.take("extend")), (vec![20, 40], vec![]));
    Ok(())
}

/// A heartbeat that comes after it would hide the message for as long as if it were worked on.
#[tokio::test(start_paused = true)]
async fn a_message_is_given_back_after_its_heartbeat_but_not_long_after() -> Result<(), tokio::task::JoinError> {
    let work = VISIBILITY / 3 + Duration::from_millis(100);
    for (heartbeat, patience) in [(500, 400), (1_000_000, 1000)] {
        let running = Running::start(1, 100, move |_| (work, Outcome::Retry(Duration::from_secs(5))));
        *running.queue.heartbeat.lock().unwrap_or_else(PoisonError::into_inner) = Duration::from_millis(heartbeat);
        running.queue.send(1);
        let sent = Instant::now();
        sleep(VISIBILITY).await;
        let queue = running.end().await?;
        assert_eq!(queue.take("heartbeat").len(), 1);
        let released: Vec<_> = queue.take("release").iter().map(|request| request.answered - sent).collect();
        // Received, worked on, waited for, given back.
        let at = work + Duration::from_millis(patience) + ROUND_TRIP * 2;
        assert!(released.len() == 1 && released[0].abs_diff(at) < Duration::from_millis(10), "{released:?} instead of {at:?}");
    }
    Ok(())
}
