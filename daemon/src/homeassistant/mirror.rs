//! What the broker keeps of this daemon's announcements, and what Home Assistant lets it know.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::names::Names;
use crate::config;
use crate::mqtt::Incoming;
use crate::reload::Live;
use crate::topic::{self, PROBLEM_PREFIX};

/// How long after the last kept announcement no more are expected …
const SETTLED: Duration = Duration::from_millis(500);
/// … and how long that is waited for at most.
const LONGEST: Duration = Duration::from_secs(30);

/// What is to be subscribed to.
pub(crate) fn filters(config: &config::HomeAssistant) -> [String; 2] {
    [birth_topic(config), format!("{}/device/+/config", config.prefix)]
}

fn birth_topic(config: &config::HomeAssistant) -> String {
    format!("{}/status", config.prefix)
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Mirror {
    names: Names,
    birth_topic: String,
    /// The configuration in force.
    live: watch::Receiver<Live>,
    kept: Mutex<Kept>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    by_id: HashMap<String, Announcement>,
    /// When the connection came to stand, and when the last announcement came over it.
    since: Option<(Instant, Instant)>,
    /// Whether a connection has broken.
    was_away: bool,
    news: Option<News>,
}

#[derive(Debug)]
struct Announcement {
    hash: u64,
    problem_topic: Option<String>,
}

/// What has happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct News {
    /// Home Assistant has started; else a connection has come to stand.
    pub(super) birth: bool,
}

impl Mirror {
    pub(crate) fn new(live: watch::Receiver<Live>) -> Mirror {
        let config = live.borrow().config.clone();
        Mirror {
            names: Names::new(&config.homeassistant.prefix, &config.mqtt.client_id),
            birth_topic: birth_topic(&config.homeassistant),
            live,
            kept: Mutex::default(),
            changed: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // No code that holds the lock leaves it half changed.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection stands; what the broker keeps is delivered anew.
    pub(crate) fn connected(&self) {
        let mut kept = self.lock();
        kept.by_id.clear();
        kept.since = Some((Instant::now(), Instant::now()));
        kept.news.get_or_insert_default();
        drop(kept);
        self.changed.notify_one();
    }

    /// The connection is gone.
    pub(crate) fn disconnected(&self) {
        let mut kept = self.lock();
        kept.was_away |= kept.since.take().is_some();
    }

    /// How long the broker has been there without a break, as far as is known here: since ever until the first one.
    /// None while it is away, when no reading can come.
    pub(super) fn there_for(&self) -> Option<Duration> {
        let kept = self.lock();
        let (begin, _) = kept.since?;
        Some(if kept.was_away { begin.elapsed() } else { Duration::MAX })
    }

    /// A message of Home Assistant, or one that the broker keeps.
    pub(crate) fn message(&self, incoming: &Incoming) {
        if incoming.topic == self.birth_topic {
            // A kept one tells of a birth before this connection, after which all is announced anyway.
            if !incoming.retained && incoming.payload == b"online" {
                self.lock().news = Some(News { birth: true });
                self.changed.notify_one();
            }
            return;
        }
        if let Some(id) = self.names.own(&incoming.topic).filter(|_| incoming.retained) {
            // What others than us announce under our names must not fill the memory.
            let room = self.live.borrow().config.limits.max_series.saturating_mul(2).saturating_add(1);
            let mut kept = self.lock();
            if let Some((_, last)) = &mut kept.since {
                *last = Instant::now();
            }
            if kept.by_id.len() < room {
                // Others may write there: no problem but of the series that the topic names.
                let named = |topic: &String| {
                    topic.strip_prefix(PROBLEM_PREFIX).is_some_and(|key| self.names.series(key) == id)
                };
                let (hash, problem_topic) =
                    (hash(&incoming.payload), problem_topic(&incoming.payload).filter(named));
                kept.by_id.insert(id.to_owned(), Announcement { hash, problem_topic });
            }
        }
    }

    /// Waits for something to happen. Loses nothing if it is dropped.
    pub(super) async fn news(&self) -> News {
        loop {
            if let Some(news) = self.lock().news.take() {
                return news;
            }
            self.changed.notified().await;
        }
    }

    /// Whether announcements that the broker keeps may still be coming.
    pub(super) fn is_settling(&self) -> bool {
        let since = self.lock().since;
        since.is_some_and(|(begin, last)| last.elapsed() < SETTLED && begin.elapsed() < LONGEST)
    }

    /// Notes an announcement; whether the broker keeps another one, or none.
    pub(super) fn note(&self, id: String, payload: &[u8], problem_topic: Option<String>) -> bool {
        let announcement = Announcement { hash: hash(payload), problem_topic };
        let hash = announcement.hash;
        self.lock().by_id.insert(id, announcement).is_none_or(|before| before.hash != hash)
    }

    /// Notes that an announcement is taken away.
    pub(super) fn forget(&self, id: &str) {
        self.lock().by_id.remove(id);
    }

    /// Kept announcements of series that are not wanted, and where it is kept what was the matter with them.
    pub(super) fn others(&self, wanted: &HashSet<String>, names: &Names) -> Vec<(String, Option<String>)> {
        let kept = self.lock();
        let others = kept.by_id.iter().filter(|(id, _)| *id != names.daemon() && !wanted.contains(*id));
        others.map(|(id, announcement)| (id.clone(), announcement.problem_topic.clone())).collect()
    }
}

fn hash(payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    payload.hash(&mut hasher);
    hasher.finish()
}

/// Where an announcement says that it is kept what is the matter with the series; nowhere but below our own topics.
fn problem_topic(payload: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Device {
        components: Components,
    }
    #[derive(Deserialize)]
    struct Components {
        anomaly: Component,
    }
    #[derive(Deserialize)]
    struct Component {
        state_topic: String,
    }
    let device: Device = serde_json::from_slice(payload).ok()?;
    let topic = device.components.anomaly.state_topic;
    let fit = |c| !matches!(c, '+' | '#') && !topic::unfit(c);
    (topic.starts_with(PROBLEM_PREFIX) && topic.chars().all(fit)).then_some(topic)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::config::Config;

    /// A mirror, and the key of a series with the id of its device.
    fn mirror() -> (Mirror, &'static str, String) {
        let config =
            Config::parse("[[stream]]\nname = 's'\ntopic = 't/{x}'\n[homeassistant]\ndiscovery = true")
                .unwrap();
        let (_live, live) = watch::channel(Live::new(config.into(), vec![None]));
        let mirror = Mirror::new(live);
        let id = mirror.names.series("s/a/v");
        (mirror, "s/a/v", id)
    }

    fn kept(mirror: &Mirror, id: &str, state_topic: &str) {
        let payload = format!("{{\"components\":{{\"anomaly\":{{\"state_topic\":\"{state_topic}\"}}}}}}");
        let topic = mirror.names.topic(id);
        let payload = payload.into_bytes();
        mirror.message(&Incoming { topic, payload, retained: true, packet_id: None, reply: None });
    }

    #[test]
    fn only_the_problem_of_the_series_that_is_announced_is_cleared() {
        let (mirror, key, id) = mirror();
        mirror.connected();
        kept(&mirror, &id, &format!("{PROBLEM_PREFIX}{key}"));
        let others = |mirror: &Mirror| mirror.others(&HashSet::new(), &mirror.names);
        assert_eq!(others(&mirror), [(id.clone(), Some(format!("{PROBLEM_PREFIX}{key}")))]);
        for foreign in ["vidente/problem/s/b/v", "sensors/a", "vidente/problem/s/a/v\\u0000"] {
            kept(&mirror, &id, foreign);
            assert_eq!(others(&mirror), [(id.clone(), None)], "{foreign}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_outage_the_broker_is_there_anew() {
        let (mirror, ..) = mirror();
        assert_eq!(mirror.there_for(), None);
        mirror.connected();
        assert_eq!(mirror.there_for(), Some(Duration::MAX));
        mirror.disconnected();
        assert_eq!(mirror.there_for(), None);
        tokio::time::advance(Duration::from_secs(100)).await;
        mirror.connected();
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(mirror.there_for(), Some(Duration::from_secs(7)));
    }
}
