//! One engine behind every way in: the same bytes get the same status, signatures and reason, whichever way they come.

use std::fs;
use std::process::Output;

use serde_json::Value;

use crate::aws::{self, Aws};
use crate::clamd;
use crate::samples::{self, EICAR_NAME, eicar};
use crate::service::{Service, clamgate, signatures};
use crate::web::curl;

/// The largest file that is taken.
const LIMIT: &str = "100000";

fn verdict(report: &Value) -> String {
    format!("{} {} {}", report["status"].as_str().unwrap(), report["signatures"], report["reason"])
}

fn printed(output: &Output) -> String {
    verdict(&serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bytes_get_the_same_verdict() {
    let aws = Aws::new().await;
    let buckets = format!(r#"["{}"]"#, aws.uploads);
    let service = Service::start(
        &aws,
        &[
            ("CLAMGATE_LIMITS__MAX_FILE_SIZE_BYTES", LIMIT),
            ("CLAMGATE_HTTP__ENABLED", "true"),
            ("CLAMGATE_HTTP__LISTEN", "127.0.0.1:0"),
            ("CLAMGATE_HTTP__S3_BUCKETS", &buckets),
            ("CLAMGATE_CLAMD__SOCKET", "{dir}/clamd.ctl"),
            ("CLAMGATE_ACTIONS__PROMOTE_TO", ""),
            ("CLAMGATE_ACTIONS__QUARANTINE_TO", ""),
        ],
    )
    .await;
    let url = format!("http://{}", service.http_address().await);
    let dir = service.dir.path();
    let by_hand = |arguments: &[&str]| {
        let mut command = clamgate();
        command.arg("scan").args(["--format", "json"]).args(arguments).envs(aws::environment());
        command.env("CLAMGATE_DEFINITIONS__DIR", signatures()).env("CLAMGATE_LIMITS__MAX_FILE_SIZE_BYTES", LIMIT);
        command
    };
    for (name, content, expected, in_clamd) in [
        ("clean", b"hello world".to_vec(), "CLEAN [] null".to_owned(), "OK".to_owned()),
        ("infected", eicar(), format!(r#"INFECTED ["{EICAR_NAME}"] null"#), format!("{EICAR_NAME} FOUND")),
        (
            "encrypted",
            samples::encrypted_zip("salaries.txt", b"x"),
            r#"UNSCANNABLE [] "ENCRYPTED""#.to_owned(),
            "Clamgate.Unscannable.ENCRYPTED".to_owned(),
        ),
        (
            "oversized",
            samples::noise(100_001),
            r#"UNSCANNABLE [] "TOO_LARGE""#.to_owned(),
            "Clamgate.Unscannable.TOO_LARGE".to_owned(),
        ),
        ("empty", Vec::new(), "CLEAN [] null".to_owned(), "OK".to_owned()),
    ] {
        let path = dir.join(name).display().to_string();
        fs::write(&path, &content).unwrap();
        aws.upload(name, content.clone()).await;

        let mut found = vec![("queue", verdict(&aws.reports(1).await[0]))];
        let object = format!("s3://{}/{name}", aws.uploads);
        found.push(("one task", printed(&tokio::process::Command::from(by_hand(&[&object])).output().await.unwrap())));
        found.push(("local file", printed(&by_hand(&[&path]).output().unwrap())));
        let mut stdin = by_hand(&["-"]);
        found.push(("standard input", printed(&stdin.stdin(fs::File::open(&path).unwrap()).output().unwrap())));

        let (raw, form) = (format!("@{path}"), format!("file=@{path}"));
        let scan = format!("{url}/v1/scan");
        found.push(("HTTP", verdict(&curl(&["--data-binary", &raw, &scan]).await.json())));
        found.push(("HTTP form", verdict(&curl(&["-F", &form, &scan]).await.json())));
        let order = format!(r#"{{"bucket":"{}","key":"{name}"}}"#, aws.uploads);
        let json = ["-H", "Content-Type: application/json", "-d", &order];
        found.push(("HTTP for S3", verdict(&curl(&[&json[..], &[&format!("{url}/v1/scan/s3")]].concat()).await.json())));
        for (way, verdict) in found {
            assert_eq!(verdict, expected, "{name} by {way}");
        }

        let socket = dir.join("clamd.ctl");
        for (request, prefix) in
            [(clamd::instream(&content), "stream".to_owned()), (format!("zSCAN {path}\0").into_bytes(), path.clone())]
        {
            let reply = clamd::say(&socket, &request);
            assert!(reply.starts_with(&format!("{prefix}: {in_clamd}")), "{name} by clamd's protocol: {reply}");
        }
    }
}
