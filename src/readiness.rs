//! Whether the service takes work: not while the machine is in trouble, not when no scan thread is left, and not without
//! definitions.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// How often the machine is looked at while all is well, and while it is not.
const LOOK_EVERY: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long a look may take before that is trouble itself: a disk that has gone away keeps whoever asks it waiting.
const LOOK_WITHIN: Duration = Duration::from_secs(10);

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
    /// They are being loaded in place of others.
    Reload {
        /// What goes on.
        why: String,
        /// When it should have ended.
        until: Instant,
    },
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

    /// Whether a reload, which should end by itself, is all that is in the way.
    #[must_use]
    pub fn is_pausing(&self) -> bool {
        let causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        let is_reload = matches!(causes.definitions, Some(Without::Reload { until, .. }) if Instant::now() < until);
        is_reload && causes.machine.is_empty()
    }

    /// Keeps looking until `stop`. `trouble` tells what is wrong with the machine, and may block; `overdue` is how many of the `threads` scan
    /// threads do not come back.
    pub async fn watch<F>(self, trouble: F, mut overdue: watch::Receiver<usize>, threads: usize, stop: CancellationToken)
    where
        F: Fn() -> Option<String> + Clone + Send + 'static,
    {
        let mut under_way = None;
        loop {
            let mut obstacles = Vec::new();
            if *overdue.borrow_and_update() >= threads {
                obstacles.push(format!("no scan thread is left: all {threads} are past their deadline"));
            }
            let mut look = under_way.take().unwrap_or_else(|| tokio::task::spawn_blocking(trouble.clone()));
            match timeout(LOOK_WITHIN, &mut look).await {
                Ok(looked) => {
                    obstacles.extend(looked.unwrap_or_else(|error| Some(format!("cannot look at the machine: {error}"))))
                }
                Err(_) => {
                    obstacles.push(format!("the scratch directory does not answer within {} s", LOOK_WITHIN.as_secs()));
                    under_way = Some(look);
                }
            }
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
        let definitions = causes.definitions.iter().map(|(Without::Reload { why, .. } | Without::Failed(why))| why);
        let now: Vec<String> = definitions.chain(&causes.machine).cloned().collect();
        self.obstacles.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// While the disk did not answer, nothing was said, not even that the last scan thread was lost, and messages were received.
    #[tokio::test(start_paused = true)]
    async fn a_disk_that_does_not_answer_kept_the_watch_waiting() {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let trouble = move || {
            let _ = held.lock().unwrap_or_else(PoisonError::into_inner).recv();
            None
        };
        let readiness = Readiness::default();
        let mut obstacles = readiness.obstacles();
        let (lost, overdue) = watch::channel(0);
        let watching = tokio::spawn(readiness.watch(trouble, overdue, 1, CancellationToken::new()));
        // The clock does not go on by itself while something blocks.
        let mut told = async |text: &str| {
            for _ in 0..100 {
                if obstacles.borrow_and_update().iter().any(|obstacle| obstacle.contains(text)) {
                    return true;
                }
                tokio::time::advance(LOOK_AGAIN).await;
            }
            false
        };
        assert!(told("does not answer within 10 s").await);
        lost.send_replace(1);
        assert!(told("no scan thread is left").await);
        drop(release);
        drop(lost);
        watching.abort();
    }

    /// A load that never ended counted as a pause, and nobody replaced the container.
    #[tokio::test(start_paused = true)]
    async fn a_reload_without_end_counted_as_a_pause() {
        let readiness = Readiness::default();
        let until = Instant::now() + Duration::from_mins(1);
        readiness.without_definitions(Some(Without::Reload { why: "loading".to_owned(), until }));
        assert!(readiness.is_pausing());
        tokio::time::advance(Duration::from_mins(1)).await;
        assert!(!readiness.is_pausing());
    }
}
