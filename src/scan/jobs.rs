//! The jobs of a pool, from submission to answer, and the watch over those that do not come back.
//!
//! libclamav looks at the clock only now and then. Whoever waits for a verdict must not wait for it: an overdue job is answered
//! `TIMED_OUT` by the watch, while its thread goes on. When every thread is overdue, nothing that waits can be scanned here, and it
//! is handed back.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio::sync::{OwnedRwLockReadGuard, OwnedSemaphorePermit, oneshot, watch};

use super::backend::Current;
use super::pool::{ScanError, Scanned};
use crate::engine::{Reason, Verdict};

type Reply = oneshot::Sender<Result<Scanned, ScanError>>;

/// All jobs of a pool.
pub(super) struct Jobs {
    state: Mutex<State>,
    /// Wakes the watch: there is a job to watch and there was none, or the pool closes.
    wake: Condvar,
    threads: usize,
    deadline: Duration,
    overdue: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    next: u64,
    /// Jobs that no thread has taken up.
    waiting: BTreeMap<u64, Job>,
    /// Jobs that a thread works on.
    running: BTreeMap<u64, Run>,
    closed: bool,
}

struct Job {
    reply: Reply,
    place: Place,
}

/// What a job holds from its submission to its end, even when it is overdue.
#[expect(dead_code, reason = "it is held")]
pub(super) struct Place {
    pub(super) slot: OwnedSemaphorePermit,
    pub(super) turn: OwnedRwLockReadGuard<()>,
}

struct Run {
    /// When its content had been read: a slow reader is not the scan's fault. `None` until then.
    began: Option<Instant>,
    with: Current,
    /// The content's digest and size, once it has been read.
    content: Option<(Option<String>, u64)>,
    /// `None` when the job is overdue and has been answered.
    reply: Option<Reply>,
    place: Place,
}

/// Ends the watch when dropped.
pub(super) struct Watch {
    jobs: Arc<Jobs>,
    thread: Option<JoinHandle<()>>,
}

impl Jobs {
    /// The jobs of `threads` threads, each to be answered `deadline` after its content was read, and their watch.
    pub(super) fn start(threads: usize, deadline: Duration) -> io::Result<(Arc<Self>, Watch)> {
        let jobs =
            Arc::new(Self { state: Mutex::default(), wake: Condvar::new(), threads, deadline, overdue: watch::Sender::new(0) });
        let watched = Arc::clone(&jobs);
        let thread = std::thread::Builder::new().name("scan-watch".to_owned()).spawn(move || watched.watch())?;
        Ok((Arc::clone(&jobs), Watch { jobs, thread: Some(thread) }))
    }

    /// Takes a job in; `None`, with the answer given, when no thread is left for it.
    pub(super) fn submit(&self, reply: Reply, place: Place) -> Option<u64> {
        let mut state = self.lock();
        if self.overdue_in(&state) == self.threads {
            drop(place);
            let _ = reply.send(Err(ScanError::Stuck));
            return None;
        }
        state.next += 1;
        let id = state.next;
        state.waiting.insert(id, Job { reply, place });
        Some(id)
    }

    /// A thread takes the job up; false when nobody waits for it any more.
    pub(super) fn begin(&self, id: u64, with: Current) -> bool {
        let mut state = self.lock();
        let Some(job) = state.waiting.remove(&id).filter(|job| !job.reply.is_closed()) else { return false };
        let run = Run { began: None, with, content: None, reply: Some(job.reply), place: job.place };
        state.running.insert(id, run);
        true
    }

    /// The job's content has been read: from now on its time is counted.
    pub(super) fn read(&self, id: u64, sha256: Option<String>, size: u64) {
        let mut state = self.lock();
        let unwatched = state.running.values().all(|run| run.deadline(self.deadline).is_none());
        if let Some(run) = state.running.get_mut(&id) {
            run.content = Some((sha256, size));
            run.began = Some(Instant::now());
        }
        // Otherwise an earlier deadline wakes the watch, which then sees this one.
        if unwatched {
            self.wake.notify_one();
        }
    }

    /// The thread is done with the job.
    pub(super) fn finish(&self, id: u64, outcome: Result<Scanned, ScanError>) {
        let mut state = self.lock();
        let Some(run) = state.running.remove(&id) else { return };
        if run.reply.is_none() {
            self.overdue.send_replace(self.overdue_in(&state));
        }
        drop(state);
        // Free before the caller knows: what it sees afterwards is an idle thread.
        drop(run.place);
        match run.reply {
            Some(reply) => {
                let _ = reply.send(outcome);
            }
            None => {
                let took = run.began.map(|began| began.elapsed().as_millis());
                tracing::warn!(took_ms = took, "a scan that was overdue has come back");
            }
        }
    }

    /// How many threads are overdue, and every change of that.
    pub(super) fn overdue(&self) -> watch::Receiver<usize> {
        self.overdue.subscribe()
    }

    fn overdue_in(&self, state: &State) -> usize {
        state.running.values().filter(|run| run.reply.is_none()).count()
    }

    fn watch(&self) {
        let mut state = self.lock();
        while !state.closed {
            if let Some(overdue) = self.answer_overdue(&mut state) {
                // Without the lock: every scan thread needs it, and whoever reads the log may be slow.
                drop(state);
                tracing::error!(overdue, threads = self.threads, "a scan does not come back; its thread is lost until it does");
                state = self.lock();
                continue;
            }
            let next = state.running.values().filter_map(|run| run.deadline(self.deadline)).min();
            state = match next {
                Some(next) => {
                    let wait = next.saturating_duration_since(Instant::now());
                    self.wake.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Answers the jobs that are overdue by now, and those that wait if no thread is left for them. Gives the number of lost threads
    /// if it is new.
    fn answer_overdue(&self, state: &mut State) -> Option<usize> {
        let now = Instant::now();
        let mut answers = Vec::new();
        let is_overdue = |run: &&mut Run| run.deadline(self.deadline).is_some_and(|deadline| deadline <= now);
        for run in state.running.values_mut().filter(is_overdue) {
            answers.extend(run.reply.take().map(|reply| (reply, Ok(run.timed_out(now)))));
        }
        if answers.is_empty() {
            return None;
        }
        let overdue = self.overdue_in(state);
        self.overdue.send_replace(overdue);
        if overdue == self.threads {
            let waiting = std::mem::take(&mut state.waiting);
            answers.extend(waiting.into_values().map(|job| (job.reply, Err(ScanError::Stuck))));
        }
        // Last: whoever hears of it finds everything else as it is now.
        for (reply, answer) in answers {
            let _ = reply.send(answer);
        }
        Some(overdue)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run {
    /// When it must have been answered; `None` while it is read, and after it was answered.
    fn deadline(&self, time: Duration) -> Option<Instant> {
        self.began.filter(|_| self.reply.is_some()).map(|began| began + time)
    }

    fn timed_out(&self, now: Instant) -> Scanned {
        let (sha256, size) = self.content.clone().unzip();
        Scanned {
            verdict: Verdict::unscannable(Reason::TimedOut, "MaxScanTime"),
            with: self.with.clone(),
            sha256: sha256.flatten(),
            size: size.unwrap_or(0),
            scanned_at: OffsetDateTime::now_utc(),
            took: self.began.map_or(Duration::ZERO, |began| now.duration_since(began)),
            cached: false,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.jobs.lock().closed = true;
        self.jobs.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::sync::{RwLock, Semaphore};

    use super::*;
    use crate::engine::Definitions;
    use crate::on_event::OnEvent;

    #[test]
    fn a_slow_log_held_up_every_scan() -> Result<(), Box<dyn std::error::Error>> {
        let jobs = Arc::new(Jobs {
            state: Mutex::default(),
            wake: Condvar::new(),
            threads: 1,
            deadline: Duration::ZERO,
            overdue: watch::Sender::new(0),
        });
        let (reply, mut answer) = oneshot::channel();
        let slot = Arc::new(Semaphore::new(1)).try_acquire_owned()?;
        let turn = Arc::new(RwLock::new(())).try_read_owned()?;
        let id = jobs.submit(reply, Place { slot, turn }).ok_or("not accepted")?;
        let definitions = Definitions { version: 1, built_at: None, signatures: 1, fingerprint: "f".into() };
        assert!(jobs.begin(id, Current { definitions: Arc::new(definitions), options_digest: "o".into() }));
        jobs.read(id, Some("digest".to_owned()), 20);

        let (sender, could_be_reached) = mpsc::channel();
        let reached = Arc::clone(&jobs);
        let log = OnEvent(move || {
            let _ = sender.send(reached.state.try_lock().is_ok());
        });
        let could_be_reached = std::thread::scope(|scope| {
            scope.spawn(|| tracing::subscriber::with_default(log, || jobs.watch()));
            let first = could_be_reached.recv();
            jobs.lock().closed = true;
            jobs.wake.notify_all();
            first
        });
        assert_eq!(could_be_reached, Ok(true));
        assert_eq!(answer.try_recv()??.verdict.reason, Some(Reason::TimedOut));
        Ok(())
    }
}
