//! Home Assistant: announces every series as a device with a forecast and an anomaly, and the daemon as a device
//! with its status, by MQTT device discovery (Home Assistant 2024.11 and later).
//!
//! One retained message a device, whatever it has of entities: half of what one for each entity would be, and an
//! empty one takes the device away. What the broker keeps already is not sent again, and what it keeps of series
//! that are no more is taken away. All of it goes over the control connection, a few at a time.

mod device;
mod mirror;
mod names;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use forecaster::{Problem, SeriesHandle};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

pub(crate) use mirror::{Mirror, filters};

use crate::chance;
use crate::control::{Condition, ControlMessage, Follower, Index, Told};
use crate::mqtt::Post;
use crate::reload::Live;
use crate::retry::sleep_until;
use crate::supervise::until_stopped;
use crate::topic::Outputs;
use crate::training;
use names::Names;

/// Tidings that may wait.
const TIDINGS: usize = 1024;
/// Devices announced at a time, and the time between: a hundred a second.
const BURST: usize = 10;
const PACE: Duration = Duration::from_millis(100);
/// Time between two looks for new series.
const LOOK: Duration = Duration::from_secs(5);
/// Looks between two of all series: for what has expired, or is back.
const LOOKS: u32 = 3;
/// Series asked of the engine at a time.
const PART: usize = 512;
/// After an outage of the broker readings have so long to come again before a series can expire.
const AFTER_OUTAGE: Duration = Duration::from_secs(600);
/// After a birth or a connection, how long to wait at most: not all devices of a home must speak at once.
const DELAY: Duration = Duration::from_secs(4);

/// What is known of a series.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    announced: bool,
    /// Has expired, or its stream was taken out by a reload.
    gone: bool,
    problem: Problem,
    /// Number of the tidings that the problem is of.
    told: u64,
    /// What was published of it.
    published: Option<Problem>,
}

/// What is to be sent.
#[derive(Debug, PartialEq, Eq)]
enum Task {
    /// Announce a series, even if the broker keeps the same announcement.
    Announce { series: SeriesHandle, anew: bool },
    /// Take a device away, and what is kept of its problem.
    Remove { id: String, problem_topic: Option<String> },
}

/// What there is to announce when it begins.
#[derive(Debug, Clone, Copy, Default)]
struct Begins {
    /// All of it, even what the broker keeps already.
    all: bool,
    /// On a new connection, or to a Home Assistant that has just started: nothing is known to be there.
    afresh: bool,
}

/// The announcer.
pub(crate) struct HomeAssistant {
    /// The configuration in force.
    live: watch::Receiver<Live>,
    names: Names,
    outputs: Outputs,
    /// Whether announcements are still asked for; else what there is of them is taken away.
    discovery: bool,
    /// Names of the streams that are announced.
    streams: HashSet<Arc<str>>,
    expire_after: Option<Duration>,
    index: Arc<Index>,
    mirror: Arc<Mirror>,
    posts: mpsc::Sender<Post>,
    slots: Vec<Slot>,
    queue: VecDeque<Task>,
    /// Whether a connection has stood long enough to begin.
    begun: bool,
}

impl HomeAssistant {
    pub(crate) fn new(
        mut live: watch::Receiver<Live>,
        index: Arc<Index>,
        mirror: Arc<Mirror>,
        posts: mpsc::Sender<Post>,
    ) -> HomeAssistant {
        let now = live.borrow_and_update().clone();
        HomeAssistant {
            live,
            names: Names::new(&now.config.homeassistant.prefix, &now.config.mqtt.client_id),
            outputs: Outputs::of(&now.config),
            discovery: now.config.homeassistant.discovery,
            streams: streams(&now),
            expire_after: now.config.homeassistant.expire_after,
            index,
            mirror,
            posts,
            slots: Vec::new(),
            queue: VecDeque::new(),
            begun: false,
        }
    }

    /// Announces until it is time to stop.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        until_stopped(&mut stop, self.work()).await;
        // The engine may have ended before that is known here.
        let _ = stop.wait_for(|stop| *stop).await;
        Ok(())
    }

    async fn work(&mut self) {
        let (follower, mut told) = Follower::new(TIDINGS);
        if self.index.tell(ControlMessage::Follow(follower)).await.is_none() {
            return;
        }
        let (mut pace, mut look) = (interval(PACE), interval(LOOK));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut looks, mut begin, mut begins) = (0_u32, None, Begins::default());
        loop {
            let done = tokio::select! {
                biased;
                tidings = told.recv() => match tidings {
                    Some(tidings) => self.tidings(tidings).await,
                    None => None,
                },
                news = self.mirror.news() => {
                    begins = Begins { all: begins.all || news.birth, afresh: true };
                    begin = Some(Instant::now() + chance::shortened(DELAY));
                    Some(())
                }
                () = sleep_until(begin), if begin.is_some() => {
                    if self.mirror.is_settling() {
                        begin = Some(Instant::now() + PACE);
                        Some(())
                    } else {
                        begin = None;
                        self.begin(std::mem::take(&mut begins)).await
                    }
                }
                Ok(()) = self.live.changed() => {
                    self.reloaded();
                    // What is yet to begin will go by it.
                    if self.begun && begin.is_none() { self.begin(begins).await } else { Some(()) }
                }
                _ = pace.tick(), if !self.queue.is_empty() => self.send_some().await,
                _ = look.tick(), if self.begun => {
                    looks += 1;
                    self.look(looks.is_multiple_of(LOOKS)).await
                }
            };
            // The engine or the connection has ended: it is time to stop.
            if done.is_none() {
                return;
            }
        }
    }

    /// Goes by another configuration.
    fn reloaded(&mut self) {
        let now = self.live.borrow_and_update().clone();
        self.outputs = Outputs::of(&now.config);
        self.discovery = now.config.homeassistant.discovery;
        self.streams = if self.discovery { streams(&now) } else { HashSet::new() };
        self.expire_after = now.config.homeassistant.expire_after;
    }

    /// Announces everything that the broker does not keep yet, or all of it.
    async fn begin(&mut self, Begins { all: anew, afresh }: Begins) -> Option<()> {
        self.begun = true;
        self.queue.clear();
        if afresh {
            self.slots.iter_mut().for_each(|slot| (slot.announced, slot.published) = (false, None));
        }
        self.look(true).await?;
        self.queue.clear();
        let mut wanted = HashSet::new();
        for (series, slot) in (0..).zip(&self.slots) {
            if slot.gone {
                continue;
            }
            if let Some(known) = self.index.get(series) {
                wanted.insert(self.names.series(&known.key));
                self.queue.push_back(Task::Announce { series, anew });
            }
        }
        let others = self.mirror.others(&wanted, &self.names);
        tracing::info!(series = wanted.len(), removed = others.len(), "announcing to Home Assistant");
        for (id, problem_topic) in others {
            self.queue.push_back(Task::Remove { id, problem_topic });
        }
        let id = self.names.daemon().to_owned();
        if !self.discovery {
            self.queue.push_back(Task::Remove { id, problem_topic: None });
            return Some(());
        }
        self.announce(id, device::daemon(&self.names), None, anew).await
    }

    /// Looks for new series and, if asked, at all of them.
    async fn look(&mut self, all: bool) -> Option<()> {
        let (before, now) = (self.slots.len(), self.index.refresh().await?);
        self.slots.resize(now, Slot::default());
        let new = (before..now).map(|series| Task::Announce { series: series as SeriesHandle, anew: false });
        self.queue.extend(new);
        let from = if all { 0 } else { before };
        for from in (from..now).step_by(PART) {
            let part = PART.min(now - from);
            let ask = |reply| ControlMessage::Conditions(from as SeriesHandle, part, reply);
            let (told, conditions) = self.index.ask(ask).await?;
            for (series, condition) in (from as SeriesHandle..).zip(conditions) {
                self.condition(series, &condition, told).await?;
            }
        }
        Some(())
    }

    async fn condition(&mut self, series: SeriesHandle, condition: &Condition, told: u64) -> Option<()> {
        let known = self.index.get(series)?;
        let there_for = self.mirror.there_for();
        let expired = self.expire_after.is_some_and(|limit| {
            there_for.is_some_and(|there| there > limit.min(AFTER_OUTAGE))
                && has_expired(condition, limit, training::now())
        });
        let gone = expired || !self.streams.contains(&known.stream);
        let slot = self.slots.get_mut(series as usize)?;
        if gone != slot.gone {
            slot.gone = gone;
            if gone {
                slot.announced = false;
                slot.published = None;
                let problem_topic = Some(self.outputs.problem(&known.key));
                self.queue.push_back(Task::Remove { id: self.names.series(&known.key), problem_topic });
            } else {
                self.queue.push_back(Task::Announce { series, anew: false });
            }
        }
        self.tidings(Told { series, problem: condition.problem, number: told }).await
    }

    /// Notes what is the matter with a series, and publishes it if that is news.
    async fn tidings(&mut self, Told { series, problem, number }: Told) -> Option<()> {
        // A series not yet looked at.
        let Some(slot) = self.slots.get_mut(series as usize) else { return Some(()) };
        if number >= slot.told {
            (slot.problem, slot.told) = (problem, number);
        }
        self.publish_problem(series).await
    }

    async fn publish_problem(&mut self, series: SeriesHandle) -> Option<()> {
        let Some(slot) = self.slots.get_mut(series as usize) else { return Some(()) };
        if !slot.announced || slot.published == Some(slot.problem) {
            return Some(());
        }
        slot.published = Some(slot.problem);
        let payload = device::problem(&slot.problem);
        let Some(known) = self.index.get(series) else { return Some(()) };
        self.keep(self.outputs.problem(&known.key), payload).await
    }

    /// Sends the next of what is to be sent.
    async fn send_some(&mut self) -> Option<()> {
        let mut sent = 0;
        while sent < BURST
            && let Some(task) = self.queue.pop_front()
        {
            sent += 1;
            match task {
                Task::Announce { series, anew } => {
                    let Some(slot) = self.slots.get_mut(series as usize) else { continue };
                    let Some(known) = self.index.get(series) else { continue };
                    if slot.gone {
                        continue;
                    }
                    slot.announced = true;
                    let id = self.names.series(&known.key);
                    let config = device::series(&self.names, &id, &known, &self.outputs);
                    // Its state first: an entity that is new shows what is kept when it subscribes.
                    self.publish_problem(series).await?;
                    self.announce(id, config, Some(self.outputs.problem(&known.key)), anew).await?;
                }
                Task::Remove { id, problem_topic } => {
                    self.mirror.forget(&id);
                    self.keep(self.names.topic(&id), Vec::new()).await?;
                    if let Some(topic) = problem_topic {
                        self.keep(topic, Vec::new()).await?;
                    }
                }
            }
        }
        Some(())
    }

    /// Publishes an announcement, unless the broker keeps the same.
    async fn announce(
        &self,
        id: String,
        config: Vec<u8>,
        problem_topic: Option<String>,
        anew: bool,
    ) -> Option<()> {
        let topic = self.names.topic(&id);
        if self.mirror.note(id, &config, problem_topic) || anew {
            self.keep(topic, config).await?;
        }
        Some(())
    }

    /// Publishes a message that the broker keeps; an empty one takes it away.
    async fn keep(&self, topic: String, payload: Vec<u8>) -> Option<()> {
        self.posts.send(Post { topic, payload, retain: true, correlation: None }).await.ok()
    }
}

fn streams(live: &Live) -> HashSet<Arc<str>> {
    live.streams().map(|(_, stream)| stream.name.as_str().into()).collect()
}

/// Whether no reading of a series has come for longer than that, by the time of the newest and by its arrival.
fn has_expired(condition: &Condition, limit: Duration, now: i64) -> bool {
    let limit = i64::try_from(limit.as_micros()).unwrap_or(i64::MAX);
    let Some(newest) = condition.newest else { return false };
    let age = now.saturating_sub(newest);
    age.min(condition.heard_ago.unwrap_or(i64::MAX)) > limit
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Readings dated back do not expire while they come; after a restart their dates count.
    #[test]
    fn a_series_expires_by_date_and_by_arrival() {
        let (limit, now) = (Duration::from_secs(100), 1_000_000_000);
        let expired = |newest, heard_ago| {
            has_expired(&Condition { problem: Problem::default(), newest, heard_ago }, limit, now)
        };
        assert!(!expired(None, None));
        assert!(!expired(Some(now - 100_000_000), None));
        assert!(expired(Some(now - 100_000_001), None));
        assert!(!expired(Some(0), Some(5)));
        assert!(expired(Some(0), Some(100_000_001)));
        assert!(!expired(Some(now + 5), Some(100_000_001)));
    }
}
