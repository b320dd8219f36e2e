//! New definitions while scans flow.

use std::fs;

use crate::aws::Aws;
use crate::samples;
use crate::service::Service;
use crate::wait;

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
