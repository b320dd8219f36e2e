//! The switch of `pcre_jit.c`, which lets libclamav's regular expressions run as machine code.
//!
//! The reference to it also makes the linker take that file into every executable that uses this crate.

unsafe extern "C" {
    fn clamgate_pcre_jit(enable: std::ffi::c_int);
}

/// Whether the engines that are loaded from now on, in this process, get the JIT.
pub(super) fn enable(enable: bool) {
    // SAFETY: it stores an atomic integer (pcre_jit.c).
    unsafe { clamgate_pcre_jit(enable.into()) }
}
