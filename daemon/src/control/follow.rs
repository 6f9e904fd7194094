//! What is the matter with the series, told by the engine to somebody who follows it.

use std::sync::atomic::{AtomicU64, Ordering};

use forecaster::{Problem, SeriesHandle};
use tokio::sync::mpsc;

/// What is the matter with a series, after so many tidings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// The series.
    pub series: SeriesHandle,
    /// What is the matter with it.
    pub problem: Problem,
    /// Place of this among all tidings.
    pub number: u64,
}

/// Who follows what is the matter with the series. The engine waits for nobody: what finds no room is left out,
/// and found when the whole is looked at.
#[derive(Debug)]
pub struct Follower {
    told: AtomicU64,
    to: mpsc::Sender<Told>,
}

impl Follower {
    /// A follower, and what it is told.
    pub(crate) fn new(room: usize) -> (Follower, mpsc::Receiver<Told>) {
        let (to, told) = mpsc::channel(room);
        (Follower { told: AtomicU64::new(0), to }, told)
    }

    pub(crate) fn tell(&self, series: SeriesHandle, problem: Problem) {
        let number = self.told.fetch_add(1, Ordering::Relaxed) + 1;
        let _ = self.to.try_send(Told { series, problem, number });
    }

    /// Tidings so far.
    pub(crate) fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }
}
