//! What waits to be published: a bounded queue from the engine thread to the outgoing connection.
//!
//! Forecasts age fast, so when the broker is slow or away the oldest are dropped, and counted; the
//! engine never waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use forecaster::SeriesHandle;
use tokio::sync::{Notify, watch};

use crate::metrics::Metrics;

/// A message to publish.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// Topic.
    pub topic: String,
    /// Body.
    pub payload: Vec<u8>,
    /// Whether the broker keeps it as the topic's latest.
    pub retain: bool,
    /// Position of its stream in the configuration.
    pub stream: usize,
    /// What it tells of; none if of no series.
    pub series: Option<SeriesHandle>,
    /// What it is, for the counters.
    pub kind: Kind,
    /// When the packet that caused it arrived; none if none did.
    pub arrived: Option<Instant>,
}

/// Kinds of outgoing messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A forecast; counted when published and when dropped.
    Forecast,
    /// Begin or end of an anomaly.
    Anomaly,
    /// A request to whom readings come from.
    Request,
}

/// The queue. The engine pushes, the outgoing connection takes.
#[derive(Debug)]
pub struct OutQueue {
    items: Mutex<VecDeque<Outgoing>>,
    changed: Notify,
    closed: watch::Sender<bool>,
    capacity: AtomicUsize,
    metrics: Arc<Metrics>,
}

impl OutQueue {
    /// An empty queue of at most `capacity` messages.
    #[must_use]
    pub fn new(capacity: usize, metrics: Arc<Metrics>) -> OutQueue {
        OutQueue {
            items: Mutex::default(),
            changed: Notify::new(),
            closed: watch::Sender::new(false),
            capacity: AtomicUsize::new(capacity),
            metrics,
        }
    }

    /// From the next message on, queues at most so many.
    pub fn set_capacity(&self, capacity: usize) {
        self.capacity.store(capacity, Ordering::Relaxed);
    }

    /// Takes all messages out of `messages` and queues them, dropping the oldest of those queued
    /// where there is no room. On a closed queue they are dropped.
    pub fn push_all(&self, messages: &mut Vec<Outgoing>) {
        if messages.is_empty() {
            return;
        }
        let mut items = self.lock();
        if *self.closed.borrow() {
            messages.drain(..).for_each(|m| self.count_dropped(&m));
            return;
        }
        let was_empty = items.is_empty();
        items.extend(messages.drain(..));
        let excess = items.len().saturating_sub(self.capacity.load(Ordering::Relaxed));
        items.drain(..excess).for_each(|m| self.count_dropped(&m));
        drop(items);
        if was_empty {
            self.changed.notify_one();
        }
    }

    /// Waits until there are messages and moves up to `max` of them, oldest first, to the end of
    /// `out`. False means that the queue is closed and empty. Only one task may take; it loses
    /// nothing by giving up waiting.
    pub async fn take(&self, max: usize, out: &mut Vec<Outgoing>) -> bool {
        loop {
            {
                let mut items = self.lock();
                if !items.is_empty() {
                    let count = items.len().min(max);
                    out.extend(items.drain(..count));
                    return true;
                }
                if *self.closed.borrow() {
                    return false;
                }
            }
            // A push in between leaves its permit, so it is not missed.
            self.changed.notified().await;
        }
    }

    /// Nothing more comes; what is queued may still be taken.
    pub fn close(&self) {
        // Under the lock, so that no push finds it open afterwards.
        let items = self.lock();
        self.closed.send_replace(true);
        drop(items);
        self.changed.notify_one();
    }

    /// Waits for [`OutQueue::close`].
    pub async fn closed(&self) {
        // The sender is our own, so waiting cannot fail.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// Drops and counts what is queued; how many there were.
    pub fn discard(&self) -> usize {
        let items = std::mem::take(&mut *self.lock());
        items.iter().for_each(|m| self.count_dropped(m));
        items.len()
    }

    /// Counts a message that will not be published.
    pub fn count_dropped(&self, message: &Outgoing) {
        if message.kind == Kind::Forecast {
            self.metrics.stream(message.stream).dropped.inc();
        }
    }

    /// How many messages wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Outgoing>> {
        // No code that holds the lock leaves the queue half changed.
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn message(n: u8, stream: usize, kind: Kind) -> Outgoing {
        Outgoing {
            topic: "t".into(),
            payload: vec![n],
            retain: false,
            stream,
            series: None,
            kind,
            arrived: None,
        }
    }

    async fn take(queue: &OutQueue, max: usize) -> Vec<u8> {
        let mut out = Vec::new();
        assert!(queue.take(max, &mut out).await);
        out.into_iter().map(|m| *m.payload.first().unwrap()).collect()
    }

    #[tokio::test]
    async fn drops_the_oldest_and_counts_forecasts() {
        let metrics = Metrics::new(["a", "b"]).unwrap();
        let queue = OutQueue::new(3, metrics.clone());
        queue.push_all(&mut vec![message(1, 0, Kind::Forecast), message(2, 1, Kind::Forecast)]);
        queue.push_all(&mut (3..6).map(|n| message(n, 0, Kind::Forecast)).collect());
        assert_eq!(take(&queue, 2).await, [3, 4]);
        assert_eq!(take(&queue, 2).await, [5]);
        assert_eq!((metrics.stream(0).dropped.get(), metrics.stream(1).dropped.get()), (1, 1));
        queue.push_all(&mut (0..4).map(|n| message(n, 0, Kind::Anomaly)).collect());
        assert_eq!(metrics.stream(0).dropped.get(), 1, "anomalies are not counted among forecasts");
    }

    #[tokio::test]
    async fn a_closed_queue_is_drained_and_takes_no_more() {
        let metrics = Metrics::new(["a"]).unwrap();
        let queue = Arc::new(OutQueue::new(10, metrics.clone()));
        queue.push_all(&mut vec![message(1, 0, Kind::Forecast)]);
        queue.close();
        queue.push_all(&mut vec![message(2, 0, Kind::Forecast)]);
        assert_eq!(metrics.stream(0).dropped.get(), 1);
        assert_eq!(take(&queue, 10).await, [1]);
        assert!(!queue.take(10, &mut Vec::new()).await);
    }

    #[tokio::test]
    async fn a_thread_wakes_the_waiting_task() {
        let queue = Arc::new(OutQueue::new(1_000_000, Metrics::new(["a"]).unwrap()));
        let engine = std::thread::spawn({
            let queue = queue.clone();
            move || {
                for _ in 0..10_000 {
                    queue.push_all(&mut vec![message(7, 0, Kind::Forecast)]);
                }
                queue.close();
            }
        });
        let mut out = Vec::new();
        while queue.take(16, &mut out).await {}
        engine.join().unwrap();
        assert_eq!(out.len(), 10_000);
    }
}
