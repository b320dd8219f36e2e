//! How long to wait before the next attempt.

use std::time::Duration;

/// Doubles `first` with every failure up to `most`, less up to a quarter at random, so that workers do not retry in step.
pub(crate) fn backoff(first: Duration, failures: u32, most: Duration) -> Duration {
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(most);
    doubled.mul_f64(1.0 - fastrand::f64() / 4.0)
}
