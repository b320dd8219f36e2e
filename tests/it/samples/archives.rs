//! Archives: containers to nest things in, and archives that need a password.

use std::io::{Cursor, Write};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bzip2::write::BzEncoder;
use flate2::Compression;
use flate2::write::GzEncoder;
use lzma_rust2::{XzOptions, XzWriter};
use sevenz_rust2::encoder_options::{AesEncoderOptions, Lzma2Options};
use sevenz_rust2::{ArchiveEntry, ArchiveWriter, EncoderConfiguration};
use zip::write::SimpleFileOptions;
use zip::{AesMode, ZipWriter};

use super::{stored_zip, zip};

/// What a file can be packed in so that libclamav finds it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    DeflatedZip,
    StoredZip,
    Tar,
    Gz,
    Bz2,
    Xz,
    SevenZip,
    Mail,
    Ole2,
}

impl Container {
    pub const ALL: [Container; 9] = [
        Container::DeflatedZip,
        Container::StoredZip,
        Container::Tar,
        Container::Gz,
        Container::Bz2,
        Container::Xz,
        Container::SevenZip,
        Container::Mail,
        Container::Ole2,
    ];
}

/// A container with one file in it.
pub fn wrap(container: Container, inner: &[u8]) -> Vec<u8> {
    match container {
        Container::DeflatedZip => zip(&[("inner", inner)]),
        Container::StoredZip => stored_zip(&[("inner", inner)]),
        Container::Tar => tar(&[("inner", inner)]),
        Container::Gz => gz(inner),
        Container::Bz2 => bz2(inner),
        Container::Xz => xz(inner),
        Container::SevenZip => seven_zip(&[("inner", inner)]),
        Container::Mail => mail("inner", inner),
        Container::Ole2 => ole2(&[("inner", inner)]),
    }
}

/// Containers one in another, the first the outermost.
pub fn nest(containers: &[Container], inner: &[u8]) -> Vec<u8> {
    containers.iter().rev().fold(inner.to_vec(), |inner, &container| wrap(container, &inner))
}

/// The first bytes of a file, as if an upload had broken off.
pub fn truncate(bytes: &[u8], keep: usize) -> Vec<u8> {
    bytes[..keep.min(bytes.len())].to_vec()
}

pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn gz(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

pub fn bz2(content: &[u8]) -> Vec<u8> {
    let mut encoder = BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

pub fn xz(content: &[u8]) -> Vec<u8> {
    let mut writer = XzWriter::new(Vec::new(), XzOptions::with_preset(0)).unwrap();
    writer.write_all(content).unwrap();
    writer.finish().unwrap()
}

pub fn seven_zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    write_seven_zip(files, vec![lzma2()], false)
}

/// A 7z that needs the password `secret`: for the content alone, or for the list of its files too.
pub fn encrypted_seven_zip(name: &str, content: &[u8], with_names: bool) -> Vec<u8> {
    let password = AesEncoderOptions::new("secret".into());
    write_seven_zip(&[(name, content)], vec![password.into(), lzma2()], with_names)
}

fn lzma2() -> EncoderConfiguration {
    Lzma2Options::from_level(0).into()
}

fn write_seven_zip(files: &[(&str, &[u8])], methods: Vec<EncoderConfiguration>, encrypt_names: bool) -> Vec<u8> {
    let mut writer = ArchiveWriter::new(Cursor::new(Vec::new())).unwrap();
    writer.set_content_methods(methods);
    writer.set_encrypt_header(encrypt_names);
    for (name, content) in files {
        writer.push_archive_entry(ArchiveEntry::new_file(name), Some(*content)).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A mail with one attachment.
pub fn mail(name: &str, attachment: &[u8]) -> Vec<u8> {
    let mut mail = format!(
        "From: a@example.com\r\n\
         To: b@example.com\r\n\
         Subject: hello\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=\"boundary\"\r\n\
         \r\n\
         --boundary\r\n\
         Content-Type: text/plain\r\n\
         \r\n\
         Please see the attachment.\r\n\
         --boundary\r\n\
         Content-Type: application/octet-stream; name=\"{name}\"\r\n\
         Content-Disposition: attachment; filename=\"{name}\"\r\n\
         Content-Transfer-Encoding: base64\r\n\
         \r\n"
    )
    .into_bytes();
    for line in BASE64_STANDARD.encode(attachment).as_bytes().chunks(76) {
        mail.extend_from_slice(line);
        mail.extend_from_slice(b"\r\n");
    }
    mail.extend_from_slice(b"--boundary--\r\n");
    mail
}

/// A compound file with these streams: the format of Word, Excel and PowerPoint until 2003, and of Outlook's messages.
pub fn ole2(streams: &[(&str, &[u8])]) -> Vec<u8> {
    let mut compound = cfb::CompoundFile::create_with_version(cfb::Version::V3, Cursor::new(Vec::new())).unwrap();
    for (name, content) in streams {
        compound.create_stream(name).unwrap().write_all(content).unwrap();
    }
    compound.into_inner().into_inner()
}

/// A zip in which one of the files needs a password, and the others do not.
pub fn partly_encrypted_zip(files: &[(&str, &[u8])], encrypted: &str) -> Vec<u8> {
    let plain = SimpleFileOptions::default();
    let with_password = plain.with_aes_encryption(AesMode::Aes256, "secret");
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        writer.start_file(*name, if *name == encrypted { with_password } else { plain }).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}
