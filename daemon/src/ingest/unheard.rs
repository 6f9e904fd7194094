//! Streams on whose topics nothing comes at all: a topic that is spelled wrongly looks like a quiet house.

use std::time::{Duration, Instant};

use super::Ingest;
use crate::clock::rounded;

/// How long nothing may have come before that is said; twice the stream's interval if that is longer.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often it is said again.
const AGAIN: Duration = Duration::from_secs(6 * 3600);

/// What is known of a stream's being heard.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hearing {
    /// Whether a message has come since the start.
    pub(super) heard: bool,
    /// Since when one could have come; none while none can.
    since: Option<Instant>,
    said: Option<Instant>,
}

impl Hearing {
    /// How long nothing has come although it could have, if that is to be said now.
    fn says(&mut self, now: Instant, listening: bool, interval: Option<Duration>) -> Option<Duration> {
        if self.heard || !listening {
            self.since = None;
            return None;
        }
        let waited = now.saturating_duration_since(*self.since.get_or_insert(now));
        let patience = PATIENCE.max(interval.unwrap_or_default() * 2);
        let again = self.said.is_none_or(|said| now.saturating_duration_since(said) >= AGAIN);
        (waited >= patience && again).then(|| {
            self.said = Some(now);
            waited
        })
    }
}

impl Ingest {
    /// Says which streams nothing has come of. One that has series had a topic that fits: of those that fall
    /// silent each is told by itself. With `listening` false nothing could be heard until now.
    pub fn unheard(&mut self, now: Instant, listening: bool) {
        for (stream, path) in self.streams.iter_mut().enumerate().filter(|(_, path)| path.active) {
            let known = self.metrics.stream(stream).series.get() > 0;
            if let Some(waited) = path.hearing.says(now, listening && !known, path.settings.interval) {
                tracing::warn!(
                    stream = &*path.name,
                    topic = path.settings.topic.filter(),
                    "nothing has come on this topic for {}: see what is published, for instance by \
                     mosquitto_sub -v -t '#', and correct [[stream]] topic if it does not fit",
                    rounded(waited)
                );
            }
        }
    }

    /// Whether a message of a stream has come since the start.
    #[must_use]
    pub fn is_heard(&self, stream: usize) -> bool {
        self.streams.get(stream).is_some_and(|path| path.hearing.heard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Minutes at which it is said, looked at every minute.
    fn said(
        hearing: &mut Hearing,
        minutes: std::ops::Range<u64>,
        listening: bool,
        interval: Option<u64>,
    ) -> Vec<u64> {
        let begin = *BEGIN.get_or_init(Instant::now);
        let at = |minute: u64| begin + Duration::from_secs(60 * minute);
        let interval = interval.map(|minutes| Duration::from_secs(60 * minutes));
        minutes.filter(|minute| hearing.says(at(*minute), listening, interval).is_some()).collect()
    }

    static BEGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();

    #[test]
    fn a_stream_that_hears_nothing_says_so_after_a_while_and_seldom_again() {
        let mut hearing = Hearing::default();
        assert_eq!(said(&mut hearing, 0..800, true, None), [10, 370, 730]);
        hearing.heard = true;
        assert!(said(&mut hearing, 800..2000, true, None).is_empty());
    }

    #[test]
    fn no_time_counts_while_nothing_could_come_and_slow_streams_have_longer() {
        let mut hearing = Hearing::default();
        assert!(said(&mut hearing, 0..9, true, None).is_empty());
        assert!(said(&mut hearing, 9..100, false, None).is_empty());
        assert_eq!(said(&mut hearing, 100..120, true, None), [110]);
        assert_eq!(said(&mut Hearing::default(), 0..150, true, Some(60)), [120]);
        assert_eq!(said(&mut Hearing::default(), 0..20, true, Some(1)), [10]);
    }
}
