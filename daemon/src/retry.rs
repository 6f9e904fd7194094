//! Trying again: how long to wait, and how often to say so.

use std::time::Duration;

use tokio::time::Instant;

use crate::chance;

/// First and longest wait between two tries.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Waits that double from try to try, each less up to half of it by chance.
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Backoff(WAITS.0)
    }
}

impl Backoff {
    /// How long to wait before the next try.
    pub(crate) fn wait(&mut self) -> Duration {
        let wait = chance::shortened(self.0);
        self.0 = (self.0 * 2).min(WAITS.1);
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
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_no_further() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..50).map(|_| backoff.wait()).collect();
        assert!(waits.iter().take(3).sum::<Duration>() < Duration::from_secs(1));
        assert!(waits.iter().all(|w| *w <= WAITS.1));
        assert!(waits.iter().skip(10).all(|w| *w >= WAITS.1 / 2));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_said_once_and_then_at_intervals() {
        let (mut reminder, every) = (Reminder::default(), Duration::from_secs(30));
        assert!(reminder.is_due(every) && !reminder.is_due(every));
        tokio::time::sleep(every).await;
        assert!(reminder.is_due(every) && !reminder.is_due(every));
    }
}
