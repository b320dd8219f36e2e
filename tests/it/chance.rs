//! Chance that can be had again: what is decided by it follows from a seed, which a failing test shows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The variable that sets the seed.
const SEED: &str = "CLAMGATE_TEST_SEED";

/// Where all of a test's decisions come from.
pub struct Chance(u64);

impl Chance {
    /// Another one every time, unless the environment sets the seed.
    pub fn new() -> Self {
        let seed = std::env::var(SEED).ok().map(|text| text.parse().unwrap());
        let seed = seed.unwrap_or_else(|| u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos()));
        // Shown when the test fails.
        eprintln!("{SEED}={seed} makes the same decisions again");
        Self(seed)
    }

    /// Decisions of somebody's own, which do not depend on how often others decide.
    pub fn of(&self, name: &str) -> Decisions {
        let start = name.bytes().fold(self.0, |state, byte| mix(state ^ u64::from(byte)));
        Decisions(AtomicU64::new(start))
    }
}

/// One decision after the other.
pub struct Decisions(AtomicU64);

impl Decisions {
    /// A number below `end`.
    pub fn below(&self, end: usize) -> usize {
        let state = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        usize::try_from(mix(state) % end as u64).unwrap()
    }
}

/// SplitMix64 (<https://prng.di.unimi.it/splitmix64.c>).
fn mix(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}
