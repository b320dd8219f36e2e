//! Fail closed: a row for each way in which libclamav says "clean" of what it did not scan completely.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clamgate::engine::{Engine, EngineBuilder, Limits, Status, Verdict, judge};
use clamgate::scan::{Backend, Input, Pool, Warm};

use crate::samples::archives::{self, truncate};
use crate::samples::{self, EICAR_NAME, bombs, documents, eicar, rar};
use crate::service::{clamgate, signatures};

/// An engine with the default limits, for all tests.
fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| EngineBuilder::new().load(&signatures()).unwrap())
}

/// A verdict as one line, with the alerts' database endings left out.
fn line(verdict: &Verdict) -> String {
    let mut words = vec![verdict.status.to_string()];
    words.extend(verdict.signatures.iter().map(|name| name.replace(".UNOFFICIAL", "")));
    words.extend(verdict.reason.map(|reason| reason.to_string()));
    words.extend(verdict.detail.clone().map(|detail| format!("({detail})")));
    words.join(" ")
}

fn said_of(bytes: &[u8]) -> String {
    line(&judge(&engine().scan_bytes(bytes)))
}

fn said_within(limits: Limits, bytes: &[u8]) -> String {
    line(&judge(&EngineBuilder::new().limits(limits).load(&signatures()).unwrap().scan_bytes(bytes)))
}

/// What `clamgate scan` says and how it ends, in a directory that `prepare` has filled.
fn said_by_command(arguments: &[&str], prepare: impl Fn(&Path)) -> String {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let mut command = clamgate();
    command.current_dir(dir.path()).env("CLAMGATE_SCAN__SCRATCH_DIR", dir.path()).arg("scan").args(arguments);
    summary(&command.output().unwrap())
}

/// The exit code, and the first line of the output or else of the errors, without what follows " in " in the summary.
fn summary(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or("nothing");
    format!("{} {}", output.status.code().unwrap(), line.split(" in 0").next().unwrap_or(line))
}

/// What is said of the same bytes by an engine with lax limits and one with strict ones, in this order or the other.
fn said_by_two(strict_first: bool) -> String {
    let zip = samples::zip(&[("a", &samples::noise(20_000)), ("b", &samples::noise(20_001))]);
    let strict = Limits { max_files: 1, ..Limits::default() };
    let mut engines =
        [Limits::default(), strict].map(|limits| EngineBuilder::new().limits(limits).load(&signatures()).unwrap());
    if strict_first {
        engines.reverse();
    }
    engines.iter().chain(&engines).map(|engine| line(&judge(&engine.scan_bytes(&zip)))).collect::<Vec<_>>().join(", ")
}

/// What a scan with hardly any time says.
fn said_in_no_time(bytes: &[u8]) -> String {
    let builder = EngineBuilder::new().timeout(Duration::from_millis(50));
    line(&judge(&builder.load(&signatures()).unwrap().scan_bytes(bytes)))
}

/// What is said of a file that loses its end after it was opened and hashed, and before it is scanned.
fn said_of_a_file_that_shrinks() -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large");
    fs::write(&path, [samples::noise(20_000_000), eicar()].concat()).unwrap();
    let warm = Warm::load(EngineBuilder::new(), signatures()).unwrap();
    let pool = Pool::new(Arc::new(warm) as Arc<dyn Backend>, 1, Duration::from_secs(60)).unwrap();
    let load = move || {
        let input = Input::open(&path, u64::MAX)?;
        File::options().write(true).open(&path)?.set_len(9_000_000)?;
        Ok(input)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    match runtime.block_on(pool.scan(load)) {
        Ok(scanned) => line(&scanned.verdict),
        Err(error) => error.to_string(),
    }
}

fn said_without_scratch_directory() -> String {
    let dir = tempfile::tempdir().unwrap();
    let engine = EngineBuilder::new().scratch_dir(dir.path()).load(&signatures()).unwrap();
    drop(dir);
    let seen = engine.scan_bytes(&samples::zip(&[("a", b"harmless")]));
    assert_ne!(judge(&seen).status, Status::Clean);
    format!("hindered: {}", seen.trouble().unwrap())
}

/// What `clamgate scan` says of an archive that needs three megabytes to unpack, in a shell that has run `setup`.
fn said_by_shell(shell: &[&str], setup: &str) -> String {
    let padded = [samples::noise(3_000_000), eicar()].concat();
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("scratch")).unwrap();
    fs::write(dir.path().join("sample"), samples::tar_gz("e.zip", &samples::zip(&[("padding", &padded)]))).unwrap();
    run_in_shell(shell, setup, dir.path())
}

/// A shell that may mount, where the machine lets it.
const MOUNTING_SHELL: &[&str] = &["unshare", "--map-root-user", "--mount", "sh"];

fn can_mount() -> bool {
    let trial = Command::new("unshare").args(["--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    trial.is_ok_and(|output| output.status.success())
}

/// Runs out of descriptors at every possible moment.
fn said_with_few_descriptors() -> String {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("scratch")).unwrap();
    let zip = samples::zip(&[("eicar", &eicar())]);
    fs::write(dir.path().join("sample"), samples::tar_gz("e.zip", &samples::tar_gz("e.zip", &zip))).unwrap();
    let (mut found, mut hindered) = (false, false);
    for descriptors in 10..40 {
        let said = run_in_shell(&["sh"], &format!("ulimit -n {descriptors}"), dir.path());
        match said.as_str() {
            said if said == format!("1 sample: INFECTED {EICAR_NAME}") => found = true,
            said if said.starts_with("2 error: sample:") && said.contains("Too many open files") => hindered = true,
            // The program did not even begin.
            said if said.starts_with("2 ") && said.contains("error") => {}
            said => return format!("{said} with {descriptors} descriptors"),
        }
    }
    if found && hindered { "found or hindered".to_owned() } else { format!("found: {found}, hindered: {hindered}") }
}

/// `clamgate scan sample` in a shell, after `setup`: the exit code and the first line.
fn run_in_shell(shell: &[&str], setup: &str, dir: &Path) -> String {
    let script = format!("{setup}\nexec \"$0\" scan --db \"$1\" --threads 1 sample");
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).args(["-c", &script, env!("CARGO_BIN_EXE_clamgate")]).arg(signatures()).current_dir(dir);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("CLAMGATE_SCAN__SCRATCH_DIR", "scratch");
    summary(&command.output().unwrap())
}

type Row = (&'static str, Box<dyn Fn() -> String>, &'static str);

fn row(case: &'static str, scan: impl Fn() -> String + 'static, expected: &'static str) -> Row {
    (case, Box::new(scan), expected)
}

fn limits() -> Vec<Row> {
    let zip = || samples::zip(&[("a", &samples::noise(30_000)), ("b", &samples::noise(30_001)), ("c", &eicar())]);
    let default = Limits::default;
    vec![
        row(
            "MaxFileSize of the input",
            move || said_within(Limits { max_file_size_bytes: 60_000, ..default() }, &samples::noise(60_001)),
            "UNSCANNABLE TOO_LARGE (MaxFileSize)",
        ),
        row(
            "MaxFileSize of a member",
            move || said_within(Limits { max_file_size_bytes: 61_000, ..default() }, &samples::zip(&[("a", &[0; 61_001])])),
            "UNSCANNABLE LIMIT_EXCEEDED (MaxFileSize)",
        ),
        row(
            "MaxScanSize",
            move || said_within(Limits { max_scan_size_bytes: 100_000, ..default() }, &zip()),
            "UNSCANNABLE LIMIT_EXCEEDED (MaxScanSize)",
        ),
        row(
            "MaxFiles",
            move || said_within(Limits { max_files: 2, ..default() }, &zip()),
            "UNSCANNABLE LIMIT_EXCEEDED (MaxFiles)",
        ),
        row(
            "MaxRecursion",
            move || said_within(Limits { max_recursion: 3, ..default() }, &bombs::deep_zip(5, &eicar())),
            "UNSCANNABLE LIMIT_EXCEEDED (MaxRecursion)",
        ),
        row("MaxScanTime", || said_in_no_time(&samples::slow(8)), "UNSCANNABLE TIMED_OUT (MaxScanTime)"),
        row(
            "zips nested 200 deep, at the deepest recursion that can be configured",
            move || said_within(Limits { max_recursion: 50, ..default() }, &bombs::deep_zip(200, &eicar())),
            "UNSCANNABLE LIMIT_EXCEEDED (MaxRecursion)",
        ),
        row("10,001 members", || said_of(&bombs::crowded_zip(10_001, b"harmless")), "UNSCANNABLE LIMIT_EXCEEDED (MaxFiles)"),
        row(
            "a zip bomb",
            move || said_within(Limits { max_scan_size_bytes: 50_000_000, ..default() }, &bombs::nested_zips(5)),
            "UNSCANNABLE LIMIT_EXCEEDED (MaxScanSize)",
        ),
        row(
            "a gz of zeros",
            move || said_within(Limits { max_file_size_bytes: 16_000_000, ..default() }, &bombs::gz_of_zeros(32)),
            "UNSCANNABLE LIMIT_EXCEEDED (MaxFileSize)",
        ),
        row(
            "lax limits, then strict ones, then both again",
            || said_by_two(false),
            "CLEAN, UNSCANNABLE LIMIT_EXCEEDED (MaxFiles), CLEAN, UNSCANNABLE LIMIT_EXCEEDED (MaxFiles)",
        ),
        row(
            "strict limits, then lax ones, then both again",
            || said_by_two(true),
            "UNSCANNABLE LIMIT_EXCEEDED (MaxFiles), CLEAN, UNSCANNABLE LIMIT_EXCEEDED (MaxFiles), CLEAN",
        ),
    ]
}

fn encryption() -> Vec<Row> {
    let document = |name: &'static str, expected| row(name, move || said_of(&documents::encrypted(name)), expected);
    let disguised = "UNSCANNABLE UNSUPPORTED (PDF stream that passes for a picture)";
    let partly = || archives::partly_encrypted_zip(&[("a", b"harmless"), ("salaries", b"secret"), ("b", &eicar())], "salaries");
    vec![
        row("zip", || said_of(&samples::encrypted_zip("a", &eicar())), "UNSCANNABLE ENCRYPTED (Zip)"),
        row(
            "one member of a zip",
            || said_of(&archives::partly_encrypted_zip(&[("a", b"harmless"), ("salaries", b"secret")], "salaries")),
            "UNSCANNABLE ENCRYPTED (Zip)",
        ),
        row("one member of a zip with EICAR", move || said_of(&partly()), "INFECTED Win.Test.EICAR_HDB-1 ENCRYPTED (Zip)"),
        row("7z", || said_of(&archives::encrypted_seven_zip("a", &eicar(), false)), "UNSCANNABLE ENCRYPTED (7Zip)"),
        row("7z with names", || said_of(&archives::encrypted_seven_zip("a", &eicar(), true)), "UNSCANNABLE ENCRYPTED (7Zip)"),
        document("user-password-aes256.pdf", "UNSCANNABLE ENCRYPTED (PDF)"),
        document("user-password-rc4.pdf", "UNSCANNABLE ENCRYPTED (PDF)"),
        document("password.docx", "UNSCANNABLE ENCRYPTED (Office document)"),
        document("password.xlsx", "UNSCANNABLE ENCRYPTED (Office document)"),
        document("password.pptx", "UNSCANNABLE ENCRYPTED (Office document)"),
        document("password.doc", "UNSCANNABLE ENCRYPTED (Office document)"),
        document("password.xls", "UNSCANNABLE ENCRYPTED (Office document)"),
        document("password.odt", "UNSCANNABLE ENCRYPTED (OpenDocument)"),
        row("ppt", || said_of(&documents::encrypted_ppt()), "UNSCANNABLE ENCRYPTED (Office document)"),
        row(
            "docx in a zip in a mail",
            || said_of(&archives::mail("a.zip", &samples::zip(&[("a.docx", &documents::encrypted("password.docx"))]))),
            "UNSCANNABLE ENCRYPTED (Office document)",
        ),
        row(
            "a PDF that opens without its password",
            || said_of(&documents::encrypted("owner-password-aes256.pdf")),
            "INFECTED Win.Test.EICAR_HDB-1",
        ),
        document("owner-password-picture-rc4-40.pdf", "CLEAN"),
        document("owner-password-picture-rc4-128.pdf", "CLEAN"),
        document("owner-password-picture-aes-128.pdf", "CLEAN"),
        document("owner-password-picture-aes-256-r5.pdf", "CLEAN"),
        document("owner-password-picture-aes-256.pdf", "CLEAN"),
        document("owner-password-disguised-rc4-40.pdf", disguised),
        document("owner-password-disguised-rc4-128.pdf", disguised),
        document("owner-password-disguised-aes-128.pdf", disguised),
        document("owner-password-disguised-aes-256-r5.pdf", disguised),
        document("owner-password-disguised-aes-256.pdf", disguised),
        document("two-encryptions.pdf", "UNSCANNABLE UNSUPPORTED (PDF with an unusual encryption)"),
    ]
}

/// EICAR, in a zip whose directory is only found by a search, and only by the directory unpacked.
fn misled_zip() -> Vec<u8> {
    let mut zip = samples::zip(&[("eicar", &eicar())]);
    let directory_size = zip.len() - 10;
    zip[directory_size] -= 2;
    // The method, in the local header.
    zip[9] = 2;
    zip
}

fn unsupported() -> Vec<Row> {
    let rar5 = || rar::rar5("eicar", &eicar());
    vec![
        row("RAR 4", || said_of(&rar::rar4("eicar", &eicar())), "UNSCANNABLE UNSUPPORTED (RAR)"),
        row("RAR 5", move || said_of(&rar5()), "UNSCANNABLE UNSUPPORTED (RAR)"),
        row("RAR 5 in a zip", move || said_of(&samples::zip(&[("a.rar", &rar5())])), "UNSCANNABLE UNSUPPORTED (RAR)"),
        row(
            "RAR 5 that extracts itself, Windows",
            move || said_of(&rar::windows_self_extractor(&rar5())),
            "UNSCANNABLE UNSUPPORTED (RAR)",
        ),
        row(
            "RAR 5 that extracts itself, Linux",
            move || said_of(&rar::linux_self_extractor(&rar5())),
            "UNSCANNABLE UNSUPPORTED (RAR)",
        ),
        row(
            "the first volume of a RAR 5",
            || said_of(&rar::rar5_first_volume("eicar", &eicar(), 30)),
            "UNSCANNABLE UNSUPPORTED (RAR)",
        ),
        row(
            "an attachment of a PDF, behind its checksum",
            || {
                let checksum = "/Params << /CheckSum <44d88612fea8a8f36de82e1278abb02f> >>";
                said_of(&documents::pdf_with_attachment(&eicar(), &format!("/Type /EmbeddedFile {checksum}")))
            },
            "UNSCANNABLE UNSUPPORTED (PDF stream with filters that libclamav misses)",
        ),
        row(
            "an attachment of a PDF that calls itself a picture",
            || said_of(&documents::pdf_with_attachment(&eicar(), "/Subtype /Image /Width 9 /Height 9")),
            "UNSCANNABLE UNSUPPORTED (PDF stream that passes for a picture)",
        ),
        row(
            "a zip behind a text whose end record misses the directory",
            || said_of(&[b"text".to_vec(), misled_zip()].concat()),
            "UNSCANNABLE UNSUPPORTED (zip: contradictory end record)",
        ),
        row(
            "a zip behind a tar whose end record misses the directory",
            || said_of(&[archives::tar(&[("a", b"harmless")]), misled_zip()].concat()),
            "UNSCANNABLE UNSUPPORTED (zip: contradictory end record)",
        ),
        row("RAR 5 with encrypted names", || said_of(&rar::rar5_with_encrypted_headers()), "UNSCANNABLE ENCRYPTED (RAR)"),
    ]
}

fn truncation() -> Vec<Row> {
    let long = || [samples::noise(30_000), eicar()].concat();
    let cut = move |whole: Vec<u8>| said_of(&truncate(&whole, whole.len() / 2));
    vec![
        row("zip", move || cut(samples::zip(&[("a", &long())])), "UNSCANNABLE UNSUPPORTED (zip: no central directory)"),
        row(
            "7z",
            move || cut(archives::seven_zip(&[("a", &long())])),
            "UNSCANNABLE UNSUPPORTED (truncated 7z, or one volume of several)",
        ),
        row("gz", move || cut(archives::gz(&long())), "UNSCANNABLE UNSUPPORTED (damaged or truncated gzip)"),
        row("bz2", move || cut(archives::bz2(&long())), "UNSCANNABLE UNSUPPORTED (damaged or truncated bzip2)"),
        row(
            "xz",
            move || cut(archives::xz(&long())),
            "UNSCANNABLE UNSUPPORTED (damaged or truncated xz, or data after its end)",
        ),
        row("tar", move || cut(archives::tar(&[("a", &long())])), "UNSCANNABLE UNSUPPORTED (truncated tar)"),
    ]
}

fn sizes() -> Vec<Row> {
    [("0 bytes", 0), ("1 byte", 1), ("5 bytes", 5), ("6 bytes", 6)]
        .map(|(case, size)| row(case, move || said_of(&vec![b'x'; size]), "CLEAN"))
        .into()
}

fn surroundings() -> Vec<Row> {
    let with_database = |files: &'static [(&'static str, &'static str)]| {
        said_by_command(&["--log-level", "off", "--db", "db", "sample"], |dir| {
            fs::write(dir.join("sample"), "harmless").unwrap();
            fs::create_dir(dir.join("db")).unwrap();
            for (name, text) in files {
                fs::write(dir.join("db").join(name), text).unwrap();
            }
        })
    };
    let own = |target: &'static str, prepare: fn(&Path)| {
        move || said_by_command(&["--db", signatures().to_str().unwrap(), target], prepare)
    };
    let mut rows = vec![
        row(
            "no database",
            move || with_database(&[]),
            "2 error: no signature database in db; run freshclam, or name another directory",
        ),
        row(
            "half a database",
            move || with_database(&[("a.hdb", "44d88612fea8a8f36de82e1278abb02f:68:Eicar\n44d88612fea8a8f36de82e127")]),
            "2 error: cannot load the definitions in db: Malformed database",
        ),
        row(
            "a malformed database",
            move || {
                with_database(&[("a.hdb", "44d88612fea8a8f36de82e1278abb02f:68:Eicar\n"), ("daily.cvd", "ClamAV-VDB:what")])
            },
            "2 error: cannot load the definitions in db: Malformed database",
        ),
        row(
            "no scratch directory",
            said_without_scratch_directory,
            "hindered: libclamav's mkdir failed: No such file or directory (os error 2)",
        ),
        row(
            "a full disk, by its quota",
            || said_by_shell(&["sh"], "ulimit -f 1024; trap '' XFSZ"),
            "2 error: sample: the scan was hindered: libclamav's write failed: File too large (os error 27)",
        ),
        row("no descriptors", said_with_few_descriptors, "found or hindered"),
        row(
            "a directory without files",
            own("empty", |dir| fs::create_dir(dir.join("empty")).unwrap()),
            "0 0 clean, 0 infected, 0 suspicious, 0 unscannable, 0 errors",
        ),
        row(
            "a pipe",
            own("pipe", |dir| {
                assert!(Command::new("mkfifo").arg(dir.join("pipe")).status().unwrap().success());
            }),
            "2 error: pipe: not a regular file",
        ),
        row("a file that shrinks", said_of_a_file_that_shrinks, "cannot read the input: the file changed while it was read"),
    ];
    if can_mount() {
        rows.push(row(
            "a full tmpfs",
            || said_by_shell(MOUNTING_SHELL, "mount -t tmpfs -o size=1m none scratch"),
            "2 error: sample: the scan was hindered: libclamav's write failed: No space left on device (os error 28)",
        ));
    }
    rows
}

#[test]
fn clean_is_only_said_of_what_was_scanned_completely() {
    let groups = [
        ("limits", limits()),
        ("encryption", encryption()),
        ("unsupported", unsupported()),
        ("truncation", truncation()),
        ("sizes", sizes()),
        ("surroundings", surroundings()),
    ];
    let mut wrong = Vec::new();
    for (group, rows) in groups {
        for (case, scan, expected) in rows {
            let said = scan();
            if said != expected {
                wrong.push(format!("{group}: {case}\n    expected {expected}\n    but got  {said}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}
