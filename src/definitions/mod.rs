//! Keeps the warm engine's definitions current: runs freshclam, watches the database directory, reloads.
//!
//! An update that is missing, partial or malformed leaves the engine in use as it is, and is logged. Where memory does not hold
//! two engines, it can leave none: then nothing is scanned (`docs/adr/0021-reload-and-memory.md`).

mod freshclam;
mod plan;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use freshclam::Freshclam;

use plan::Plan;

use crate::backoff::backoff;
use crate::config::{Config, ReloadMode};
use crate::engine::{Definitions, LoadError, Snapshot};
use crate::readiness::{Readiness, Without};
use crate::scan::{Pool, Warm};
use crate::telemetry::events;

/// The pause after the first load that left no engine behind; it doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(5);
const LONGEST_RETRY: Duration = Duration::from_mins(5);

/// How much longer than its scans may take a drain may take.
const SPARE: Duration = Duration::from_secs(10);

/// A load that takes longer will not end: all of ClamAV's signatures take half a minute.
const LONGEST_LOAD: Duration = Duration::from_mins(30);

/// Watches the database directory and reloads.
pub struct Keeper {
    warm: Arc<Warm>,
    pool: Arc<Pool>,
    readiness: Readiness,
    poll: Duration,
    mode: ReloadMode,
    /// What must be left for objects, in bytes.
    budget: u64,
    /// How long a drain may take.
    patience: Duration,
    /// The files of the last load that failed: not tried again before they change.
    failed: Option<Snapshot>,
    /// How many loads have failed since there was an engine, and when the next is tried.
    failures: u32,
    retry_at: Option<Instant>,
}

/// Why there are no new definitions.
struct Failure {
    error: String,
    /// The files that were tried; `None` if trying the same again can help.
    files: Option<Snapshot>,
}

/// A wish to reload. Dropping all of them ends nothing: the directory is still watched.
#[derive(Debug, Clone)]
pub struct ReloadHandle(mpsc::Sender<()>);

/// The other end of [`ReloadHandle`].
#[derive(Debug)]
pub struct ReloadRequests(mpsc::Receiver<()>);

/// A handle for wishes to reload, and what the [`Keeper`] takes them from. Wishes during a reload become one.
#[must_use]
pub fn reload_channel() -> (ReloadHandle, ReloadRequests) {
    let (sender, receiver) = mpsc::channel(1);
    (ReloadHandle(sender), ReloadRequests(receiver))
}

impl ReloadHandle {
    /// Asks for a reload, whether or not anything changed.
    pub fn request(&self) {
        // Full means that one is waiting already.
        let _ = self.0.try_send(());
    }
}

impl Keeper {
    /// A keeper of the pool's warm engine.
    #[must_use]
    pub fn new(warm: Arc<Warm>, pool: Arc<Pool>, readiness: Readiness, config: &Config) -> Self {
        Self {
            warm,
            pool,
            readiness,
            poll: Duration::from_secs(config.definitions.poll_secs),
            mode: config.definitions.reload,
            budget: config.scan.memory_bytes,
            // One that runs and one that waits behind it, on each thread.
            patience: (config.scan_timeout() * 2).saturating_add(SPARE),
            failed: None,
            failures: 0,
            retry_at: None,
        }
    }

    /// Reloads on request, and when the directory differs from what is loaded, until `stop`.
    pub async fn run(mut self, mut requests: ReloadRequests, stop: CancellationToken) {
        Plan::now(self.mode, &self.warm, self.budget).tell("start");
        loop {
            let poll = async {
                if self.poll.is_zero() {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(self.poll).await;
            };
            let retry = async {
                match self.retry_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                Some(()) = requests.0.recv() => self.reload("requested", &stop).await,
                () = retry => self.reload("tried again", &stop).await,
                () = poll => self.reload_if_changed(&stop).await,
            }
        }
    }

    async fn reload_if_changed(&mut self, stop: &CancellationToken) {
        let Some(now) = self.look().await else { return };
        let is_new = now != self.warm.snapshot() || !self.warm.is_loaded();
        if is_new && self.failed.as_ref() != Some(&now) {
            self.reload("changed", stop).await;
        }
    }

    /// The files as they are now.
    async fn look(&self) -> Option<Snapshot> {
        let warm = Arc::clone(&self.warm);
        match tokio::task::spawn_blocking(move || Snapshot::take(warm.database())).await.ok()? {
            Ok(now) => Some(now),
            Err(error) => {
                tracing::warn!(error = error.to_string(), "cannot look at the definitions; the engine in use stays");
                None
            }
        }
    }

    async fn reload(&mut self, why: &'static str, stop: &CancellationToken) {
        let began = Instant::now();
        let plan = Plan::now(self.mode, &self.warm, self.budget);
        plan.tell(why);
        let drains = plan.is_drain() && self.warm.is_loaded();
        // Nobody may keep the scans waiting by asking over and over again.
        if drains && self.look().await == Some(self.warm.snapshot()) {
            tracing::info!("the definitions are those that are loaded");
            return;
        }
        let reloaded = if drains { self.drain_and_load(stop).await } else { self.attempt(Warm::reload).await };
        self.retry_at = None;
        match reloaded {
            Ok(definitions) => {
                (self.failed, self.failures) = (None, 0);
                self.readiness.without_definitions(None);
                events::reloaded("done");
                tracing::info!(
                    version = definitions.version,
                    signatures = definitions.signatures,
                    fingerprint = definitions.fingerprint,
                    took_ms = began.elapsed().as_millis(),
                    "definitions reloaded"
                );
            }
            Err(Failure { error, files }) => {
                events::reloaded("failed");
                self.failed = files;
                if self.warm.is_loaded() {
                    self.readiness.without_definitions(None);
                    tracing::error!(error, "definitions not reloaded; the engine in use stays");
                    return;
                }
                self.failures += 1;
                let pause = backoff(FIRST_RETRY, self.failures, LONGEST_RETRY);
                self.retry_at = Some(Instant::now() + pause);
                self.readiness.without_definitions(Some(Without::Failed(format!("no definitions are loaded: {error}"))));
                tracing::error!(
                    error,
                    retry_secs = pause.as_secs(),
                    "definitions not reloaded; nothing is scanned until they are"
                );
            }
        }
    }

    /// Proves what can be proved while scans go on, lets them end, and loads in place of the old engine.
    async fn drain_and_load(&self, stop: &CancellationToken) -> Result<Arc<Definitions>, Failure> {
        let stuck = |error: &str| Failure { error: error.to_owned(), files: None };
        let lost = || stuck("the old engine cannot be freed: a scan does not come back");
        let mut overdue = self.pool.overdue();
        // Before anything is verified or paused: it would be for nothing, at each look.
        if *overdue.borrow() > 0 {
            return Err(lost());
        }
        let checked = self.attempt(Warm::check).await?;
        let why =
            "the scans under way end, then new definitions are loaded in place of the old ones: memory does not hold both";
        self.readiness
            .without_definitions(Some(Without::Reload { why: why.to_owned(), until: Instant::now() + self.patience }));
        let drained = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(stuck("the service is stopping")),
            _ = overdue.wait_for(|&threads| threads > 0) => return Err(lost()),
            drained = self.pool.drain() => drained,
            () = tokio::time::sleep(self.patience) => {
                return Err(stuck(&format!("scans have not ended after {} s", self.patience.as_secs())));
            }
        };
        let why = "new definitions are being loaded in place of the old ones: memory does not hold both";
        self.readiness.without_definitions(Some(Without::Reload { why: why.to_owned(), until: Instant::now() + LONGEST_LOAD }));
        let loaded = self.attempt(move |warm| warm.replace(&checked)).await;
        // Whoever has waited scans with the new engine; without one, it is told so.
        drop(drained);
        loaded
    }

    /// Does something that blocks.
    async fn attempt<T, F>(&self, work: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(&Warm) -> Result<T, LoadError> + Send + 'static,
    {
        let warm = Arc::clone(&self.warm);
        let attempt = tokio::task::spawn_blocking(move || {
            let before = Snapshot::take(warm.database()).ok();
            work(&warm).map_err(|error| Failure {
                error: error.to_string(),
                // Files that changed under the load are tried again at the next look.
                files: before.filter(|_| !matches!(error, LoadError::Changed(_))),
            })
        });
        attempt.await.unwrap_or_else(|error| Err(Failure { error: format!("it panicked: {error}"), files: None }))
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::io;
    use std::path::Path;
    use std::sync::Barrier;

    use super::*;
    use crate::engine::{EngineBuilder, Status};
    use crate::scan::{Backend, Current, Input, Observed};

    /// Scans when it is told to.
    struct Held {
        warm: Arc<Warm>,
        gate: Arc<Barrier>,
    }

    impl Backend for Held {
        fn current(&self) -> Current {
            self.warm.current()
        }

        fn scan(&self, input: &Input) -> io::Result<Observed> {
            self.gate.wait();
            self.warm.scan(input)
        }
    }

    #[tokio::test]
    async fn a_drain_that_takes_too_long_is_given_up() -> Result<(), Box<dyn Error>> {
        let database = tempfile::tempdir()?;
        let test_signatures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/signatures/test.hdb");
        std::fs::copy(&test_signatures, database.path().join("test.hdb"))?;
        let warm = Arc::new(Warm::load(EngineBuilder::new(), database.path().to_owned())?);
        std::fs::copy(&test_signatures, database.path().join("new.hdb"))?;
        let gate = Arc::new(Barrier::new(2));
        let backend = Arc::new(Held { warm: Arc::clone(&warm), gate: Arc::clone(&gate) });
        let pool = Arc::new(Pool::new(backend, 1, Duration::from_mins(10))?);
        let readiness = Readiness::default();
        let mut config = Config::default();
        config.definitions.reload = ReloadMode::Drain;
        let keeper = || Keeper::new(Arc::clone(&warm), Arc::clone(&pool), readiness.clone(), &config);
        let scan = {
            let pool = Arc::clone(&pool);
            tokio::spawn(async move { pool.scan(|| Ok(Input::from_bytes(vec![1; 20]))).await })
        };
        while pool.busy() == 0 {
            tokio::task::yield_now().await;
        }
        let (goes_on, stopping) = (CancellationToken::new(), CancellationToken::new());
        stopping.cancel();
        let mut obstacles = readiness.obstacles();
        for (patience, stop) in [(Duration::from_millis(20), &goes_on), (Duration::from_mins(10), &stopping)] {
            let mut keeper = Keeper { patience, ..keeper() };
            keeper.reload("test", stop).await;
            assert!(warm.is_loaded() && warm.current().definitions.signatures > 0);
            assert!(
                obstacles.has_changed()? && obstacles.borrow_and_update().is_empty(),
                "there was an obstacle, and is none any more"
            );
            assert!(keeper.retry_at.is_none() && keeper.failed.is_none());
        }

        // The scan that was under way ends with the engine that it began with, and then there is room for the next.
        let mut patient = keeper();
        let mut reload = Box::pin(patient.reload("test", &goes_on));
        let drained = async {
            obstacles.wait_for(|now| !now.is_empty()).await.map(drop)?;
            tokio::task::spawn_blocking(move || gate.wait()).await?;
            Ok::<_, Box<dyn Error>>(())
        };
        let (drained, ()) = tokio::join!(drained, &mut reload);
        drained?;
        assert_eq!(scan.await??.verdict.status, Status::Clean);
        assert!(warm.is_loaded() && readiness.obstacles().borrow().is_empty());
        assert_eq!(warm.snapshot(), Snapshot::take(warm.database())?, "it was reloaded");
        Ok(())
    }
}
