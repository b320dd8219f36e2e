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

    type Way = fn(&Path) -> io::Result<()>;

    /// How libclamav opens its own files again.
    const WAYS: [(&str, Way); 3] = [("open", open), ("fopen", fopen), ("opendir", opendir)];

    fn open(path: &Path) -> io::Result<()> {
        File::open(path).map(drop)
    }

    fn fopen(path: &Path) -> io::Result<()> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: two C strings that live through the call. A file that is opened all the same stays open: the test fails.
        let file = unsafe { libc::fopen64(path.as_ptr(), c"rb".as_ptr()) };
        if file.is_null() { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn opendir(path: &Path) -> io::Result<()> {
        fs::read_dir(path).map(drop)
    }

    fn finds_nothing(way: Way, path: &Path) -> bool {
        way(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    #[test]
    fn what_has_gone_is_heard_and_what_may_be_missing_is_not() -> io::Result<()> {
        let scratch = tempfile::tempdir()?;
        fs::create_dir(scratch.path().join("page"))?;
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
                assert!(finds_nothing(way, &scratch.path().join(&path)), "{call} {path}");
                let refusal = watch.first_refusal();
                // libclamav made every directory that it opens.
                let expected = if call == "opendir" { expected.and(trouble) } else { expected };
                assert_eq!(refusal.as_ref().map(Refusal::is_trouble), expected, "{call} {path}");
                assert!(refusal.is_none_or(|refusal| refusal.call == call && refusal.error.kind() == io::ErrorKind::NotFound));
            }
        }
        for elsewhere in [scratch.path().with_extension("not"), "/does/not/exist".into(), "gone".into()] {
            let watch = watch(scratch.path());
            assert!(WAYS.iter().all(|&(_, way)| finds_nothing(way, &elsewhere)));
            assert!(watch.first_refusal().is_none(), "{}", elsewhere.display());
        }
        Ok(())
    }

    #[test]
    fn trouble_outweighs_what_was_in_vain_and_the_next_scan_begins_anew() -> io::Result<()> {
        let scratch = tempfile::tempdir()?;
        let first = watch(scratch.path());
        assert!(["file", "gone/file"].iter().all(|path| finds_nothing(open, &scratch.path().join(path))));
        assert!(first.first_refusal().is_some_and(|refusal| refusal.is_trouble()));
        assert!(watch(scratch.path()).first_refusal().is_none());
        Ok(())
    }

    /// A document with an embedded file and a stream for macros.
    fn document() -> io::Result<Vec<u8>> {
        let version = cfb::Version::V3;
        let mut compound = cfb::CompoundFile::create_with_version(version, io::Cursor::new(Vec::new()))?;
        let names = b"\x02\0a\0C:\\a\0\0\0\x03\0\x05\0\0\0C:\\a\0";
        let length = names.len() as u32 + 4 + 8;
        let embedded = [&length.to_le_bytes()[..], names, &8_u32.to_le_bytes(), b"harmless"].concat();
        compound.create_stream("\u{1}Ole10Native")?.write_all(&embedded)?;
        compound.create_stream("WordDocument")?.write_all(b"no macros")?;
        Ok(compound.into_inner().into_inner())
    }

    /// Removes the directories of all scans in `scratch` into which something of this kind was unpacked.
    fn remove_unpacked(scratch: &Path, kind: &str) -> io::Result<()> {
        for scan in fs::read_dir(scratch)? {
            for dir in fs::read_dir(scan?.path())? {
                let dir = dir?;
                if dir.file_name().to_string_lossy().contains(kind) {
                    fs::remove_dir_all(dir.path())?;
                }
            }
        }
        Ok(())
    }

    /// While libclamav scans the first file out of it, everything that was unpacked goes: what is left to do was skipped.
    #[test]
    fn what_was_unpacked_and_went_in_the_middle_was_clean() -> Result<(), Box<dyn std::error::Error>> {
        let database = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/signatures");
        let scratch = tempfile::tempdir()?;
        let engine = EngineBuilder::new().scratch_dir(scratch.path()).load(&database)?;
        let image = "<img src=\"data:text/plain;base64,aGFybWxlc3M=\">";
        let page = format!("<html><body>{image}{image}</body></html>").into_bytes();
        for (bytes, unpacked, call) in [(page, "html-tmp", "opendir"), (document()?, "ole2-tmp", "open")] {
            assert_eq!(judge(&engine.scan_bytes(&bytes)).status, Status::Clean);

            let path = scratch.path().to_owned();
            set_hook(move |callback| {
                if callback == "file_inspection" {
                    remove_unpacked(&path, unpacked).unwrap_or_else(|error| panic!("cannot remove libclamav's files: {error}"));
                }
            });
            let seen = engine.scan_bytes(&bytes);
            set_hook(|_| ());
            let expected = format!("libclamav's {call} failed: No such file or directory (os error 2)");
            assert_eq!(seen.refusal.as_ref(), Some(&expected), "{seen:?}");
            assert_eq!(judge(&seen).status, Status::Unscannable);
        }
        Ok(())
    }
}
