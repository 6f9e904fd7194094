//! Whether the engine makes progress.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts what the engine has got done. It is told the time twice a second, so the count moves on while no
/// readings come, and stands still only if the engine is stuck in a message or does not get to run.
#[derive(Debug, Default)]
pub struct Pulse(AtomicU64);

impl Pulse {
    /// The engine has handled a message, a part of a large one, or a burst.
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it has got on since the start.
    #[must_use]
    pub fn beats(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
