//! Readiness: what `/ready` and systemd are told.

use std::sync::atomic::{AtomicBool, Ordering};

/// The conditions under which the daemon does its work. Each part sets its own.
#[derive(Debug, Default)]
pub struct Ready {
    migrated: AtomicBool,
    restored: AtomicBool,
    subscribed: AtomicBool,
}

impl Ready {
    /// The store's schema is up to date.
    pub fn set_migrated(&self) {
        self.migrated.store(true, Ordering::Release);
    }

    /// Every series continues where it was.
    pub fn set_restored(&self) {
        self.restored.store(true, Ordering::Release);
    }

    /// Whether every series continues where it was.
    #[must_use]
    pub fn restored(&self) -> bool {
        self.restored.load(Ordering::Acquire)
    }

    /// Whether the store has answered and the series are being restored.
    #[must_use]
    pub fn restoring(&self) -> bool {
        self.migrated.load(Ordering::Acquire) && !self.restored()
    }

    /// Whether the broker has granted the subscriptions of the present connection.
    pub fn set_subscribed(&self, yes: bool) {
        self.subscribed.store(yes, Ordering::Release);
    }

    /// What is still missing; empty means ready.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        [(&self.migrated, "migrated"), (&self.restored, "restored"), (&self.subscribed, "subscribed")]
            .into_iter()
            .filter(|(flag, _)| !flag.load(Ordering::Acquire))
            .map(|(_, name)| name)
            .collect()
    }
}
