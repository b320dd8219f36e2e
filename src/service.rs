//! What runs in the service, as far as it exists yet: what every way in, the health socket and the signals look at.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::definitions::ReloadHandle;
use crate::engine::Progress;
use crate::health::Health;
use crate::intake::Intake;
use crate::object::S3Store;
use crate::pipeline::Objects;
use crate::queue::{Consumer, SqsQueue};
use crate::readiness::Readiness;
use crate::scan::{Pool, Warm};

/// The service, shared by all of its parts.
pub struct Service {
    /// Asks for a reload.
    pub reload: ReloadHandle,
    /// Begin nothing new.
    pub stop: CancellationToken,
    /// What keeps it from taking work.
    pub readiness: Readiness,
    /// Definitions that were built longer ago are not fit to serve with; zero for no bound.
    pub max_definitions_age: Duration,
    parts: OnceLock<Parts>,
    consumer: OnceLock<Arc<Consumer<SqsQueue>>>,
    /// The first engine is being loaded.
    loading: AtomicBool,
    /// How far that load is, and every later one.
    progress: OnceLock<Arc<Progress>>,
}

/// What exists as soon as the engine is warm.
pub struct Parts {
    /// The engine.
    pub warm: Arc<Warm>,
    /// The scan threads.
    pub pool: Arc<Pool>,
    /// Scans streams and files.
    pub intake: Arc<Intake>,
    /// Works on objects in S3, if anything may ask for that.
    pub objects: Option<Arc<Objects<S3Store>>>,
}

impl Service {
    /// A service that has nothing yet.
    #[must_use]
    pub fn new(reload: ReloadHandle, stop: CancellationToken, max_definitions_age: Duration) -> Self {
        Self {
            reload,
            stop,
            readiness: Readiness::default(),
            max_definitions_age,
            parts: OnceLock::new(),
            consumer: OnceLock::new(),
            loading: AtomicBool::new(false),
            progress: OnceLock::new(),
        }
    }

    /// The engine and all that stands on it; `None` while it is being loaded.
    #[must_use]
    pub fn parts(&self) -> Option<&Parts> {
        self.parts.get()
    }

    /// The engine is warm. Only the first call counts.
    pub fn set_parts(&self, parts: Parts) {
        let _ = self.parts.set(parts);
    }

    /// Messages are received. Only the first call counts.
    pub fn set_consumer(&self, consumer: Arc<Consumer<SqsQueue>>) {
        let _ = self.consumer.set(consumer);
    }

    /// How far loads are can be seen here. Only the first call counts.
    pub fn set_progress(&self, progress: Arc<Progress>) {
        let _ = self.progress.set(progress);
    }

    /// The first engine is being loaded, or no longer.
    pub fn set_loading(&self, loading: bool) {
        self.loading.store(loading, Ordering::SeqCst);
    }

    /// Whether libclamav loads or scans at this moment: it cannot be stopped, and must not meet the exit handlers.
    #[must_use]
    pub fn libclamav_is_at_work(&self) -> bool {
        self.loading.load(Ordering::SeqCst)
            || self.parts().is_some_and(|parts| parts.warm.is_loading() || parts.pool.busy() > 0)
    }

    /// How it is.
    #[must_use]
    pub fn health(&self) -> Health {
        let (parts, stopping) = (self.parts(), self.stop.is_cancelled());
        let obstacles = self.readiness.obstacles().borrow().clone();
        let state = if stopping {
            "stopping"
        } else if parts.is_some() {
            "serving"
        } else {
            "loading"
        };
        Health {
            ready: parts.is_some() && !stopping && obstacles.is_empty(),
            state: state.to_owned(),
            signatures: parts.map_or(0, |parts| parts.pool.current().definitions.signatures),
            in_flight: self.consumer.get().map_or(0, |consumer| consumer.in_flight()),
            scans: parts.map_or(0, |parts| parts.pool.busy()),
            overdue_threads: parts.map_or(0, |parts| *parts.pool.overdue().borrow()),
            loading: self.progress.get().and_then(|progress| progress.stage()).map(|stage| stage.to_string()),
            pausing: parts.is_some() && !stopping && self.readiness.is_pausing(),
            obstacles,
        }
    }

    /// Why no new work should be sent here, besides what [`Service::health`] says; empty when all is well.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let health = self.health();
        let mut complaints = health.obstacles;
        if health.state != "serving" {
            complaints.push(match health.loading {
                Some(progress) if health.state == "loading" => format!("loading: {progress}"),
                _ => health.state,
            });
        }
        let age = self.definitions_age().filter(|&age| !self.max_definitions_age.is_zero() && age > self.max_definitions_age);
        complaints.extend(age.map(|age| {
            format!(
                "the definitions are {} hours old, more than definitions.max_age_secs; is freshclam running?",
                age.as_secs() / 3600
            )
        }));
        complaints
    }

    /// How long ago the definitions were built, if they say.
    #[must_use]
    pub fn definitions_age(&self) -> Option<Duration> {
        let built_at = self.parts()?.pool.current().definitions.built_at?;
        // Negative when the clocks differ.
        Some(Duration::try_from(OffsetDateTime::now_utc() - built_at).unwrap_or_default())
    }
}
