//! Chance, as an input: a simulation says what it begins with.

use std::cell::RefCell;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;

thread_local! {
    static CHANCE: RefCell<StdRng> = RefCell::new(rand::make_rng());
}

/// From here on chance is the same each time, on this thread.
#[cfg(test)]
pub(crate) fn seed(seed: u64) {
    CHANCE.set(rand::SeedableRng::seed_from_u64(seed));
}

/// A wait less up to half of it, so that clients that lost the same server do not come back at the same
/// moment.
pub(crate) fn shortened(wait: Duration) -> Duration {
    wait.mul_f64(CHANCE.with_borrow_mut(|chance| chance.random_range(0.5..=1.0)))
}
