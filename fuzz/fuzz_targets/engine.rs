//! A warm engine on damaged containers: whatever they are, the verdict is sound, and it does not depend on how they come in.
//!
//! libclamav is used as it is installed, without coverage: libFuzzer sees the Rust code alone, and mutates the rest blindly. To
//! keep it from losing what libclamav reacts to, everything that libclamav says counts as coverage, too (`remember`).

#![no_main]

use std::fs::File;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::io::Write;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use std::{env, fs};

use clamgate::engine::{EICAR, Engine, EngineBuilder, Limits, Observations, Status, Verdict, judge};
use clamgate::scan::Scratch;
use libfuzzer_sys::fuzz_target;

/// libFuzzer counts what is here as coverage, and clears it before each input (`FuzzerExtraCounters.cpp`).
#[used]
#[unsafe(link_section = "__libfuzzer_extra_counters")]
static COUNTERS: [AtomicU8; 4096] = [const { AtomicU8::new(0) }; 4096];

/// Where libclamav writes. It is removed by the next run: statics are not dropped.
static SCRATCH: LazyLock<Scratch> = LazyLock::new(|| Scratch::create(&env::temp_dir()).expect("a scratch directory"));

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let database = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/signatures"));
    // Inputs are small. What grows beyond this is a bomb, and would only take time.
    let limits = Limits { max_file_size_bytes: 8 << 20, max_scan_size_bytes: 32 << 20, max_files: 500, ..Limits::default() };
    let builder = EngineBuilder::new().limits(limits).timeout(Duration::from_secs(20)).scratch_dir(SCRATCH.path());
    builder.load(database).expect("an engine")
});

fuzz_target!(|bytes: &[u8]| {
    let eicar = EICAR.concat().into_bytes();
    let verdict = scan(bytes);
    if bytes == eicar {
        assert_eq!(verdict.status, Status::Infected, "{verdict:?}");
    }

    // Another way in, and once more: nothing of the first scan is left in the engine.
    assert_eq!(scan_file(bytes), verdict, "as a file, and in memory");

    // A container around it hides nothing.
    let inside = scan(&stored_zip(&[bytes]));
    let kept = |name| inside.signatures.contains(name);
    assert!(is_incomplete(&inside) || verdict.signatures.iter().all(kept), "{inside:?} in a zip, but {verdict:?} alone");
    assert!(inside.status != Status::Clean || verdict.status == Status::Clean, "{inside:?} in a zip, but {verdict:?} alone");

    // Nor does it hide what comes after it.
    let beside = scan(&stored_zip(&[bytes, &eicar]));
    assert!(is_incomplete(&beside) || beside.status == Status::Infected, "{beside:?} beside EICAR, but {verdict:?} alone");

    let left: Vec<_> = fs::read_dir(SCRATCH.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"], "libclamav left temporary files");
});

fn scan(bytes: &[u8]) -> Verdict {
    verdict(&ENGINE.scan_bytes(bytes))
}

fn scan_file(bytes: &[u8]) -> Verdict {
    let mut file: File = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    verdict(&ENGINE.scan_file(&file).unwrap())
}

fn verdict(seen: &Observations) -> Verdict {
    remember(seen);
    let verdict = judge(seen);
    assert_eq!(verdict.reason.is_some(), verdict.detail.is_some(), "{verdict:?}");
    assert!(verdict.status != Status::Clean || seen.finished, "{verdict:?} of {seen:?}");
    verdict
}

/// Whether something was not scanned: damage in one member can keep libclamav from the others. It says so, and that is all that it
/// owes.
fn is_incomplete(verdict: &Verdict) -> bool {
    verdict.status != Status::Clean && verdict.reason.is_some()
}

/// Makes coverage of what libclamav said. Without the digits, which would make every input a new one.
fn remember(seen: &Observations) {
    let texts = seen.signatures.iter().chain(&seen.parse_errors).chain(&seen.unsupported).chain(&seen.failures);
    for text in texts.chain(seen.messages.iter().map(|message| &message.text)) {
        let text: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(text);
        COUNTERS[hash as usize % COUNTERS.len()].store(1, Ordering::Relaxed);
    }
}

/// A zip that holds each of these as it is.
fn stored_zip(members: &[&[u8]]) -> Vec<u8> {
    let mut zip = Vec::new();
    let mut directory = Vec::new();
    for (number, content) in (0..).zip(members) {
        let size = u32::try_from(content.len()).unwrap().to_le_bytes();
        // From the flags to the lengths of the name and of the extra field: the same in the header and in the directory.
        let common = [
            &[0; 8][..], // flags, method, time, date
            &crc32fast::hash(content).to_le_bytes(),
            &size,
            &size,
            &[1, 0, 0, 0],
        ]
        .concat();
        let name = [b'a' + number];
        let at = u32::try_from(zip.len()).unwrap().to_le_bytes();
        directory.extend([b"PK\x01\x02\x14\0\x14\0", &common[..], &[0; 10], &at, &name].concat());
        zip.extend([b"PK\x03\x04\x14\0", &common[..], &name, content].concat());
    }
    let (at, size) = (zip.len() as u32, directory.len() as u32);
    let count = (members.len() as u16).to_le_bytes();
    zip.extend(directory);
    zip.extend([b"PK\x05\x06\0\0\0\0", &count[..], &count, &size.to_le_bytes(), &at.to_le_bytes(), &[0, 0]].concat());
    zip
}
