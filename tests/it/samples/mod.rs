//! Things to scan, made here.

pub mod archives;
pub mod bombs;
pub mod documents;
pub mod rar;

use std::io::{Cursor, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// The EICAR test file.
pub fn eicar() -> Vec<u8> {
    clamgate::engine::EICAR.concat().into_bytes()
}

pub const EICAR_NAME: &str = "Win.Test.EICAR_HDB-1.UNOFFICIAL";

/// A zip of these files.
pub fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    write_zip(files, SimpleFileOptions::default())
}

/// A zip that stores its files without packing them.
pub fn stored_zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    write_zip(files, SimpleFileOptions::default().compression_method(CompressionMethod::Stored))
}

/// A zip of one file that needs a password.
pub fn encrypted_zip(name: &str, content: &[u8]) -> Vec<u8> {
    let options = SimpleFileOptions::default().with_aes_encryption(zip::AesMode::Aes256, "secret");
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.start_file(name, options).unwrap();
    writer.write_all(content).unwrap();
    writer.finish().unwrap().into_inner()
}

fn write_zip(files: &[(&str, &[u8])], options: SimpleFileOptions) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        writer.start_file(*name, options).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A tar.gz of one file.
pub fn tar_gz(name: &str, content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, name, content).unwrap();
    builder.into_inner().unwrap().finish().unwrap()
}

/// Clean, small, and libclamav is busy with it for some seconds: many members that unpack to much.
pub fn slow(members: usize) -> Vec<u8> {
    let inner = zip(&[("zeros", &vec![0; 32 * 1024 * 1024])]);
    let names: Vec<String> = (0..members).map(|n| format!("{n}.zip")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), inner.as_slice())).collect();
    stored_zip(&files)
}

/// Clean bytes that do not pack well, the same every time.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
