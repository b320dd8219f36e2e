//! The real freshclam, on a mirror of its own.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::aws::Aws;
use crate::samples::eicar;
use crate::service::Service;
use crate::wait;

/// A mirror: what is served by name, for freshclam's ranges too.
#[derive(Clone, Default)]
pub struct Mirror(Arc<Mutex<HashMap<String, Vec<u8>>>>);

impl Mirror {
    /// A complete mirror of ClamAV's small signed test databases; `daily` is the one that knows EICAR, if it is the sixth.
    pub fn publish(&self, daily: u32) {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/freshclam-mirror");
        let read = |number: u32| fs::read(data.join(format!("test-{number}.cvd"))).unwrap();
        let mut files = self.0.lock().unwrap();
        for (name, number) in [("daily", daily), ("main", 6), ("bytecode", 1)] {
            files.insert(format!("/{name}.cvd"), read(number));
        }
    }

    fn put(&self, name: &str, content: &[u8]) {
        self.0.lock().unwrap().insert(format!("/{name}"), content.to_vec());
    }

    pub async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mirror = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(mirror.clone().answer(stream));
            }
        });
        format!("http://{address}")
    }

    async fn answer(self, mut stream: TcpStream) -> Option<()> {
        let (reader, mut writer) = stream.split();
        let mut lines = BufReader::new(reader.take(10_000)).lines();
        let request = lines.next_line().await.ok()??;
        let path = request.split(' ').nth(1)?.to_owned();
        let mut range = None;
        while let Some(line) = lines.next_line().await.ok()?.filter(|line| !line.is_empty()) {
            if let Some(wanted) = line.to_lowercase().strip_prefix("range: bytes=") {
                let (first, last) = wanted.split_once('-')?;
                range = Some((first.parse::<usize>().ok()?, last.parse::<usize>().ok()?));
            }
        }
        let file = self.0.lock().unwrap().get(&path).cloned();
        let (status, body) = match (file, range) {
            (None, _) => ("404 Not Found", Vec::new()),
            (Some(file), None) => ("200 OK", file),
            (Some(file), Some((first, last))) => {
                ("206 Partial Content", file.get(first..(last + 1).min(file.len())).unwrap_or_default().to_vec())
            }
        };
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        writer.write_all(head.as_bytes()).await.ok()?;
        writer.write_all(&body).await.ok()
    }
}

/// A service that runs freshclam on the mirror every minute, with no definitions of its own.
async fn service(aws: &Aws, mirror: &Mirror) -> Service {
    let url = mirror.start().await;
    let conf = tempfile::NamedTempFile::new().unwrap();
    let user = std::process::Command::new("id").arg("-un").output().unwrap();
    let user = String::from_utf8(user.stdout).unwrap();
    let text = format!("PrivateMirror {url}\nScriptedUpdates no\nDatabaseOwner {user}\n");
    fs::write(conf.path(), text).unwrap();
    let (_, conf) = conf.keep().unwrap();
    let mut service = Service::new(
        aws,
        &[
            ("CLAMGATE_DEFINITIONS__FRESHCLAM__ENABLED", "true"),
            ("CLAMGATE_DEFINITIONS__FRESHCLAM__CONFIG_FILE", conf.to_str().unwrap()),
            ("CLAMGATE_DEFINITIONS__FRESHCLAM__INTERVAL_SECS", "60"),
            ("CLAMGATE_DEFINITIONS__POLL_SECS", "1"),
        ],
    );
    fs::remove_file(service.database("test.hdb")).unwrap();
    service.spawn();
    service
}

#[tokio::test]
async fn a_first_start_fetches_definitions_and_a_bad_update_changes_nothing() {
    let aws = Aws::new().await;
    let mirror = Mirror::default();
    mirror.publish(6);
    let mut service = service(&aws, &mirror).await;
    service.until_ready().await;
    assert!(service.database("daily.cvd").exists());
    aws.upload("first", eicar()).await;
    let found = wait::until("a verdict", || async { aws.get(&aws.quarantine, "first").await }).await;
    assert_eq!(found.status(), Some("INFECTED"));
    service.until_logged("freshclam found nothing new", 1).await;

    // A mirror that went wrong, and a file that was half written by somebody else.
    mirror.put("daily.cvd", b"ClamAV-VDB:truncated");
    fs::write(service.database("daily.cvd"), b"ClamAV-VDB:truncated").unwrap();
    service.until_logged("definitions not reloaded; the engine in use stays", 1).await;
    aws.upload("second", eicar()).await;
    wait::until("a verdict with the old engine", || async { aws.get(&aws.quarantine, "second").await }).await;
}

#[tokio::test]
async fn half_a_download_was_served_with() {
    let aws = Aws::new().await;
    let mirror = Mirror::default();
    mirror.publish(6);
    mirror.0.lock().unwrap().remove("/main.cvd");
    let service = service(&aws, &mirror).await;
    wait::until("freshclam to get daily alone", || async { service.database("daily.cvd").exists().then_some(()) }).await;
    service.until_logged("freshclam changed the definitions", 1).await;
    assert!(service.logged("definitions loaded; the canary was found").is_empty());
    assert!(!service.health().await.unwrap().ready);
}

#[tokio::test]
async fn a_mirror_that_is_down_is_told_and_tried_again() {
    let aws = Aws::new().await;
    let mut service = service(&aws, &Mirror::default()).await;
    let failed = service.until_logged("freshclam failed; the definitions stay as they are", 1).await;
    assert!(failed[0]["output"].as_str().unwrap().contains("daily"), "{failed:?}");
    let health = service.health().await.unwrap();
    assert!(!health.ready, "not ready without definitions");
    service.signal("TERM");
    assert_eq!(service.until_ended().await.code(), Some(0));
}
