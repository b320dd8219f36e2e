//! From database files to a compiled, proven engine.

use std::collections::BTreeSet;
use std::ffi::{CString, c_longlong};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use clamav_sys::cl_engine_field;
use serde::Serialize;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::Engine;
use super::callbacks;
use super::database::{Definitions, Snapshot, hex};
use super::error::LoadError;
use super::handle::{self, EngineHandle};
use super::limits::Limits;
use super::logical_expressions;
use super::pcre_jit;
use super::progress::{Progress, Stage};
use super::streams;
use super::verdict::{Status, judge};

/// The EICAR test file: harmless, and detected by every real database (<https://www.eicar.org/download-anti-malware-testfile/>).
///
/// Stored in two parts so that this program is not taken for it.
pub const EICAR: [&str; 2] = [r"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD", "-ANTIVIRUS-TEST-FILE!$H+H*"];

/// What a freshly loaded engine must detect before it is used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Canary {
    /// The [`EICAR`] test file.
    #[default]
    Eicar,
    /// The content of a file, for a database of your own that does not know EICAR.
    File(PathBuf),
}

/// The options of an [`Engine`], fixed before it is loaded. One builder can load any number of engines.
#[derive(Debug, Clone)]
pub struct EngineBuilder {
    limits: Limits,
    timeout: Duration,
    scratch_dir: PathBuf,
    pua: bool,
    all_match: bool,
    allowed: BTreeSet<String>,
    canary: Canary,
    certs_dir: Option<PathBuf>,
    required: Vec<String>,
    pcre_jit: bool,
    fast_logical_expressions: bool,
    progress: Arc<Progress>,
}

/// What decides a verdict besides the definitions, in the order that the digest needs.
#[derive(Serialize)]
struct Options<'builder> {
    limits: &'builder Limits,
    timeout_ms: u64,
    pua: bool,
    all_match: bool,
    allowed: &'builder BTreeSet<String>,
    libclamav: String,
}

impl Default for EngineBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl EngineBuilder {
    /// The defaults: [`Limits::default`], two minutes a scan, all-match, no PUA, EICAR as canary, the system's temp directory.
    #[must_use]
    pub fn new() -> Self {
        Self {
            limits: Limits::default(),
            timeout: Duration::from_mins(2),
            scratch_dir: std::env::temp_dir(),
            pua: false,
            all_match: true,
            allowed: BTreeSet::new(),
            canary: Canary::Eicar,
            certs_dir: None,
            required: Vec::new(),
            pcre_jit: true,
            fast_logical_expressions: true,
            progress: Arc::default(),
        }
    }

    /// Sets the limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how long one scan may take. libclamav looks at the clock now and then, so it can be late by some seconds.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets where libclamav writes temporary files. The directory must exist when an engine is loaded and stay.
    #[must_use]
    pub fn scratch_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.scratch_dir = dir.into();
        self
    }

    /// Whether signatures of potentially unwanted applications are loaded.
    #[must_use]
    pub fn pua(mut self, pua: bool) -> Self {
        self.pua = pua;
        self
    }

    /// Whether a scan goes on after the first match, to list all signatures.
    #[must_use]
    pub fn all_match(mut self, all_match: bool) -> Self {
        self.all_match = all_match;
        self
    }

    /// Sets the names of signatures whose matches do not count, exactly as they are reported. They need all-match: otherwise a scan
    /// ends at such a match.
    #[must_use]
    pub fn allowed(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.allowed = names.into_iter().collect();
        self
    }

    /// Sets what a loaded engine must detect.
    #[must_use]
    pub fn canary(mut self, canary: Canary) -> Self {
        self.canary = canary;
        self
    }

    /// Sets where libclamav 1.5 finds the certificates that verify signed databases. Ignored with 1.4.
    #[must_use]
    pub fn certs_dir(mut self, dir: Option<PathBuf>) -> Self {
        self.certs_dir = dir;
        self
    }

    /// Sets which signed databases must be there (`daily`, `main`) for the definitions to be complete.
    #[must_use]
    pub fn required(mut self, names: Vec<String>) -> Self {
        self.required = names;
        self
    }

    /// Whether regular-expression signatures run as machine code, which is faster and finds the same. On by default; a system that
    /// forbids writable code keeps the interpreter by itself. The switch is the process's: use one value for all engines.
    #[must_use]
    pub fn pcre_jit(mut self, pcre_jit: bool) -> Self {
        self.pcre_jit = pcre_jit;
        self
    }

    /// Whether the expressions of logical signatures are evaluated by code of this crate, as far as they are plain, instead of libclamav's
    /// and libc's, which is faster and comes to the same. On by default. The switch is the process's: use one value for all engines.
    #[must_use]
    pub fn fast_logical_expressions(mut self, fast_logical_expressions: bool) -> Self {
        self.fast_logical_expressions = fast_logical_expressions;
        self
    }

    /// Proves what can be proved of a database without loading it: there are files, the required ones among them, not all of
    /// them are empty, and the signed ones are what was signed. Some seconds for a production database, and little memory.
    ///
    /// # Errors
    ///
    /// [`LoadError`], as [`EngineBuilder::load`] would give it.
    pub fn check(&self, database: &Path) -> Result<Snapshot, LoadError> {
        if let Some(problem) = self.limits.problems().into_iter().next() {
            return Err(LoadError::Limits(problem));
        }
        handle::initialise().map_err(LoadError::Initialise)?;
        let snapshot = Snapshot::take(database)?;
        snapshot.require(&self.required)?;
        if snapshot.is_empty() {
            return Err(LoadError::Empty(database.to_owned()));
        }
        if let Canary::File(path) = &self.canary {
            fs::metadata(path).map_err(|error| LoadError::Read { path: path.clone(), error })?;
        }
        for path in snapshot.signed() {
            self.verify(path).map_err(|message| LoadError::Load { path: path.to_owned(), message })?;
        }
        if Snapshot::take(database)? != snapshot {
            return Err(LoadError::Changed(database.to_owned()));
        }
        Ok(snapshot)
    }

    /// Checks the digests and signatures of a signed database.
    fn verify(&self, path: &Path) -> Result<(), String> {
        let path = c_path(path)?;
        #[cfg(not(clamav_1_5))]
        // SAFETY: libclamav is initialised; the path is NUL-terminated and lives through the call (cvd.c: cl_cvdverify).
        let code = unsafe { clamav_sys::cl_cvdverify(path.as_ptr()) };
        #[cfg(clamav_1_5)]
        let certs_dir = self.certs_dir.as_deref().map(c_path).transpose()?;
        #[cfg(clamav_1_5)]
        // SAFETY: as above; null stands for the built-in directory of certificates.
        let code = unsafe {
            clamav_sys::cl_cvdverify_ex(path.as_ptr(), certs_dir.as_ref().map_or(ptr::null(), |dir| dir.as_ptr()), 0)
        };
        handle::check(code)
    }

    /// How far the load is that this builder, or a clone of it, does at the moment.
    #[must_use]
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Loads, compiles and proves an engine. For a production database this takes some ten seconds and 1.1 GB of memory.
    ///
    /// # Errors
    ///
    /// [`LoadError`] says what is wrong with the database or the options. Nothing is left behind.
    pub fn load(&self, database: &Path) -> Result<Engine, LoadError> {
        if let Some(problem) = self.limits.problems().into_iter().next() {
            return Err(LoadError::Limits(problem));
        }
        handle::initialise().map_err(LoadError::Initialise)?;
        let _running = self.progress.begin();
        let snapshot = Snapshot::take(database)?;
        snapshot.require(&self.required)?;
        let handle = EngineHandle::new().ok_or_else(|| LoadError::Initialise("not enough memory".to_owned()))?;
        self.configure(&handle)?;
        callbacks::register(handle.as_ptr());
        // SAFETY: the progress lives as long as the builder, which is borrowed, and is taken away below before the engine is
        // used.
        unsafe { callbacks::register_progress(handle.as_ptr(), Some(&self.progress)) };

        let fingerprint = snapshot.fingerprint()?;
        pcre_jit::enable(self.pcre_jit);
        logical_expressions::enable(self.fast_logical_expressions);
        let signatures = self.load_signatures(&handle, database)?;
        if signatures == 0 {
            return Err(LoadError::Empty(database.to_owned()));
        }
        // SAFETY: `handle` is a live engine that only this thread knows.
        handle::check(unsafe { clamav_sys::cl_engine_compile(handle.as_ptr()) })
            .map_err(|message| LoadError::Compile { path: database.to_owned(), message })?;
        // SAFETY: nothing is handed over.
        unsafe { callbacks::register_progress(handle.as_ptr(), None) };
        if Snapshot::take(database)? != snapshot {
            return Err(LoadError::Changed(database.to_owned()));
        }

        let definitions = Definitions {
            version: u32::try_from(number(&handle, clamav_sys::CL_ENGINE_DB_VERSION)).unwrap_or(0),
            built_at: match number(&handle, clamav_sys::CL_ENGINE_DB_TIME) {
                seconds @ 1.. => OffsetDateTime::from_unix_timestamp(seconds).ok(),
                _ => None,
            },
            signatures,
            fingerprint,
        };
        let engine = Engine {
            handle,
            options: self.scan_options(),
            limits: self.limits.clone(),
            timeout: self.timeout,
            allowed: self.allowed.clone(),
            scratch_dir: self.scratch_dir.clone(),
            definitions: Arc::new(definitions),
            snapshot,
            options_digest: self.options_digest(),
        };
        self.progress.reach(Stage::Canary);
        self.prove(&engine, database)?;
        Ok(engine)
    }

    /// Sets every option before the load: some are only heeded then (`DISABLE_CACHE`), all before the engine is shared.
    fn configure(&self, handle: &EngineHandle) -> Result<(), LoadError> {
        for (name, field, value) in self.limits.settings() {
            set_number(handle, name, field, value)?;
        }
        let timeout = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX).min(u32::MAX.into());
        set_number(handle, "timeout_secs", clamav_sys::CL_ENGINE_MAX_SCANTIME, timeout)?;
        // The clean cache is keyed by hash and size alone: it would hand a verdict from one set of options, or from a scan
        // that timed out, to the next scan of the same bytes.
        set_number(handle, "disable_cache", clamav_sys::CL_ENGINE_DISABLE_CACHE, 1)?;
        set_number(handle, "disable_pe_stats", clamav_sys::CL_ENGINE_DISABLE_PE_STATS, 1)?;
        set_path(handle, "scratch_dir", clamav_sys::CL_ENGINE_TMPDIR, &self.scratch_dir)?;
        #[cfg(clamav_1_5)]
        if let Some(dir) = &self.certs_dir {
            set_path(handle, "certs_dir", clamav_sys::CL_ENGINE_CVDCERTSDIR, dir)?;
        }
        Ok(())
    }

    fn load_signatures(&self, handle: &EngineHandle, database: &Path) -> Result<u32, LoadError> {
        let failed = |message| LoadError::Load { path: database.to_owned(), message };
        let path = c_path(database).map_err(failed)?;
        let mut options = clamav_sys::CL_DB_PHISHING | clamav_sys::CL_DB_PHISHING_URLS | clamav_sys::CL_DB_BYTECODE;
        if self.pua {
            options |= clamav_sys::CL_DB_PUA;
        }
        let mut signatures = 0;
        // libclamav opens a database, reads it and closes it on the thread that calls it (readdb.c: cli_load).
        let _without_locks = streams::without_locks();
        // SAFETY: `path` is NUL-terminated and lives through the call; `signatures` is a local; the engine is not shared.
        let code = unsafe { clamav_sys::cl_load(path.as_ptr(), handle.as_ptr(), &raw mut signatures, options) };
        handle::check(code).map_err(failed)?;
        Ok(signatures)
    }

    /// Everything is parsed, and everything that is not scanned raises an alert.
    fn scan_options(&self) -> clamav_sys::cl_scan_options {
        let all_match = if self.all_match { clamav_sys::CL_SCAN_GENERAL_ALLMATCHES } else { 0 };
        clamav_sys::cl_scan_options {
            general: all_match | clamav_sys::CL_SCAN_GENERAL_COLLECT_METADATA | clamav_sys::CL_SCAN_GENERAL_HEURISTICS,
            parse: u32::MAX,
            heuristic: clamav_sys::CL_SCAN_HEURISTIC_EXCEEDS_MAX
                | clamav_sys::CL_SCAN_HEURISTIC_ENCRYPTED_ARCHIVE
                | clamav_sys::CL_SCAN_HEURISTIC_ENCRYPTED_DOC,
            mail: 0,
            dev: 0,
        }
    }

    fn options_digest(&self) -> String {
        let options = Options {
            limits: &self.limits,
            timeout_ms: u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX),
            pua: self.pua,
            all_match: self.all_match,
            allowed: &self.allowed,
            libclamav: handle::version(),
        };
        hex(&Sha256::digest(serde_json::to_vec(&options).unwrap_or_default()))
    }

    /// Scans the canary with the engine as it will be used.
    fn prove(&self, engine: &Engine, database: &Path) -> Result<(), LoadError> {
        let (name, bytes) = match &self.canary {
            Canary::Eicar => ("EICAR".to_owned(), EICAR.concat().into_bytes()),
            Canary::File(file) => {
                let bytes = fs::read(file).map_err(|error| LoadError::Read { path: file.clone(), error })?;
                (file.display().to_string(), bytes)
            }
        };
        let verdict = judge(&engine.scan_bytes(&bytes));
        let is_found = verdict.status == Status::Infected || !verdict.allowed.is_empty();
        if is_found && verdict.reason.is_none() {
            return Ok(());
        }
        let outcome = match verdict.detail {
            Some(detail) => format!("{} ({detail})", verdict.status),
            None => verdict.status.to_string(),
        };
        Err(LoadError::Canary { path: database.to_owned(), canary: name, outcome })
    }
}

fn number(handle: &EngineHandle, field: cl_engine_field) -> i64 {
    // SAFETY: a live engine; a null error pointer is allowed (others.c: cl_engine_get_num).
    unsafe { clamav_sys::cl_engine_get_num(handle.as_ptr(), field, ptr::null_mut()) }
}

fn set_number(handle: &EngineHandle, option: &'static str, field: cl_engine_field, value: u64) -> Result<(), LoadError> {
    let refused = |message| LoadError::Option { option, value: value.to_string(), message };
    let number = c_longlong::try_from(value).map_err(|error| refused(error.to_string()))?;
    // SAFETY: a live engine that is not shared yet.
    handle::check(unsafe { clamav_sys::cl_engine_set_num(handle.as_ptr(), field, number) }).map_err(refused)
}

fn set_path(handle: &EngineHandle, option: &'static str, field: cl_engine_field, path: &Path) -> Result<(), LoadError> {
    let refused = |message| LoadError::Option { option, value: path.display().to_string(), message };
    let text = c_path(path).map_err(refused)?;
    // SAFETY: a live engine that is not shared yet; libclamav copies the string (others.c: cl_engine_set_str).
    handle::check(unsafe { clamav_sys::cl_engine_set_str(handle.as_ptr(), field, text.as_ptr()) }).map_err(refused)
}

fn c_path(path: &Path) -> Result<CString, String> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| "the path holds a NUL byte".to_owned())
}
