//! Troubles of the machine in the service: a scan that they hinder is no verdict, and is done again.

use std::fs;
use std::path::PathBuf;

use crate::aws::{Aws, Setup};
use crate::samples::{self, eicar};
use crate::service::Service;
use crate::wait;

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
