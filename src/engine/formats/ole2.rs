//! OLE2 files: Office documents up to 2003, encrypted ones of any age, Outlook messages, installers.
//!
//! libclamav scans each stream as a layer (`ole2_extract.c: handler_otf`, `handler_writefile`) and drops without a word what it
//! does not reach: streams behind a broken chain, a loop in the tree, a wrong length. It decrypts nothing but documents with
//! the password that Excel tries by itself. What [MS-OFFCRYPTO] calls encrypted is reported as encrypted, that password or not.

mod compound_file;

#[cfg(test)]
pub(super) use self::compound_file::build;
use self::compound_file::{CompoundFile, Content, MOST_STREAMS, Stream};
use super::Findings;
use super::deadline::Deadline;

/// libclamav scans no layer up to this size.
const NOT_SCANNED: u32 = 5;

/// Streams that make libclamav write out all streams and scan them as they are (`ole2_extract.c: handler_enum`).
const MACRO_STREAMS: &[&str] = &["_vba_project", "powerpoint document", "worddocument", "\u{1}ole10native"];
const WORKBOOKS: &[&str] = &["workbook", "book"];
/// What else is usual in a workbook. Of a workbook with pictures and without macros libclamav scans the pictures and no stream
/// (`scanners.c: cli_ole2_scan_tempdir`). Streams in one piece are then still seen, as a part of the whole file.
const BESIDE_WORKBOOKS: &[&str] = &[
    "\u{1}compobj",
    "\u{1}ole",
    "\u{2}olepres000",
    "\u{3}objinfo",
    "\u{5}documentsummaryinformation",
    "\u{5}summaryinformation",
    "ctls",
    "item",
    "properties",
    "revision log",
    "user names",
];
/// Streams of a Hangul document that libclamav unpacks instead of scanning them as they are (`hwp.c: cli_scanhwp5_stream`).
const HANGUL_PACKED: &[&str] = &["bin", "jscriptversion", "defaultjscript", "section", "viewtext", "docinfo"];

/// Looks at a layer of the type `CL_TYPE_MSOLE2`.
pub(super) fn inspect(bytes: &[u8], deadline: &Deadline, found: &mut Findings) {
    let Some((file, streams)) = CompoundFile::open(bytes) else {
        found.unsupported.push("OLE2 file that is damaged or of an unusual kind".to_owned());
        return;
    };
    if streams.len() > MOST_STREAMS {
        found.unsupported.push(format!("OLE2 file of more than {MOST_STREAMS} streams"));
        return;
    }
    // In a sound file each sector belongs to one stream. Without this, many entries for one long chain would take forever.
    let mut sectors_left = bytes.len() / 32;
    let mut contents = Vec::with_capacity(streams.len());
    for stream in &streams {
        let content = file.content(stream);
        if deadline.spend(size_of::<usize>() * (content.sectors() + 1)).is_err() {
            return;
        }
        let Some(left) = sectors_left.checked_sub(content.sectors()) else {
            found.unsupported.push("OLE2 file whose streams share sectors".to_owned());
            return;
        };
        sectors_left = left;
        contents.push((stream, content));
    }
    if is_encrypted(bytes, &contents, deadline) {
        found.encrypted.push("Office document".to_owned());
    }
    expect_layers(&contents, deadline, found);
}

fn is_encrypted(bytes: &[u8], contents: &[(&Stream, Content)], deadline: &Deadline) -> bool {
    has_standard_encryption(bytes)
        || contents.iter().any(|(stream, content)| match stream.name.as_str() {
            // [MS-OFFCRYPTO] 2.3.4.4 and 2.2.4: a document since 2007, and one with managed rights.
            "encryptedpackage" | "\u{9}drmcontent" => true,
            // [MS-DOC] 2.5.2: fEncrypted.
            "worddocument" => content.read(10).is_some_and(|flags| u16::from_le_bytes(flags) & 0x100 != 0),
            "workbook" | "book" => has_file_pass(content, deadline),
            // [MS-PPT] 2.3.2: headerToken.
            "current user" => content.read(12).is_some_and(|token| u32::from_le_bytes(token) == 0xf3d1_c4df),
            // [MS-PPT] 2.3.7: CryptSession10Container.
            "powerpoint document" => records(content, deadline).any(|(_, kind, ..)| kind == 0x2f14),
            _ => false,
        })
}

/// Whether libclamav takes the file for one with "standard encryption" and deciphers each of its streams, those that are not
/// encrypted as well (`ole2_extract.c: cli_ole2_extract`, which looks for the stream `EncryptionInfo` at a fixed place).
fn has_standard_encryption(bytes: &[u8]) -> bool {
    // AES with 128 bits, SHA-1, and the kind of provider ([MS-OFFCRYPTO] 2.3.2).
    let algorithm = [0x0e, 0x66, 0, 0, 4, 0x80, 0, 0, 128, 0, 0, 0, 24, 0, 0, 0];
    bytes.get(2048 + 20..).is_some_and(|header| header.starts_with(&algorithm))
}

/// Whether a workbook's first part has a record that says how it is encrypted ([MS-XLS] 2.4.117).
fn has_file_pass(workbook: &Content, deadline: &Deadline) -> bool {
    const FILE_PASS: u16 = 0x2f;
    const END: u16 = 0x0a;
    let mut at = 0;
    while let Some([kind @ .., low, high]) = workbook.read::<4>(at) {
        match u16::from_le_bytes(kind) {
            _ if deadline.spend(4).is_err() => return false,
            FILE_PASS => return true,
            END => return false,
            _ => at = at.saturating_add(4 + u32::from(u16::from_le_bytes([low, high]))),
        }
    }
    false
}

/// Lists the layers that libclamav makes of a file's streams.
fn expect_layers(contents: &[(&Stream, Content)], deadline: &Deadline, found: &mut Findings) {
    let named = |names: &[&str]| contents.iter().any(|(stream, _)| names.contains(&stream.name.as_str()));
    let (has_macros, has_workbook) = (named(MACRO_STREAMS), named(WORKBOOKS));
    let hangul = contents.iter().find_map(|(stream, content)| hangul_flags(stream, content));
    if let Some(flags) = hangul {
        if flags & HANGUL_ENCRYPTED != 0 {
            found.encrypted.push("Hangul document".to_owned());
        }
        if has_macros || has_workbook {
            // libclamav does not unpack the streams then.
            found.unsupported.push("Hangul document with streams of an Office document".to_owned());
        }
    }
    for (stream, content) in contents {
        let name = stream.name.as_str();
        let is_packed = hangul.is_some_and(|flags| flags & HANGUL_COMPRESSED != 0);
        if is_packed && HANGUL_PACKED.iter().any(|packed| name.starts_with(packed)) {
            continue;
        }
        if has_workbook
            && !has_macros
            && content.is_in_one_piece()
            && (WORKBOOKS.contains(&name) || BESIDE_WORKBOOKS.contains(&name))
        {
            continue;
        }
        if name == "powerpoint document" {
            expect_objects(content, deadline, found);
        }
        // ole2_extract.c: likely_mso_stream. The size that the stream states comes before the compressed data.
        let size = match content.read::<6>(0) {
            Some([size @ .., 0x78, 0x9c]) if !has_macros && hangul.is_none() => u32::from_le_bytes(size),
            _ => stream.size,
        };
        expect(size, found);
    }
}

/// Lists the objects that are embedded in a presentation, compressed or not ([MS-PPT] 2.10.34). libclamav unpacks compressed
/// ones, and throws all away when it meets an empty record or an uncompressed object (`vba_extract.c: ppt_stream_iter`).
fn expect_objects(presentation: &Content, deadline: &Deadline, found: &mut Findings) {
    const OBJECT: u16 = 0x1011;
    const COMPRESSED: u16 = 1;
    for (at, kind, instance, length) in records(presentation, deadline) {
        if kind == OBJECT {
            let unpacked = presentation.read(at).filter(|_| instance == COMPRESSED).map(u32::from_le_bytes);
            expect(unpacked.unwrap_or(length), found);
        }
    }
}

/// The outer records of a presentation: where the data begin, the kind, the instance and the length ([MS-PPT] 2.3.1).
fn records(presentation: &Content, deadline: &Deadline) -> impl Iterator<Item = (u32, u16, u16, u32)> {
    let mut next = 0_u32;
    std::iter::from_fn(move || {
        deadline.spend(8).ok()?;
        let [a, b, c, d, length @ ..] = presentation.read::<8>(next)?;
        let (at, length) = (next.saturating_add(8), u32::from_le_bytes(length));
        next = at.saturating_add(length);
        Some((at, u16::from_le_bytes([c, d]), u16::from_le_bytes([a, b]) >> 4, length))
    })
}

fn expect(size: u32, found: &mut Findings) {
    if size > NOT_SCANNED {
        found.expected.push(size.into());
    }
}

/// The flags of a Hangul document's `FileHeader` (`hwp.h`).
const HANGUL_COMPRESSED: u32 = 0x1;
/// A password, a document for distribution, managed rights, and the last two with a certificate.
const HANGUL_ENCRYPTED: u32 = 0x2 | 0x4 | 0x10 | 0x100 | 0x400;

fn hangul_flags(stream: &Stream, content: &Content) -> Option<u32> {
    let signature = b"HWP Document File";
    (stream.name == "fileheader" && content.read(0).as_ref() == Some(signature))
        .then(|| content.read(36).map_or(0, u32::from_le_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Streams<'streams> = &'streams [(&'streams str, &'streams [u8])];

    fn look(streams: Streams) -> Findings {
        let mut found = Findings::default();
        inspect(&build(streams), &Deadline::far(), &mut found);
        found
    }

    fn record(kind: u16, instance: u16, data: &[u8]) -> Vec<u8> {
        let length = data.len() as u32;
        [&(instance << 4).to_le_bytes()[..], &kind.to_le_bytes(), &length.to_le_bytes(), data].concat()
    }

    #[test]
    fn encrypted_documents_are_reported() {
        let current_user = [&[0; 12][..], &[0xdf, 0xc4, 0xd1, 0xf3]].concat();
        let mut hangul = b"HWP Document File".to_vec();
        hangul.resize(36, 0);
        hangul.extend([2, 0, 0, 0]);
        let cases: &[(&str, &[u8], bool)] = &[
            ("EncryptedPackage", &[0; 10], true),
            ("\u{9}DRMContent", &[0; 10], true),
            ("WordDocument", &[0xec, 0xa5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01], true),
            ("WordDocument", &[0xec, 0xa5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12], false),
            ("Workbook", &[9, 8, 2, 0, 0, 6, 0x2f, 0, 2, 0, 1, 0], true),
            ("Workbook", &[9, 8, 2, 0, 0x2f, 0, 0x0a, 0, 0, 0, 0x2f, 0, 0, 0], false),
            ("Current User", &current_user, true),
            ("PowerPoint Document", &[&record(1, 0, b"data")[..], &record(0x2f14, 0, b"key")].concat(), true),
            ("FileHeader", &hangul, true),
            ("FileHeader", b"HWP Document File", false),
        ];
        for (name, data, is_encrypted) in cases {
            assert_eq!(!look(&[(name, data)]).encrypted.is_empty(), *is_encrypted, "{name:?} {data:?}");
        }
    }

    #[test]
    fn streams_are_expected_as_layers() {
        let (small, large) = ([7; 100], [7; 5000]);
        let packed = b"\x00\x02\x00\x00\x78\x9c...";
        let objects = [record(0x1011, 1, b"\x00\x10\x00\x00.."), record(1, 0, b""), record(0x1011, 0, &[1; 50])].concat();
        let mut hangul = b"HWP Document File".to_vec();
        hangul.resize(36, 0);
        hangul.extend([1, 0, 0, 0]);
        let cases: &[(Streams, &[u64])] = &[
            (&[("a", &small), ("b", &large), ("tiny", &[1; 5])], &[100, 5000]),
            (&[("a", packed)], &[0x200]),
            (&[("a", packed), ("WordDocument", &large)], &[packed.len() as u64, 5000]),
            (&[("Workbook", &large), ("Package", &small)], &[100]),
            (&[("Workbook", &large), ("\u{1}Ole10Native", &small)], &[5000, 100]),
            (&[("PowerPoint Document", &objects)], &[0x1000, 50, objects.len() as u64]),
            (&[("FileHeader", &hangul), ("BIN0001.jpg", &small), ("PrvText", &small)], &[40, 100]),
        ];
        for (streams, expected) in cases {
            let found = look(streams);
            assert_eq!((found.expected.as_slice(), found.unsupported.len()), (*expected, 0), "{streams:?}");
        }
    }

    #[test]
    fn what_libclamav_reads_in_its_own_way_is_unsupported() {
        let sound = build(&[("a", &[7; 5000])]);
        let cases: &[(usize, u8)] = &[(30, 12), (32, 5), (57, 0x20), (49, 0xff), (0, 0)];
        for &(at, byte) in cases {
            let (mut damaged, mut found) = (sound.clone(), Findings::default());
            damaged[at] = byte;
            inspect(&damaged, &Deadline::far(), &mut found);
            assert_eq!(found.unsupported.len(), 1, "{at}");
        }
        assert_eq!(look(&[("FileHeader", b"HWP Document File"), ("_VBA_PROJECT", &[0; 9])]).unsupported.len(), 1);
    }
}
