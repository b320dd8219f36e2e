//! The warm engine: scans go on with the old definitions while the new ones are loaded, proved and swapped in.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock, TryLockError};
use std::thread::{self, JoinHandle};

use super::backend::{Backend, Current, Observed};
use super::input::{Input, Source};
use crate::engine::{Definitions, Engine, EngineBuilder, LoadError, Snapshot, release_free_memory};

/// The engine in this process, replaced as a whole by [`Warm::reload`].
#[derive(Debug)]
pub struct Warm {
    builder: EngineBuilder,
    database: PathBuf,
    /// Held during a load, so that at most two engines exist.
    loading: Mutex<()>,
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
    /// `None` only while it is being sent away.
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
        let engine = builder.load(&database)?;
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
    /// [`LoadError`]; the old engine stays in use.
    pub fn reload(&self) -> Result<Arc<Definitions>, LoadError> {
        let _loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let engine = self.builder.load(&self.database)?;
        let definitions = Arc::clone(engine.definitions());
        let serving = Arc::new(Serving::new(engine, self.retired.clone()));
        let old = std::mem::replace(&mut *self.current.write().unwrap_or_else(PoisonError::into_inner), serving);
        drop(old);
        Ok(definitions)
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
        let engine = serving.engine.as_ref().ok_or_else(|| io::Error::other("the engine is gone"))?;
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
