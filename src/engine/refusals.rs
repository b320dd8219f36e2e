//! What the operating system refused libclamav during a scan (`refusals.c`). libclamav itself mostly does not tell.

use std::ffi::{CStr, c_char, c_int};
use std::io;

unsafe extern "C" {
    fn clamgate_watch_refusals();
    fn clamgate_hears_refusals() -> c_int;
    fn clamgate_first_refusal(error: *mut c_int) -> *const c_char;
}

/// The watch over one scan, on the thread that scans.
pub(super) struct Watch(());

/// A call that was refused.
#[derive(Debug)]
pub(super) struct Refusal {
    call: &'static str,
    error: io::Error,
}

/// Whether refusals are heard at all in this process. They are not where this crate is linked into a shared library.
pub(super) fn are_heard() -> bool {
    // SAFETY: it only compares addresses.
    unsafe { clamgate_hears_refusals() != 0 }
}

/// Watches this thread until [`Watch::first_refusal`].
pub(super) fn watch() -> Watch {
    // SAFETY: it sets variables of this thread.
    unsafe { clamgate_watch_refusals() };
    Watch(())
}

impl Watch {
    /// Ends the watch.
    pub(super) fn first_refusal(self) -> Option<Refusal> {
        let mut error = 0;
        // SAFETY: it reads variables of this thread, and returns null or a string literal (refusals.c: note).
        let call = unsafe {
            let call = clamgate_first_refusal(&raw mut error);
            (!call.is_null()).then(|| CStr::from_ptr(call))
        };
        call.map(|call| Refusal { call: call.to_str().unwrap_or("a system call"), error: io::Error::from_raw_os_error(error) })
    }
}

impl Refusal {
    /// Whether the machine is to blame, rather than what libclamav asked for on behalf of the file.
    pub(super) fn is_trouble(&self) -> bool {
        !matches!(self.error.raw_os_error(), Some(libc::ENAMETOOLONG | libc::EILSEQ | libc::EINVAL | libc::ELOOP))
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "libclamav's {} failed: {}", self.call, self.error)
    }
}
