//! `kill -9` at random moments.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::aws::{Aws, Setup};
use crate::chance::Chance;
use crate::samples::{self, eicar};
use crate::service::Service;
use crate::wait;

const OBJECTS: usize = 300;

#[tokio::test]
async fn killed_at_random_moments_it_loses_nothing_and_does_nothing_twice() {
    let aws = Aws::with(Setup { versioned: true, receives: 100 }).await;
    let moments = Chance::new().of("moments");
    let mut expected = [BTreeSet::new(), BTreeSet::new()];
    for n in 0..OBJECTS {
        let (bad, body) = match n % 4 {
            0 => (1, eicar()),
            1 => (1, samples::encrypted_zip("a", b"x")),
            _ => (0, samples::noise(1000 + n * 100)),
        };
        let key = format!("{n:03}");
        aws.upload(&key, body).await;
        expected[bad].insert(key);
    }
    // Short leases, so that the messages of a killed process come back soon.
    let mut service = Service::new(&aws, &[("CLAMGATE_QUEUE__VISIBILITY_TIMEOUT_SECS", "10")]);
    let mut kills = 0;
    loop {
        service.spawn();
        service.until_ready().await;
        let left = aws.keys(&aws.uploads).await.len();
        if left == 0 || kills == 12 {
            break;
        }
        // Killed after some objects more, in the midst of the next ones.
        let stop_at = left.saturating_sub(5 + moments.below(40));
        wait::until("some progress", || async { (aws.keys(&aws.uploads).await.len() <= stop_at).then_some(()) }).await;
        service.signal("KILL");
        service.until_ended().await;
        kills += 1;
    }
    assert!(kills >= 5, "killed {kills} times only");
    wait::until_within(Duration::from_secs(120), "an empty queue", || async {
        (aws.depth(&aws.queue).await == (0, 0)).then_some(())
    })
    .await;

    assert_eq!(aws.depth(&aws.dead_letters).await, (0, 0));
    assert!(aws.keys(&aws.uploads).await.is_empty());
    let found = |keys: Vec<String>| keys.into_iter().collect::<BTreeSet<_>>();
    assert_eq!(found(aws.keys(&aws.clean).await), expected[0]);
    assert_eq!(found(aws.keys(&aws.quarantine).await), expected[1]);
    for bucket in [&aws.clean, &aws.quarantine] {
        let versions = aws.s3.list_object_versions().bucket(bucket).send().await.unwrap();
        assert_eq!(versions.is_truncated(), Some(false));
        let again: Vec<_> = versions.versions().iter().filter(|version| version.is_latest() == Some(false)).collect();
        assert!(again.is_empty(), "copied twice: {again:?}");
    }
    for key in &expected[0] {
        assert_eq!(aws.get(&aws.clean, key).await.unwrap().status(), Some("CLEAN"), "{key}");
    }
    for key in &expected[1] {
        let status = if key.parse::<usize>().unwrap() % 4 == 0 { "INFECTED" } else { "UNSCANNABLE" };
        assert_eq!(aws.get(&aws.quarantine, key).await.unwrap().status(), Some(status), "{key}");
    }
    let reported: BTreeSet<String> = {
        let mut keys = BTreeSet::new();
        while keys.len() < OBJECTS {
            keys.extend(aws.reports(1).await.iter().map(|report| report["target"]["key"].as_str().unwrap().to_owned()));
        }
        keys
    };
    assert_eq!(reported.len(), OBJECTS, "every object was reported");
}
