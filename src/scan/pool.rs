//! The bridge from async callers to the scan threads.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock, Semaphore, oneshot, watch};

use super::backend::{Backend, Current};
use super::input::Input;
use super::jobs::{Jobs, Place, Watch};
use super::known::{Known, Lookup};
use crate::engine::{Reason, Status, Verdict, judge};

/// A level of nested zip takes about 19 KiB of stack in libclamav; Rust's default of 2 MiB overflows at 100 levels.
const STACK_BYTES: usize = 8 * 1024 * 1024;

/// How much later than it should libclamav may be before its thread is taken for lost: it looks at the clock only now and then.
const OVERTIME: Duration = Duration::from_secs(2);

/// A fixed number of scan threads and a bounded queue in front of them.
pub struct Pool {
    backend: Arc<dyn Backend>,
    /// `None` when every input is scanned.
    known: Option<Known>,
    slots: Arc<Semaphore>,
    /// Read by each scan that has a slot. Behind the slots, so that whoever writes waits for the few that have one, not for all
    /// that wait for one.
    gate: Arc<RwLock<()>>,
    jobs: Arc<Jobs>,
    /// Ends before the threads are joined.
    watch: Option<Watch>,
    size: usize,
    /// `None` only while the pool is being dropped.
    threads: Option<rayon::ThreadPool>,
    joins: Mutex<Vec<JoinHandle<()>>>,
}

/// A verdict and how it came about.
#[derive(Debug, Clone)]
pub struct Scanned {
    /// The verdict.
    pub verdict: Verdict,
    /// What the scan was done with.
    pub with: Current,
    /// The SHA-256 of the input, in hexadecimal digits.
    pub sha256: Option<String>,
    /// The size of the input in bytes.
    pub size: u64,
    /// When the scan ended.
    pub scanned_at: OffsetDateTime,
    /// How long it took, without waiting for a thread.
    pub took: Duration,
    /// Whether the verdict is from an earlier scan of the same content, with the same definitions and options.
    pub cached: bool,
}

impl Scanned {
    /// A verdict on something that was not scanned.
    #[must_use]
    pub fn unread(verdict: Verdict, size: u64, with: Current) -> Self {
        Self { verdict, with, sha256: None, size, scanned_at: OffsetDateTime::now_utc(), took: Duration::ZERO, cached: false }
    }
}

/// No scan runs, and none begins, before this is dropped: [`Pool::drain`].
#[derive(Debug)]
pub struct Drained(#[expect(dead_code, reason = "it is held")] OwnedRwLockWriteGuard<()>);

/// Why there is no verdict. It says nothing about the input.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The input could not be read.
    #[error("cannot read the input: {0}")]
    Read(#[from] io::Error),
    /// The machine got in the way (no space, no descriptors, the scratch directory is gone): trying again later can help.
    #[error("the scan was hindered: {0}")]
    Trouble(String),
    /// Every scan thread is past its deadline.
    #[error("no scan thread is left: all of them are past their deadline")]
    Stuck,
    /// The pool is shutting down.
    #[error("the scanner is shutting down")]
    Closed,
}

impl Pool {
    /// Starts `threads` scan threads on `backend`. A scan that is not back two seconds after `timeout`, which is also the engine's, is
    /// answered `UNSCANNABLE TIMED_OUT`; its thread takes no other work until it is.
    ///
    /// # Errors
    ///
    /// When the operating system gives no more threads.
    pub fn new(backend: Arc<dyn Backend>, threads: usize, timeout: Duration) -> io::Result<Self> {
        let threads = threads.max(1);
        let joins = Mutex::new(Vec::with_capacity(threads));
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("scan-{index}"))
            .stack_size(STACK_BYTES)
            .spawn_handler(|thread| {
                let mut builder = std::thread::Builder::new();
                if let Some(name) = thread.name() {
                    builder = builder.name(name.to_owned());
                }
                if let Some(bytes) = thread.stack_size() {
                    builder = builder.stack_size(bytes);
                }
                let join = builder.spawn(|| thread.run())?;
                joins.lock().unwrap_or_else(PoisonError::into_inner).push(join);
                Ok(())
            })
            .build()
            .map_err(io::Error::other)?;
        // One waiting job for each running one keeps the threads busy; more would only hold memory.
        let slots = Arc::new(Semaphore::new(threads * 2));
        let (jobs, watch) = Jobs::start(threads, timeout.saturating_add(OVERTIME))?;
        let gate = Arc::default();
        Ok(Self { backend, known: None, slots, gate, jobs, watch: Some(watch), size: threads, threads: Some(pool), joins })
    }

    /// The same pool, which remembers this many verdicts.
    #[must_use]
    pub fn remembering(mut self, verdicts: usize) -> Self {
        self.known = (verdicts > 0).then(|| Known::new(verdicts));
        self
    }

    /// What the next scan will be done with.
    #[must_use]
    pub fn current(&self) -> Current {
        self.backend.current()
    }

    /// How many scan threads there are.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.size
    }

    /// How many scans run or wait for a thread at this moment.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.size * 2 - self.slots.available_permits().min(self.size * 2)
    }

    /// The verdict on an input: the one that is known, or that of a scan of the same content that is under way, or else that of a scan.
    ///
    /// # Errors
    ///
    /// As for [`Pool::scan`].
    pub async fn judge(&self, input: Input) -> Result<Scanned, ScanError> {
        let Some(known) = &self.known else { return self.scan(move || Ok(input)).await };
        let with = self.current();
        match known.look_up(&input, &with).await {
            None => self.scan(move || Ok(input)).await,
            Some(Lookup::Verdict(verdict)) => {
                let scanned = Scanned::unread(Verdict::clone(&verdict), input.size(), with);
                Ok(Scanned { sha256: input.sha256(), cached: true, ..scanned })
            }
            Some(Lookup::Nothing(duty)) => {
                let scanned = self.scan(move || Ok(input)).await?;
                duty.fulfil(&scanned.verdict, &scanned.with);
                Ok(scanned)
            }
        }
    }

    /// Waits for a scan thread, makes the input there (`load` may block on the disk) and scans it.
    ///
    /// When the returned future is dropped before a thread takes the job up, the job is skipped. A panic in `load` or in the
    /// backend becomes `UNSCANNABLE ENGINE_ERROR`.
    ///
    /// # Errors
    ///
    /// [`ScanError::Read`] when `load` or reading the input failed; [`ScanError::Trouble`] when the machine got in the way and nothing
    /// was found; [`ScanError::Stuck`] when no thread is left; [`ScanError::Closed`] after [`Pool::close`].
    pub async fn scan<F>(&self, load: F) -> Result<Scanned, ScanError>
    where
        F: FnOnce() -> io::Result<Input> + Send + 'static,
    {
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| ScanError::Closed)?;
        let place = Place { slot, turn: Arc::clone(&self.gate).read_owned().await };
        let (reply, answer) = oneshot::channel();
        let (backend, jobs) = (Arc::clone(&self.backend), Arc::clone(&self.jobs));
        let threads = self.threads.as_ref().ok_or(ScanError::Closed)?;
        if let Some(id) = jobs.submit(reply, place) {
            threads.spawn(move || {
                if !jobs.begin(id, backend.current()) {
                    return;
                }
                let began = Instant::now();
                let read = |input: &Input| jobs.read(id, input.sha256(), input.size());
                let outcome = catch_unwind(AssertUnwindSafe(|| run(&*backend, load, read, began)));
                jobs.finish(id, outcome.unwrap_or_else(|panic| Ok(panicked(&*panic, began, backend.current()))));
            });
        }
        answer.await.map_err(|_| ScanError::Closed)?
    }

    /// How many scan threads are past their deadline and do not come back, and every change of that.
    #[must_use]
    pub fn overdue(&self) -> watch::Receiver<usize> {
        self.jobs.overdue()
    }

    /// Waits until the scans under way have ended. Others wait from now on until the answer is dropped; their time is not
    /// counted meanwhile. Dropped before that, it has changed nothing.
    pub async fn drain(&self) -> Drained {
        Drained(Arc::clone(&self.gate).write_owned().await)
    }

    /// Takes no more work; scans under way go on.
    pub fn close(&self) {
        self.slots.close();
    }
}

fn run<F>(backend: &dyn Backend, load: F, read: impl FnOnce(&Input), began: Instant) -> Result<Scanned, ScanError>
where
    F: FnOnce() -> io::Result<Input>,
{
    let input = load()?;
    read(&input);
    let observed = backend.scan(&input)?;
    let verdict = judge(&observed.observations);
    if let Some(trouble) = observed.observations.trouble().filter(|_| verdict.status != Status::Infected) {
        return Err(ScanError::Trouble(trouble));
    }
    Ok(Scanned {
        verdict,
        with: observed.with,
        sha256: input.sha256(),
        size: input.size(),
        scanned_at: OffsetDateTime::now_utc(),
        took: began.elapsed(),
        cached: false,
    })
}

fn panicked(panic: &(dyn Any + Send), began: Instant, with: Current) -> Scanned {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    Scanned {
        verdict: Verdict::unscannable(Reason::EngineError, format!("the scan panicked: {text}")),
        with,
        sha256: None,
        size: 0,
        scanned_at: OffsetDateTime::now_utc(),
        took: began.elapsed(),
        cached: false,
    }
}

impl Drop for Pool {
    /// Joins the scan threads: libclamav's per-thread state must be gone before the process runs its exit handlers. One that does not
    /// come back is left alone.
    fn drop(&mut self) {
        self.close();
        drop(self.watch.take());
        drop(self.threads.take());
        if *self.overdue().borrow() > 0 {
            return;
        }
        for join in self.joins.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = join.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::engine::{Definitions, Observations, Status};
    use crate::scan::Observed;

    /// Answers as it is told, and counts how often it was asked.
    struct Scripted {
        asked: AtomicUsize,
        gate: Option<Arc<Barrier>>,
    }

    impl Backend for Scripted {
        fn current(&self) -> Current {
            let definitions = Definitions { version: 1, built_at: None, signatures: 1, fingerprint: "f".into() };
            Current { definitions: Arc::new(definitions), options_digest: "o".into() }
        }

        fn scan(&self, input: &Input) -> io::Result<Observed> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            if let Some(gate) = &self.gate {
                gate.wait();
            }
            assert!(input.size() != 13, "unlucky");
            Ok(Observed { observations: Observations { finished: true, ..Observations::default() }, with: self.current() })
        }
    }

    const LONG: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn a_panic_is_an_engine_error_and_the_thread_lives_on() -> Result<(), Box<dyn Error>> {
        let pool = Pool::new(Arc::new(Scripted { asked: AtomicUsize::new(0), gate: None }), 1, LONG)?;
        let bad = pool.scan(|| Ok(Input::from_bytes(vec![0; 13]))).await?;
        assert_eq!((bad.verdict.status, bad.verdict.reason), (Status::Unscannable, Some(Reason::EngineError)));
        let good = pool.scan(|| Ok(Input::from_bytes(vec![0; 14]))).await?;
        assert_eq!(good.verdict.status, Status::Clean);
        assert_eq!(pool.busy(), 0);
        Ok(())
    }

    #[tokio::test]
    async fn a_caller_that_has_gone_is_skipped() -> Result<(), Box<dyn Error>> {
        let gate = Arc::new(Barrier::new(2));
        let backend = Arc::new(Scripted { asked: AtomicUsize::new(0), gate: Some(Arc::clone(&gate)) });
        let pool = Pool::new(Arc::clone(&backend) as Arc<dyn Backend>, 1, LONG)?;
        let mut first = Box::pin(pool.scan(|| Ok(Input::from_bytes(vec![1; 20]))));
        let mut second = Box::pin(pool.scan(|| Ok(Input::from_bytes(vec![2; 20]))));
        // Both are queued; the only thread is held by the first, and the second one's caller goes away.
        assert!(futures_poll(&mut first).is_none() && futures_poll(&mut second).is_none());
        drop(second);
        gate.wait();
        assert_eq!(first.await?.verdict.status, Status::Clean);
        drop(pool);
        assert_eq!(backend.asked.load(Ordering::SeqCst), 1);
        Ok(())
    }

    /// libclamav cannot be interrupted: a thread that does not come back must not take its caller, or the next one, with it.
    #[tokio::test]
    async fn a_thread_that_does_not_come_back() -> Result<(), Box<dyn Error>> {
        let gate = Arc::new(Barrier::new(2));
        let backend = Arc::new(Scripted { asked: AtomicUsize::new(0), gate: Some(Arc::clone(&gate)) });
        let mut pool = Pool::new(Arc::clone(&backend) as Arc<dyn Backend>, 1, LONG)?;
        let (jobs, watch) = Jobs::start(1, Duration::from_millis(20))?;
        (pool.jobs, pool.watch) = (jobs, Some(watch));
        let mut overdue = pool.overdue();
        let mut first = Box::pin(pool.scan(|| Ok(Input::from_bytes(vec![1; 20]))));
        let mut second = Box::pin(pool.scan(|| Ok(Input::from_bytes(vec![2; 20]))));
        assert!(futures_poll(&mut first).is_none() && futures_poll(&mut second).is_none());
        let first = first.await?;
        assert_eq!((first.verdict.status, first.verdict.reason), (Status::Unscannable, Some(Reason::TimedOut)));
        assert_eq!((first.size, first.sha256.is_some()), (20, true));
        assert_eq!(*overdue.borrow_and_update(), 1);
        assert!(matches!(second.await, Err(ScanError::Stuck)), "it waited behind the lost thread");
        let third = pool.scan(|| Ok(Input::from_bytes(vec![3; 20]))).await;
        assert!(matches!(third, Err(ScanError::Stuck)), "nothing new is accepted");

        gate.wait();
        overdue.changed().await?;
        assert_eq!(*overdue.borrow(), 0);
        let mut fourth = Box::pin(pool.scan(|| Ok(Input::from_bytes(vec![4; 20]))));
        assert!(futures_poll(&mut fourth).is_none());
        gate.wait();
        assert_eq!(fourth.await?.verdict.status, Status::Clean);
        assert_eq!(backend.asked.load(Ordering::SeqCst), 2);
        Ok(())
    }

    #[tokio::test]
    async fn a_drain_waits_for_scans_and_scans_wait_for_its_end() -> Result<(), Box<dyn Error>> {
        let gate = Arc::new(Barrier::new(2));
        let backend = Arc::new(Scripted { asked: AtomicUsize::new(0), gate: Some(Arc::clone(&gate)) });
        let mut pool = Pool::new(Arc::clone(&backend) as Arc<dyn Backend>, 1, LONG)?;
        let mut scans: Vec<_> = (0..9).map(|n| Box::pin(pool.scan(move || Ok(Input::from_bytes(vec![n; 20]))))).collect();
        assert!(scans.iter_mut().all(|scan| futures_poll(scan).is_none()));
        let mut drain = Box::pin(pool.drain());
        assert!(futures_poll(&mut drain).is_none(), "two of the scans are under way, the others wait for a slot");
        let waiting = scans.split_off(2);
        for scan in scans {
            gate.wait();
            assert_eq!(scan.await?.verdict.status, Status::Clean);
        }
        let drained = drain.await;
        assert_eq!(backend.asked.load(Ordering::SeqCst), 2);
        drop(waiting);

        // One that waits longer than a scan may take.
        let (jobs, watch) = Jobs::start(1, Duration::from_millis(20))?;
        (pool.jobs, pool.watch) = (jobs, Some(watch));
        let mut late = Box::pin(pool.scan(|| Ok(Input::from_bytes(vec![9; 20]))));
        assert!(futures_poll(&mut late).is_none());
        std::thread::sleep(Duration::from_millis(50));
        assert!(futures_poll(&mut late).is_none() && *pool.overdue().borrow() == 0);
        assert_eq!(backend.asked.load(Ordering::SeqCst), 2, "it had begun");
        drop(drained);
        assert!(futures_poll(&mut late).is_none());
        gate.wait();
        assert_eq!(late.await?.verdict.status, Status::Clean);

        // A drain that was given up.
        let mut last = Box::pin(pool.scan(|| Ok(Input::from_bytes(vec![9; 20]))));
        assert!(futures_poll(&mut last).is_none());
        let mut drain = Box::pin(pool.drain());
        assert!(futures_poll(&mut drain).is_none());
        drop(drain);
        gate.wait();
        assert_eq!(last.await?.verdict.status, Status::Clean);
        Ok(())
    }

    #[tokio::test]
    async fn trouble_is_no_verdict_but_malware_stays_found() -> io::Result<()> {
        struct Troubled(Observations);
        impl Backend for Troubled {
            fn current(&self) -> Current {
                Scripted { asked: AtomicUsize::new(0), gate: None }.current()
            }
            fn scan(&self, _: &Input) -> io::Result<Observed> {
                Ok(Observed { observations: self.0.clone(), with: self.current() })
            }
        }
        let troubled = Observations { finished: true, refusal: Some("no space".to_owned()), ..Observations::default() };
        let infected = Observations { signatures: ["Virus".to_owned()].into(), ..troubled.clone() };
        for (seen, expected) in [(troubled, None), (infected, Some((Status::Infected, Some(Reason::EngineError))))] {
            let pool = Pool::new(Arc::new(Troubled(seen)), 1, LONG)?;
            match pool.scan(|| Ok(Input::from_bytes(vec![1; 20]))).await {
                Ok(scanned) => assert_eq!(Some((scanned.verdict.status, scanned.verdict.reason)), expected),
                Err(error) => assert!(expected.is_none() && matches!(error, ScanError::Trouble(_)), "{error}"),
            }
        }
        Ok(())
    }

    fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(future).poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
