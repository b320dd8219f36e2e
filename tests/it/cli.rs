//! The command line: output and exit codes.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::samples::{self, eicar};
use crate::service::{clamgate, signatures};

fn scan(dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = clamgate();
    command.current_dir(dir).arg("scan").arg("--db").arg(signatures()).args(arguments);
    shown(&command.output().unwrap())
}

fn shown(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut lines: Vec<&str> = std::str::from_utf8(&output.stdout).unwrap().lines().collect();
    lines.sort_unstable();
    (output.status.code(), lines.join("\n"), text(&output.stderr))
}

#[test]
fn verdicts_and_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    write("clean", b"hello world");
    write("empty", b"");
    write("sub/eicar", &eicar());
    write("encrypted.zip", &samples::encrypted_zip("salaries.txt", b"x"));
    let eicar_line = "sub/eicar: INFECTED Win.Test.EICAR_HDB-1.UNOFFICIAL";
    for (targets, code, expected) in [
        (vec!["clean", "empty"], 0, "clean: CLEAN\nempty: CLEAN"),
        (vec!["sub"], 1, eicar_line),
        (vec!["encrypted.zip", "clean"], 2, "clean: CLEAN\nencrypted.zip: UNSCANNABLE ENCRYPTED (Zip)"),
        (
            vec!["encrypted.zip", "sub"],
            1,
            "encrypted.zip: UNSCANNABLE ENCRYPTED (Zip)\nsub/eicar: INFECTED Win.Test.EICAR_HDB-1.UNOFFICIAL",
        ),
        (vec!["clean", "missing"], 2, "clean: CLEAN"),
        (vec!["missing", "sub"], 1, eicar_line),
        (vec!["/dev/null"], 2, ""),
    ] {
        let (found, stdout, stderr) = scan(dir.path(), &targets);
        assert_eq!((found, stdout.as_str()), (Some(code), expected), "{targets:?}: {stderr}");
    }
    let (_, _, stderr) = scan(dir.path(), &["missing"]);
    assert!(stderr.contains("error: missing: No such file or directory"), "{stderr}");
}

#[test]
fn one_line_of_json_for_each_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("eicar"), eicar()).unwrap();
    let (code, stdout, _) = scan(dir.path(), &["--format", "json", "eicar"]);
    assert_eq!(code, Some(1));
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(report["schema"], "clamgate.scan/1");
    assert_eq!(report["status"], "INFECTED");
    assert_eq!(report["target"], serde_json::json!({"kind":"file","path":"eicar","size":68}));
    assert_eq!(report["sha256"], "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f");
    assert_eq!(report["definitions"]["signatures"], 2);
}

#[test]
fn an_allowed_signature_shows_in_the_report() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("eicar"), eicar()).unwrap();
    let mut command = clamgate();
    command.arg("scan").arg("--db").arg(signatures()).args(["--format", "json"]).arg(dir.path().join("eicar"));
    command.env("CLAMGATE_SCAN__ALLOWED_SIGNATURES", format!("[\"{}\"]", samples::EICAR_NAME));
    let (code, stdout, stderr) = shown(&command.output().unwrap());
    assert_eq!(code, Some(0), "{stderr}");
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&report["status"], &report["signatures"]), (&"CLEAN".into(), &serde_json::json!([])));
    assert_eq!(report["allowed"], serde_json::json!([samples::EICAR_NAME]));
}

#[test]
fn standard_input_of_any_size() {
    let large = [samples::noise(20_000_000), eicar()].concat();
    for (bytes, code, line) in [
        (vec![], 0, "-: CLEAN"),
        (eicar(), 1, "-: INFECTED Win.Test.EICAR_HDB-1.UNOFFICIAL"),
        (large, 0, "-: CLEAN"),
        (samples::zip(&[("e", &eicar())]), 1, "-: INFECTED Win.Test.EICAR_HDB-1.UNOFFICIAL"),
    ] {
        let mut command = clamgate();
        command.arg("scan").arg("--db").arg(signatures()).arg("-");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        let (found, stdout, stderr) = shown(&child.wait_with_output().unwrap());
        assert_eq!((found, stdout.as_str()), (Some(code), line), "{stderr}");
    }
}

#[test]
fn an_endless_input_is_too_large() {
    let zeros = fs::File::open("/dev/zero").unwrap();
    let mut command = clamgate();
    command.arg("scan").arg("--db").arg(signatures()).arg("-").env("CLAMGATE_LIMITS__MAX_FILE_SIZE_BYTES", "30000000");
    let (code, stdout, _) = shown(&command.stdin(zeros).output().unwrap());
    assert_eq!((code, stdout.as_str()), (Some(2), "-: UNSCANNABLE TOO_LARGE (MaxFileSize)"));
}

#[test]
fn pipes_and_links_are_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Command::new("mkfifo").arg(dir.path().join("pipe")).status().unwrap().success());
    fs::write(dir.path().join("file"), "hello world").unwrap();
    std::os::unix::fs::symlink("file", dir.path().join("link")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", dir.path().join("endless")).unwrap();
    assert_eq!(scan(dir.path(), &["."]).1, "./file: CLEAN", "in a directory they are passed over");
    assert_eq!(scan(dir.path(), &["link"]).1, "link: CLEAN", "a link that is named is followed");
    for name in ["pipe", "endless"] {
        let (code, _, stderr) = scan(dir.path(), &[name]);
        assert_eq!(code, Some(2));
        assert!(stderr.contains("not a regular file"), "{stderr}");
    }
}

#[test]
fn hostile_names_stay_on_their_line() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a\nfake: CLEAN\u{1b}[2J"), "hello world").unwrap();
    fs::write(dir.path().join(OsStr::from_bytes(b"not-utf8-\xff")), "hello world").unwrap();
    let (code, stdout, stderr) = scan(dir.path(), &["."]);
    assert_eq!((code, stdout.lines().count()), (Some(0), 2), "{stdout} {stderr}");
    assert!(!stdout.contains('\u{1b}'));
}

#[test]
fn usage_errors_are_64() {
    for (arguments, environment, text) in [
        (vec![], vec![], "Usage"),
        (vec!["scan"], vec![], "TARGET"),
        (vec!["frobnicate"], vec![], "frobnicate"),
        (vec!["serve"], vec![], "there is no way in"),
        (vec!["scan", "s3:///k"], vec![], "there is no bucket"),
        (vec!["check-config"], vec![("CLAMGATE_SCAN__THRAEDS", "1")], "thraeds"),
        (vec!["check-config"], vec![("CLAMGATE_LOG__FORMAT", "xml")], "CLAMGATE_LOG__FORMAT"),
        (
            vec!["check-config"],
            vec![("CLAMGATE_SCAN__ALLOWED_SIGNATURES", r#"["Heuristics.Encrypted.Zip"]"#)],
            "scan.allowed_signatures holds a name that no signature has",
        ),
        (
            vec!["check-config"],
            vec![("CLAMGATE_QUEUE__FILTERS", r#"[{ name = "a", skip = { tag = { key = "b", vaule = "c" } } }]"#)],
            "vaule",
        ),
        (
            vec!["check-config"],
            vec![("CLAMGATE_QUEUE__FILTERS", r#"[{ name = "a", skip = { prefix = "" } }]"#)],
            "means nothing",
        ),
        (
            vec!["check-config"],
            vec![("CLAMGATE_QUEUE__FILTERS", r#"[{ name = "a", only = { content_type = "*/*" } }]"#)],
            "means nothing",
        ),
        (vec!["check-config", "--config", "/does/not/exist"], vec![], "/does/not/exist"),
        (vec!["check-config", "--log-level", "a=b=c"], vec![], "log.level"),
    ] {
        let (code, _, stderr) = shown(&clamgate().args(&arguments).envs(environment).output().unwrap());
        assert_eq!(code, Some(64), "{arguments:?}: {stderr}");
        assert!(stderr.contains(text), "{arguments:?}: {stderr}");
    }
}

#[test]
fn a_database_that_cannot_be_used_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = clamgate();
    command.args(["scan", "--db"]).arg(dir.path()).arg("/etc/hostname");
    let (code, stdout, stderr) = shown(&command.output().unwrap());
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(stderr.contains("no signature database in"), "{stderr}");
}

/// In the image, where freshclam is on, a database of one's own was refused for want of ClamAV's.
#[test]
fn a_database_named_by_hand_needs_no_daily() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("eicar"), eicar()).unwrap();
    for (required, code) in [(None, 1), (Some(r#"["daily"]"#), 2)] {
        let mut command = clamgate();
        command.arg("scan").arg("--db").arg(signatures()).arg(dir.path().join("eicar"));
        command.env("CLAMGATE_DEFINITIONS__FRESHCLAM__ENABLED", "true");
        command.envs(required.map(|names| ("CLAMGATE_DEFINITIONS__REQUIRED", names)));
        let (found, _, stderr) = shown(&command.output().unwrap());
        assert_eq!(found, Some(code), "{stderr}");
    }
}

#[test]
fn check_config_prints_what_is_in_effect() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("clamgate.toml");
    fs::write(&file, "[queue]\nurl = 'http://q/'\n[scan]\nthreads = 1\n").unwrap();
    let mut command = clamgate();
    command.arg("check-config").arg("--config").arg(&file).args(["--threads", "7"]).env("CLAMGATE_QUEUE__RECEIVERS", "3");
    let (code, stdout, _) = shown(&command.output().unwrap());
    assert_eq!(code, Some(0));
    for line in ["url = \"http://q/\"", "threads = 7", "receivers = 3"] {
        assert!(stdout.lines().any(|found| found == line), "{line} in {stdout}");
    }
}

#[test]
fn a_misplaced_token_was_printed() {
    let dir = tempfile::tempdir().unwrap();
    let secret = "supersecrettoken-0123456789";
    let file = dir.path().join("clamgate.toml");
    for (text, variable) in [
        ("", Some(secret)),
        (&*format!("[http]\ntokens = \"{secret}\"\n"), None),
        (&*format!("[http]\ntokens = [\"{secret}]\n"), None),
        (&*format!("[http]\nenabled = true\ntokens = [\"{secret}\"]\n"), None),
    ] {
        fs::write(&file, text).unwrap();
        let mut command = clamgate();
        command.arg("check-config").arg("--config").arg(&file);
        command.envs(variable.map(|token| ("CLAMGATE_HTTP__TOKENS", token)));
        let output = command.output().unwrap();
        let all = [output.stdout, output.stderr].concat();
        let all = String::from_utf8(all).unwrap();
        assert!(!all.contains(&secret[..12]) && all.contains("tokens") | all.contains("line 2"), "{all}");
    }
}

#[test]
fn a_variable_of_kubernetes_is_none_of_ours() {
    let output = clamgate().arg("check-config").env("CLAMGATE_HTTP_PORT", "tcp://10.0.0.1:80").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
}

/// It was hashed before anybody looked at its size.
#[test]
fn a_sparse_file_kept_a_scan_thread_for_hours() {
    let dir = tempfile::tempdir().unwrap();
    fs::File::create(dir.path().join("sparse")).unwrap().set_len(1 << 40).unwrap();
    let (code, stdout, _) = scan(dir.path(), &["sparse"]);
    assert_eq!((code, stdout.as_str()), (Some(2), "sparse: UNSCANNABLE TOO_LARGE (MaxFileSize)"));
}
