//! What everything simulated shares: time, chance, the trace, and what went wrong.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::Instant;

use super::invariants::Invariant;
use crate::clock::Clock;
use crate::config::Config;
use crate::path::Bounds;

/// 2026-11-23T10:00:00Z, when every simulation begins.
pub(super) const BEGIN: i64 = 1_795_428_000_000_000;

/// Locks; no code that panics under a lock is asked again.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See the module; clones share everything.
#[derive(Clone)]
pub(super) struct Sim(Arc<Inner>);

struct Inner {
    config: Arc<Config>,
    bounds: Bounds,
    began: Instant,
    looks: Arc<AtomicI64>,
    chance: Mutex<StdRng>,
    trace: Mutex<Vec<String>>,
    violations: Mutex<Vec<String>>,
}

impl Sim {
    pub(super) fn new(seed: u64, config: Config, bounds: Bounds) -> Sim {
        Sim(Arc::new(Inner {
            config: Arc::new(config),
            bounds,
            began: Instant::now(),
            looks: Arc::default(),
            chance: Mutex::new(StdRng::seed_from_u64(seed)),
            trace: Mutex::default(),
            violations: Mutex::default(),
        }))
    }

    pub(super) fn config(&self) -> &Arc<Config> {
        &self.0.config
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.0.bounds
    }

    /// Simulated time moves by milliseconds; two looks at the wall clock never show the same.
    pub(super) fn clock(&self) -> Clock {
        let (began, looks) = (self.0.began, self.0.looks.clone());
        Clock::showing(move || {
            let passed = i64::try_from(began.elapsed().as_micros()).unwrap();
            BEGIN + passed + looks.fetch_add(1, Ordering::Relaxed) % 1000
        })
    }

    /// A number below `below`.
    pub(super) fn dice(&self, below: u64) -> u64 {
        lock(&self.0.chance).random_range(0..below)
    }

    /// Takes no time, lets others go first, or takes some milliseconds.
    pub(super) async fn pause(&self) {
        match self.dice(8) {
            0..4 => {}
            4..6 => tokio::task::yield_now().await,
            6 => tokio::time::sleep(Duration::from_millis(1 + self.dice(3))).await,
            _ => tokio::time::sleep(Duration::from_millis(1 + self.dice(40))).await,
        }
    }

    pub(super) fn note(&self, what: impl FnOnce() -> String) {
        let at = self.0.began.elapsed().as_millis();
        lock(&self.0.trace).push(format!("{at:>8} {}", what()));
    }

    pub(super) fn violated(&self, invariant: Invariant, how: &str) {
        let text = format!("{}: {how} ({})", invariant.name, invariant.says);
        self.note(|| format!("VIOLATED {text}"));
        lock(&self.0.violations).push(text);
    }

    /// Notes a violation unless something holds.
    pub(super) fn ensure(&self, holds: bool, invariant: Invariant, how: impl FnOnce() -> String) {
        if !holds {
            self.violated(invariant, &how());
        }
    }

    pub(super) fn first_violation(&self) -> Option<String> {
        lock(&self.0.violations).first().cloned()
    }

    pub(super) fn trace(&self) -> Vec<String> {
        lock(&self.0.trace).clone()
    }
}
