//! Whether the service takes work: not while the machine is in trouble, not when no scan thread is left, and not without
//! definitions.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::scan::Fitness;

/// How often the machine is looked at while all is well, and while it is not.
const LOOK_EVERY: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What keeps the service from taking work.
#[derive(Debug, Clone)]
pub struct Readiness {
    causes: Arc<Mutex<Causes>>,
    obstacles: Arc<watch::Sender<Vec<String>>>,
    look: Arc<Notify>,
}

/// Why there are no definitions to scan with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Without {
    /// They are being loaded in place of others, which ends by itself.
    Reload(String),
    /// They could not be loaded.
    Failed(String),
}

#[derive(Debug, Default)]
struct Causes {
    machine: Vec<String>,
    definitions: Option<Without>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { causes: Arc::default(), obstacles: Arc::new(watch::Sender::new(Vec::new())), look: Arc::default() }
    }
}

impl Readiness {
    /// What is in the way now, and every change of that.
    #[must_use]
    pub fn obstacles(&self) -> watch::Receiver<Vec<String>> {
        self.obstacles.subscribe()
    }

    /// A scan was hindered: looks at the machine at once.
    pub fn look_now(&self) {
        self.look.notify_one();
    }

    /// There are no definitions to scan with, for this reason; `None` when there are.
    pub fn without_definitions(&self, why: Option<Without>) {
        self.update(|causes| causes.definitions = why);
    }

    /// Whether a reload, which ends by itself, is all that is in the way.
    #[must_use]
    pub fn is_pausing(&self) -> bool {
        let causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        causes.machine.is_empty() && matches!(causes.definitions, Some(Without::Reload(_)))
    }

    /// Keeps looking until `stop`. `overdue` is how many of the `threads` scan threads do not come back.
    pub async fn watch(self, fitness: Fitness, mut overdue: watch::Receiver<usize>, threads: usize, stop: CancellationToken) {
        loop {
            let mut obstacles = Vec::new();
            if *overdue.borrow_and_update() >= threads {
                obstacles.push(format!("no scan thread is left: all {threads} are past their deadline"));
            }
            let fitness = fitness.clone();
            let looked = tokio::task::spawn_blocking(move || fitness.trouble()).await;
            obstacles.extend(looked.unwrap_or_else(|error| Some(format!("cannot look at the machine: {error}"))));
            self.tell(obstacles);

            let pause = if self.obstacles.borrow().is_empty() { LOOK_EVERY } else { LOOK_AGAIN };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.look.notified() => {}
                Ok(()) = overdue.changed() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    fn tell(&self, now: Vec<String>) {
        self.update(|causes| {
            // The text can hold numbers that change all the time.
            if causes.machine.is_empty() && !now.is_empty() {
                tracing::error!(obstacles = now.join("; "), "cannot scan; no messages are received until that ends");
            } else if !causes.machine.is_empty() && now.is_empty() {
                tracing::info!("can scan again");
            }
            causes.machine = now;
        });
    }

    fn update(&self, change: impl FnOnce(&mut Causes)) {
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut causes);
        let definitions = causes.definitions.iter().map(|(Without::Reload(why) | Without::Failed(why))| why);
        let now: Vec<String> = definitions.chain(&causes.machine).cloned().collect();
        self.obstacles.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
    }
}
