//! Small files that unpack to far too much. All are quick to make.

use std::io::Write;

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};

use super::{stored_zip, zip};

/// Zips in zips, like 42.zip: on each level 16 of the level below, and a MiB of zeros in each of the innermost.
///
/// Five levels unpack to a TiB. With libclamav's cache of clean files such a bomb is harmless, as all members of a zip are the
/// same; without it, the limits must stop the scan.
pub fn nested_zips(levels: usize) -> Vec<u8> {
    let names: Vec<String> = (0..16).map(|n| format!("{n:x}.zip")).collect();
    let innermost = zip(&[("zeros", &vec![0; 1 << 20])]);
    (0..levels).fold(innermost, |inner, _| {
        let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), inner.as_slice())).collect();
        zip(&files)
    })
}

/// A zip in a zip in a zip, this many, around the content.
pub fn deep_zip(depth: usize, content: &[u8]) -> Vec<u8> {
    (0..depth).fold(content.to_vec(), |inner, _| stored_zip(&[("inner", &inner)]))
}

/// A zip of this many small files, no two the same, and of one more behind them.
pub fn crowded_zip(members: usize, last: &[u8]) -> Vec<u8> {
    let names: Vec<String> = (0..members).map(|n| format!("{n:06}.txt")).collect();
    let mut files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
    files.push(("last", last));
    stored_zip(&files)
}

/// A gz of this many MiB of zeros, a thousandth of that in size.
///
/// The zeros are packed once, up to a flush; behind a flush, the packed bytes may be repeated as often as one likes.
pub fn gz_of_zeros(mebibytes: usize) -> Vec<u8> {
    let zeros = vec![0; 1 << 20];
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&zeros).unwrap();
    encoder.flush().unwrap();
    let packed = encoder.get_ref().clone();
    let mut one = Crc::new();
    one.update(&zeros);
    let mut all = Crc::new();
    (0..mebibytes).for_each(|_| all.combine(&one));

    let mut gz = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    (0..mebibytes).for_each(|_| gz.extend_from_slice(&packed));
    gz.extend_from_slice(&[3, 0]); // an empty last block
    gz.extend_from_slice(&all.sum().to_le_bytes());
    gz.extend_from_slice(&all.amount().to_le_bytes());
    gz
}
