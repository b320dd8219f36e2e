//! `make demo DEMO=…`: the pages of `docs/designs` are run as they stand, their configurations, commands, functions and statements.
//! Only addresses are replaced, and `clamgate serve` is started by the demo.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::service::signatures;

fn run(demo: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".venv/bin/python");
    assert!(python.exists(), "{} is missing: run `make setup`", python.display());
    let mut command = Command::new(python);
    command.arg("-B").arg(root.join("demo").join(demo)).args(["--clamgate", env!("CARGO_BIN_EXE_clamgate"), "--definitions"]);
    let output = command.arg(signatures()).stdin(Stdio::null()).output().unwrap();
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success() && stdout.contains(" rows, 0 not as expected\n"), "{demo}:\n{stdout}\n{stderr}");
}

#[test]
fn the_user_waits_for_the_verdict() {
    run("user_waits.py");
}

#[test]
fn a_quarantine_bucket_is_emptied_in_time() {
    run("quarantine_bucket.py");
}
