//! Containers in containers, at random: what is in them is found, and what is too deep is never clean.

use std::sync::OnceLock;

use clamgate::engine::{Engine, EngineBuilder, Limits, Status, judge};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::samples::archives::{Container, nest};
use crate::samples::{eicar, noise};
use crate::service::signatures;

/// Engines whose recursion limits are 1 to 8; the last one is enough for everything here.
fn engines() -> &'static [Engine] {
    static ENGINES: OnceLock<Vec<Engine>> = OnceLock::new();
    ENGINES.get_or_init(|| {
        let limits = |max_recursion| Limits { max_recursion, ..Limits::default() };
        (1..=8).map(|depth| EngineBuilder::new().limits(limits(depth)).load(&signatures()).unwrap()).collect()
    })
}

fn status(engine: &Engine, bytes: &[u8]) -> Status {
    judge(&engine.scan_bytes(bytes)).status
}

/// 64 cases, unless `PROPTEST_CASES` says otherwise.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { 64 };
    ProptestConfig { cases, failure_persistence: None, ..default }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn within_the_limits_malware_is_found_and_the_harmless_is_clean(
        containers in vec(select(Container::ALL.to_vec()), 1..=4),
        // Less is not scanned, so it is no level.
        length in 6_usize..5_000,
    ) {
        let (malware, harmless) = (nest(&containers, &eicar()), nest(&containers, &noise(length)));
        let lax = engines().last().unwrap();
        prop_assert_eq!(status(lax, &malware), Status::Infected);
        prop_assert_eq!(status(lax, &harmless), Status::Clean);
        // Where the limit is too low to reach the malware, its harmless twin is not clean either.
        for engine in engines() {
            match status(engine, &harmless) {
                Status::Clean => prop_assert_eq!(status(engine, &malware), Status::Infected),
                other => prop_assert_eq!(other, Status::Unscannable),
            }
            prop_assert_ne!(status(engine, &malware), Status::Clean);
        }
        // Each container is a level below the input.
        let too_low = &engines()[containers.len() - 1];
        prop_assert_eq!(status(too_low, &harmless), Status::Unscannable);
    }

    #[test]
    fn one_byte_over_a_limit_is_never_clean(
        containers in vec(select(Container::ALL.to_vec()), 0..=3),
        length in 10_000_usize..60_000,
    ) {
        let harmless = nest(&containers, &noise(length));
        let limit = u64::try_from(length).unwrap() - 1;
        for limits in [
            Limits { max_file_size_bytes: limit, ..Limits::default() },
            Limits { max_scan_size_bytes: limit, ..Limits::default() },
        ] {
            let engine = EngineBuilder::new().limits(limits.clone()).load(&signatures()).unwrap();
            prop_assert_eq!(status(&engine, &harmless), Status::Unscannable, "{:?}", limits);
        }
    }
}
