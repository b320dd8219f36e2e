//! Troubles of the machine: no space, no descriptors, no scratch directory. They are no verdict on what is scanned.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::aws::{Aws, Setup};
use crate::samples::{self, EICAR_NAME, eicar};
use crate::service::{Service, signatures};
use crate::wait;

/// Runs `clamgate scan sample` in a shell, after `setup`, with `scratch` as its scratch directory; its exit code, output and errors.
fn scan_after(shell: &[&str], setup: &str, dir: &Path) -> (Option<i32>, String, String) {
    let script = format!("{setup}\nexec \"$0\" scan --db \"$1\" --threads 1 sample");
    let output = Command::new(shell[0])
        .args(&shell[1..])
        .args(["-c", &script, env!("CARGO_BIN_EXE_clamgate")])
        .arg(signatures())
        .current_dir(dir)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("CLAMGATE_SCAN__SCRATCH_DIR", "scratch")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A shell that may mount, where the machine lets it.
const MOUNTING_SHELL: &[&str] = &["unshare", "--map-root-user", "--mount", "sh"];

fn can_mount() -> bool {
    let trial = Command::new("unshare").args(["--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    trial.is_ok_and(|output| output.status.success())
}

#[test]
fn a_full_disk_is_no_verdict() {
    let padded = [samples::noise(3_000_000), eicar()].concat();
    let zip = samples::zip(&[("padding", &padded)]);
    // Ignored, the signal of an exceeded RLIMIT_FSIZE becomes an error of write(2).
    let mut ways = vec![(&["sh"] as &[&str], "ulimit -f 1024; trap '' XFSZ")];
    if can_mount() {
        ways.push((MOUNTING_SHELL, "mount -t tmpfs -o size=1m none scratch"));
    }
    for (shell, setup) in ways {
        for (name, bytes) in [
            ("zip", zip.clone()),
            ("tar.gz", samples::tar_gz("padding", &padded)),
            ("zip in tar.gz", samples::tar_gz("e.zip", &zip)),
            ("mail", samples::archives::mail("padding", &padded)),
        ] {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("scratch")).unwrap();
            fs::write(dir.path().join("sample"), bytes).unwrap();
            let (code, stdout, stderr) = scan_after(&["sh"], "", dir.path());
            assert_eq!((code, stdout.as_str()), (Some(0), "sample: CLEAN\n"), "{name} with space enough: {stderr}");
            let (code, stdout, stderr) = scan_after(shell, setup, dir.path());
            assert_eq!((code, stdout.as_str()), (Some(2), ""), "{name} after {setup:?}: {stderr}");
            assert!(stderr.contains("the scan was hindered: libclamav's"), "{name} after {setup:?}: {stderr}");
        }
    }
}

#[test]
fn exhausted_descriptors_are_no_verdict() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("scratch")).unwrap();
    let zip = samples::zip(&[("eicar", &eicar())]);
    fs::write(dir.path().join("sample"), samples::tar_gz("e.zip", &samples::tar_gz("e.zip", &zip))).unwrap();
    let (mut found, mut hindered) = (0, 0);
    for descriptors in 10..40 {
        let (code, stdout, stderr) = scan_after(&["sh"], &format!("ulimit -n {descriptors}"), dir.path());
        match code {
            Some(1) => {
                assert_eq!(stdout, format!("sample: INFECTED {EICAR_NAME}\n"), "{descriptors}: {stderr}");
                found += 1;
            }
            _ => {
                assert_eq!((code, stdout.as_str()), (Some(2), ""), "{descriptors}: {stderr}");
                hindered += usize::from(stderr.contains("Too many open files"));
            }
        }
    }
    assert!(found > 0 && hindered > 0, "found {found} times, hindered {hindered} times");
}

/// The directory of libclamav's temporary files.
fn scratch_of(service: &Service) -> PathBuf {
    let entries = fs::read_dir(service.dir.path().join("scratch")).unwrap();
    let found = entries.map(|entry| entry.unwrap().path()).find(|path| path.is_dir());
    found.unwrap()
}

#[tokio::test]
async fn without_its_scratch_directory_the_service_takes_no_work() {
    let aws = Aws::new().await;
    let service = Service::start(&aws, &[]).await;
    let scratch = scratch_of(&service);
    fs::remove_dir_all(&scratch).unwrap();
    fs::write(&scratch, "somebody else's").unwrap();
    // The first upload finds out; the second one waits in the queue.
    aws.upload("first", samples::zip(&[("eicar", &eicar())])).await;
    let unfit = wait::until("bad health", || async { service.health().await.filter(|health| !health.ready) }).await;
    assert!(unfit.obstacles[0].contains("scratch"), "{unfit:?}");
    service.until_logged("cannot scan; no messages are received until that ends", 1).await;
    aws.upload("second", b"hello world".to_vec()).await;
    assert!(aws.keys(&aws.clean).await.is_empty() && aws.keys(&aws.quarantine).await.is_empty());

    fs::remove_file(&scratch).unwrap();
    wait::until("good health", || async { service.health().await.filter(|health| health.ready) }).await;
    aws.until_drained().await;
    assert_eq!(aws.get(&aws.quarantine, "first").await.unwrap().status(), Some("INFECTED"));
    assert_eq!(aws.get(&aws.clean, "second").await.unwrap().status(), Some("CLEAN"));
}

/// What no attempt can scan is `FAILED` at its last delivery, and its message stays for the operator.
#[tokio::test]
async fn a_trouble_that_stays_is_failed_in_the_end() {
    let aws = Aws::with(Setup { versioned: false, receives: 2 }).await;
    let service = Service::start_after(&aws, &[], "ulimit -f 1024; trap '' XFSZ").await;
    aws.upload("large", samples::zip(&[("padding", &samples::noise(3_000_000))])).await;
    aws.upload("small", samples::zip(&[("eicar", &eicar())])).await;
    wait::until("a dead letter", || async { (aws.depth(&aws.dead_letters).await.0 == 1).then_some(()) }).await;
    let reports = aws.reports(2).await;
    let of = |key: &str| reports.iter().find(|report| report["target"]["key"] == key).unwrap();
    assert_eq!(of("small")["status"], "INFECTED");
    let failed = of("large");
    assert_eq!((&failed["status"], &failed["reason"]), (&"FAILED".into(), &serde_json::Value::Null));
    assert!(failed["detail"].as_str().unwrap().contains("libclamav's write failed"), "{failed}");
    assert_eq!(aws.get(&aws.uploads, "large").await.unwrap().status(), Some("FAILED"));
    assert!(service.health().await.unwrap().ready, "one object's trouble is not the machine's");
}
