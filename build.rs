//! Hands libclamav's version (from `clamav-sys`) and the commit to the crate, and builds its C files.

use std::process::Command;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(clamav_1_5)");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=.git/logs/HEAD");
    println!("cargo::rerun-if-env-changed=CLAMGATE_COMMIT");

    // Each in a library of its own: one of an object's symbols makes the linker take all of it.
    for name in ["logical_expressions", "memory", "pcre_jit", "refusals", "streams"] {
        let file = format!("src/engine/{name}.c");
        println!("cargo::rerun-if-changed={file}");
        cc::Build::new().file(file).warnings_into_errors(true).compile(&format!("clamgate_{name}"));
    }

    let number: u32 = std::env::var("DEP_CLAMAV_VERSION_NUM").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    if number >= 0x0001_0500 {
        println!("cargo::rustc-cfg=clamav_1_5");
    }
    // An image is built without the repository: its commit comes from the environment.
    let commit = std::env::var("CLAMGATE_COMMIT").ok().or_else(git_commit).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=CLAMGATE_COMMIT={commit}");
}

fn git_commit() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
