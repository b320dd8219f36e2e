//! Clients that keep the service waiting, so that the one that has done so longest can make room for another.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Whoever has waited for less need not go.
const SPARED: Duration = Duration::from_secs(1);

/// So many bytes within a second keep a client from being the slowest.
const MOVES_ON: usize = 16 * 1024;

/// All that the service waits for, the longest wait first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waiting(Arc<Mutex<BTreeMap<(Instant, u64), CancellationToken>>>);

/// One wait; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Wait {
    all: Waiting,
    key: (Instant, u64),
    sent_away: CancellationToken,
}

impl Waiting {
    /// A wait begins.
    pub(crate) fn begin(&self) -> Wait {
        let sent_away = CancellationToken::new();
        let now = Instant::now();
        let mut all = self.lock();
        let number = all.range((now, 0)..=(now, u64::MAX)).next_back().map_or(0, |(&(_, number), _)| number + 1);
        all.insert((now, number), sent_away.clone());
        drop(all);
        Wait { all: self.clone(), key: (now, number), sent_away }
    }

    /// Sends away whoever has kept the service waiting longest; false if nobody has for as long as a second. Nobody is sent away
    /// twice: each call makes room for one more.
    pub(crate) fn send_one_away(&self) -> bool {
        let mut all = self.lock();
        let Some(longest) = all.first_entry().filter(|longest| longest.key().0.elapsed() >= SPARED) else { return false };
        longest.remove().cancel();
        true
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Instant, u64), CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wait {
    /// Cancelled when its place is needed.
    pub(crate) fn sent_away(&self) -> &CancellationToken {
        &self.sent_away
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.all.lock().remove(&self.key);
    }
}

/// How a stream moves on.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Since it last moved on.
    wait: Option<Wait>,
    /// What has arrived since.
    received: usize,
}

impl Pace {
    /// More has to arrive: the stream is among `slow` until it moves on.
    pub(crate) fn wait(&mut self, slow: &Waiting) -> &CancellationToken {
        self.wait.get_or_insert_with(|| slow.begin()).sent_away()
    }

    /// More has arrived.
    pub(crate) fn received(&mut self, count: usize) {
        self.received += count;
        if self.received >= MOVES_ON {
            *self = Self::default();
        }
    }
}
