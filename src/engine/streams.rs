//! The streams that a thread opens while it loads a database go without locks (`streams.c`).

use std::ffi::c_int;
use std::marker::PhantomData;

unsafe extern "C" {
    fn clamgate_streams_without_locks(without: c_int);
}

/// As long as it lives, on its thread.
pub(super) struct WithoutLocks(PhantomData<*const ()>);

/// From now on, until the answer is dropped, what this thread opens to read has no locks. It must hand none of it to another
/// thread.
pub(super) fn without_locks() -> WithoutLocks {
    // SAFETY: it sets a variable of this thread.
    unsafe { clamgate_streams_without_locks(1) };
    WithoutLocks(PhantomData)
}

impl Drop for WithoutLocks {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { clamgate_streams_without_locks(0) };
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::ffi::{CString, c_char, c_int};
    use std::os::unix::ffi::OsStrExt;

    use super::without_locks;

    unsafe extern "C" {
        fn fopen64(path: *const c_char, mode: *const c_char) -> *mut libc::FILE;
        fn __fsetlocking(file: *mut libc::FILE, kind: c_int) -> c_int;
    }

    /// `FSETLOCKING_QUERY` and its answers (`stdio_ext.h`).
    const QUERY: c_int = 0;
    const INTERNAL: c_int = 1;
    const BY_CALLER: c_int = 2;

    #[test]
    fn only_what_a_loading_thread_reads_has_no_locks() -> Result<(), Box<dyn Error>> {
        let dir = tempfile::tempdir()?;
        let path = CString::new(dir.path().join("file").as_os_str().as_bytes())?;
        let locking = |mode: &str| -> Result<c_int, Box<dyn Error>> {
            let mode = CString::new(mode)?;
            // SAFETY: both strings are NUL-terminated; the stream is closed once, and not used afterwards.
            unsafe {
                let file = fopen64(path.as_ptr(), mode.as_ptr());
                assert!(!file.is_null());
                let kind = __fsetlocking(file, QUERY);
                libc::fclose(file);
                Ok(kind)
            }
        };
        assert_eq!((locking("w")?, locking("r")?), (INTERNAL, INTERNAL));
        let loading = without_locks();
        assert_eq!((locking("rb")?, locking("r+")?, locking("w")?), (BY_CALLER, INTERNAL, INTERNAL));
        std::thread::scope(|scope| {
            let other = scope.spawn(|| locking("r").map_err(|error| error.to_string()));
            assert_eq!(other.join().map_err(|_| "panicked")?, Ok(INTERNAL));
            Ok::<_, &str>(())
        })?;
        drop(loading);
        assert_eq!(locking("r")?, INTERNAL);
        Ok(())
    }
}
