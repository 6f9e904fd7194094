//! How much waits to be written, and room for more.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use prometheus::IntGauge;

/// The bound on the recorder's queue, in readings. The channel itself has none: the engine thread,
/// which fills it, must choose what to do when the store is away (wait, or reject and count).
#[derive(Debug)]
pub struct Backlog {
    queued: AtomicUsize,
    capacity: usize,
    closed: AtomicBool,
    gauge: IntGauge,
    lock: Mutex<()>,
    room: Condvar,
}

impl Backlog {
    /// A backlog of at most about `capacity` readings, shown in `gauge`.
    #[must_use]
    pub fn new(capacity: usize, gauge: IntGauge) -> Arc<Backlog> {
        Arc::new(Backlog {
            queued: AtomicUsize::new(0),
            capacity,
            closed: AtomicBool::new(false),
            gauge,
            lock: Mutex::new(()),
            room: Condvar::new(),
        })
    }

    /// Readings that wait to be committed.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Acquire)
    }

    /// Whether there is room for more.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.queued() < self.capacity
    }

    /// Counts readings in, before they are sent.
    pub fn add(&self, readings: usize) {
        self.queued.fetch_add(readings, Ordering::AcqRel);
        self.gauge.add(i64::try_from(readings).unwrap_or(i64::MAX));
    }

    /// Blocks the calling thread until there is room, the recorder has ended or the time is up;
    /// answers whether there is room.
    #[must_use]
    pub fn wait_for_room(&self, timeout: Duration) -> bool {
        if self.has_room() {
            return true;
        }
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = |(): &mut ()| !self.has_room() && !self.closed.load(Ordering::Acquire);
        drop(self.room.wait_timeout_while(guard, timeout, waiting));
        self.has_room()
    }

    /// Counts readings out, once they are committed.
    pub(super) fn release(&self, readings: usize) {
        self.queued.fetch_sub(readings, Ordering::AcqRel);
        self.gauge.sub(i64::try_from(readings).unwrap_or(i64::MAX));
        self.wake();
    }

    /// Lets go of whoever waits: nothing will be written any more.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        // The lock orders this after a waiter's look at the count and before its sleep.
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
        self.room.notify_all();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn backlog(capacity: usize) -> Arc<Backlog> {
        Backlog::new(capacity, IntGauge::new("queue", "test").unwrap())
    }

    #[test]
    fn a_thread_waits_until_there_is_room() {
        let backlog = backlog(10);
        backlog.add(10);
        assert!(!backlog.wait_for_room(Duration::from_millis(1)));
        let waiter = std::thread::spawn({
            let backlog = backlog.clone();
            move || backlog.wait_for_room(Duration::from_secs(60))
        });
        backlog.release(4);
        assert!(waiter.join().unwrap());
        assert_eq!((backlog.queued(), backlog.gauge.get()), (6, 6));
    }

    #[test]
    fn nobody_waits_for_a_recorder_that_has_ended() {
        let backlog = backlog(1);
        backlog.add(1);
        backlog.close();
        assert!(!backlog.wait_for_room(Duration::from_secs(60)));
    }
}
