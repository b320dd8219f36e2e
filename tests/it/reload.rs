//! New definitions while scans flow.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::aws::Aws;
use crate::clamd;
use crate::samples;
use crate::service::Service;
use crate::wait;
use crate::web::curl;

const NEW: &[u8] = b"content that only a new signature knows";

fn signature(name: &str, content: &[u8]) -> String {
    let hex: String = content.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{name}:0:*:{hex}\n")
}

/// Signatures of a size that shows in the resident memory: an engine that is not freed cannot hide in the allocator's noise.
fn many_signatures() -> String {
    let line =
        |n: u64| format!("{:064x}:{n}:Many.{n}\n", u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
    (1..=200_000).map(line).collect()
}

#[tokio::test]
async fn twenty_reloads_fail_no_scan_and_leave_no_memory_behind() {
    let aws = Aws::new().await;
    let mut service = Service::new(&aws, &[]);
    fs::write(service.database("many.hsb"), many_signatures()).unwrap();
    service.spawn();
    service.until_ready().await;
    let (mut uploaded, mut second) = (0, 0);
    for reload in 1..=20 {
        for _ in 0..5 {
            aws.upload(&format!("{uploaded}"), samples::noise(200_000)).await;
            uploaded += 1;
        }
        service.signal("HUP");
        service.until_logged("definitions reloaded", reload).await;
        if reload == 2 {
            aws.until_drained().await;
            second = service.resident_kib();
        }
    }
    aws.until_drained().await;
    // The last old engine is freed in the background.
    wait::until(&format!("no more than a tenth above {second} KiB, as after the second reload"), || async {
        (service.resident_kib() < second + second / 10).then_some(())
    })
    .await;
    assert_eq!(aws.keys(&aws.clean).await.len(), uploaded, "every scan gave its verdict");
    assert!(service.logged("definitions not reloaded; the engine in use stays").is_empty());
}

#[tokio::test]
async fn a_new_signature_is_found_after_the_swap() {
    let aws = Aws::new().await;
    let service = Service::start(&aws, &[]).await;
    aws.upload("before", NEW).await;
    wait::until("the verdict before", || async { aws.get(&aws.clean, "before").await }).await;
    fs::write(service.database("new.ndb"), signature("New", NEW)).unwrap();
    service.signal("HUP");
    service.until_logged("definitions reloaded", 1).await;
    aws.upload("after", NEW).await;
    let found = wait::until("the verdict after", || async { aws.get(&aws.quarantine, "after").await }).await;
    assert_eq!(found.tags["clamgate-detail"], "New.UNOFFICIAL");
}

#[tokio::test]
async fn a_change_on_disk_is_noticed_without_a_signal() {
    let aws = Aws::new().await;
    let service = Service::start(&aws, &[("CLAMGATE_DEFINITIONS__POLL_SECS", "1")]).await;
    fs::write(service.database("new.ndb"), signature("New", NEW)).unwrap();
    service.until_logged("definitions reloaded", 1).await;
    aws.upload("after", NEW).await;
    wait::until("the verdict", || async { aws.get(&aws.quarantine, "after").await }).await;
}

#[tokio::test]
async fn a_broken_database_leaves_the_old_engine_in_use() {
    let aws = Aws::new().await;
    let service = Service::start(&aws, &[]).await;
    for (n, break_it) in ["a malformed line", "an empty directory", "a database without the canary"].iter().enumerate() {
        for file in fs::read_dir(service.database("")).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        match n {
            0 => fs::write(service.database("bad.ndb"), "half a li").unwrap(),
            1 => {}
            _ => fs::write(service.database("other.ndb"), signature("New", NEW)).unwrap(),
        }
        service.signal("HUP");
        service.until_logged("definitions not reloaded; the engine in use stays", n + 1).await;
        let key = format!("eicar{n}");
        aws.upload(&key, samples::eicar()).await;
        let found = wait::until(&format!("a verdict with {break_it}"), || async { aws.get(&aws.quarantine, &key).await }).await;
        assert_eq!(found.status(), Some("INFECTED"), "{break_it}");
    }
    assert!(service.health().await.unwrap().ready);
}

/// A service whose reloads happen in place of the old engine, and the URL of its HTTP API.
async fn draining(aws: &Aws) -> (Service, String) {
    let settings = [
        ("CLAMGATE_DEFINITIONS__RELOAD", "drain"),
        ("CLAMGATE_HTTP__ENABLED", "true"),
        ("CLAMGATE_HTTP__LISTEN", "127.0.0.1:0"),
        ("CLAMGATE_CLAMD__SOCKET", "{dir}/clamd.ctl"),
    ];
    let service = Service::start(aws, &settings).await;
    let url = format!("http://{}", service.http_address().await);
    (service, url)
}

#[tokio::test]
async fn in_place_of_the_old_engine_scans_wait_and_none_is_lost() {
    let aws = Aws::new().await;
    let (service, url) = draining(&aws).await;
    // What is known of it is known of the old definitions alone.
    assert_eq!(
        curl(&["--data-binary", std::str::from_utf8(NEW).unwrap(), &format!("{url}/v1/scan")]).await.json()["status"],
        "CLEAN"
    );
    for n in 0..20 {
        aws.upload(&format!("before{n}"), samples::noise(200_000 + n)).await;
    }
    fs::write(service.database("new.ndb"), signature("New", NEW)).unwrap();
    // libclamav reads a pipe twice, first to count what is in it: the load waits for a writer.
    let pipe = service.database("held.ndb");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    service.signal("HUP");
    let health = wait::until("the load to wait, without an engine", || async {
        service.health().await.filter(|health| health.loading.is_some() && health.signatures == 0)
    })
    .await;
    assert!(!health.ready && health.pausing && health.obstacles[0].contains("in place of the old ones"), "{health:?}");
    for path in ["readyz", "v1/scan"] {
        let answer = curl(&["-d", "x", "-X", if path == "readyz" { "GET" } else { "POST" }, &format!("{url}/{path}")]).await;
        assert_eq!(answer.status, 503, "{path}");
    }
    let (socket, stream) = (clamd::socket(&service), clamd::instream(NEW));
    let waiting = tokio::task::spawn_blocking(move || clamd::say(&socket, &stream));
    wait::until("a scan to wait", || async { service.health().await.filter(|health| health.scans > 0) }).await;
    aws.upload("during", NEW).await;
    assert!(service.logged("definitions reloaded").is_empty() && !waiting.is_finished());

    let held = signature("Held", b"held until somebody writes");
    wait::until_fed(&pipe, &held, || !service.logged("definitions reloaded").is_empty()).await;
    assert_eq!(waiting.await.unwrap(), "stream: New.UNOFFICIAL FOUND\0");
    let found = wait::until("the verdict", || async { aws.get(&aws.quarantine, "during").await }).await;
    assert_eq!(found.tags["clamgate-detail"], "New.UNOFFICIAL");
    aws.until_drained().await;
    assert_eq!(aws.keys(&aws.clean).await.len(), 20, "every scan gave its verdict");
    assert_eq!(aws.depth(&aws.dead_letters).await.0, 0);
    assert!(service.health().await.unwrap().ready);
    let (begun, told) = (service.logged("reloading the definitions"), service.logged("how definitions are reloaded"));
    for line in [&begun[0], &told[0]] {
        assert_eq!(line["how"], "drain");
        assert!(line["engine_bytes"].as_u64().unwrap() > 0 && line["room_bytes"].as_u64().unwrap() > 0, "{line}");
    }
    // Asking again for the same would keep the scans waiting for nothing.
    service.signal("HUP");
    service.until_logged("the definitions are those that are loaded", 1).await;
    assert_eq!(service.logged("definitions reloaded").len(), 1);
}

#[tokio::test]
async fn what_does_not_pass_the_check_leaves_the_old_engine_in_use() {
    let aws = Aws::new().await;
    let (service, _) = draining(&aws).await;
    let signed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/freshclam-mirror/test-6.cvd");
    let mut signed = fs::read(signed).unwrap();
    fs::write(service.database("daily.cvd"), &signed).unwrap();
    service.signal("HUP");
    service.until_logged("definitions reloaded", 1).await;
    *signed.last_mut().unwrap() ^= 1;
    for (n, problem) in ["a digest that is wrong", "an empty directory", "files without content"].iter().enumerate() {
        match n {
            0 => fs::write(service.database("daily.cvd"), &signed).unwrap(),
            1 => {
                for file in fs::read_dir(service.database("")).unwrap() {
                    fs::remove_file(file.unwrap().path()).unwrap();
                }
            }
            _ => fs::write(service.database("empty.ndb"), "").unwrap(),
        }
        service.signal("HUP");
        service.until_logged("definitions not reloaded; the engine in use stays", n + 1).await;
        let key = format!("eicar{n}");
        aws.upload(&key, samples::eicar()).await;
        let found = wait::until(&format!("a verdict with {problem}"), || async { aws.get(&aws.quarantine, &key).await }).await;
        assert_eq!(found.status(), Some("INFECTED"), "{problem}");
    }
    assert!(service.health().await.unwrap().ready);
    assert!(service.logged("definitions not reloaded; nothing is scanned until they are").is_empty());
}

#[tokio::test]
async fn without_an_engine_nothing_is_scanned_until_there_is_one() {
    const WITHOUT: &str = "definitions not reloaded; nothing is scanned until they are";
    let aws = Aws::new().await;
    let (mut service, url) = draining(&aws).await;
    let scan = async || curl(&["-d", "harmless", &format!("{url}/v1/scan")]).await;
    assert_eq!(scan().await.json()["status"], "CLEAN");
    for key in ["repaired and told", "repaired in silence"] {
        let before = service.logged(WITHOUT).len();
        fs::write(service.database("bad.ndb"), "half a li").unwrap();
        service.signal("HUP");
        service.until_logged(WITHOUT, before + 1).await;
        let health = service.health().await.unwrap();
        assert!(
            !health.ready && !health.pausing && health.obstacles[0].starts_with("no definitions are loaded: cannot load"),
            "{health:?}"
        );
        assert_eq!(health.signatures, 0);
        assert_eq!(scan().await.status, 503, "not even what was known");
        aws.upload(key, samples::eicar()).await;
        assert!(aws.get(&aws.quarantine, key).await.is_none());
        fs::remove_file(service.database("bad.ndb")).unwrap();
        if key == "repaired and told" {
            service.signal("HUP");
        }
        service.until_ready().await;
        let found = wait::until("the verdict", || async { aws.get(&aws.quarantine, key).await }).await;
        assert_eq!(found.status(), Some("INFECTED"));
        assert_eq!(scan().await.json()["status"], "CLEAN");
    }
    assert!(aws.keys(&aws.clean).await.is_empty());
}
