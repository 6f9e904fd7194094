//! How long to wait before the next try to connect, and what to log meanwhile.

use std::time::{Duration, Instant};

use rand::RngExt as _;
use tracing::{info, warn};

use super::link::Failure;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);
/// How long a connection must stand for the next outage to start afresh.
const STEADY: Duration = Duration::from_secs(5);
/// How often a lasting outage is logged again.
const REMIND: Duration = Duration::from_secs(60);

/// The connection's ups and downs.
#[derive(Debug)]
pub(super) struct Outages {
    /// Which connection it is, for the log.
    name: &'static str,
    url: String,
    tries: u32,
    connected: Option<Instant>,
    /// When the outage began and when it was last logged.
    outage: Option<(Instant, Instant)>,
}

impl Outages {
    pub(super) fn new(name: &'static str, url: &str) -> Outages {
        Outages { name, url: url.to_owned(), tries: 0, connected: None, outage: None }
    }

    pub(super) fn connected(&mut self) {
        self.connected = Some(Instant::now());
        match self.outage.take() {
            Some((since, _)) => {
                info!("{} connection to {} is back after {:.1?}", self.name, self.url, since.elapsed());
            }
            None => info!("{} connection to {} stands", self.name, self.url),
        }
    }

    /// Notes a failure; how long to wait before the next try.
    pub(super) fn failed(&mut self, failure: &Failure) -> Duration {
        if self.connected.take().is_some_and(|since| since.elapsed() >= STEADY) {
            self.tries = 0;
        }
        let now = Instant::now();
        let (since, logged) = self.outage.map_or((now, None), |(since, logged)| (since, Some(logged)));
        let due = logged.is_none_or(|at| at.elapsed() >= REMIND);
        if due {
            warn!("{} connection to {} failed, trying on: {failure}", self.name, self.url);
        }
        self.outage = Some((since, if due { now } else { logged.unwrap_or(now) }));
        let delay = LONGEST.min(FIRST * 2u32.saturating_pow(self.tries.min(10)));
        self.tries = self.tries.saturating_add(1);
        // Clients that lost the broker together do not come back together.
        delay.mul_f64(rand::rng().random_range(0.5..1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_no_further() {
        let mut outages = Outages::new("test", "mqtt://h");
        let failure = Failure::new("gone", None);
        let waits: Vec<Duration> = (0..50).map(|_| outages.failed(&failure)).collect();
        assert!(waits.iter().take(3).sum::<Duration>() < Duration::from_secs(1));
        assert!(waits.iter().all(|w| *w <= LONGEST));
        assert!(waits.iter().skip(10).all(|w| *w >= LONGEST / 2));
        // A connection that falls at once does not start the waits afresh.
        outages.connected();
        assert!(outages.failed(&failure) >= LONGEST / 2);
    }
}
