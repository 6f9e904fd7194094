//! What is published, for those who listen over HTTP. The engine's thread puts it into mailboxes that
//! hold little and never make it wait: who is slow misses what was in between.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use forecaster::SeriesHandle;
use hashbrown::HashMap;
use tokio::sync::Notify;

use crate::outqueue::{Kind, Outgoing};

/// Messages about anomalies that a mailbox holds.
const ANOMALIES: usize = 64;

/// What one listener has yet to be told.
#[derive(Debug, Default)]
pub struct Mailbox {
    held: Mutex<Held>,
    news: Notify,
}

/// Messages as they were published.
#[derive(Debug, Default, PartialEq)]
pub struct Held {
    /// The newest forecast.
    pub forecast: Option<Vec<u8>>,
    /// Anomalies that began or ended, the newest last.
    pub anomalies: VecDeque<Vec<u8>>,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a forecast in the place of the one before.
    pub fn put_forecast(&self, message: &[u8]) {
        let mut held = self.lock();
        let place = held.forecast.get_or_insert_default();
        place.clear();
        place.extend_from_slice(message);
        drop(held);
        self.news.notify_one();
    }

    /// Adds an anomaly; the oldest makes room.
    pub fn put_anomaly(&self, message: &[u8]) {
        let mut held = self.lock();
        if held.anomalies.len() >= ANOMALIES {
            held.anomalies.pop_front();
        }
        held.anomalies.push_back(message.to_vec());
        drop(held);
        self.news.notify_one();
    }

    /// Waits until there is something. Only one task may wait.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// Takes everything out.
    pub fn take(&self) -> Held {
        std::mem::take(&mut self.lock())
    }
}

/// Who listens. With nobody there it costs a comparison a burst.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Of all that is published of a series.
    series: HashMap<SeriesHandle, Vec<Weak<Mailbox>>>,
    /// Of the anomalies of all series.
    all: Vec<Weak<Mailbox>>,
}

impl Listeners {
    /// Adds one who hears the anomalies of all series.
    pub fn add(&mut self, mailbox: &Arc<Mailbox>) {
        self.all.push(Arc::downgrade(mailbox));
    }

    /// Adds one who hears all that is published of a series.
    pub fn add_series(&mut self, series: SeriesHandle, mailbox: &Arc<Mailbox>) {
        self.series.entry(series).or_default().push(Arc::downgrade(mailbox));
    }

    /// Lets go of those whose mailbox is gone.
    pub fn prune(&mut self) {
        let there = |mailbox: &Weak<Mailbox>| mailbox.strong_count() > 0;
        self.all.retain(there);
        self.series.retain(|_, mailboxes| {
            mailboxes.retain(there);
            !mailboxes.is_empty()
        });
    }

    /// Tells all listeners what concerns them.
    pub fn hear(&self, messages: &[Outgoing]) {
        if self.all.is_empty() && self.series.is_empty() {
            return;
        }
        for message in messages {
            let of_series = message.series.and_then(|series| self.series.get(&series)).into_iter().flatten();
            match message.kind {
                Kind::Forecast => {
                    of_series.filter_map(Weak::upgrade).for_each(|m| m.put_forecast(&message.payload));
                }
                Kind::Anomaly => {
                    let all = of_series.chain(&self.all).filter_map(Weak::upgrade);
                    all.for_each(|m| m.put_anomaly(&message.payload));
                }
                Kind::Request => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: Kind, series: SeriesHandle, payload: &str) -> Outgoing {
        Outgoing {
            topic: "t".to_owned(),
            payload: payload.into(),
            retain: false,
            stream: 0,
            series: Some(series),
            kind,
            arrived: None,
        }
    }

    #[test]
    fn each_hears_what_concerns_it_and_the_newest_forecast_alone() {
        let (one, other, all) = (Arc::default(), Arc::default(), Arc::default());
        let mut listeners = Listeners::default();
        listeners.add_series(0, &one);
        listeners.add_series(1, &other);
        listeners.add(&all);
        listeners.hear(&[
            message(Kind::Forecast, 0, "1"),
            message(Kind::Forecast, 0, "2"),
            message(Kind::Anomaly, 0, "began"),
            message(Kind::Forecast, 2, "3"),
            message(Kind::Anomaly, 2, "elsewhere"),
        ]);
        let anomalies = |texts: &[&str]| texts.iter().map(|t| t.as_bytes().to_vec()).collect();
        assert_eq!(one.take(), Held { forecast: Some(b"2".into()), anomalies: anomalies(&["began"]) });
        assert_eq!(other.take(), Held::default());
        assert_eq!(all.take(), Held { forecast: None, anomalies: anomalies(&["began", "elsewhere"]) });
        assert_eq!(one.take(), Held::default());
    }

    #[test]
    fn a_mailbox_that_nobody_empties_stays_small() {
        let mailbox = Arc::default();
        let mut listeners = Listeners::default();
        listeners.add_series(0, &mailbox);
        for n in 0..10_000 {
            listeners.hear(&[
                message(Kind::Forecast, 0, &n.to_string()),
                message(Kind::Anomaly, 0, &n.to_string()),
            ]);
        }
        let held = mailbox.take();
        assert_eq!(held.forecast, Some(b"9999".into()));
        assert_eq!((held.anomalies.len(), held.anomalies.back()), (ANOMALIES, Some(&b"9999".to_vec())));
    }

    #[test]
    fn those_who_are_gone_are_let_go() {
        let (gone, stays) = (Arc::default(), Arc::<Mailbox>::default());
        let mut listeners = Listeners::default();
        listeners.add_series(0, &gone);
        listeners.add_series(0, &stays);
        listeners.add(&gone);
        drop(gone);
        listeners.prune();
        assert!(listeners.all.is_empty());
        assert_eq!(listeners.series.values().map(Vec::len).collect::<Vec<_>>(), [1]);
        drop(stays);
        listeners.prune();
        assert!(listeners.series.is_empty());
    }
}
