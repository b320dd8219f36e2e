//! The switch of `pcre_jit.c`, which lets libclamav's regular expressions run as machine code.
//!
//! The reference to it also makes the linker take that file into every executable that uses this crate.

unsafe extern "C" {
    fn clamgate_pcre_jit(enable: std::ffi::c_int);
    fn clamgate_pcre_gave_up() -> std::ffi::c_int;
}

/// Whether the engines that are loaded from now on, in this process, get the JIT.
pub(super) fn enable(enable: bool) {
    // SAFETY: it stores an atomic integer (pcre_jit.c).
    unsafe { clamgate_pcre_jit(enable.into()) }
}

/// Whether a regular expression was given up at a limit on this thread since the last call.
pub(super) fn gave_up() -> bool {
    // SAFETY: it reads and clears a variable of this thread (pcre_jit.c).
    unsafe { clamgate_pcre_gave_up() != 0 }
}
