//! A time during which the store takes nothing, or takes it slowly: how long to wait, what to log.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::rounded;
use crate::retry::{Backoff, Reminder};
use crate::store::StoreError;

/// How often a store that stays away or slow is mentioned.
const REMIND_EVERY: Duration = Duration::from_secs(30);

/// What is said about the store, and when it was last said.
#[derive(Debug, Default)]
pub(crate) struct Outages {
    away: Option<Away>,
    slow: Reminder,
}

#[derive(Debug)]
struct Away {
    since: Instant,
    reminder: Reminder,
    backoff: Backoff,
}

impl Outages {
    /// A write has failed; how long to wait now: twice as long each time, less up to half by chance.
    pub(crate) fn failed(&mut self, error: &StoreError) -> Duration {
        let new =
            || Away { since: Instant::now(), reminder: Reminder::default(), backoff: Backoff::default() };
        let away = self.away.get_or_insert_with(new);
        if away.reminder.is_due(REMIND_EVERY) {
            tracing::error!(%error, since = %rounded(away.since.elapsed()), "the store is away, or takes nothing");
        }
        away.backoff.wait()
    }

    /// A write has succeeded.
    pub(crate) fn succeeded(&mut self) {
        if let Some(away) = self.away.take() {
            tracing::info!(away = %rounded(away.since.elapsed()), "the store is back");
        }
    }

    /// A write takes long.
    pub(crate) fn slow(&mut self, limit: Duration) {
        if self.slow.is_due(REMIND_EVERY) {
            tracing::warn!("the store is slow: a write takes longer than {limit:?}");
        }
    }
}
