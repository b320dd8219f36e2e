//! A service with nothing to do.

use std::fs;
use std::time::Duration;

use crate::aws::Aws;
use crate::service::Service;

/// How often the process's threads went to sleep, which they do once for every time that they woke up.
fn naps(service: &Service) -> u64 {
    let threads = fs::read_dir(format!("/proc/{}/task", service.pid())).unwrap();
    threads
        .filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).ok())
        .filter_map(|status| {
            status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse::<u64>().ok())
        })
        .sum()
}

/// The SDK's watch for stalled streams woke the service up forty times a second while it waited for messages.
#[tokio::test]
async fn waiting_for_messages_woke_it_up_forty_times_a_second() {
    let aws = Aws::new().await;
    let service = Service::start(&aws, &[("CLAMGATE_QUEUE__WAIT_SECS", "20")]).await;
    aws.until_drained().await;
    let mut ticks = tokio::time::interval(Duration::from_secs(3));
    ticks.tick().await;
    let mut least = u64::MAX;
    // The quietest of three periods: one of them may see the end of a poll.
    for _ in 0..3 {
        let before = naps(&service);
        ticks.tick().await;
        least = least.min(naps(&service) - before);
    }
    assert!(least < 30, "woke up {least} times in three seconds");
}
