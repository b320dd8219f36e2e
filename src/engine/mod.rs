//! libclamav made safe: one immutable, compiled [`Engine`] that any number of threads scan with.
//!
//! [`EngineBuilder`] loads and compiles a database, proves the result on a canary and gives an [`Engine`]. A scan returns
//! [`Observations`]: everything that libclamav said. [`judge`], a pure function, turns them into a [`Verdict`]. libclamav
//! itself fails open (it answers "clean" to a timeout, an exceeded limit or a missing temp directory), so the verdict is
//! `CLEAN` only when the observations show a complete scan.
//!
//! This module knows no async runtime, no AWS and no configuration file. All of the crate's `unsafe` is here.

#![allow(unsafe_code)]

mod builder;
mod callbacks;
mod database;
mod error;
mod formats;
mod handle;
mod limits;
mod logical_expressions;
mod meanings;
mod members;
mod memory;
mod observations;
mod pcre_jit;
mod private_file;
mod progress;
mod refusals;
mod streams;
mod verdict;

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use builder::{Canary, EICAR, EngineBuilder};
pub(crate) use database::hex;
pub use database::{Definitions, Snapshot};
pub use error::LoadError;
pub use limits::Limits;
pub use meanings::{MEANINGS, Meaning, Means, Source, meaning};
pub use members::Members;
pub use memory::{allocator, release_free_memory};
pub use observations::{Message, Observations, Severity};
pub use private_file::{FrozenFile, PrivateFile};
pub use progress::{Progress, Stage};
pub use verdict::{Reason, Status, Verdict, is_detection, judge};

use callbacks::ScanContext;
use handle::{EngineHandle, FmapHandle};

/// libclamav scans nothing shorter than this (`scanners.c: scan_common`, "Small data"), so it cannot hold a match.
const SMALLEST_SCANNED: u64 = 6;

/// A member that is this close to MaxFileSize may have been cut off there: libclamav's unpackers write in blocks of 8 KiB.
const TRIMMED_AT_MOST: u64 = 8 * 1024;

/// The version of the libclamav that is loaded, such as `1.4.6`.
#[must_use]
pub fn libclamav_version() -> String {
    handle::version()
}

/// Ends the process at once, without exit handlers: they must not run while libclamav's scan threads do.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) takes any value and does not return.
    unsafe { libc::_exit(code) }
}

/// What libclamav's scan functions take.
type Name = *mut *const std::ffi::c_char;
type Scanned = *mut std::ffi::c_ulong;
type Options = *mut clamav_sys::cl_scan_options;
type Context = *mut std::ffi::c_void;

/// A compiled signature database, ready to scan. Immutable; share it with [`Arc`].
#[derive(Debug)]
pub struct Engine {
    handle: EngineHandle,
    options: clamav_sys::cl_scan_options,
    limits: Limits,
    timeout: Duration,
    allowed: BTreeSet<String>,
    scratch_dir: PathBuf,
    definitions: Arc<Definitions>,
    snapshot: Snapshot,
    options_digest: String,
}

impl Engine {
    /// Scans bytes in place, without copying them. An empty or tiny slice is complete without asking libclamav.
    #[must_use]
    pub fn scan_bytes(&self, bytes: &[u8]) -> Observations {
        if let Some(decided) = self.decided_by_size(bytes.len() as u64) {
            return decided;
        }
        let Some(map) = FmapHandle::over(bytes) else {
            return Observations::failed("libclamav could not map the buffer");
        };
        self.observe(|name, scanned, options, context| self.scan_map(&map, name, scanned, options, context))
    }

    /// Scans a regular file through its descriptor, whatever the position of its cursor.
    ///
    /// A file that changes while it is scanned is never clean: libclamav may have seen half of each state.
    ///
    /// # Errors
    ///
    /// When the file's metadata cannot be read, or when it is not a regular file: libclamav calls a directory or a pipe clean.
    pub fn scan_file(&self, file: &File) -> io::Result<Observations> {
        let before = file.metadata()?;
        if !before.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        if let Some(decided) = self.decided_by_size(before.len()) {
            return Ok(decided);
        }
        let mut observations = self.observe(|name, scanned, options, context| {
            // SAFETY: the descriptor is open as long as `file` is borrowed; the rest as in `scan_bytes`.
            unsafe {
                clamav_sys::cl_scandesc_callback(
                    file.as_raw_fd(),
                    ptr::null(),
                    name,
                    scanned,
                    self.handle.as_ptr(),
                    options,
                    context,
                )
            }
        });
        let after = file.metadata()?;
        let state = |m: &std::fs::Metadata| (m.len(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
        if state(&before) != state(&after) {
            observations.fail("the file changed while it was scanned");
        }
        Ok(observations)
    }

    /// What the engine scans with.
    #[must_use]
    pub fn definitions(&self) -> &Arc<Definitions> {
        &self.definitions
    }

    /// The database files as they were when the engine was loaded: compare with a new [`Snapshot`] to see a change.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// A digest of every option that can change a verdict. Two engines with the same digest and the same definitions agree.
    #[must_use]
    pub fn options_digest(&self) -> &str {
        &self.options_digest
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Where libclamav writes its temporary files.
    #[must_use]
    pub fn scratch_dir(&self) -> &Path {
        &self.scratch_dir
    }

    fn decided_by_size(&self, size: u64) -> Option<Observations> {
        if size < SMALLEST_SCANNED {
            return Some(Observations::complete());
        }
        (size > self.limits.max_file_size_bytes).then(|| Observations { too_large: true, ..Observations::default() })
    }

    /// Runs a scan, and then one over each layer that libclamav ignored for its type.
    fn observe(&self, scan: impl FnOnce(Name, Scanned, Options, Context) -> clamav_sys::cl_error_t) -> Observations {
        let began = Instant::now();
        let (mut observations, ignored) = self.observe_once(began, scan);
        for layer in &ignored {
            let Some(map) = FmapHandle::over(layer) else {
                observations.fail("libclamav could not map a layer");
                continue;
            };
            let (again, ignored) = self
                .observe_once(began, |name, scanned, options, context| self.scan_map(&map, name, scanned, options, context));
            observations.absorb(again);
            if !ignored.is_empty() {
                observations.fail("a layer was ignored twice");
            }
        }
        observations
    }

    /// Scans what is mapped.
    fn scan_map(
        &self,
        map: &FmapHandle<'_>,
        name: Name,
        scanned: Scanned,
        options: Options,
        context: Context,
    ) -> clamav_sys::cl_error_t {
        // SAFETY: `map` borrows its bytes, which outlive the call; the engine is compiled and alive as long as `self`; name, scanned
        // and options point to locals of `observe_once`; `context` is the ScanContext that the callbacks cast to.
        unsafe {
            clamav_sys::cl_scanmap_callback(map.as_ptr(), ptr::null(), name, scanned, self.handle.as_ptr(), options, context)
        }
    }

    /// Runs one scan with callbacks and message capture in place.
    fn observe_once(
        &self,
        began: Instant,
        scan: impl FnOnce(Name, Scanned, Options, Context) -> clamav_sys::cl_error_t,
    ) -> (Observations, Vec<FrozenFile>) {
        let capture = callbacks::capture_messages();
        let watch = refusals::watch(&self.scratch_dir);
        pcre_jit::gave_up();
        let context = ScanContext::new(began + self.timeout, &self.scratch_dir);
        let mut name = ptr::null();
        let mut scanned = 0;
        let mut options = self.options;
        let code = scan(&raw mut name, &raw mut scanned, &raw mut options, context.as_ptr());
        let took = began.elapsed();
        let refusal = watch.first_refusal();
        let pcre_gave_up = pcre_jit::gave_up();
        let messages = capture.finish();
        // SAFETY: libclamav sets `name` to a string of the engine's or leaves it null; the engine is alive (`self`).
        let name = unsafe { callbacks::text(name) };
        let (mut observations, ignored) = context.into_observations(code.0, name, messages);
        if let Some(refusal) = refusal {
            if refusal.is_trouble() {
                observations.refusal = Some(refusal.to_string());
            } else {
                observations.fail(&refusal.to_string());
            }
        }
        if pcre_gave_up {
            observations.parse_errors.insert("Heuristics.Limits.Exceeded.PCREMatch".to_owned());
        }
        observations.timed_out |= took > self.timeout;
        // After the first match libclamav stops, unless it collects all of them; then an allowed match proves nothing.
        if self.options.general & clamav_sys::CL_SCAN_GENERAL_ALLMATCHES != 0 {
            let is_allowed = |name: &String| self.allowed.contains(name);
            observations.allowed = observations.signatures.extract_if(.., is_allowed).collect();
        }
        // libclamav cuts a zip's member off at MaxFileSize, at a multiple of its buffer, and says so only in its debug log
        // (unzip.c: unz, "trimming output size to maxfilesize").
        let (limits, largest_member) = (&self.limits, observations.members.largest().saturating_add(TRIMMED_AT_MOST));
        for (size, limit, name) in [
            (largest_member, limits.max_file_size_bytes, "MaxFileSize"),
            // A larger page is not scanned at all, neither normalised nor as it is (scanners.c: cli_scanhtml).
            (observations.largest_html, limits.max_html_normalize_bytes, "MaxHTMLNormalize"),
            // Signatures for pages without tags, and for normalised scripts, are not tried on larger ones (cli_scanscript).
            (observations.largest_html, limits.max_html_no_tags_bytes, "MaxHTMLNoTags"),
            (observations.largest_text, limits.max_script_normalize_bytes, "MaxScriptNormalize"),
        ] {
            if size > limit {
                observations.parse_errors.insert(format!("Heuristics.Limits.Exceeded.{name}"));
            }
        }
        (observations, ignored)
    }
}
