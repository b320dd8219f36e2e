//! Documents that need a password, or that libclamav misreads. Most of the former are files in `tests/data/encrypted`, whose README says how they were made.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::archives::ole2;
use super::noise;

pub fn encrypted(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/encrypted").join(name)).unwrap()
}

/// A PDF with an attachment, packed as almost all are, and with these entries of its dictionary before the name of the filter.
///
/// A single `>` in them, as at the end of a string in hexadecimal, makes libclamav forget the `<<` before it (`pdf.c: pdf_parseobj`).
/// The dictionary ends too early for it then, it sees no filter, and scans the packed bytes alone. qpdf writes such files.
pub fn pdf_with_attachment(content: &[u8], entries: &str) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    let packed = encoder.finish().unwrap();
    let attachment = [
        format!("<< {entries} /Length {} /Filter /FlateDecode >>\nstream\n", packed.len()).as_bytes(),
        &packed,
        b"\nendstream",
    ]
    .concat();
    let objects: [&[u8]; 5] = [
        b"<< /Type /Catalog /Pages 2 0 R /Names << /EmbeddedFiles << /Names [ (a) 4 0 R ] >> >> >>",
        b"<< /Type /Pages /Kids [ 3 0 R ] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [ 0 0 200 200 ] >>",
        b"<< /Type /Filespec /F (a) /EF << /F 5 0 R >> >>",
        &attachment,
    ];
    let mut pdf = b"%PDF-1.4\n".to_vec();
    let mut table = "xref\n0 6\n0000000000 65535 f \n".to_owned();
    for (number, object) in (1..).zip(objects) {
        table += &format!("{:010} 00000 n \n", pdf.len());
        pdf.extend_from_slice(format!("{number} 0 obj\n").as_bytes());
        pdf.extend_from_slice(object);
        pdf.extend_from_slice(b"\nendobj\n");
    }
    let end = format!("{table}trailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n{}\n%%EOF\n", pdf.len());
    pdf.extend_from_slice(end.as_bytes());
    pdf
}

/// A presentation of PowerPoint 97-2003 with a password. No free program saves one, so its records are written here, as far as
/// it takes to see that it is encrypted; what would be encrypted is noise.
pub fn encrypted_ppt() -> Vec<u8> {
    const DOCUMENT_CONTAINER: u16 = 0x03e8;
    const CURRENT_USER_ATOM: u16 = 0x0ff6;
    const USER_EDIT_ATOM: u16 = 0x0ff5;
    const PERSIST_DIRECTORY_ATOM: u16 = 0x1772;
    const CRYPT_SESSION_CONTAINER: u16 = 0x2f14;
    const ENCRYPTED: u32 = 0xf3d1_c4df;
    const RC4: u32 = 0x6801;
    const SHA1: u32 = 0x8004;

    // [MS-OFFCRYPTO] 2.3.5.1, RC4 CryptoAPI encryption: version 2.2, then header and verifier.
    let header = numbers(&[4, 0, RC4, SHA1, 128, 1, 0, 0, 0]);
    let verifier = [numbers(&[16]), noise(32), numbers(&[20]), noise(20)].concat();
    let session = [numbers(&[0x0002_0002, 4, header.len() as u32]), header, verifier].concat();

    // [MS-PPT] 2.1.2: the document and the session, the directory that says where they are, and the edit that refers to both.
    let document = ppt_record(DOCUMENT_CONTAINER, &noise(4096));
    let session = ppt_record(CRYPT_SESSION_CONTAINER, &session);
    let two_from_one = 2 << 20 | 1;
    let directory = ppt_record(PERSIST_DIRECTORY_ATOM, &numbers(&[two_from_one, 0, document.len() as u32]));
    let directory_offset = (document.len() + session.len()) as u32;
    let edit_offset = directory_offset + directory.len() as u32;
    let edit = ppt_record(USER_EDIT_ATOM, &numbers(&[256, 0x0300_0000, 0, directory_offset, 1, 2, 1, 2]));
    let names = [&0_u16.to_le_bytes()[..], &0x03f4_u16.to_le_bytes(), &[3, 0, 0, 0]].concat();
    let user = ppt_record(CURRENT_USER_ATOM, &[numbers(&[20, ENCRYPTED, edit_offset]), names, numbers(&[8])].concat());
    ole2(&[("Current User", &user), ("PowerPoint Document", &[document, session, directory, edit].concat())])
}

/// [MS-PPT] 2.3.1: version and instance, type, length, content.
fn ppt_record(kind: u16, content: &[u8]) -> Vec<u8> {
    let version: u16 = if kind == 0x03e8 || kind == 0x2f14 { 0xf } else { 0 };
    [&version.to_le_bytes()[..], &kind.to_le_bytes(), &(content.len() as u32).to_le_bytes(), content].concat()
}

fn numbers(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
