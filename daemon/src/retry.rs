//! Trying again: how long to wait, and how often to say so.

use std::time::Duration;

use tokio::time::Instant;

use crate::chance;

/// First and longest wait between two tries.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Waits that double from try to try, each less up to half of it by chance. What a try took counts as a part
/// of its wait, so that tries that hang come no further apart than those that fail at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    /// When the last wait ended, and with it the try began.
    began: Option<Instant>,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { next: WAITS.0, began: None }
    }
}

impl Backoff {
    /// A try has failed; how long to wait before the next one.
    pub(crate) fn wait(&mut self) -> Duration {
        let took = self.began.map_or(Duration::ZERO, |began| began.elapsed());
        let wait = chance::shortened(self.next).saturating_sub(took).max(WAITS.0 / 2);
        self.next = (self.next * 2).min(WAITS.1);
        self.began = Some(Instant::now() + wait);
        wait
    }
}

/// Something that lasts, and is said once and then at intervals.
#[derive(Debug, Default)]
pub(crate) struct Reminder(Option<Instant>);

impl Reminder {
    /// Whether it is to be said now.
    pub(crate) fn is_due(&mut self, every: Duration) -> bool {
        let due = self.0.is_none_or(|said| said.elapsed() >= every);
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}

/// Waits until a moment; without one, this ends at once.
pub(crate) async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_grow_to_the_longest_and_no_further() {
        let mut backoff = Backoff::default();
        let mut waits: Vec<Duration> = Vec::new();
        for _ in 0..50 {
            waits.push(backoff.wait());
            tokio::time::sleep(*waits.last().unwrap()).await;
        }
        assert!(waits.iter().take(3).sum::<Duration>() < Duration::from_secs(1));
        assert!(waits.iter().all(|w| *w <= WAITS.1));
        assert!(waits.iter().skip(10).all(|w| *w >= WAITS.1 / 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_that_hangs_counts_as_a_part_of_its_wait() {
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            let wait = backoff.wait();
            tokio::time::sleep(wait).await;
        }
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(backoff.wait() <= WAITS.1 - Duration::from_secs(4));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(backoff.wait(), WAITS.0 / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_said_once_and_then_at_intervals() {
        let (mut reminder, every) = (Reminder::default(), Duration::from_secs(30));
        assert!(reminder.is_due(every) && !reminder.is_due(every));
        tokio::time::sleep(every).await;
        assert!(reminder.is_due(every) && !reminder.is_due(every));
    }
}
