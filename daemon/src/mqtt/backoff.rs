//! How long to wait before the next try to connect, and what to log meanwhile.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::wire::Failure;
use crate::clock::rounded;
use crate::retry::{Backoff, Reminder};

/// How long a connection must stand for the next outage to start afresh.
const STEADY: Duration = Duration::from_secs(5);
/// Connections in a row that fell before they were steady, from which on a cause is suggested.
const SHORT: u32 = 3;
/// How often a lasting outage is logged again.
const REMIND: Duration = Duration::from_secs(60);

/// The connection's ups and downs.
#[derive(Debug)]
pub(super) struct Outages {
    /// Which connection it is, for the log.
    name: &'static str,
    url: String,
    backoff: Backoff,
    /// Connections in a row that fell before they were steady.
    short: u32,
    connected: Option<Instant>,
    /// When the outage began, and when it is logged again.
    outage: Option<(Instant, Reminder)>,
}

impl Outages {
    pub(super) fn new(name: &'static str, url: &str) -> Outages {
        Outages {
            name,
            url: url.to_owned(),
            backoff: Backoff::default(),
            short: 0,
            connected: None,
            outage: None,
        }
    }

    pub(super) fn connected(&mut self) {
        self.connected = Some(Instant::now());
        match self.outage.take() {
            Some((since, _)) => {
                info!("{} connection to {} is back after {}", self.name, self.url, rounded(since.elapsed()));
            }
            None => info!("{} connection to {} stands", self.name, self.url),
        }
    }

    /// Notes a failure; how long to wait before the next try.
    pub(super) fn failed(&mut self, failure: &Failure) -> Duration {
        match self.connected.take() {
            Some(since) if since.elapsed() >= STEADY => {
                (self.backoff, self.short) = (Backoff::default(), 0);
            }
            Some(_) => self.short = self.short.saturating_add(1),
            None => {}
        }
        let (_, reminder) = self.outage.get_or_insert_with(|| (Instant::now(), Reminder::default()));
        if reminder.is_due(REMIND) {
            // Many brokers do not say why they close the connection of a session that is taken over.
            let cause = if self.short >= SHORT {
                "; it never stands for long: perhaps another client uses the same mqtt.client_id"
            } else {
                ""
            };
            warn!("{} connection to {} failed, trying on: {failure}{cause}", self.name, self.url);
        }
        self.backoff.wait()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_falls_at_once_does_not_start_the_waits_afresh() {
        let mut outages = Outages::new("test", "mqtt://h");
        let failure = Failure::new("gone", None);
        let longest = (0..10).map(|_| outages.failed(&failure)).max();
        outages.connected();
        assert!(longest.is_some_and(|longest| outages.failed(&failure) * 2 >= longest));
    }
}
