//! Verdicts that are known: the same content, with the same definitions and options, is scanned once.

use std::sync::Arc;

use quick_cache::sync::{Cache, DefaultLifecycle, PlaceholderGuard};
use quick_cache::{DefaultHashBuilder, UnitWeighter};
use sha2::{Digest, Sha256};

use super::backend::Current;
use super::input::Input;
use crate::engine::{Status, Verdict};

/// The longest names of signatures, together, that are remembered with a verdict, in bytes.
const LONGEST_NAMES: usize = 256;

/// A digest of everything that decides a verdict.
type Key = [u8; 32];

/// A bounded number of verdicts. `None` is there for a moment only: it tells those who wait for a verdict that this one is not passed on.
pub(super) struct Known(Cache<Key, Answer>);

type Answer = Option<Arc<Verdict>>;

/// What is known of an input.
pub(super) enum Lookup<'k> {
    /// Its verdict, perhaps from a scan that was under way.
    Verdict(Arc<Verdict>),
    /// Nothing: whoever holds this scans it, and others who ask wait for that. When it is dropped, the next one scans.
    Nothing(Box<Duty<'k>>),
}

/// The duty to find out.
pub(super) struct Duty<'k> {
    known: &'k Known,
    key: Key,
    guard: PlaceholderGuard<'k, Key, Answer, UnitWeighter, DefaultHashBuilder, DefaultLifecycle<Key, Answer>>,
    with: Current,
}

impl Known {
    pub(super) fn new(entries: usize) -> Self {
        Self(Cache::new(entries))
    }

    /// What is known of the input, with the definitions and options of now. `None` if it is to be scanned without further ado: its content
    /// can change or was not read as a whole, or the verdict of a scan that was under way is not passed on.
    pub(super) async fn look_up(&self, input: &Input, with: &Current) -> Option<Lookup<'_>> {
        let key = key(input, with)?;
        match self.0.get_value_or_guard_async(&key).await {
            Ok(answer) => answer.map(Lookup::Verdict),
            Err(guard) => Some(Lookup::Nothing(Box::new(Duty { known: self, key, guard, with: with.clone() }))),
        }
    }
}

impl Duty<'_> {
    /// Remembers the verdict, if a second scan would come to the same. If not, all who wait for it scan at the same time, not one after the other.
    pub(super) fn fulfil(self, verdict: &Verdict, with: &Current) {
        // A reload may have come in between.
        let is_same = with.definitions.fingerprint == self.with.definitions.fingerprint
            && with.options_digest == self.with.options_digest;
        let names: usize = verdict.signatures.iter().chain(&verdict.allowed).map(String::len).sum();
        let is_complete = verdict.reason.is_none() && !matches!(verdict.status, Status::Unscannable | Status::Failed);
        let is_known = is_same && is_complete && names <= LONGEST_NAMES;
        // Refused when the entry was evicted meanwhile.
        let _ = self.guard.insert(is_known.then(|| Arc::new(verdict.clone())));
        if !is_known {
            self.known.0.remove_if(&self.key, Option::is_none);
        }
    }
}

fn key(input: &Input, with: &Current) -> Option<Key> {
    let mut digest = Sha256::new();
    digest.update(input.fixed_digest()?);
    digest.update(input.size().to_le_bytes());
    for text in [with.definitions.fingerprint.as_str(), &with.options_digest] {
        digest.update((text.len() as u64).to_le_bytes());
        digest.update(text);
    }
    Some(digest.finalize().into())
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::io;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Barrier, Mutex};
    use std::time::Duration;

    use super::*;
    use crate::engine::{Definitions, Observations, Reason};
    use crate::scan::{Backend, Observed, Pool};

    /// Counts its scans, and says what it is told.
    #[derive(Default)]
    struct Counting {
        scans: AtomicUsize,
        fingerprint: Mutex<String>,
        options: Mutex<String>,
        sees: Mutex<Observations>,
        gate: Option<Arc<Barrier>>,
    }

    impl Backend for Counting {
        fn current(&self) -> Current {
            let fingerprint = self.fingerprint.lock().map(|text| text.clone()).unwrap_or_default();
            let definitions = Definitions { version: 1, built_at: None, signatures: 1, fingerprint };
            let options = self.options.lock().map(|text| text.clone()).unwrap_or_default();
            Current { definitions: Arc::new(definitions), options_digest: options.into() }
        }

        fn scan(&self, _: &Input) -> io::Result<Observed> {
            self.scans.fetch_add(1, Ordering::SeqCst);
            if let Some(gate) = &self.gate {
                gate.wait();
            }
            let observations = self.sees.lock().map(|seen| seen.clone()).unwrap_or_default();
            Ok(Observed { observations, with: self.current() })
        }
    }

    fn pool(backend: &Arc<Counting>, verdicts: usize) -> io::Result<Pool> {
        let backend = Arc::clone(backend) as Arc<dyn Backend>;
        Ok(Pool::new(backend, 1, Duration::from_secs(600))?.remembering(verdicts))
    }

    fn input(content: &str) -> Input {
        Input::from_bytes(content.into())
    }

    fn complete() -> Observations {
        Observations { finished: true, ..Observations::default() }
    }

    #[tokio::test]
    async fn only_the_same_content_definitions_and_options_are_known() -> Result<(), Box<dyn Error>> {
        let backend = Arc::new(Counting { sees: Mutex::new(complete()), ..Counting::default() });
        let pool = pool(&backend, 100)?;
        for (content, fingerprint, options, expected) in [
            ("a", "1", "o", false),
            ("a", "1", "o", true),
            ("b", "1", "o", false),
            ("a", "2", "o", false),
            ("a", "2", "p", false),
            // The same characters, elsewhere.
            ("a", "2p", "", false),
            ("a", "1", "o", true),
        ] {
            *backend.fingerprint.lock().map_err(|_| "poisoned")? = fingerprint.to_owned();
            *backend.options.lock().map_err(|_| "poisoned")? = options.to_owned();
            let scanned = pool.judge(input(content)).await?;
            assert_eq!(scanned.cached, expected, "{content} {fingerprint} {options}");
            assert_eq!(scanned.verdict.status, Status::Clean);
            assert_eq!((scanned.size, scanned.sha256), (1, input(content).sha256()));
            assert_eq!(scanned.with.definitions.fingerprint, fingerprint);
        }
        Ok(())
    }

    #[tokio::test]
    async fn only_complete_verdicts_are_known() -> Result<(), Box<dyn Error>> {
        let signatures = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let long = "x".repeat(LONGEST_NAMES + 1);
        for (sees, status, expected) in [
            (complete(), Status::Clean, true),
            (Observations { signatures: signatures(&["Virus"]), ..complete() }, Status::Infected, true),
            (Observations { signatures: signatures(&["PUA.Tool"]), ..complete() }, Status::Suspicious, true),
            (Observations { signatures: signatures(&[&long]), ..complete() }, Status::Infected, false),
            // Nobody knows how this one ended.
            (Observations::default(), Status::Unscannable, false),
            (Observations { signatures: signatures(&["Virus"]), ..Observations::default() }, Status::Infected, false),
        ] {
            let backend = Arc::new(Counting { sees: Mutex::new(sees.clone()), ..Counting::default() });
            let pool = pool(&backend, 100)?;
            let first = pool.judge(input("a")).await?;
            let second = pool.judge(input("a")).await?;
            assert_eq!((first.cached, second.cached), (false, expected), "{sees:?}");
            assert_eq!((first.verdict.status, &first.verdict), (status, &second.verdict), "{sees:?}");
        }
        Ok(())
    }

    /// Its content was hashed before it was scanned: whoever changed it in between had a verdict on one content remembered for another, and then
    /// uploaded that one.
    #[tokio::test]
    async fn the_verdict_on_a_file_that_others_can_change_was_remembered() -> Result<(), Box<dyn Error>> {
        let backend = Arc::new(Counting { sees: Mutex::new(complete()), ..Counting::default() });
        let pool = pool(&backend, 100)?;
        let content = vec![b'a'; 9 * 1024 * 1024];
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), &content)?;
        let open = || Input::open(file.path(), u64::MAX);
        assert_eq!(open()?.sha256(), Input::from_bytes(content.clone()).sha256());
        pool.judge(open()?).await?;
        assert!(!pool.judge(Input::from_bytes(content.clone())).await?.cached, "it was remembered");
        assert!(pool.judge(Input::from_bytes(content)).await?.cached);
        assert!(!pool.judge(open()?).await?.cached, "it was believed to be what it had been");
        Ok(())
    }

    #[tokio::test]
    async fn two_at_the_same_time_cost_one_scan() -> Result<(), Box<dyn Error>> {
        let gate = Arc::new(Barrier::new(2));
        let backend = Arc::new(Counting { sees: Mutex::new(complete()), gate: Some(Arc::clone(&gate)), ..Counting::default() });
        let pool = Arc::new(pool(&backend, 100)?);
        let judge = || {
            tokio::spawn({
                let pool = Arc::clone(&pool);
                async move { pool.judge(input("a")).await }
            })
        };
        let all = [judge(), judge(), judge()];
        tokio::task::spawn_blocking(move || gate.wait()).await?;
        let mut cached = Vec::new();
        for scanned in all {
            cached.push(scanned.await??.cached);
        }
        cached.sort_unstable();
        assert_eq!(cached, [false, true, true]);
        assert_eq!(backend.scans.load(Ordering::SeqCst), 1);
        Ok(())
    }

    /// Its client went away: those who wait for the same content do not wait for ever.
    #[tokio::test]
    async fn a_scan_that_is_given_up_passes_its_duty_on() -> Result<(), Box<dyn Error>> {
        let backend = Arc::new(Counting { sees: Mutex::new(complete()), ..Counting::default() });
        let known = Known::new(100);
        let with = backend.current();
        let (first, content) = (input("a"), input("a"));
        let Some(Lookup::Nothing(duty)) = known.look_up(&first, &with).await else { return Err("it was known".into()) };
        let mut second = Box::pin(known.look_up(&content, &with));
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(duty);
        assert!(matches!(second.await, Some(Lookup::Nothing(_))));
        Ok(())
    }

    /// Each of those who waited was the only one that scanned, and all others waited again: hours for a few hundred copies of what times out.
    #[tokio::test]
    async fn what_is_not_remembered_was_scanned_one_at_a_time() -> Result<(), Box<dyn Error>> {
        let backend = Arc::new(Counting::default());
        let known = Known::new(100);
        let with = backend.current();
        let content = input("a");
        let Some(Lookup::Nothing(duty)) = known.look_up(&content, &with).await else { return Err("it was known".into()) };
        let mut waiting = [Box::pin(known.look_up(&content, &with)), Box::pin(known.look_up(&content, &with))];
        for one in &mut waiting {
            assert!(futures_util::poll!(one).is_pending());
        }
        duty.fulfil(&Verdict::unscannable(Reason::TimedOut, "after 120 s"), &with);
        for one in waiting {
            assert!(one.await.is_none());
        }
        assert!(matches!(known.look_up(&content, &with).await, Some(Lookup::Nothing(_))), "it was remembered");
        Ok(())
    }

    #[tokio::test]
    async fn no_more_than_so_many_are_known() -> Result<(), Box<dyn Error>> {
        let backend = Arc::new(Counting { sees: Mutex::new(complete()), ..Counting::default() });
        let bounded = pool(&backend, 10)?;
        for number in 0..1000 {
            bounded.judge(input(&number.to_string())).await?;
        }
        let mut known = 0;
        for number in 0..1000 {
            known += usize::from(bounded.judge(input(&number.to_string())).await?.cached);
        }
        assert!(known <= 20, "{known}");
        let off = pool(&backend, 0)?;
        off.judge(input("a")).await?;
        assert!(!off.judge(input("a")).await?.cached);
        Ok(())
    }
}
