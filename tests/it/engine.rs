//! The engine as a library.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clamgate::engine::{Canary, EngineBuilder, Limits, LoadError, Reason, Status, Verdict, judge};
use clamgate::scan::{Backend, Input, Pool, Warm};

use crate::samples::{self, EICAR_NAME, eicar};
use crate::service::signatures;

fn scan(limits: Limits, bytes: &[u8]) -> Verdict {
    let engine = EngineBuilder::new().limits(limits).load(&signatures()).unwrap();
    judge(&engine.scan_bytes(bytes))
}

#[test]
fn verdicts_on_samples() {
    let engine = EngineBuilder::new().load(&signatures()).unwrap();
    let in_zip = samples::zip(&[("eicar.com", &eicar())]);
    let encrypted = samples::encrypted_zip("salaries.txt", &eicar());
    let table: Vec<(&str, Vec<u8>, Status, Option<Reason>)> = vec![
        ("nothing", vec![], Status::Clean, None),
        ("one byte", vec![b'x'], Status::Clean, None),
        ("five bytes", vec![b'x'; 5], Status::Clean, None),
        ("six bytes", vec![b'x'; 6], Status::Clean, None),
        ("text", b"hello world".to_vec(), Status::Clean, None),
        ("eicar", eicar(), Status::Infected, None),
        ("eicar in zip in tar.gz", samples::tar_gz("e.zip", &in_zip), Status::Infected, None),
        ("encrypted zip", encrypted.clone(), Status::Unscannable, Some(Reason::Encrypted)),
        ("encrypted zip in zip", samples::zip(&[("e.zip", &encrypted)]), Status::Unscannable, Some(Reason::Encrypted)),
        (
            "eicar beside an encrypted zip",
            samples::zip(&[("e.zip", &encrypted), ("eicar.com", &eicar())]),
            Status::Infected,
            Some(Reason::Encrypted),
        ),
    ];
    for (case, bytes, status, reason) in table {
        let verdict = judge(&engine.scan_bytes(&bytes));
        assert_eq!((verdict.status, verdict.reason), (status, reason), "{case}: {verdict:?}");
        assert_eq!(verdict.signatures, if status == Status::Infected { vec![EICAR_NAME] } else { vec![] }, "{case}");

        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        assert_eq!(judge(&engine.scan_file(&file).unwrap()), verdict, "{case}, as a file");
    }
}

#[test]
fn clamav_test_files_are_found() {
    let engine = EngineBuilder::new().load(&signatures()).unwrap();
    let files: Vec<_> = fs::read_dir("/usr/share/clamav-testfiles").unwrap().collect();
    assert!(files.len() > 30, "the package clamav-testfiles is not installed");
    for file in files {
        let path = file.unwrap().path();
        let verdict = judge(&engine.scan_bytes(&fs::read(&path).unwrap()));
        assert_eq!(verdict.status, Status::Infected, "{}: {verdict:?}", path.display());
        assert_eq!(verdict.signatures, ["Clamav.Test.File-6.UNOFFICIAL"], "{}", path.display());
    }
}

#[test]
fn whatever_exceeds_a_limit_is_not_clean() {
    let zeros = vec![0; 3_000_000];
    let zip = samples::zip(&[("a", &zeros), ("b", &zeros), ("c", &zeros)]);
    let mut nested = b"harmless".to_vec();
    for _ in 0..8 {
        nested = samples::zip(&[("in.zip", &nested)]);
    }
    let lax = Limits::default();
    for (case, limits, bytes, detail) in [
        ("member", Limits { max_file_size_bytes: 1_000_000, ..lax.clone() }, &zip, "MaxFileSize"),
        ("sum", Limits { max_scan_size_bytes: 4_000_000, ..lax.clone() }, &zip, "MaxScanSize"),
        ("files", Limits { max_files: 2, ..lax.clone() }, &zip, "MaxFiles"),
        ("depth", Limits { max_recursion: 5, ..lax.clone() }, &nested, "MaxRecursion"),
    ] {
        assert_eq!(scan(lax.clone(), bytes).status, Status::Clean, "{case}, within the limits");
        let verdict = scan(limits, bytes);
        assert_eq!((verdict.status, verdict.reason), (Status::Unscannable, Some(Reason::LimitExceeded)), "{case}: {verdict:?}");
        assert_eq!(verdict.detail.as_deref(), Some(detail), "{case}");
    }
    let verdict = scan(Limits { max_file_size_bytes: 1_000_000, ..lax }, &zeros);
    assert_eq!((verdict.status, verdict.reason), (Status::Unscannable, Some(Reason::TooLarge)));
}

/// libclamav skipped what it could not unpack, and called the rest clean.
#[test]
fn members_that_were_not_unpacked_were_clean() {
    let engine = EngineBuilder::new().load(&signatures()).unwrap();
    let good = samples::zip(&[("a.txt", b"some harmless text"), ("b.txt", b"some harmless text"), ("c/", b"")]);
    assert_eq!(judge(&engine.scan_bytes(&good)).status, Status::Clean);
    // The method of each local header, and of each entry in the directory, becomes one that libclamav does not know.
    let mut bad = good;
    for (signature, method) in [(b"PK\x03\x04", 8), (b"PK\x01\x02", 10)] {
        let found: Vec<usize> = (0..bad.len() - 4).filter(|&at| bad[at..].starts_with(signature)).collect();
        for at in found {
            bad[at + method] = 93;
        }
    }
    let verdict = judge(&engine.scan_bytes(&bad));
    assert_eq!((verdict.status, verdict.reason), (Status::Unscannable, Some(Reason::Unsupported)), "{verdict:?}");
}

/// A page above MaxHTMLNormalize was not scanned at all.
#[test]
fn a_large_html_page_was_clean_unseen() {
    let page = |size: usize| [b"<html><body>".to_vec(), b"<p>hello</p>".repeat(size / 12), b"</body></html>".to_vec()].concat();
    let limits = Limits { max_html_normalize_bytes: 100_000, ..Limits::default() };
    assert_eq!(scan(limits.clone(), &page(50_000)).status, Status::Clean);
    for bytes in [page(200_000), samples::zip(&[("page.html", &page(200_000))])] {
        let verdict = scan(limits.clone(), &bytes);
        assert_eq!((verdict.status, verdict.detail.as_deref()), (Status::Unscannable, Some("MaxHTMLNormalize")));
    }
}

#[test]
fn a_scan_that_takes_too_long_is_not_clean() {
    let engine = EngineBuilder::new().timeout(Duration::from_millis(50)).load(&signatures()).unwrap();
    let verdict = judge(&engine.scan_bytes(&samples::slow(8)));
    assert_eq!((verdict.status, verdict.reason), (Status::Unscannable, Some(Reason::TimedOut)), "{verdict:?}");
}

#[test]
fn a_missing_scratch_directory_is_not_clean() {
    let dir = tempfile::tempdir().unwrap();
    let engine = EngineBuilder::new().scratch_dir(dir.path()).load(&signatures()).unwrap();
    drop(dir);
    let verdict = judge(&engine.scan_bytes(&samples::zip(&[("a", b"harmless")])));
    assert_eq!((verdict.status, verdict.reason), (Status::Unscannable, Some(Reason::EngineError)));
}

#[test]
fn databases_that_cannot_be_trusted_are_refused() {
    let load = |files: &[(&str, &str)]| {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        EngineBuilder::new().load(dir.path()).map(|_| ()).unwrap_err()
    };
    let other = "aa15bcf478d165efd2065190eb473bcb:544:Clamav.Test.File-6\n";
    let eicar = "44d88612fea8a8f36de82e1278abb02f:68:Eicar\n";
    assert!(matches!(load(&[]), LoadError::NoDatabase(_)));
    assert!(matches!(load(&[("README", "text")]), LoadError::NoDatabase(_)));
    assert!(matches!(load(&[("a.ign2", "Some.Name\n")]), LoadError::Empty(_)));
    assert!(matches!(load(&[("a.hdb", eicar), ("b.hdb", "half a li")]), LoadError::Load { .. }));
    assert!(matches!(load(&[("a.hdb", eicar), ("daily.cvd", "ClamAV-VDB:truncated")]), LoadError::Load { .. }));
    assert!(matches!(load(&[("a.hdb", other)]), LoadError::Canary { .. }));
    let partial = EngineBuilder::new().required(vec!["main".to_owned()]).load(&signatures()).unwrap_err();
    assert!(matches!(partial, LoadError::Incomplete { .. }));
    let missing = EngineBuilder::new().load(Path::new("/does/not/exist")).unwrap_err();
    assert!(matches!(missing, LoadError::Read { .. }));
}

/// Each pattern with and without the JIT; the repeated groups need more stack than the JIT has.
#[test]
fn regular_expressions_find_the_same_with_and_without_the_jit() {
    let repeated = [b"trigger".to_vec(), b"ab".repeat(20_000), b"c".to_vec()].concat();
    let endless = [b"trigger".to_vec(), b"ab".repeat(500)].concat();
    for (pattern, content, status) in [
        ("ma[l1]ware", b"trigger: ma1ware".to_vec(), Status::Infected),
        ("ma[l1]ware", b"trigger: harmless".to_vec(), Status::Clean),
        ("(?:(a)|(b))+c", repeated.clone(), Status::Infected),
        ("(?:(?:(a)|(b))(?=(.))?)+c", repeated, Status::Infected),
        ("(?:(a)|(b))+c", endless, Status::Clean),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(signatures().join("test.hdb"), dir.path().join("test.hdb")).unwrap();
        let signature = format!("Regex;Engine:81-255,Target:0;0&1;{};0/{pattern}/\n", hex("trigger"));
        fs::write(dir.path().join("regex.ldb"), signature).unwrap();
        for jit in [false, true] {
            let limits = Limits { pcre_match_limit: 10_000_000, pcre_rec_match_limit: 1_000_000, ..Limits::default() };
            let engine = EngineBuilder::new().limits(limits).pcre_jit(jit).load(dir.path()).unwrap();
            assert_eq!(judge(&engine.scan_bytes(&content)).status, status, "{pattern}, JIT: {jit}");
        }
    }
}

/// PCRE2 10.42 finds these with its interpreter and overlooks them with its JIT, "no match" being its answer.
#[test]
fn what_the_jit_overlooks_was_clean() {
    for (pattern, content) in [
        ("(1|)b*1", "xxxxxxxxxxxxx 1 yyyy"),
        ("(?:eval|)\\s*eval\\x28", "===eval(x)====="),
        ("(cmd|)\\s*cmd", "=====xcmdx====="),
        ("(?:MZ|)\\s*MZ", "=====MZ====="),
        ("(?:[a-c]|){2}\\s*+[ab]+", "x c CBbB"),
        ("(?>.+?)b1", "ba1cb1 c11b"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(signatures().join("test.hdb"), dir.path().join("test.hdb")).unwrap();
        let signature = format!("Regex;Engine:81-255,Target:0;0&1;{};0/{pattern}/\n", hex("trigger"));
        fs::write(dir.path().join("regex.ldb"), signature).unwrap();
        for jit in [false, true] {
            let engine = EngineBuilder::new().pcre_jit(jit).load(dir.path()).unwrap();
            let verdict = judge(&engine.scan_bytes(format!("trigger {content}").as_bytes()));
            assert_eq!(verdict.status, Status::Infected, "{pattern}, JIT: {jit}");
        }
    }
}

/// libclamav takes a regular expression that it gave up for one that does not match.
#[test]
fn a_regular_expression_that_was_given_up_was_clean() {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(signatures().join("test.hdb"), dir.path().join("test.hdb")).unwrap();
    let signature = format!("Regex;Engine:81-255,Target:0;0&1;{};0/(?:(a)|(b))+c/\n", hex("trigger"));
    fs::write(dir.path().join("regex.ldb"), signature).unwrap();
    let content = [b"trigger".to_vec(), b"ab".repeat(500), b"Xc".to_vec()].concat();
    for (pcre_match_limit, jit, expected) in [
        (100_000_000, true, (Status::Clean, None)),
        (100, true, (Status::Unscannable, Some("PCREMatch"))),
        (100, false, (Status::Unscannable, Some("PCREMatch"))),
    ] {
        let limits = Limits { pcre_match_limit, pcre_rec_match_limit: 1_000_000, ..Limits::default() };
        let engine = EngineBuilder::new().limits(limits).pcre_jit(jit).load(dir.path()).unwrap();
        let verdict = judge(&engine.scan_bytes(&content));
        assert_eq!((verdict.status, verdict.detail.as_deref()), expected, "{pcre_match_limit}, JIT: {jit}");
    }
}

#[test]
fn what_is_found_decides_by_its_kind_unless_it_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(signatures().join("test.hdb"), dir.path().join("test.hdb")).unwrap();
    let signatures = [("PUA.Tool", "a dubious tool"), ("Zoo", "an animal"), ("Ant", "an animal"), ("Heuristics.Odd", "odd")];
    let lines: Vec<String> = signatures.iter().map(|(name, text)| format!("{name}:0:*:{}\n", hex(text))).collect();
    fs::write(dir.path().join("own.ndb"), lines.concat()).unwrap();
    let in_zip = |text: &str| samples::zip(&[("a", text.as_bytes()), ("eicar", &eicar())]);
    let (pua, odd, ant, zoo) = ("PUA.Tool.UNOFFICIAL", "Heuristics.Odd.UNOFFICIAL", "Ant.UNOFFICIAL", "Zoo.UNOFFICIAL");
    for (allowed, bytes, status, names) in [
        (&[][..], b"a dubious tool".to_vec(), Status::Suspicious, &[pua][..]),
        (&[], b"odd, and a dubious tool".to_vec(), Status::Suspicious, &[odd, pua]),
        (&[], b"an animal, a dubious tool, an animal".to_vec(), Status::Infected, &[ant, pua, zoo]),
        (&[pua], b"a dubious tool".to_vec(), Status::Clean, &[]),
        (&[zoo], b"an animal".to_vec(), Status::Infected, &[ant]),
        (&[zoo, ant], b"an animal and a dubious tool".to_vec(), Status::Suspicious, &[pua]),
        (&["Zoo"], b"an animal".to_vec(), Status::Infected, &[ant, zoo]),
        (&[EICAR_NAME], eicar(), Status::Clean, &[]),
        // What was allowed in one member says nothing of the others.
        (&[EICAR_NAME], in_zip("an animal"), Status::Infected, &[ant, zoo]),
        (&[EICAR_NAME], in_zip("harmless"), Status::Clean, &[]),
    ] {
        let builder = EngineBuilder::new().pua(true).allowed(allowed.iter().map(|&name| name.to_owned()));
        let verdict = judge(&builder.load(dir.path()).unwrap().scan_bytes(&bytes));
        assert_eq!((verdict.status, verdict.reason), (status, None), "{allowed:?}: {verdict:?}");
        assert_eq!(verdict.signatures, names, "{allowed:?}");
        let is_listed = |name: &&str| verdict.allowed.iter().any(|listed| listed == name);
        assert_eq!(verdict.allowed.len(), allowed.iter().filter(|name| is_listed(name)).count(), "{allowed:?}: {verdict:?}");
    }
}

/// libclamav tries no signature on what begins like music or a database.
#[test]
fn what_passes_for_music_was_clean_unseen() {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(signatures().join("test.hdb"), dir.path().join("test.hdb")).unwrap();
    fs::write(dir.path().join("own.ndb"), format!("Zoo:0:*:{}\n", hex("an animal"))).unwrap();
    let engine = EngineBuilder::new().load(dir.path()).unwrap();
    for start in ["ID3=x\n", "OggS", "SQLite format 3\0", "plain text, "] {
        for (text, status) in [("an animal", Status::Infected), ("harmless", Status::Clean)] {
            let bytes = format!("{start}{text}").into_bytes();
            for (place, bytes) in [("alone", bytes.clone()), ("in a zip", samples::zip(&[("a", &bytes)]))] {
                let verdict = judge(&engine.scan_bytes(&bytes));
                assert_eq!((verdict.status, verdict.reason), (status, None), "{start:?} {text:?} {place}: {verdict:?}");
            }
        }
    }
}

/// Programs that know zips hold the mark of a local header: what follows it was taken for an encrypted member.
#[test]
fn four_bytes_in_a_program_were_a_zip() {
    let engine = EngineBuilder::new().load(&signatures()).unwrap();
    let program = |after: &[u8]| [b"\x7fELF\x02\x01\x01", &samples::noise(5_000)[..], b"PK\x03\x04", after, &[0; 100]].concat();
    for after in [&b"\0\0\0\0"[..], b"\x14\0\x01\0\x08\0tables of a program, and its strings\0", &[0xff; 40]] {
        let verdict = judge(&engine.scan_bytes(&program(after)));
        assert_eq!((verdict.status, verdict.detail), (Status::Clean, None), "{after:?}");
    }
}

#[test]
fn a_canary_of_ones_own() {
    let canary = Path::new("/usr/share/clamav-testfiles/clam.exe");
    let builder = EngineBuilder::new().canary(Canary::File(canary.to_owned()));
    assert!(builder.load(&signatures()).is_ok());
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("clean"), "harmless").unwrap();
    let builder = EngineBuilder::new().canary(Canary::File(dir.path().join("clean")));
    let error = builder.load(&signatures()).unwrap_err();
    assert!(error.to_string().contains("CLEAN"), "{error}");
}

#[tokio::test]
async fn a_reload_is_used_by_the_next_scan_and_a_bad_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(signatures().join("test.hdb"), dir.path().join("test.hdb")).unwrap();
    let warm = Arc::new(Warm::load(EngineBuilder::new(), dir.path().to_owned()).unwrap());
    let pool = Pool::new(Arc::clone(&warm) as Arc<dyn Backend>, 2, Duration::from_secs(60)).unwrap();
    let scan = || async { pool.scan(|| Ok(Input::from_bytes(b"new malware".to_vec()))).await.unwrap().verdict.status };
    assert_eq!(scan().await, Status::Clean);
    let before = warm.current();

    // MD5 of "new malware"
    fs::write(dir.path().join("new.hdb"), "5ab30e7e7b9dba13ea4b2d8dcf5d8ad0:11:New\nbroken").unwrap();
    assert!(matches!(warm.reload(), Err(LoadError::Load { .. })));
    assert_eq!(scan().await, Status::Clean);
    assert_eq!(warm.current().definitions, before.definitions);

    fs::write(dir.path().join("new.ndb"), format!("New:0:*:{}\n", hex("new malware"))).unwrap();
    fs::remove_file(dir.path().join("new.hdb")).unwrap();
    warm.reload().unwrap();
    assert_eq!(scan().await, Status::Infected);
    assert_ne!(warm.current().definitions.fingerprint, before.definitions.fingerprint);
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}
