//! Scans that nobody waits for, until somebody asks. They do not survive a restart.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use uuid::Uuid;

/// How many bytes of answers are kept at most, besides the latest one.
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// What is known of the scans that were asked for.
#[derive(Clone)]
pub(super) struct Remembered {
    state: Arc<Mutex<State>>,
    /// How many that are finished are kept.
    keep: usize,
}

#[derive(Default)]
struct State {
    /// `None` as long as it is under way.
    answers: HashMap<Uuid, Option<Bytes>>,
    /// The finished ones, oldest first.
    finished: VecDeque<Uuid>,
    bytes: usize,
}

/// A scan that is under way. Dropped without an answer, it is forgotten.
pub(super) struct Pending {
    id: Uuid,
    remembered: Remembered,
    answered: bool,
}

impl Remembered {
    pub(super) fn new(keep: usize) -> Self {
        Self { state: Arc::default(), keep }
    }

    /// A scan begins. Its id cannot be guessed.
    pub(super) fn begin(&self) -> Pending {
        let id = Uuid::new_v4();
        self.lock().answers.insert(id, None);
        Pending { id, remembered: self.clone(), answered: false }
    }

    /// What is known of a scan: nothing, that it is under way, or its answer.
    pub(super) fn get(&self, id: &str) -> Option<Option<Bytes>> {
        let id = Uuid::try_parse(id).ok()?;
        self.lock().answers.get(&id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    pub(super) fn id(&self) -> Uuid {
        self.id
    }

    /// The scan is finished; the oldest answers make room for this one.
    pub(super) fn finish(mut self, answer: Bytes) {
        self.answered = true;
        let keep = self.remembered.keep;
        let mut state = self.remembered.lock();
        state.bytes += answer.len();
        state.answers.insert(self.id, Some(answer));
        state.finished.push_back(self.id);
        while state.finished.len() > keep || (state.bytes > MAX_BYTES && state.finished.len() > 1) {
            let Some(oldest) = state.finished.pop_front() else { break };
            let answer = state.answers.remove(&oldest).flatten();
            state.bytes -= answer.map_or(0, |answer| answer.len());
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.answered {
            self.remembered.lock().answers.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_answers_are_kept() {
        let remembered = Remembered::new(2);
        let scans: Vec<Pending> = (0..4).map(|_| remembered.begin()).collect();
        let ids: Vec<String> = scans.iter().map(|scan| scan.id().to_string()).collect();
        assert!(ids.iter().all(|id| remembered.get(id) == Some(None)));
        for (n, scan) in scans.into_iter().enumerate() {
            scan.finish(Bytes::from(n.to_string()));
        }
        let known: Vec<_> = ids.iter().map(|id| remembered.get(id).flatten()).collect();
        assert_eq!(known, [None, None, Some("2".into()), Some("3".into())]);
        assert_eq!(remembered.get("2"), None);
    }

    #[test]
    fn large_answers_make_room_earlier_and_lost_scans_are_forgotten() {
        let remembered = Remembered::new(1000);
        let large = Bytes::from(vec![0; MAX_BYTES / 2]);
        let ids: Vec<String> = (0..5)
            .map(|_| {
                let scan = remembered.begin();
                let id = scan.id().to_string();
                scan.finish(large.clone());
                id
            })
            .collect();
        assert_eq!(ids.iter().filter(|id| remembered.get(id).is_some()).count(), 2);
        let lost = remembered.begin();
        let id = lost.id().to_string();
        drop(lost);
        assert_eq!(remembered.get(&id), None);
        assert_eq!(remembered.lock().answers.len(), 2);
    }
}
