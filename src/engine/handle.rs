//! Owners of libclamav's raw pointers, and its one-time initialisation.

use std::ffi::CStr;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::OnceLock;

use clamav_sys::{cl_engine, cl_error_t, cl_fmap_t};

use super::{callbacks, refusals};

/// Initialises libclamav once for the process: `cl_init` is not thread-safe and the message callback is process-wide.
///
/// # Errors
///
/// libclamav's own text, when `cl_init` failed. It fails again for every later caller.
pub(super) fn initialise() -> Result<(), String> {
    static INITIALISED: OnceLock<Result<(), String>> = OnceLock::new();
    INITIALISED
        .get_or_init(|| {
            // SAFETY: OnceLock runs this once and lets no other thread past it before it returns; the callback is a plain
            // function that never unwinds.
            let code = unsafe {
                clamav_sys::cl_set_clcb_msg(Some(callbacks::message));
                clamav_sys::cl_init(clamav_sys::CL_INIT_DEFAULT)
            };
            check(code)?;
            if !refusals::are_heard() {
                return Err("libclamav's system calls do not pass through this program (docs/adr/0010)".to_owned());
            }
            Ok(())
        })
        .clone()
}

/// `Ok` for `CL_SUCCESS`, libclamav's text for everything else.
pub(super) fn check(code: cl_error_t) -> Result<(), String> {
    if code == clamav_sys::CL_SUCCESS { Ok(()) } else { Err(error_text(code)) }
}

/// libclamav's text for a return code.
pub(super) fn error_text(code: cl_error_t) -> String {
    // SAFETY: cl_strerror takes any value and returns a static string (others.c: cl_strerror).
    let text = unsafe { clamav_sys::cl_strerror(code) };
    // SAFETY: see above; static and NUL-terminated, or null for no text.
    unsafe { callbacks::text(text) }.unwrap_or_else(|| format!("libclamav error {}", code.0))
}

/// libclamav's version, as it says at run time.
pub(super) fn version() -> String {
    // SAFETY: cl_retver returns a static NUL-terminated string (others.c: cl_retver).
    unsafe { CStr::from_ptr(clamav_sys::cl_retver()) }.to_string_lossy().into_owned()
}

/// The C name of a `cl_error_t`; `CL_E?` for one that this crate does not know.
pub(super) fn code_name(code: u32) -> &'static str {
    macro_rules! names {
        ($($name:ident)*) => { [$((clamav_sys::$name, stringify!($name))),*] };
    }
    let names = names!(
        CL_SUCCESS CL_VIRUS CL_ENULLARG CL_EARG CL_EMALFDB CL_ECVD CL_EVERIFY CL_EUNPACK CL_EPARSE CL_EOPEN CL_ECREAT CL_EUNLINK
        CL_ESTAT CL_EREAD CL_ESEEK CL_EWRITE CL_EDUP CL_EACCES CL_ETMPFILE CL_ETMPDIR CL_EMAP CL_EMEM CL_ETIMEOUT CL_EMAXREC
        CL_EMAXSIZE CL_EMAXFILES CL_EFORMAT CL_EBYTECODE CL_EBYTECODE_TESTFAIL CL_ELOCK CL_EBUSY CL_ESTATE CL_VERIFIED CL_ERROR
    );
    names.iter().find(|(known, _)| known.0 == code).map_or("CL_E?", |(_, name)| name)
}

/// Whether this libclamav can unpack RAR: its unrar module is loaded at run time, and Debian does not ship it.
pub(super) fn unrar_is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        // SAFETY: dlsym with a NUL-terminated name; `have_rar` is an int that `cl_init` sets and nobody changes later
        // (others.c: cl_init, rarload). It is not part of the public interface: where it is missing, RAR counts as unreadable.
        unsafe {
            let have_rar = libc::dlsym(libc::RTLD_DEFAULT, c"have_rar".as_ptr()).cast::<libc::c_int>();
            have_rar.as_ref().is_some_and(|&have| have != 0)
        }
    })
}

/// Owns one reference to a `cl_engine`; the last `cl_engine_free` takes 0.4 s for a production database.
#[derive(Debug)]
pub(super) struct EngineHandle(NonNull<cl_engine>);

// SAFETY: a cl_engine may be used and freed by any thread: its reference count is guarded by libclamav's cli_ref_mutex
// (others.c: cl_engine_free), and nothing in it belongs to the thread that made it.
unsafe impl Send for EngineHandle {}
// SAFETY: `Engine` offers scans alone, and libclamav only reads a compiled engine while it scans (clamd shares one among its
// threads). Setting, loading and compiling happen in `EngineBuilder::load`, before the handle is shared.
unsafe impl Sync for EngineHandle {}

impl EngineHandle {
    /// A new engine without signatures; `None` when memory is short.
    pub(super) fn new() -> Option<Self> {
        // SAFETY: called after `initialise`; the returned pointer is null or owned by the caller.
        NonNull::new(unsafe { clamav_sys::cl_engine_new() }).map(Self)
    }

    pub(super) fn as_ptr(&self) -> *mut cl_engine {
        self.0.as_ptr()
    }
}

impl Drop for EngineHandle {
    fn drop(&mut self) {
        // SAFETY: the pointer came from cl_engine_new and this is its only owner.
        unsafe { clamav_sys::cl_engine_free(self.0.as_ptr()) };
    }
}

/// A libclamav file map over borrowed bytes.
#[derive(Debug)]
pub(super) struct FmapHandle<'bytes> {
    map: NonNull<cl_fmap_t>,
    bytes: PhantomData<&'bytes [u8]>,
}

impl<'bytes> FmapHandle<'bytes> {
    /// Maps the bytes without copying them; `None` when they are empty or memory is short.
    pub(super) fn over(bytes: &'bytes [u8]) -> Option<Self> {
        if bytes.is_empty() {
            return None;
        }
        // SAFETY: the pointer and length are those of a live slice, which the returned value borrows; libclamav only reads it.
        let map = unsafe { clamav_sys::cl_fmap_open_memory(bytes.as_ptr().cast(), bytes.len() as _) };
        NonNull::new(map).map(|map| Self { map, bytes: PhantomData })
    }

    pub(super) fn as_ptr(&self) -> *mut cl_fmap_t {
        self.map.as_ptr()
    }
}

impl Drop for FmapHandle<'_> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from cl_fmap_open_memory and this is its only owner; no scan is using it any more.
        unsafe { clamav_sys::cl_fmap_close(self.map.as_ptr()) };
    }
}
