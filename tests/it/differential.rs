//! The same detections as `clamscan --allmatch`, on real files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clamgate::engine::{EngineBuilder, judge};
use walkdir::WalkDir;

use crate::service::signatures;

/// Signatures that many ordinary files match, so that there is something to compare.
pub const COMMON: &[&str] = &[
    "Copyright",
    "License",
    "python",
    "import ",
    "return",
    "GNU ",
    "http://",
    "<html",
    "PNG",
    "/bin/",
    "\0\0\0\0\0\0\0\0",
    "ELF",
    "main",
    "define",
    "Debian",
    "version",
];

/// Every few files of the system, none large.
pub fn some_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for dir in ["/usr/share/doc", "/usr/lib/python3", "/usr/bin", "/usr/include", "/usr/share/perl"] {
        let found = WalkDir::new(dir).sort_by_file_name().into_iter().flatten().filter(|entry| {
            entry.file_type().is_file() && entry.metadata().is_ok_and(|metadata| (6..300_000).contains(&metadata.len()))
        });
        let found: Vec<PathBuf> = found.map(walkdir::DirEntry::into_path).collect();
        files.extend(found.iter().step_by(found.len() / 100 + 1).cloned());
    }
    files.extend(fs::read_dir("/usr/share/clamav-testfiles").unwrap().map(|entry| entry.unwrap().path()));
    files
}

/// What clamscan finds, by file.
pub fn by_clamscan(database: &Path, files: &[PathBuf]) -> BTreeMap<PathBuf, BTreeSet<String>> {
    let list = database.join("files.txt");
    fs::write(&list, files.iter().map(|file| format!("{}\n", file.display())).collect::<String>()).unwrap();
    let mut command = Command::new("clamscan");
    command.args([
        "--allmatch",
        "--no-summary",
        "--infected",
        "--disable-cache",
        "--max-filesize=1000M",
        "--max-scansize=1000M",
        "--pcre-match-limit=100000000",
        "--pcre-recmatch-limit=1000000",
    ]);
    let output = command.arg("-d").arg(database).arg("-f").arg(&list).output().unwrap();
    let mut found: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Some((path, name)) = line.strip_suffix(" FOUND").and_then(|line| line.rsplit_once(": ")) else { continue };
        found.entry(path.into()).or_default().insert(name.to_owned());
    }
    found
}

#[test]
fn detections_equal_those_of_clamscan() {
    let database = tempfile::tempdir().unwrap();
    for file in fs::read_dir(signatures()).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), database.path().join(file.file_name())).unwrap();
    }
    let hex = |text: &str| -> String { text.bytes().map(|byte| format!("{byte:02x}")).collect() };
    let common: String = COMMON.iter().enumerate().map(|(n, text)| format!("Common.{n}:0:*:{}\n", hex(text))).collect();
    fs::write(database.path().join("common.ndb"), common).unwrap();

    let files = some_files();
    assert!(files.len() > 300, "only {} files on this machine", files.len());
    let engine = EngineBuilder::new().load(database.path()).unwrap();
    let theirs = by_clamscan(database.path(), &files);
    let mut ours = BTreeMap::new();
    for file in &files {
        let verdict = judge(&engine.scan_bytes(&fs::read(file).unwrap()));
        if !verdict.signatures.is_empty() {
            ours.insert(file.clone(), verdict.signatures.into_iter().collect::<BTreeSet<_>>());
        }
    }
    let names: usize = ours.values().map(BTreeSet::len).sum();
    assert!(names > 500, "only {names} detections are too few to compare");
    for file in &files {
        assert_eq!(ours.get(file), theirs.get(file), "{}", file.display());
    }
}
