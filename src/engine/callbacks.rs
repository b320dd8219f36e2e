//! The functions that libclamav calls back, and where they put what they hear.
//!
//! None of them unwinds into C: a panic is caught and recorded, and a recorded panic can never become `CLEAN`.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char, c_int, c_uint, c_ulong, c_void};
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::ptr;
use std::time::Instant;

use clamav_sys::{cl_error_t, cl_msg};

use super::formats::{self, Layer};
use super::meanings::{Means, Source, meaning};
use super::observations::{Message, Observations, Severity};
use super::private_file::{FrozenFile, PrivateFile};
use super::progress::{Progress, Stage};

/// What one scan's callbacks write to. libclamav gets its address and hands it back on the thread that scans.
pub(super) struct ScanContext {
    observations: RefCell<Observations>,
    panicked: Cell<bool>,
    /// When the scan is over its time. libclamav looks at the clock itself; our own look at a layer must end as well.
    deadline: Instant,
    /// Where copies of ignored layers go.
    scratch_dir: PathBuf,
    /// Layers of a type that libclamav does not search, to be scanned again.
    ignored: RefCell<Vec<FrozenFile>>,
    /// The layers whose scan has begun and not ended, the innermost last.
    open: RefCell<Vec<Layer>>,
}

impl ScanContext {
    pub(super) fn new(deadline: Instant, scratch_dir: &Path) -> Self {
        Self {
            observations: RefCell::default(),
            panicked: Cell::default(),
            deadline,
            scratch_dir: scratch_dir.to_owned(),
            ignored: RefCell::default(),
            open: RefCell::default(),
        }
    }

    /// Copies a layer, behind a byte that makes it data of no known type.
    fn set_aside(&self, bytes: &[u8]) -> io::Result<()> {
        let mut file = PrivateFile::create_in(&self.scratch_dir)?;
        file.write_all(b"\n")?;
        file.write_all(bytes)?;
        self.ignored.borrow_mut().push(file.freeze()?);
        Ok(())
    }

    pub(super) fn as_ptr(&self) -> *mut c_void {
        std::ptr::from_ref(self).cast_mut().cast()
    }

    /// What was observed, and the layers that must be scanned again.
    pub(super) fn into_observations(
        self,
        code: u32,
        name: Option<String>,
        messages: Captured,
    ) -> (Observations, Vec<FrozenFile>) {
        let mut observations = self.observations.into_inner();
        observations.return_code = code;
        observations.signatures.extend(name);
        observations.messages = messages.messages;
        if self.panicked.get() || messages.panicked {
            observations.fail("a callback panicked");
        }
        (observations, self.ignored.into_inner())
    }
}

/// Registers the per-scan callbacks on an engine that is not shared yet.
pub(super) fn register(engine: *mut clamav_sys::cl_engine) {
    // SAFETY: the caller owns `engine` and has not shared it; the functions are 'static and never unwind.
    unsafe {
        clamav_sys::cl_engine_set_clcb_virus_found(engine, Some(virus_found));
        clamav_sys::cl_engine_set_clcb_meta(engine, Some(meta));
        clamav_sys::cl_engine_set_clcb_file_inspection(engine, Some(file_inspection));
        clamav_sys::cl_engine_set_clcb_post_scan(engine, Some(post_scan));
        clamav_sys::cl_engine_set_clcb_file_props(engine, Some(file_props));
    }
}

/// Registers where a load and a compilation say how far they are, or takes it away again.
///
/// # Safety
///
/// The caller owns `engine` and has not shared it. `progress` lives until it is taken away or the engine is freed.
pub(super) unsafe fn register_progress(engine: *mut clamav_sys::cl_engine, progress: Option<&Progress>) {
    let context = progress.map_or(ptr::null_mut(), |progress| ptr::from_ref(progress).cast_mut().cast());
    // SAFETY: the caller's promise; the functions are 'static, never unwind, and take null for nobody.
    unsafe {
        clamav_sys::cl_engine_set_clcb_sigload_progress(engine, progress.and(Some(signatures_read)), context);
        clamav_sys::cl_engine_set_clcb_engine_compile_progress(engine, progress.and(Some(steps_compiled)), context);
    }
}

/// Called for each ten thousandth signature and at the end of each file (readdb.c).
extern "C" fn signatures_read(total: usize, done: usize, context: *mut c_void) -> cl_error_t {
    // SAFETY: the context is what `register_progress` was given.
    unsafe { reached(context, "signatures_read", Stage::Signatures { done, total }) }
}

/// Called some fifty times (readdb.c: cl_engine_compile).
extern "C" fn steps_compiled(total: usize, done: usize, context: *mut c_void) -> cl_error_t {
    // SAFETY: as above.
    unsafe { reached(context, "steps_compiled", Stage::Compiling { done, total }) }
}

/// A panic changes nothing: how far a load is says nothing about how it ends.
///
/// # Safety
///
/// `context` is null or points to a [`Progress`] that is alive.
unsafe fn reached(context: *mut c_void, callback: &'static str, stage: Stage) -> cl_error_t {
    let _ = catch_unwind(|| {
        run_hook(callback);
        // SAFETY: the caller's promise.
        if let Some(progress) = unsafe { context.cast::<Progress>().as_ref() } {
            progress.reach(stage);
        }
    });
    clamav_sys::CL_SUCCESS
}

#[cfg(test)]
use tests::run_hook;

/// What a test wants to happen in a callback.
#[cfg(not(test))]
fn run_hook(_callback: &'static str) {}

/// Copies a C string, replacing what is not UTF-8; `None` for null.
///
/// # Safety
///
/// `pointer` is null or points to a NUL-terminated string that stays valid during the call.
pub(super) unsafe fn text(pointer: *const c_char) -> Option<String> {
    // SAFETY: the caller's promise.
    (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned())
}

/// Runs a callback's body on the observations behind `context`, catching a panic.
///
/// # Safety
///
/// `context` is null or the pointer that [`ScanContext::as_ptr`] gave for a context that is still alive.
unsafe fn record(context: *mut c_void, callback: &'static str, body: impl FnOnce(&mut Observations)) {
    // SAFETY: the caller's promise; only shared references are made, interior mutability does the rest, on one thread.
    let Some(context) = (unsafe { context.cast::<ScanContext>().as_ref() }) else { return };
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        run_hook(callback);
        body(&mut context.observations.borrow_mut());
    }));
    if outcome.is_err() {
        context.panicked.set(true);
    }
}

extern "C" fn virus_found(_fd: c_int, name: *const c_char, context: *mut c_void) {
    // SAFETY: libclamav passes the context of the running scan and a NUL-terminated name (others.c: cli_virus_found_cb).
    unsafe {
        record(context, "virus_found", |seen| {
            seen.signatures.insert(text(name).unwrap_or_else(|| "unnamed".to_owned()));
        });
    }
}

extern "C" fn meta(
    container: *const c_char,
    _container_size: c_ulong,
    name: *const c_char,
    size: c_ulong,
    is_encrypted: c_int,
    position: c_uint,
    context: *mut c_void,
) -> cl_error_t {
    // SAFETY: as in `virus_found`; container and name may be null (matcher.c: cli_matchmeta).
    unsafe {
        record(context, "meta", |seen| {
            let name = text(name).unwrap_or_default();
            let container = text(container).unwrap_or_default();
            if seen.members.is_trial(&container) {
                // `formats::zip` has looked at these.
            } else if is_encrypted != 0 {
                seen.add_encrypted(&name);
            } else {
                seen.members.announce(&container, &name, size, position);
            }
        });
    }
    // CL_CLEAN lets the scan go on. CL_BREAK would end it and CL_VIRUS would raise an alert.
    clamav_sys::CL_CLEAN
}

extern "C" fn file_inspection(
    _fd: c_int,
    kind: *const c_char,
    _ancestors: *mut *const c_char,
    _parent_size: usize,
    _name: *const c_char,
    size: usize,
    bytes: *const c_char,
    _level: u32,
    _attributes: u32,
    context: *mut c_void,
) -> cl_error_t {
    // SAFETY: as in `virus_found`; `bytes` is null or the layer's content, `size` bytes that stay as they are during the call
    // (scanners.c: dispatch_file_inspection_callback).
    unsafe {
        let Some(scan) = context.cast::<ScanContext>().as_ref() else { return clamav_sys::CL_CLEAN };
        record(context, "file_inspection", |seen| {
            if bytes.is_null() {
                return seen.fail("libclamav could not hand over a layer's content");
            }
            if Instant::now() > scan.deadline {
                seen.timed_out = true;
                return;
            }
            let bytes = std::slice::from_raw_parts(bytes.cast(), size);
            let kind = text(kind).unwrap_or_default();
            let findings = formats::inspect(&kind, bytes, scan.open.borrow().last(), scan.deadline);
            scan.open.borrow_mut().push(Layer::new(&kind, bytes));
            seen.add_findings(&kind, size as u64, findings);
            // Music and databases by their first bytes (filetypes_int.h): no signature is tried on them (scanners.c: cli_magic_scan).
            if kind == "CL_TYPE_IGNORED"
                && let Err(error) = scan.set_aside(bytes)
            {
                seen.refusal = Some(format!("cannot set a layer aside: {error}"));
            }
        });
    }
    // Anything else would end the scan of this layer.
    clamav_sys::CL_CLEAN
}

extern "C" fn post_scan(_fd: c_int, _result: c_int, _name: *const c_char, context: *mut c_void) -> cl_error_t {
    // SAFETY: as in `virus_found`.
    unsafe {
        let Some(scan) = context.cast::<ScanContext>().as_ref() else { return clamav_sys::CL_CLEAN };
        record(context, "post_scan", |seen| {
            seen.members.close();
            scan.open.borrow_mut().pop();
        });
    }
    clamav_sys::CL_CLEAN
}

extern "C" fn file_props(json: *const c_char, _code: c_int, context: *mut c_void) -> c_int {
    // SAFETY: as in `virus_found`; the JSON text is valid during the call (scanners.c: scan_common).
    unsafe { record(context, "file_props", |seen| seen.add_metadata(&text(json).unwrap_or_default())) };
    0
}

/// The messages of one scan, and whether recording one of them panicked.
#[derive(Default)]
pub(super) struct Captured {
    messages: Vec<Message>,
    panicked: bool,
}

thread_local! {
    /// The capture of the scan that runs on this thread. libclamav's message callback has no usable context pointer
    /// while a scan is set up, so the thread is the only key.
    static CAPTURE: RefCell<Option<Captured>> = const { RefCell::new(None) };
}

/// How many messages of one scan are kept. One of them already decides the verdict; hostile files can cause any number.
const MOST_MESSAGES: usize = 64;

/// Ends the capture when dropped, so that a panic cannot leave it open.
pub(super) struct Capture(());

/// Collects libclamav's messages on this thread until [`Capture::finish`].
pub(super) fn capture_messages() -> Capture {
    CAPTURE.with(|capture| *capture.borrow_mut() = Some(Captured::default()));
    Capture(())
}

impl Capture {
    pub(super) fn finish(self) -> Captured {
        CAPTURE.with(|capture| capture.borrow_mut().take()).unwrap_or_default()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        CAPTURE.with(|capture| capture.borrow_mut().take());
    }
}

/// libclamav's process-wide message callback: into the running scan's capture, or else into the log.
pub(super) extern "C" fn message(severity: cl_msg, _full: *const c_char, message: *const c_char, _context: *mut c_void) {
    let outcome = catch_unwind(|| {
        run_hook("message");
        // SAFETY: libclamav passes a NUL-terminated text that is valid during the call (others.c: MSGCODE).
        let text = unsafe { text(message) }.unwrap_or_default().trim_end().to_owned();
        // Not a match: an unknown severity must count as an error.
        let severity = if severity == clamav_sys::CL_MSG_INFO_VERBOSE {
            Severity::Info
        } else if severity == clamav_sys::CL_MSG_WARN {
            Severity::Warning
        } else {
            Severity::Error
        };
        let means = meaning(Source::Message, &text).map(|row| row.means);
        CAPTURE.with(|capture| match capture.borrow_mut().as_mut() {
            Some(_) if means == Some(Means::Harmless) => {}
            Some(captured) if captured.messages.len() < MOST_MESSAGES => captured.messages.push(Message { severity, text }),
            Some(captured) => {
                // Full: whether to scan again still has to be known.
                if let (Some(Means::Trouble), Some(last)) = (means, captured.messages.last_mut()) {
                    *last = Message { severity, text };
                }
            }
            None => log(severity, &text),
        });
    });
    if outcome.is_err() {
        let _ = catch_unwind(|| {
            CAPTURE.with(|capture| {
                if let Some(captured) = capture.borrow_mut().as_mut() {
                    captured.panicked = true;
                }
            });
        });
    }
}

/// A message outside a scan, from loading or compiling.
fn log(severity: Severity, text: &str) {
    match severity {
        Severity::Info => tracing::debug!(target: "libclamav", "{text}"),
        Severity::Warning => tracing::warn!(target: "libclamav", "{text}"),
        Severity::Error => tracing::error!(target: "libclamav", "{text}"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::RefCell;
    use std::io::{Cursor, Write};
    use std::path::Path;
    use std::rc::Rc;

    use zip::result::ZipResult;

    use crate::engine::{EICAR, EngineBuilder, Reason, Status, judge};

    thread_local! {
        static HOOK: RefCell<Box<dyn Fn(&'static str)>> = RefCell::new(Box::new(|_| ()));
    }

    /// From now on, each callback on this thread begins with `hook`, which gets its name.
    pub(in super::super) fn set_hook(hook: impl Fn(&'static str) + 'static) {
        HOOK.set(Box::new(hook));
    }

    pub(super) fn run_hook(callback: &'static str) {
        HOOK.with_borrow(|hook| hook(callback));
    }

    fn zip(content: &[u8]) -> ZipResult<Vec<u8>> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        writer.start_file("member", zip::write::SimpleFileOptions::default())?;
        writer.write_all(content)?;
        Ok(writer.finish()?.into_inner())
    }

    #[test]
    fn a_load_says_how_far_it_is_and_survives_a_panic_about_it() -> Result<(), Box<dyn std::error::Error>> {
        let database = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/signatures");
        let builder = EngineBuilder::new();
        let (progress, stages) = (builder.progress(), Rc::new(RefCell::new(Vec::new())));
        let seen = Rc::clone(&stages);
        // What the one before has left.
        set_hook(move |callback| seen.borrow_mut().push((callback, progress.stage().map(|stage| stage.to_string()))));
        builder.load(&database)?;
        set_hook(|_| ());
        let stages = stages.take();
        let has = |callback, text: &str| {
            stages.iter().any(|(by, stage)| *by == callback && stage.as_ref().is_some_and(|stage| stage.contains(text)))
        };
        assert!(has("signatures_read", "looking at the files") && has("signatures_read", "signatures"), "{stages:?}");
        assert!(has("steps_compiled", "signatures") && has("steps_compiled", "compiling, "), "{stages:?}");
        assert!(has("virus_found", "looking for the canary"), "{stages:?}");
        assert_eq!(builder.progress().stage(), None);

        for callback in ["signatures_read", "steps_compiled"] {
            set_hook(move |running| assert!(running != callback, "injected"));
            let loaded = builder.load(&database);
            set_hook(|_| ());
            loaded?;
        }
        Ok(())
    }

    #[test]
    fn a_panic_in_a_callback_is_never_clean() -> Result<(), Box<dyn std::error::Error>> {
        let database = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/signatures");
        let engine = EngineBuilder::new().load(&database)?;
        let clean = zip(b"harmless")?;
        // A stream header of xz and nothing that could follow it: libclamav has something to say.
        let noisy = b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4\x46 no block".to_vec();
        let infected = zip(EICAR.concat().as_bytes())?;
        for (callback, bytes, expected) in [
            ("", &clean, (Status::Clean, None)),
            ("meta", &clean, (Status::Unscannable, Some(Reason::EngineError))),
            ("file_inspection", &clean, (Status::Unscannable, Some(Reason::EngineError))),
            ("post_scan", &clean, (Status::Unscannable, Some(Reason::EngineError))),
            ("file_props", &clean, (Status::Unscannable, Some(Reason::EngineError))),
            ("message", &noisy, (Status::Unscannable, Some(Reason::Unsupported))),
            // What was found is found, even if its name is lost.
            ("virus_found", &infected, (Status::Infected, Some(Reason::EngineError))),
            ("file_props", &infected, (Status::Infected, Some(Reason::EngineError))),
        ] {
            set_hook(move |running| assert!(running != callback, "injected"));
            let seen = engine.scan_bytes(bytes);
            set_hook(|_| ());
            let verdict = judge(&seen);
            assert_eq!((verdict.status, verdict.reason), expected, "{callback}: {verdict:?}");
            assert_eq!(seen.failures.contains(&"a callback panicked".to_owned()), !callback.is_empty(), "{callback}: {seen:?}");
        }
        Ok(())
    }
}
