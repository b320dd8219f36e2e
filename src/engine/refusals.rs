//! What the operating system refused libclamav during a scan (`refusals.c`). libclamav itself mostly does not tell.

use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::marker::PhantomData;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

unsafe extern "C" {
    fn clamgate_watch_refusals(scratch_dir: *const c_char);
    fn clamgate_hears_refusals() -> c_int;
    fn clamgate_first_refusal(error: *mut c_int, in_vain: *mut c_int) -> *const c_char;
}

/// The watch over one scan, on the thread that scans. It owns the path that the thread compares with.
pub(super) struct Watch {
    _scratch_dir: CString,
    not_send: PhantomData<*const ()>,
}

/// A call that was refused.
#[derive(Debug)]
pub(super) struct Refusal {
    call: &'static str,
    error: io::Error,
    /// A temporary file was not there, in a directory that was: it was removed, or never made.
    in_vain: bool,
}

/// Whether refusals are heard at all in this process. They are not where this crate is linked into a shared library.
pub(super) fn are_heard() -> bool {
    // SAFETY: it only compares addresses.
    unsafe { clamgate_hears_refusals() != 0 }
}

/// Watches this thread until [`Watch::first_refusal`], which also hears what is not found below `scratch_dir`.
pub(super) fn watch(scratch_dir: &Path) -> Watch {
    // libclamav was given the same path as a C string (builder.rs: set_path). An empty one would stand for every directory.
    let scratch_dir = CString::new(scratch_dir.as_os_str().as_bytes()).unwrap_or_default();
    // SAFETY: it sets variables of this thread. The string does not move with its owner, who ends the watch when it is dropped.
    unsafe { clamgate_watch_refusals(scratch_dir.as_ptr()) };
    Watch { _scratch_dir: scratch_dir, not_send: PhantomData }
}

impl Watch {
    /// Ends the watch.
    pub(super) fn first_refusal(self) -> Option<Refusal> {
        first_refusal()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        first_refusal();
    }
}

fn first_refusal() -> Option<Refusal> {
    let (mut error, mut in_vain) = (0, 0);
    // SAFETY: it reads and sets variables of this thread, and returns null or a string literal (refusals.c: note).
    let call = unsafe {
        let call = clamgate_first_refusal(&raw mut error, &raw mut in_vain);
        (!call.is_null()).then(|| CStr::from_ptr(call))
    };
    call.map(|call| Refusal {
        call: call.to_str().unwrap_or("a system call"),
        error: io::Error::from_raw_os_error(error),
        in_vain: in_vain != 0,
    })
}

impl Refusal {
    /// Whether the machine is to blame, rather than what libclamav asked for on behalf of the file.
    pub(super) fn is_trouble(&self) -> bool {
        !self.in_vain
            && !matches!(self.error.raw_os_error(), Some(libc::ENAMETOOLONG | libc::EILSEQ | libc::EINVAL | libc::ELOOP))
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "libclamav's {} failed: {}", self.call, self.error)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;

    use super::*;
    use crate::engine::callbacks::tests::set_hook;
    use crate::engine::{EngineBuilder, Status, judge};

    type Way = fn(&Path) -> bool;

    /// How libclamav opens its own files again.
    const WAYS: [(&str, Way); 3] = [("open", open), ("fopen", fopen), ("opendir", opendir)];

    fn open(path: &Path) -> bool {
        File::open(path).is_ok()
    }

    fn fopen(path: &Path) -> bool {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: two C strings that live through the call. A file that is opened all the same stays open: the test fails.
        !unsafe { libc::fopen64(path.as_ptr(), c"rb".as_ptr()) }.is_null()
    }

    fn opendir(path: &Path) -> bool {
        fs::read_dir(path).is_ok()
    }

    #[test]
    fn what_has_gone_is_heard_and_what_may_be_missing_is_not() {
        let scratch = tempfile::tempdir().unwrap();
        fs::create_dir(scratch.path().join("page")).unwrap();
        let stream = "0123456789abcdef0123456789abcdef";
        let (unheard, not_scanned, trouble) = (None, Some(false), Some(true));
        for (path, expected) in [
            ("page/nocomment.html".to_owned(), not_scanned),
            ("page/notags.html".to_owned(), not_scanned),
            ("page/javascript".to_owned(), unheard),
            ("page/rfc2397".to_owned(), unheard),
            (format!("page/{stream}_1"), unheard),
            (format!("page/{stream}_4294967295"), unheard),
            (format!("page/{stream}_"), not_scanned),
            (format!("page/{stream}_1.tmp"), not_scanned),
            (format!("page/{}_1", &stream[1..]), not_scanned),
            (format!("page/0{stream}_1"), not_scanned),
            (format!("page/{stream}"), not_scanned),
            ("gone/javascript".to_owned(), trouble),
            (format!("gone/{stream}_1"), trouble),
            ("gone/file".to_owned(), trouble),
        ] {
            for (call, way) in WAYS {
                let watch = watch(scratch.path());
                assert!(!way(&scratch.path().join(&path)));
                let refusal = watch.first_refusal();
                // libclamav made every directory that it opens.
                let expected = if call == "opendir" { expected.and(trouble) } else { expected };
                assert_eq!(refusal.as_ref().map(Refusal::is_trouble), expected, "{call} {path}");
                assert!(refusal.is_none_or(|refusal| refusal.call == call && refusal.error.kind() == io::ErrorKind::NotFound));
            }
        }
        for elsewhere in [scratch.path().with_extension("not"), "/does/not/exist".into(), "gone".into()] {
            let watch = watch(scratch.path());
            assert!(WAYS.iter().all(|(_, way)| !way(&elsewhere)));
            assert!(watch.first_refusal().is_none(), "{}", elsewhere.display());
        }
    }

    #[test]
    fn trouble_outweighs_what_was_in_vain_and_the_next_scan_begins_anew() {
        let scratch = tempfile::tempdir().unwrap();
        let first = watch(scratch.path());
        assert!(!open(&scratch.path().join("file")) && !open(&scratch.path().join("gone/file")));
        assert!(first.first_refusal().unwrap().is_trouble());
        assert!(watch(scratch.path()).first_refusal().is_none());
    }

    /// A document with an embedded file and a stream for macros.
    fn document() -> Vec<u8> {
        let version = cfb::Version::V3;
        let mut compound = cfb::CompoundFile::create_with_version(version, io::Cursor::new(Vec::new())).unwrap();
        let names = b"\x02\0a\0C:\\a\0\0\0\x03\0\x05\0\0\0C:\\a\0";
        let length = u32::try_from(names.len()).unwrap() + 4 + 8;
        let embedded = [&length.to_le_bytes()[..], names, &8_u32.to_le_bytes(), b"harmless"].concat();
        compound.create_stream("\u{1}Ole10Native").unwrap().write_all(&embedded).unwrap();
        compound.create_stream("WordDocument").unwrap().write_all(b"no macros").unwrap();
        compound.into_inner().into_inner()
    }

    /// While libclamav scans the first file out of it, everything that was unpacked goes: what is left to do was skipped.
    #[test]
    fn what_was_unpacked_and_went_in_the_middle_was_clean() {
        let database = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/signatures");
        let scratch = tempfile::tempdir().unwrap();
        let engine = EngineBuilder::new().scratch_dir(scratch.path()).load(&database).unwrap();
        let image = "<img src=\"data:text/plain;base64,aGFybWxlc3M=\">";
        let page = format!("<html><body>{image}{image}</body></html>").into_bytes();
        for (bytes, unpacked, call) in [(page, "html-tmp", "opendir"), (document(), "ole2-tmp", "open")] {
            assert_eq!(judge(&engine.scan_bytes(&bytes)).status, Status::Clean);

            let path = scratch.path().to_owned();
            set_hook(move |callback| {
                let scans = fs::read_dir(&path).unwrap().filter(|_| callback == "file_inspection");
                let dirs = scans.flat_map(|scan| fs::read_dir(scan.unwrap().path()).unwrap()).map(|dir| dir.unwrap().path());
                for dir in dirs.filter(|dir| dir.to_str().unwrap().contains(unpacked)) {
                    fs::remove_dir_all(dir).unwrap();
                }
            });
            let seen = engine.scan_bytes(&bytes);
            set_hook(|_| ());
            let expected = format!("libclamav's {call} failed: No such file or directory (os error 2)");
            assert_eq!(seen.refusal.as_ref(), Some(&expected), "{seen:?}");
            assert_eq!(judge(&seen).status, Status::Unscannable);
        }
    }
}
