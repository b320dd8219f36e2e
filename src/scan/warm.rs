//! The warm engine: scans go on with the old definitions while the new ones are loaded, proved and swapped in. Where memory
//! does not hold two engines, the old one can be unloaded first.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock, TryLockError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::backend::{Backend, Current, Observed};
use super::input::{Input, Source};
use super::memory::private_memory;
use crate::engine::{Definitions, Engine, EngineBuilder, LoadError, Observations, Snapshot, release_free_memory};

/// How long the wait for the last scan pauses before it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The engine in this process, replaced as a whole by [`Warm::reload`].
#[derive(Debug)]
pub struct Warm {
    builder: EngineBuilder,
    database: PathBuf,
    /// Held during a load, so that at most two engines exist.
    loading: Mutex<()>,
    /// The most memory that an engine took which was loaded with no other beside it; 0 when the system does not say.
    engine_bytes: AtomicU64,
    // The order matters when `Warm` is dropped: the engine and the last sender go first, then the undertaker can be joined.
    current: RwLock<Arc<Serving>>,
    retired: Sender<Engine>,
    _undertaker: Undertaker,
}

/// The thread that frees engines; joined when dropped, after every sender is gone.
#[derive(Debug)]
struct Undertaker(Option<JoinHandle<()>>);

impl Drop for Undertaker {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            let _ = thread.join();
        }
    }
}

/// An engine that scans hold on to. Whoever lets go last sends it away to be freed, which takes too long for a scan thread.
#[derive(Debug)]
struct Serving {
    /// `None` while it is being sent away, and while there is none.
    engine: Option<Engine>,
    current: Current,
    snapshot: Snapshot,
    retired: Sender<Engine>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.take() {
            // Fails only when the undertaker is gone; then the engine is freed here.
            let _ = self.retired.send(engine);
        }
    }
}

impl Warm {
    /// Loads the first engine. Blocks for as long as libclamav needs.
    ///
    /// # Errors
    ///
    /// [`LoadError`], when the database gives no engine that can be trusted.
    pub fn load(builder: EngineBuilder, database: PathBuf) -> Result<Self, LoadError> {
        let (engine, engine_bytes) = measured(|| builder.load(&database))?;
        let (retired, engines) = channel();
        let undertaker = thread::Builder::new()
            .name("engine-free".to_owned())
            .spawn(move || bury(&engines))
            .map_err(|error| LoadError::Initialise(error.to_string()))?;
        let serving = Serving::new(engine, retired.clone());
        Ok(Self {
            builder,
            database,
            loading: Mutex::new(()),
            engine_bytes: AtomicU64::new(engine_bytes),
            current: RwLock::new(Arc::new(serving)),
            retired,
            _undertaker: Undertaker(Some(undertaker)),
        })
    }

    /// Loads a second engine beside the first, proves it, and swaps it in. Blocks for as long as libclamav needs; scans go on.
    /// The old engine is freed, on a thread of its own, when its last scan ends.
    ///
    /// # Errors
    ///
    /// [`LoadError`]; the old engine stays in use. Where there is none, there is still none.
    pub fn reload(&self) -> Result<Arc<Definitions>, LoadError> {
        let _loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        self.load_next()
    }

    /// Proves what can be proved of the database without a second engine: see [`EngineBuilder::check`].
    ///
    /// # Errors
    ///
    /// [`LoadError`]; nothing has changed.
    pub fn check(&self) -> Result<Snapshot, LoadError> {
        let _loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        self.builder.check(&self.database)
    }

    /// Loads a new engine after the old one was freed, which is when the scans under way have ended. Blocks. Until there is an
    /// engine again, no scan gives a verdict: each ends as one that the machine hindered.
    ///
    /// # Errors
    ///
    /// [`LoadError`]. When the files are not those that were [checked](Self::check), the old engine stays in use. After any other, there is
    /// no engine ([`Warm::is_loaded`]), also when they change during the load; [`Warm::reload`] tries again.
    pub fn replace(&self, checked: &Snapshot) -> Result<Arc<Definitions>, LoadError> {
        let _loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if Snapshot::take(&self.database).ok().as_ref() != Some(checked) {
            return Err(LoadError::Changed(self.database.clone()));
        }
        self.unload();
        self.load_next()
    }

    fn load_next(&self) -> Result<Arc<Definitions>, LoadError> {
        let (engine, bytes) = measured(|| self.builder.load(&self.database))?;
        if !self.is_loaded() {
            // Objects come and go meanwhile, so that it can seem smaller than it is.
            self.engine_bytes.fetch_max(bytes, Ordering::Relaxed);
        }
        let definitions = Arc::clone(engine.definitions());
        let serving = Arc::new(Serving::new(engine, self.retired.clone()));
        let old = std::mem::replace(&mut *self.current.write().unwrap_or_else(PoisonError::into_inner), serving);
        drop(old);
        Ok(definitions)
    }

    /// Frees the engine when its last scan has ended, and gives its memory back.
    fn unload(&self) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let definitions = Definitions { version: 0, built_at: None, signatures: 0, fingerprint: String::new() };
        let none = Serving {
            engine: None,
            // Not what it was: a verdict that is known of the old definitions is none without them.
            current: Current {
                definitions: Arc::new(definitions),
                options_digest: Arc::clone(&current.current.options_digest),
            },
            snapshot: current.snapshot.clone(),
            retired: self.retired.clone(),
        };
        let mut old = std::mem::replace(&mut *current, Arc::new(none));
        drop(current);
        loop {
            match Arc::try_unwrap(old) {
                Ok(mut old) => break drop(old.engine.take()),
                Err(in_use) => old = in_use,
            }
            thread::sleep(LOOK_AGAIN);
        }
        release_free_memory();
    }

    /// Whether there is an engine to scan with.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.serving().engine.is_some()
    }

    /// How much memory the engine took when it was loaded with no other beside it, in bytes; `None` when the system does not
    /// say.
    #[must_use]
    pub fn engine_bytes(&self) -> Option<u64> {
        Some(self.engine_bytes.load(Ordering::Relaxed)).filter(|&bytes| bytes > 0)
    }

    /// Whether a reload is under way.
    #[must_use]
    pub fn is_loading(&self) -> bool {
        matches!(self.loading.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// The database files as the current engine knows them.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.serving().snapshot.clone()
    }

    /// Where the definitions are loaded from.
    #[must_use]
    pub fn database(&self) -> &Path {
        &self.database
    }

    fn serving(&self) -> Arc<Serving> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Serving {
    fn new(engine: Engine, retired: Sender<Engine>) -> Self {
        let current = Current { definitions: Arc::clone(engine.definitions()), options_digest: engine.options_digest().into() };
        Self { current, snapshot: engine.snapshot().clone(), engine: Some(engine), retired }
    }
}

/// Loads, and by how many bytes the process's own memory grew meanwhile; 0 when the system does not say.
fn measured(load: impl FnOnce() -> Result<Engine, LoadError>) -> Result<(Engine, u64), LoadError> {
    let before = private_memory();
    let engine = load()?;
    let grown = private_memory().zip(before).map_or(0, |(after, before)| after.saturating_sub(before));
    Ok((engine, grown))
}

/// Frees engines until nobody can send one any more.
fn bury(engines: &Receiver<Engine>) {
    for engine in engines {
        drop(engine);
        // Otherwise glibc keeps what two engines took.
        release_free_memory();
    }
}

impl Backend for Warm {
    fn current(&self) -> Current {
        self.serving().current.clone()
    }

    fn scan(&self, input: &Input) -> io::Result<Observed> {
        let serving = self.serving();
        let Some(engine) = &serving.engine else {
            let observations =
                Observations { refusal: Some("no definitions are loaded".to_owned()), ..Observations::default() };
            return Ok(Observed { observations, with: serving.current.clone() });
        };
        let observations = match &input.source {
            Source::Memory(bytes) => engine.scan_bytes(bytes),
            Source::Spooled(file) => engine.scan_bytes(file),
            Source::File(local) => {
                let observations = engine.scan_file(&local.file)?;
                local.is_unchanged()?;
                observations
            }
        };
        Ok(Observed { observations, with: serving.current.clone() })
    }
}
