//! Archives, compressed files and disk images that libclamav does not know at all. It takes them for data or text and searches
//! the packed bytes, in which nothing can be found.
//!
//! Only what a file begins with counts, so a program or a picture with such a thing behind it is not recognised. Formats that
//! pack their own data for themselves are no containers and are left alone: fonts, databases, columnar data. Streams of zlib
//! are not, so that a loose object of git is reported.

mod ar;

use flate2::{Decompress, FlushDecompress, Status};

use super::Findings;
use super::deadline::Deadline;

/// A format's name, an offset, and the bytes there.
type Mark = (&'static str, usize, &'static [u8]);

/// Formats that a few bytes tell for sure.
const FORMATS: &[Mark] = &[
    ("ACE", 7, b"**ACE**"),
    ("Android backup", 0, b"ANDROID BACKUP\n"),
    ("Apple archive", 0, b"pbze\0"),
    ("Apple archive", 0, b"pbzx\0"),
    ("Apple archive", 0, b"pbz4\0"),
    ("Apple archive", 0, b"pbzz\0"),
    ("compress", 0, b"\x1f\xa0"),
    ("compress", 0, b"\x1f\x9e"),
    ("cramfs", 16, b"Compressed ROMFS"),
    ("EnCase image", 0, b"EVF\t\r\n\xff\0"),
    ("FreeArc", 0, b"ArC\x01"),
    ("git bundle", 0, b"# v2 git bundle\n"),
    ("git bundle", 0, b"# v3 git bundle\n"),
    ("git pack", 0, b"PACK\0\0\0\x02"),
    ("git pack", 0, b"PACK\0\0\0\x03"),
    ("InstallShield cabinet", 0, b"ISc("),
    ("JAR (ARJ Software)", 14, b"\x1aJar\x1b"),
    ("KWAJ", 0, b"KWAJ\x88\xf0\x27\xd1"),
    ("LRZIP", 0, b"LRZI\0"),
    ("lz4", 0, b"\x04\x22\x4d\x18"),
    ("lz4", 0, b"\x02\x21\x4c\x18"),
    ("LZFSE", 0, b"bvx2"),
    ("LZFSE", 0, b"bvxn"),
    ("lzip", 0, b"LZIP\0"),
    ("lzip", 0, b"LZIP\x01"),
    ("lzop", 0, b"\x89LZO\0\r\n\x1a\n"),
    ("Pack200", 0, b"\xca\xfe\xd0\x0d"),
    ("QCOW", 0, b"QFI\xfb"),
    ("RPM", 0, b"\xed\xab\xee\xdb"),
    ("romfs", 0, b"-rom1fs-"),
    ("Snappy", 0, b"\xff\x06\0\0sNaPpY"),
    ("SQX", 7, b"-sqx-"),
    ("StuffIt", 0, b"StuffIt (c)1997-"),
    ("StuffIt", 0, b"StuffIt!"),
    ("StuffIt", 0, b"StuffIt?"),
    ("UHARC", 0, b"UHA\x04"),
    ("UHARC", 0, b"UHA\x06"),
    ("VDI", 64, b"\x7f\x10\xda\xbe"),
    ("VHD", 0, b"conectix"),
    ("VHDX", 0, b"vhdxfile"),
    ("VMDK", 0, b"KDMV\x01\0\0\0"),
    ("VMDK", 0, b"KDMV\x02\0\0\0"),
    ("VMDK", 0, b"KDMV\x03\0\0\0"),
    ("VMDK", 0, b"COWD\x01\0\0\0"),
    ("WIM", 0, b"MSWIM\0\0\0"),
    ("WIM", 0, b"WLPWM\0\0\0"),
    ("yEnc", 0, b"=ybegin "),
    ("ZPAQ", 0, b"7kSt\xa0\x31\x83\xd3\x8c\xb2\x28\xb0\xd3"),
    ("ZPAQ", 0, b"zPQ\x01"),
    ("ZPAQ", 0, b"zPQ\x02"),
    ("zstd", 0, b"\x28\xb5\x2f\xfd"),
];

/// Looks at a layer that libclamav takes for data of no known format, or for text. `in_ole2`: it was a part of an OLE2 file.
pub(super) fn inspect(bytes: &[u8], in_ole2: bool, deadline: &Deadline, found: &mut Findings) {
    let is_there = |&&(_, at, magic): &&Mark| bytes.get(at..).is_some_and(|rest| rest.starts_with(magic));
    let name = FORMATS
        .iter()
        .find(is_there)
        .map(|&(name, ..)| name)
        .or_else(|| weakly_marked(bytes, deadline))
        .or_else(|| is_lzma(bytes).then_some("LZMA"))
        .or_else(|| is_zlib(bytes, in_ole2).then_some("zlib"));
    found.unsupported.extend(name.map(str::to_owned));
}

/// Formats whose first bytes are a group, or need a second condition.
fn weakly_marked(bytes: &[u8], deadline: &Deadline) -> Option<&'static str> {
    let has = |at: usize, magic: &[u8]| bytes.get(at..).is_some_and(|rest| rest.starts_with(magic));
    match bytes {
        [b'!', b'<', b'a', b'r', b'c', b'h', b'>', b'\n', members @ ..] => {
            (!ar::is_static_library(members, deadline)).then_some("ar")
        }
        // The widest code has 9 to 16 bits (ncompress: compress.c).
        [0x1f, 0x9d, flags, ..] if flags & 0x60 == 0 && (9..=16).contains(&(flags & 0x1f)) => Some("compress"),
        // The depth of the tree (GNU gzip: unpack.c).
        [0x1f, 0x1e, _, _, _, _, 1..=25, ..] => Some("pack"),
        // The version, in either byte order.
        [b'h', b's', b'q', b's', ..] if matches!(bytes.get(28..30), Some([1..=4, 0])) => Some("squashfs"),
        [b's', b'q', b's', b'h', ..] if matches!(bytes.get(28..30), Some([0, 1..=4])) => Some("squashfs"),
        // The size of the first header, which has less than 256 bytes.
        [b'A', b'A', b'0', b'1', _, 0, ..] | [b'Y', b'A', b'A', b'1', _, 0, ..] => Some("Apple archive"),
        [b'S', b'I' | b'T', ..] if has(10, b"rLau") => Some("StuffIt"),
        [b'Z', b'O', b'O', b' ', ..] if has(20, b"\xdc\xa7\xc4\xfd") => Some("ZOO"),
        // Frames to be skipped, which lz4 has too, and the magic numbers of zstd before 0.8 (zstd: lib/legacy).
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] | [0x1e | 0x22..=0x27, 0xb5, 0x2f, 0xfd, ..] => Some("zstd"),
        _ => None,
    }
}

/// The header of `.lzma`, as strictly as xz reads it (liblzma: alone_decoder.c) and more: it has no magic bytes.
fn is_lzma(bytes: &[u8]) -> bool {
    let Some((header, packed)) = bytes.split_first_chunk::<13>() else { return false };
    let &[properties, d0, d1, d2, d3, s0, s1, s2, s3, s4, s5, s6, s7] = header;
    let (literal_bits, position_bits) = (properties % 9, properties / 9 % 5);
    let dictionary = u32::from_le_bytes([d0, d1, d2, d3]);
    let size = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
    // Powers of two and sums of two neighbouring ones.
    let is_usual =
        dictionary == u32::MAX || dictionary.count_ones() == 1 || dictionary >> dictionary.trailing_zeros().min(31) == 3;
    // The range coder begins with a zero, and its first bit says that a literal comes first.
    let begins_with_literal = matches!(packed, [0, 0..=0x7f, rest @ ..] if rest.iter().take(3).any(|&byte| byte != 0));
    properties < 225
        && literal_bits + position_bits <= 4
        && (1 << 12..).contains(&dictionary)
        && is_usual
        && (size == u64::MAX || (1..1 << 38).contains(&size))
        && begins_with_literal
}

/// A stream of zlib (RFC 1950). Its header is a multiple of 31 and little more, so some of the stream must unpack without an
/// error. A drawing in an old Excel file is one (`xlm_extract.c: process_blip_record`), which packs its own data for itself.
fn is_zlib(bytes: &[u8], may_be_drawing: bool) -> bool {
    /// Data of any other kind does not go so far without an error.
    const ENOUGH: usize = 512;
    let &[method, flags, ..] = bytes else { return false };
    let is_header =
        method & 0x0f == 8 && method >> 4 <= 7 && flags & 0x20 == 0 && u16::from_be_bytes([method, flags]) % 31 == 0;
    if !is_header {
        return false;
    }
    let mut unpacked = [0; 32 * ENOUGH];
    let input = bytes.get(..2 * ENOUGH).unwrap_or(bytes);
    let mut stream = Decompress::new(true);
    let status = stream.decompress(input, &mut unpacked, FlushDecompress::None);
    if may_be_drawing && is_metafile(&unpacked) {
        return false;
    }
    match status {
        Ok(Status::StreamEnd) => stream.total_out() > 0,
        Ok(Status::Ok | Status::BufError) => stream.total_in() >= ENOUGH as u64 || stream.total_out() >= unpacked.len() as u64,
        Err(_) => false,
    }
}

/// A drawing for Windows: enhanced ([MS-EMF] 2.3.4.2), or as before ([MS-WMF] 2.3.2.2), its header's size and version.
fn is_metafile(bytes: &[u8]) -> bool {
    let has = |at: usize, magic: &[u8]| bytes.get(at..).is_some_and(|rest| rest.starts_with(magic));
    has(0, &[1, 0, 0, 0]) && has(40, b" EMF") || has(0, &[1, 0, 9, 0, 0, 3])
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::pack::zlib;
    use super::*;

    fn unsupported(bytes: &[u8]) -> String {
        let mut found = Findings::default();
        inspect(bytes, false, &Deadline::far(), &mut found);
        found.unsupported.concat()
    }

    #[test]
    fn archives_are_recognised() -> io::Result<()> {
        let noise: Vec<u8> = (0..20_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 23) as u8).collect();
        for (bytes, name) in [
            (&b"\x28\xb5\x2f\xfd..."[..], "zstd"),
            (b"\x5a\x2a\x4d\x18....", "zstd"),
            (b"\x1f\x9d\x90...", "compress"),
            (b"!<arch>\ndebian-binary", "ar"),
            (b"1234567**ACE**", "ACE"),
            (b"SIT!......rLau", "StuffIt"),
            (b"MSWIM\0\0\0", "WIM"),
            (b"\x5d\0\0\x80\0\xff\xff\xff\xff\xff\xff\xff\xff\0\x34\x19\x49", "LZMA"),
            (b"\x5d\0\0\x10\0\x0c\0\0\0\0\0\0\0\0\x34\x19\x49\xee", "LZMA"),
            (&zlib(b"hello")?, "zlib"),
            (&zlib(&[0; 5_000_000])?, "zlib"),
            (&zlib(&noise)?[..1000], "zlib"),
        ] {
            assert_eq!(unsupported(bytes), name, "{:?}", bytes.get(..20));
        }
        Ok(())
    }

    #[test]
    fn a_drawing_in_excel_was_zlib() -> io::Result<()> {
        let mut drawing = vec![0; 5000];
        drawing[0] = 1;
        drawing[40..44].copy_from_slice(b" EMF");
        for (content, in_ole2, expected) in [(&drawing[..], true, ""), (&drawing, false, "zlib"), (b"other", true, "zlib")] {
            let mut found = Findings::default();
            inspect(&zlib(content)?, in_ole2, &Deadline::far(), &mut found);
            assert_eq!(found.unsupported.concat(), expected);
        }
        Ok(())
    }

    #[test]
    fn ordinary_data_is_not() {
        for bytes in [
            &b""[..],
            b"x",
            b"\x78\x9c",
            b"x^2 + y^2 = z^2 has whole solutions.",
            b"hsqs is not followed by a version here",
            b"LZIP is a compressor, UHA is none, and zPQ is unknown.",
            b"\x1f\x9d\0 is not compressed",
            b"\0\0\x01\0\x01\0\x10\x10\0\0\x01\0\x04\0\x28\x01\0\0",
            b"\0\x01\0\0\0\x0f\0\x80\0\x03\0\x70DSIG",
            &[0; 100],
            b"!<arch>\n",
            b"AA01,part,price",
        ] {
            assert_eq!(unsupported(bytes), "", "{bytes:?}");
        }
    }
}
