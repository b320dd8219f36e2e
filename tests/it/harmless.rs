//! What makes libclamav faster changes no verdict: the program finds the same with each switch off.
//!
//! The switches are a process's, so each setting is a run of the program of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use serde_json::Value;
use tempfile::TempDir;

use crate::differential::{COMMON, by_clamscan, some_files};
use crate::service::{clamgate, signatures};

const NO_JIT: (&str, &str) = ("CLAMGATE_SCAN__PCRE_JIT", "false");
const NO_FAST_EXPRESSIONS: (&str, &str) = ("CLAMGATE_SCAN__FAST_LOGICAL_EXPRESSIONS", "false");

/// What the program says of a file.
#[derive(Debug, PartialEq)]
struct Found {
    status: String,
    signatures: BTreeSet<String>,
    detail: Option<String>,
}

/// What the program says of files, with these settings besides the defaults.
fn scan(database: &Path, files: &[PathBuf], settings: &[(&str, &str)]) -> BTreeMap<PathBuf, Found> {
    let mut command = clamgate();
    command.args(["scan", "--format", "json", "--db"]).arg(database).args(files).envs(settings.iter().copied());
    let output = command.output().unwrap();
    let found: BTreeMap<PathBuf, Found> = String::from_utf8_lossy(&output.stdout).lines().map(parse).collect();
    assert_eq!(found.len(), files.len(), "{settings:?}: {}", String::from_utf8_lossy(&output.stderr));
    found
}

fn parse(line: &str) -> (PathBuf, Found) {
    let report: Value = serde_json::from_str(line).unwrap();
    let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
    let found = Found {
        status: text(&report["status"]).unwrap(),
        signatures: report["signatures"].as_array().unwrap().iter().filter_map(text).collect(),
        detail: text(&report["detail"]),
    };
    (report["target"]["path"].as_str().unwrap().into(), found)
}

/// The test signatures, with some more.
fn database(name: &str, lines: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(signatures().join("test.hdb"), dir.path().join("test.hdb")).unwrap();
    fs::write(dir.path().join(name), lines).unwrap();
    dir
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes files to scan.
fn write_files(dir: &TempDir, contents: impl Iterator<Item = String>) -> Vec<PathBuf> {
    let write = |(n, content)| {
        let path = dir.path().join(format!("{n}.txt"));
        fs::write(&path, content).unwrap();
        path
    };
    contents.enumerate().map(write).collect()
}

/// So much that no regular expression below is given up, in whatever way it is counted.
const AMPLE: [(&str, &str); 2] =
    [("CLAMGATE_LIMITS__PCRE_MATCH_LIMIT", "100000000"), ("CLAMGATE_LIMITS__PCRE_REC_MATCH_LIMIT", "1000000")];

/// The same signatures as clamscan's, file for file, whatever is switched off.
fn assert_harmless(database: &Path, files: &[PathBuf], at_least: usize) {
    let found = scan(database, files, &AMPLE);
    for settings in [&[NO_JIT][..], &[NO_FAST_EXPRESSIONS], &[NO_JIT, NO_FAST_EXPRESSIONS]] {
        let other = scan(database, files, &[&AMPLE, settings].concat());
        for (file, found) in &found {
            assert_eq!(found, &other[file], "{}, {settings:?}", file.display());
        }
    }
    let theirs = by_clamscan(database, files);
    for (file, found) in &found {
        assert_eq!(found.signatures, theirs.get(file).cloned().unwrap_or_default(), "{}", file.display());
    }
    let detections: usize = found.values().map(|found| found.signatures.len()).sum();
    assert!(detections >= at_least, "only {detections} detections are too few to compare");
}

/// How often something must match: `>3`, `=0`, `<2`, `>1,2` and the like, or nothing.
fn condition(rng: &mut Rng) -> String {
    let (operator, count) = (rng.choice(['=', '>', '<']).unwrap(), rng.u32(0..12));
    match rng.u32(0..6) {
        0 => format!("{operator}{count},{}", rng.u32(1..5)),
        1 | 2 => format!("{operator}{count}"),
        3 => "=0".to_owned(),
        _ => String::new(),
    }
}

/// An expression over the first so many subsignatures. Two terms at least: libclamav takes no condition on a group of one.
fn expression(rng: &mut Rng, subsignatures: usize, depth: u32) -> String {
    let operator = rng.choice(["&", "|"]).unwrap();
    let terms: Vec<String> = (0..rng.usize(2..=5))
        .map(|_| match depth {
            1.. if rng.u32(0..2) == 0 => format!("({}){}", expression(rng, subsignatures, depth - 1), condition(rng)),
            _ => format!("{}{}", rng.usize(0..subsignatures), condition(rng)),
        })
        .collect();
    terms.join(operator)
}

#[test]
fn generated_logical_expressions_find_the_same() {
    let mut rng = Rng::with_seed(6);
    let words: Vec<String> = (0..64).map(|_| (0..7).map(|_| rng.lowercase()).collect()).collect();
    let mut lines = String::new();
    for n in 0..200 {
        let last = rng.usize(0..64);
        let expression = expression(&mut rng, last + 1, 4);
        // libclamav wants the last subsignature in the expression.
        let operator = rng.choice(["&", "|"]).unwrap();
        write!(lines, "Logical.{n};Engine:51-255,Target:0;({expression}){operator}({last}|{last}=0)").unwrap();
        for _ in 0..=last {
            write!(lines, ";{}", hex(rng.choice(&words).unwrap())).unwrap();
        }
        lines.push('\n');
    }
    let database = database("logical.ldb", &lines);
    let dir = tempfile::tempdir().unwrap();
    let texts = (0..50).map(|n| {
        let known = rng.choose_multiple(&words, n + 4);
        (0..rng.usize(5..300)).map(|_| format!("{} ", rng.choice(&known).unwrap())).collect()
    });
    let files = write_files(&dir, texts.collect::<Vec<String>>().into_iter());
    assert_harmless(database.path(), &files, 1_000);
}

#[test]
fn real_files_give_the_same() {
    let mut lines: String = COMMON
        .iter()
        .enumerate()
        .map(|(n, text)| format!("Common.{n};Engine:51-255,Target:0;(0&1)>2,1;{};{}\n", hex(text), hex("th")))
        .collect();
    let patterns = ["[A-Z][a-z]+ \\d{4}", "(\\w{2,8}) \\1", "the (?:[a-z]{1,9} ){1,3}of", "^#!.*(bash|python|perl)"];
    for (n, pattern) in patterns.iter().enumerate() {
        writeln!(lines, "Regex.{n};Engine:81-255,Target:0;0&1;{};0/{pattern}/i", hex("th")).unwrap();
    }
    let database = database("common.ldb", &lines);
    assert_harmless(database.path(), &some_files(), 500);
}

/// A regular expression with much to try.
fn pattern(rng: &mut Rng, depth: u32) -> String {
    let atom = |rng: &mut Rng| match rng.u32(0..if depth == 0 { 4 } else { 10 }) {
        0..=2 => rng.choice(["a", "b", "c"]).unwrap().to_owned(),
        3 => rng.choice(["[ab]", "[^a]", ".", "\\w"]).unwrap().to_owned(),
        4 | 5 => format!("(?:{}|{})", pattern(rng, depth - 1), pattern(rng, depth - 1)),
        6 => format!("({})", pattern(rng, depth - 1)),
        7 => format!("(?={})", pattern(rng, depth - 1)),
        8 => format!("(?:{}|)", pattern(rng, depth - 1)),
        _ => format!("(?>{})", pattern(rng, depth - 1)),
    };
    (0..rng.usize(1..4))
        .map(|_| format!("{}{}", atom(rng), rng.choice(["", "", "*", "+", "?", "+?", "{2,5}", "*+"]).unwrap()))
        .collect()
}

/// The JIT counts in its own way towards the limits, so it may find what the interpreter gives up on; never the other way round.
#[test]
fn generated_regular_expressions_find_the_same() {
    let mut rng = Rng::with_seed(6);
    let lines: String = (0..120)
        .map(|n| {
            let pattern = format!("{}{}", pattern(&mut rng, 3), rng.choice(["", "", "d", "$"]).unwrap());
            format!("Regex.{n};Engine:81-255,Target:0;0&1;{};0/{pattern}/\n", hex("trigger"))
        })
        .collect();
    let database = database("regex.ldb", &lines);
    let dir = tempfile::tempdir().unwrap();
    let texts: Vec<String> = (0..40)
        .map(|n| {
            let letters: String = (0..rng.usize(0..=n * 50)).map(|_| rng.choice(['a', 'b', 'c']).unwrap()).collect();
            format!("trigger{letters}{}", rng.choice(["", "d", "ab\n"]).unwrap())
        })
        .collect();
    let files = write_files(&dir, texts.into_iter());
    let with = |limit: &'static str, depth: &'static str, more: &[(&'static str, &'static str)]| {
        let limits = [("CLAMGATE_LIMITS__PCRE_MATCH_LIMIT", limit), ("CLAMGATE_LIMITS__PCRE_REC_MATCH_LIMIT", depth)];
        scan(database.path(), &files, &[&limits, more].concat())
    };
    let mut given_up = 0;
    for (limit, depth) in [("50", "20"), ("1000", "100"), ("30000", "20000")] {
        let (jit, interpreter) = (with(limit, depth, &[]), with(limit, depth, &[NO_JIT]));
        for (file, jit) in &jit {
            let interpreter = &interpreter[file];
            let place = format!("{}, limits {limit} and {depth}:\n{lines}", file.display());
            if interpreter.detail.is_none() {
                assert_eq!(jit, interpreter, "{place}");
            } else {
                assert_eq!(interpreter.detail.as_deref(), Some("PCREMatch"), "{place}");
                assert!(jit.signatures.is_superset(&interpreter.signatures), "{jit:?}, {interpreter:?}, {place}");
                given_up += 1;
            }
        }
    }
    assert!(given_up > 10, "only {given_up} scans met a limit");
}
