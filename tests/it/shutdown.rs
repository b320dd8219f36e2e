//! Leaving tidily.

use std::time::{Duration, Instant};

use crate::aws::Aws;
use crate::samples;
use crate::service::Service;
use crate::wait;

#[tokio::test]
async fn sigterm_finishes_what_is_under_way() {
    let aws = Aws::new().await;
    let mut service = Service::start(&aws, &[]).await;
    aws.upload("slow", samples::slow(8)).await;
    wait::until("a scan under way", || async { service.health().await.filter(|health| health.scans > 0) }).await;
    service.signal("TERM");
    assert_eq!(service.until_ended().await.code(), Some(0));
    // What is left is the event of the removal that the service itself made.
    let (waiting, in_flight) = aws.depth(&aws.queue).await;
    assert!(waiting <= 1 && in_flight == 0, "{waiting} waiting, {in_flight} in flight");
    assert_eq!(aws.get(&aws.uploads, "slow").await, None);
    assert_eq!(aws.get(&aws.clean, "slow").await.unwrap().status(), Some("CLEAN"));
    assert_eq!(service.logged("drained").len(), 1);
}

#[tokio::test]
async fn sigterm_gives_back_what_does_not_fit_the_grace_period() {
    let aws = Aws::new().await;
    let grace = Duration::from_secs(2);
    let mut service = Service::start(&aws, &[("CLAMGATE_SERVICE__GRACE_SECS", "2")]).await;
    for n in 0..4 {
        // Contents that differ: one would be scanned once.
        aws.upload(&format!("slow{n}"), [samples::slow(200), vec![b'\n'; n]].concat()).await;
    }
    wait::until("scans under way", || async { service.health().await.filter(|health| health.scans > 1) }).await;
    let began = Instant::now();
    service.signal("TERM");
    assert_eq!(service.until_ended().await.code(), Some(0));
    assert!(began.elapsed() < grace + Duration::from_secs(5), "left after {:?}", began.elapsed());
    let (waiting, in_flight) = aws.depth(&aws.queue).await;
    assert_eq!((waiting, in_flight), (4, 0), "all messages are visible again at once");
    assert!(std::fs::read_dir(service.dir.path().join("scratch")).unwrap().next().is_none(), "nothing is left behind");
}

#[tokio::test]
async fn an_idle_service_leaves_at_once() {
    for signal in ["TERM", "INT"] {
        let aws = Aws::new().await;
        let mut service = Service::start(&aws, &[("CLAMGATE_QUEUE__WAIT_SECS", "20")]).await;
        aws.until_drained().await;
        let began = Instant::now();
        service.signal(signal);
        assert_eq!(service.until_ended().await.code(), Some(0), "{signal}");
        assert!(began.elapsed() < Duration::from_secs(10), "left after {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let aws = Aws::new().await;
    let mut service = Service::start(&aws, &[]).await;
    aws.upload("slow", samples::slow(400)).await;
    wait::until("a scan under way", || async { service.health().await.filter(|health| health.scans > 0) }).await;
    service.signal("TERM");
    service.until_logged("stopping: finishing what is under way", 1).await;
    service.signal("TERM");
    assert_eq!(service.until_ended().await.code(), Some(2));
    assert!(std::fs::read_dir(service.dir.path().join("scratch")).unwrap().next().is_none(), "nothing is left behind");
}

#[tokio::test]
async fn sigusr1_logs_the_state() {
    let aws = Aws::new().await;
    let service = Service::start(&aws, &[]).await;
    service.signal("USR1");
    let line = service.until_logged("state", 1).await.remove(0);
    let state: serde_json::Value = serde_json::from_str(line["state"].as_str().unwrap()).unwrap();
    assert_eq!(state["ready"], true);
    assert_eq!(state["signatures"], 2);
}
