//! What an ordinary unpacker gets out of a damaged archive is never called clean.
//!
//! The unpackers are Rust crates, so libFuzzer sees how they read an archive, and finds the ones that they and libclamav read
//! differently. libclamav is asked only where EICAR came out.

#![no_main]

use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::LazyLock;

use clamgate::engine::{EICAR, Engine, EngineBuilder, Limits, Status, judge};
use libfuzzer_sys::fuzz_target;

/// Members beyond these are not unpacked.
const MOST_MEMBERS: usize = 20;

static WANTED: LazyLock<Vec<u8>> = LazyLock::new(|| EICAR.concat().into_bytes());

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let database = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/signatures"));
    // Inputs are small. What grows beyond this is a bomb, and would only take time.
    let limits = Limits { max_file_size_bytes: 8 << 20, max_scan_size_bytes: 32 << 20, max_files: 500, ..Limits::default() };
    EngineBuilder::new().limits(limits).load(database).expect("an engine")
});

fuzz_target!(|bytes: &[u8]| {
    let ways = [
        ("a zip, by its directory", listed_in_zip(bytes)),
        ("a zip, from its start", streamed_from_zip(bytes)),
        ("a tar", is_in_tar(bytes)),
        ("a gzip", is_wanted(flate2::read::MultiGzDecoder::new(bytes))),
    ];
    for (way, unpacked) in ways {
        if unpacked {
            let verdict = judge(&ENGINE.scan_bytes(bytes));
            assert!(verdict.status != Status::Clean, "EICAR comes out of it as {way}");
        }
    }
});

fn listed_in_zip(bytes: &[u8]) -> bool {
    let Ok(mut archive) = zip::ZipArchive::new(Cursor::new(bytes)) else { return false };
    (0..archive.len().min(MOST_MEMBERS)).any(|number| archive.by_index(number).is_ok_and(is_wanted))
}

fn streamed_from_zip(mut bytes: &[u8]) -> bool {
    let mut members = std::iter::from_fn(|| zip::read::read_zipfile_from_stream(&mut bytes).ok()?.map(is_wanted));
    members.by_ref().take(MOST_MEMBERS).any(|wanted| wanted)
}

fn is_in_tar(bytes: &[u8]) -> bool {
    let mut archive = tar::Archive::new(bytes);
    archive.entries().is_ok_and(|mut members| members.by_ref().take(MOST_MEMBERS).any(|member| member.is_ok_and(is_wanted)))
}

/// Whether this is EICAR to the last byte, with the right checksum where there is one.
fn is_wanted(reader: impl Read) -> bool {
    let mut content = Vec::new();
    reader.take(1024).read_to_end(&mut content).is_ok() && content == *WANTED
}
