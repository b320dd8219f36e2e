//! The examples of the pages in `docs/ways-in` do what the pages say. Here: pages that show a console.

mod http;
mod queue;

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use tempfile::TempDir;

use crate::aws::{self, Aws};
use crate::service::signatures;

/// A command of a page, and what it prints.
struct Example {
    command: String,
    expected: String,
}

/// The examples in the page's `console` blocks: lines after `$ `, and what follows each.
fn examples(page: &str) -> Vec<Example> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ways-in").join(page)).unwrap();
    let mut examples: Vec<Example> = Vec::new();
    for block in text.split("```console\n").skip(1) {
        for line in block.split("```").next().unwrap().lines() {
            match (line.strip_prefix("$ "), examples.last_mut()) {
                (Some(command), _) => examples.push(Example { command: command.to_owned(), expected: String::new() }),
                (None, Some(example)) => example.expected += &format!("{line}\n"),
                (None, None) => panic!("{page}: {line:?} comes before any command"),
            }
        }
    }
    assert!(!examples.is_empty(), "{page} has no examples");
    examples
}

/// Runs the page's examples one after the other in one shell.
async fn run(page: &str, environment: &[(&str, &str)]) {
    run_in(&tempfile::tempdir().unwrap(), page, environment, |text| text.to_owned()).await;
}

/// As [`run`], in a directory, with what `adapt` makes of the commands and of what they print.
async fn run_in(dir: &TempDir, page: &str, environment: &[(&str, &str)], adapt: impl Fn(&str) -> String) {
    let programs = Path::new(env!("CARGO_BIN_EXE_clamgate")).parent().unwrap();
    let examples = examples(page);
    let mut script = String::new();
    for example in &examples {
        // The next command may look at this one's exit code.
        script += &format!("{}\ncode=$?; printf '\\0'; (exit $code)\n", adapt(&example.command));
    }
    let mut shell = tokio::process::Command::new("bash");
    shell.args(["-c", &script]).current_dir(dir.path()).env_clear().kill_on_drop(true);
    shell.env("PATH", format!("{}:/usr/bin:/bin", programs.display()));
    shell.env("CLAMGATE_DEFINITIONS__DIR", signatures()).env("CLAMGATE_SCAN__SCRATCH_DIR", dir.path());
    let output = shell.envs(aws::environment()).envs(environment.iter().copied()).output().await.unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(stdout.matches('\0').count(), examples.len(), "{page}: the shell ended early");
    for (example, found) in examples.iter().zip(stdout.split('\0')) {
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(found, adapt(&example.expected), "{page}: {}\n{stderr}", example.command);
    }
}

#[tokio::test]
async fn local_files() {
    run("local.md", &[]).await;
}

#[tokio::test]
async fn one_task_for_one_upload() {
    let aws = Aws::new().await;
    aws.s3.create_bucket().bucket("uploads").send().await.unwrap();
    aws.s3.put_object().bucket("uploads").key("report.pdf").body(b"hello world".to_vec().into()).send().await.unwrap();
    run("one-shot.md", &[]).await;
}

#[tokio::test]
async fn in_the_place_of_clamd() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().display().to_string();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let adapt = |text: &str| text.replace("/run/clamav", &own).replace("/inbox", &own).replace("3310", &port);
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ways-in/clamd.md")).unwrap();
    let configuration = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    fs::write(dir.path().join("clamgate.toml"), adapt(configuration)).unwrap();
    run_in(&dir, "clamd.md", &[], adapt).await;
}
