//! How far a load is.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a load says in the log where it is, at most.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// How far the load is that an [`EngineBuilder`](super::EngineBuilder) does at the moment: its thread writes, any other may
/// look. A load of more than some seconds says so in the log, too.
#[derive(Debug, Default)]
pub struct Progress(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    stage: Option<Stage>,
    told: Option<Instant>,
}

/// What a load is doing. Its text is a clause for people: `5200000 of 8700000 signatures`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Looking at the files: how many signatures they hold.
    Files,
    /// Reading signatures.
    Signatures {
        /// How many were read.
        done: usize,
        /// How many the files seem to hold. Some are passed over, so that it need not be reached.
        total: usize,
    },
    /// Compiling what was read.
    Compiling {
        /// How many steps are done. They do not take equally long.
        done: usize,
        /// How many steps there are.
        total: usize,
    },
    /// Looking whether the canary is found.
    Canary,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Files => f.write_str("looking at the files"),
            Self::Signatures { done, total } => write!(f, "{done} of {total} signatures"),
            Self::Compiling { done, total } => write!(f, "compiling, {}%", done.saturating_mul(100) / total.max(1)),
            Self::Canary => f.write_str("looking for the canary"),
        }
    }
}

/// Ends the progress when dropped.
pub(super) struct Running<'progress>(&'progress Progress);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        *self.0.lock() = State::default();
    }
}

impl Progress {
    /// Where the load is; `None` when there is none.
    #[must_use]
    pub fn stage(&self) -> Option<Stage> {
        self.lock().stage
    }

    /// A load begins.
    pub(super) fn begin(&self) -> Running<'_> {
        *self.lock() = State { stage: Some(Stage::Files), told: Some(Instant::now()) };
        Running(self)
    }

    /// The load is here now.
    pub(super) fn reach(&self, stage: Stage) {
        let mut state = self.lock();
        state.stage = Some(stage);
        if state.told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
            return;
        }
        state.told = Some(Instant::now());
        // Without the lock: whoever reads the log may be slow.
        drop(state);
        tracing::info!(progress = %stage, "still loading the definitions");
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::on_event::OnEvent;

    #[test]
    fn stages_in_words() {
        for (stage, text) in [
            (Stage::Files, "looking at the files"),
            (Stage::Signatures { done: 5_200_000, total: 8_700_000 }, "5200000 of 8700000 signatures"),
            (Stage::Compiling { done: 2, total: 5 }, "compiling, 40%"),
            (Stage::Compiling { done: 5, total: 5 }, "compiling, 100%"),
            (Stage::Compiling { done: 1, total: 0 }, "compiling, 100%"),
            (Stage::Canary, "looking for the canary"),
        ] {
            assert_eq!(stage.to_string(), text);
        }
    }

    #[test]
    fn the_log_is_told_now_and_then() {
        let (progress, lines) = (Progress::default(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&lines);
        let count = OnEvent(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        let told = tracing::subscriber::with_default(count, || {
            let _running = progress.begin();
            let mut told = Vec::new();
            for pause in [Duration::ZERO, TELL_EVERY, Duration::ZERO, TELL_EVERY * 2] {
                let mut state = progress.lock();
                state.told = state.told.and_then(|told| told.checked_sub(pause));
                drop(state);
                progress.reach(Stage::Signatures { done: 1, total: 2 });
                told.push(lines.load(Ordering::SeqCst));
            }
            told
        });
        assert_eq!(told, [0, 1, 1, 2]);
    }

    #[test]
    fn it_is_over_when_the_load_is() {
        let progress = Progress::default();
        assert_eq!(progress.stage(), None);
        let running = progress.begin();
        assert_eq!(progress.stage(), Some(Stage::Files));
        progress.reach(Stage::Canary);
        assert_eq!(progress.stage(), Some(Stage::Canary));
        drop(running);
        assert_eq!(progress.stage(), None);
    }
}
