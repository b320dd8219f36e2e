//! A second look at each layer's bytes, for what libclamav skips without a word.
//!
//! libclamav's parsers give up on much of what they do not know: a second stream of a bzip2 file, a member that a zip's directory
//! does not list, a document that is encrypted. They call what is left clean. The functions here read just enough of a format to see
//! that something was left out. They keep nothing that they unpack, never fail and never panic, whatever the bytes.

mod bzip2;
mod cab;
mod cpio;
mod deadline;
mod encrypted;
mod file_system;
mod foreign;
mod gzip;
mod iso;
mod mail;
mod ole2;
mod opendocument;
#[cfg(test)]
mod pack;
mod pdf;
mod rar;
mod sevenzip;
mod streams;
mod tar;
mod udf;
mod xz;
mod zip;

use std::ops::Range;
use std::time::Instant;

use memchr::memmem;

use self::deadline::Deadline;
use super::handle::unrar_is_available;

/// Types of layers that keep files as they are: what looks like an archive at their end may be their last file.
const CONTAINERS: &[&str] = &[
    "CL_TYPE_POSIX_TAR",
    "CL_TYPE_OLD_TAR",
    "CL_TYPE_CPIO_OLD",
    "CL_TYPE_CPIO_ODC",
    "CL_TYPE_CPIO_NEWC",
    "CL_TYPE_CPIO_CRC",
    "CL_TYPE_ISO9660",
    "CL_TYPE_UDF",
    "CL_TYPE_7Z",
    "CL_TYPE_RAR",
    "CL_TYPE_MSCAB",
    "CL_TYPE_ARJ",
    "CL_TYPE_DMG",
    "CL_TYPE_HFSPLUS",
    "CL_TYPE_GPT",
    "CL_TYPE_APM",
    "CL_TYPE_MBR",
    "CL_TYPE_MSOLE2",
    "CL_TYPE_TNEF",
];

/// Readers of PDF take what comes before its header, up to this (Adobe's implementation notes to ISO 32000, 7.5.2).
const PDF_START: usize = 1024;

/// What a look at one layer shows that libclamav does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// What is encrypted: a short fixed text, or a member's name.
    pub(super) encrypted: Vec<String>,
    /// What libclamav does not read, in a few words: `RAR`, `bzip2 of several streams`.
    pub(super) unsupported: Vec<String>,
    /// The sizes in bytes of what must have been unpacked from this layer itself and scanned, each as often as it occurs.
    pub(super) expected: Vec<u64>,
    /// The same of what must have been scanned at any depth below this layer: an archive that shows through another one's packing.
    pub(super) expected_below: Vec<u64>,
    /// The look ended early, since it took too long.
    pub(super) timed_out: bool,
}

/// A layer that is being scanned, as far as it matters for those inside.
#[derive(Debug)]
pub(super) struct Layer {
    /// libclamav's name for its type (`filetypes.c`).
    kind: String,
    /// Where its content is in memory. Never followed.
    place: Range<*const u8>,
}

impl Layer {
    pub(super) fn new(kind: &str, bytes: &[u8]) -> Self {
        Self { kind: kind.to_owned(), place: bytes.as_ptr_range() }
    }
}

/// Looks at one layer: `kind` is libclamav's name for its type, `bytes` all of its content, `parent` what it was unpacked from. What
/// takes long ends at the `deadline`.
pub(super) fn inspect(kind: &str, bytes: &[u8], parent: Option<&Layer>, deadline: Instant) -> Findings {
    let mut found = Findings::default();
    // The one partition of a disk image is the image itself, as on discs that a computer also boots from as a disk (isohybrid).
    if kind == "CL_TYPE_PART_ANY" && parent.is_some_and(|parent| parent.place == bytes.as_ptr_range()) {
        return found;
    }
    let deadline = &Deadline::new(deadline);
    let is_tar = matches!(kind, "CL_TYPE_POSIX_TAR" | "CL_TYPE_OLD_TAR");
    let is_in = |kind| parent.is_some_and(|parent| parent.kind == kind);
    let is_text = kind.starts_with("CL_TYPE_TEXT_");
    match kind {
        "CL_TYPE_GZ" => gzip::inspect(bytes, deadline, &mut found),
        "CL_TYPE_BZ" => bzip2::inspect(bytes, deadline, &mut found),
        "CL_TYPE_XZ" => xz::inspect(bytes, deadline, &mut found),
        "CL_TYPE_MSCAB" => cab::inspect(bytes, deadline, &mut found),
        "CL_TYPE_MSOLE2" => ole2::inspect(bytes, deadline, &mut found),
        "CL_TYPE_MAIL" => mail::inspect(bytes, is_in("CL_TYPE_HTML"), deadline, &mut found),
        _ if is_tar => tar::inspect(bytes, deadline, &mut found),
        _ if kind.starts_with("CL_TYPE_CPIO_") => cpio::inspect(bytes, deadline, &mut found),
        _ => {}
    }
    if is_text || kind == "CL_TYPE_BINARY_DATA" {
        foreign::inspect(bytes, is_in("CL_TYPE_MSOLE2"), deadline, &mut found);
        encrypted::inspect(bytes, &mut found);
    }
    if is_text {
        mail::inspect_text(bytes, &mut found);
    }
    // What can hide in a layer of another type, or behind it.
    if !is_tar {
        tar::inspect_other(bytes, &mut found);
    }
    if CONTAINERS.contains(&kind) {
        zip::inspect_container(bytes, deadline, &mut found);
    } else {
        zip::inspect(bytes, deadline, &mut found);
    }
    if kind == "CL_TYPE_PDF" || memmem::find(bytes.get(..PDF_START).unwrap_or(bytes), b"%PDF-").is_some() {
        pdf::inspect(bytes, deadline, &mut found);
    }
    iso::inspect(bytes, deadline, &mut found);
    udf::inspect(bytes, deadline, &mut found);
    file_system::inspect(bytes, &mut found);
    opendocument::inspect(bytes, &mut found);
    sevenzip::inspect(bytes, deadline, &mut found);
    if !unrar_is_available() {
        rar::inspect(bytes, deadline, &mut found);
    }
    found.timed_out = deadline.has_passed();
    found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// libclamav takes the whole of a hybrid image for a partition of it, too, in which it looks for no ISO 9660.
    #[test]
    fn the_files_of_a_hybrid_image_were_expected_twice() {
        let image = iso::build(&[iso::record("A", 19, 100, 0)]);
        let copy = image.clone();
        let parent = Layer::new("CL_TYPE_ISO9660", &image);
        let expected =
            |bytes, parent| inspect("CL_TYPE_PART_ANY", bytes, parent, Instant::now() + Duration::from_secs(600)).expected;
        assert_eq!(expected(&image, Some(&parent)), [0; 0]);
        for (case, bytes, parent) in [
            ("no partition", &image[..], None),
            ("a part of it", &image[..image.len() - 1], Some(&parent)),
            ("of the same size", &copy, Some(&parent)),
        ] {
            assert_eq!(expected(bytes, parent), [100], "{case}");
        }
    }

    /// gzip and bzip2 kept to the deadline, the others did not.
    #[test]
    fn every_look_ends_at_the_deadline() -> std::io::Result<()> {
        let mut cabinet = vec![0; 60];
        (cabinet[8], cabinet[16], cabinet[28]) = (60, 36, 1);
        for (kind, bytes) in [
            ("CL_TYPE_GZ", &pack::gzip(b"content")?[..]),
            ("CL_TYPE_BZ", &pack::bzip2(b"content")?),
            ("CL_TYPE_XZ", &[0; 4]),
            ("CL_TYPE_MSCAB", &cabinet),
            ("CL_TYPE_MSOLE2", &ole2::build(&[("stream", b"content")])),
            ("CL_TYPE_MAIL", b"Subject: none\n"),
            ("CL_TYPE_POSIX_TAR", &[1; 512]),
            ("CL_TYPE_CPIO_ODC", format!("070707{:070}", 1).as_bytes()),
            ("CL_TYPE_BINARY_DATA", format!("!<arch>\n{:60}", "").as_bytes()),
            ("CL_TYPE_ZIP", b"PK\x03\x04PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\x04\0\0\0\0\0"),
            ("CL_TYPE_BINARY_DATA", b"behind other data PK\x03\x04"),
            ("CL_TYPE_7Z", b"7z\xbc\xaf\x27\x1c"),
            ("CL_TYPE_PDF", b"%PDF-1.5\n1 0 obj<<>>endobj"),
            ("CL_TYPE_ISO9660", &iso::build(&[])),
        ] {
            let found = inspect(kind, bytes, None, Instant::now());
            assert!(found.timed_out, "{kind}: {found:?}");
            let found = inspect(kind, bytes, None, Instant::now() + Duration::from_secs(600));
            assert!(!found.timed_out, "{kind}: {found:?}");
        }
        Ok(())
    }
}
