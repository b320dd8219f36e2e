//! RAR archives, written by hand: Debian's libclamav has no unpacker for them, and no free program makes them.
//!
//! The formats: <https://www.rarlab.com/technote.htm> for RAR 5; `technote.txt` of the RAR 4 distribution for the older one.

use super::noise;

const RAR_4: &[u8] = b"Rar!\x1a\x07\x00";
const RAR_5: &[u8] = b"Rar!\x1a\x07\x01\x00";

/// A RAR 4 archive that stores one file.
pub fn rar4(name: &str, content: &[u8]) -> Vec<u8> {
    let size = (content.len() as u32).to_le_bytes();
    let crc = crc32fast::hash(content).to_le_bytes();
    let name_length = (name.len() as u16).to_le_bytes();
    let file = [
        &size[..],           // packed
        &size,               // unpacked
        &[2],                // made on Windows
        &crc,                // of the unpacked bytes
        &[0, 0, 0x21, 0x5a], // 1 January 2025
        &[29],               // unpacked by version 2.9
        &[0x30],             // stored
        &name_length,        // of the name
        &[0x20, 0, 0, 0],    // an ordinary file
        name.as_bytes(),
    ]
    .concat();
    [RAR_4, &rar4_block(0x73, 0, &[0; 6]), &rar4_block(0x74, 0x8000, &file), content, &rar4_block(0x7b, 0x4000, &[])].concat()
}

fn rar4_block(kind: u8, flags: u16, fields: &[u8]) -> Vec<u8> {
    let size = (fields.len() as u16 + 7).to_le_bytes();
    let block = [&[kind][..], &flags.to_le_bytes(), &size, fields].concat();
    let crc = crc32fast::hash(&block) as u16;
    [&crc.to_le_bytes()[..], &block].concat()
}

/// A RAR 5 archive that stores one file.
pub fn rar5(name: &str, content: &[u8]) -> Vec<u8> {
    write_rar5(name, content, content.len())
}

/// The first of several volumes of a RAR 5 archive: it holds the first bytes of a file, the next volume the others.
pub fn rar5_first_volume(name: &str, content: &[u8], keep: usize) -> Vec<u8> {
    write_rar5(name, content, keep)
}

fn write_rar5(name: &str, content: &[u8], keep: usize) -> Vec<u8> {
    let here = &content[..keep];
    let (archive_flags, continued, end_flags) = if keep < content.len() { (1, 0x10, 1) } else { (0, 0, 0) };
    let main = [number(1), number(0), number(archive_flags)].concat();
    let mut file = [
        number(2),             // a file
        number(2 | continued), // data follow
        number(here.len()),    // packed
        number(4),             // there is a checksum
        number(content.len()), // unpacked
        number(0x20),          // an ordinary file
    ]
    .concat();
    // In all volumes but the last, the checksum is of the packed bytes.
    file.extend_from_slice(&crc32fast::hash(here).to_le_bytes());
    for field in [0, 0, name.len()] {
        file.extend(number(field)); // stored, made on Windows
    }
    file.extend_from_slice(name.as_bytes());
    let end = [number(5), number(0), number(end_flags)].concat();
    [RAR_5, &rar5_block(&main), &rar5_block(&file), here, &rar5_block(&end)].concat()
}

/// A RAR 5 archive whose list of files needs a password. What follows the encryption header cannot be told from noise, and is.
pub fn rar5_with_encrypted_headers() -> Vec<u8> {
    // AES-256, no check of the password, 2 to the 15th rounds of key derivation.
    let mut encryption = [number(4), number(0), number(0), number(0), vec![15]].concat();
    encryption.extend(noise(16)); // salt
    [RAR_5, &rar5_block(&encryption), &noise(240)].concat()
}

fn rar5_block(fields: &[u8]) -> Vec<u8> {
    let block = [&number(fields.len()), fields].concat();
    [&crc32fast::hash(&block).to_le_bytes()[..], &block].concat()
}

/// A number as RAR 5 writes it: seven bits a byte, the lowest first, the eighth bit set on all but the last.
fn number(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A program for Windows that unpacks itself: the archive behind a small executable, which does nothing.
pub fn windows_self_extractor(archive: &[u8]) -> Vec<u8> {
    let dos = [b"MZ".to_vec(), vec![0; 58], 0x40_u32.to_le_bytes().to_vec()].concat();
    let mut program = dos;
    program.extend_from_slice(b"PE\0\0");
    // File header: x86, one section, optional header of 224 bytes, an executable for 32 bits.
    for field in [0x14c_u16, 1, 0, 0, 0, 0, 0, 0, 224, 0x102] {
        program.extend_from_slice(&field.to_le_bytes());
    }
    // Optional header: PE32, code at 0x1000, loaded at 0x40_0000, an image of 0x2000 bytes with 0x200 of headers.
    let optional: [u32; 24] = [
        0x10b, 0x200, 0, 0, 0x1000, 0x1000, 0x2000, 0x40_0000, 0x1000, 0x200, 4, 0, 4, 0, 0x2000, 0x200, 0, 3, 0x10_0000,
        0x1000, 0x10_0000, 0x1000, 0, 16,
    ];
    optional.iter().for_each(|field| program.extend_from_slice(&field.to_le_bytes()));
    program.resize(program.len() + 128, 0);
    program.extend_from_slice(b".text\0\0\0");
    for field in [0x1000_u32, 0x1000, 0x200, 0x200, 0, 0, 0, 0x6000_0020] {
        program.extend_from_slice(&field.to_le_bytes());
    }
    program.resize(0x200, 0);
    program.push(0xc3); // return
    program.resize(0x400, 0);
    program.extend_from_slice(archive);
    program
}

/// A program for Linux that unpacks itself: the archive behind the header of an executable without any code.
pub fn linux_self_extractor(archive: &[u8]) -> Vec<u8> {
    let mut program = b"\x7fELF\x02\x01\x01".to_vec();
    program.resize(16, 0);
    // An executable for x86-64, its entry at 0x40_0078, one program header behind this one.
    program.extend_from_slice(&[2, 0, 62, 0, 1, 0, 0, 0]);
    for field in [0x40_0078_u64, 64, 0] {
        program.extend_from_slice(&field.to_le_bytes());
    }
    for field in [0_u16, 0, 64, 56, 1, 64, 0, 0] {
        program.extend_from_slice(&field.to_le_bytes());
    }
    // One segment, readable and executable: this file's first 0x80 bytes.
    program.extend_from_slice(&[1, 0, 0, 0, 5, 0, 0, 0]);
    for field in [0_u64, 0x40_0000, 0x40_0000, 0x80, 0x80, 0x1000] {
        program.extend_from_slice(&field.to_le_bytes());
    }
    program.resize(0x80, 0xc3);
    program.extend_from_slice(archive);
    program
}
