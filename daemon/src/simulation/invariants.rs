//! What must hold, whatever happens, and where it is looked at.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use forecaster::{Step, Timestamp};
use serde_json::Value;

use super::broker::Published;
use super::replay::Replay;
use super::sensors::Sent;
use super::sim::Sim;
use super::tables::{ForecastRow, Tables};
use crate::engine_thread::BURST;
use crate::metrics::{Metrics, Rejection};
use crate::outqueue::OutQueue;
use crate::record::{AnomalyKind, WriteBatch};
use crate::restore::Restored;
use crate::store::StoredState;

/// A promise, by name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Invariant {
    pub(super) name: &'static str,
    pub(super) says: &'static str,
}

macro_rules! invariants {
    ($($name:ident: $says:literal;)*) => {
        $(pub(super) const $name: Invariant = Invariant { name: stringify!($name), says: $says };)*
    };
}

invariants! {
    DURABLE_BEFORE_ACK: "nothing is acknowledged before it is in the store or in the spool";
    ACKS_OF_THIS_CONNECTION: "a packet is acknowledged once, over the connection that it came over";
    ALL_ACKED: "every packet that the session took is acknowledged in the end";
    NONE_LOST: "every reading that is acknowledged is stored";
    NONE_TWICE: "no reading is stored more often than it was delivered, and once where it has a time";
    NONE_INVENTED: "every stored reading was published as it is stored";
    COUNTED: "received = stored + rejected + what is left at the end, and stored is what was committed";
    IN_ORDER: "readings fed to the model are stored in order; a late one is older than one before it";
    FORECAST_ONCE: "every reading fed to the model has its forecast, each step one row";
    FORECAST_EXACT: "a forecast is what an undisturbed engine under its model makes of the same readings";
    PUBLISHED_FORWARD: "the forecasts published of a series go forward within one life";
    PUBLISHED_AS_STORED: "what is published is what is stored";
    BOUNDED: "inbox, out queue and what waits for the store are bounded";
    STATE_IS_REPLAY: "after a start each series forecasts what a replay of its readings does";
    TUNED_AS_SAID: "after a start the bar of each series is that of a replay which hears what was said in its place";
    SAID_IS_STORED: "feedback is in the store once that is told";
    CHECKPOINT_OF_STORED: "a checkpoint holds no reading that is not stored";
    ONE_STATE: "a commit holds at most one checkpoint of a series";
    STATES_BEFORE_CHAMPION: "a model is champion once no checkpoint of another is left";
    ONE_SILENCE: "a series is silent once at a time";
    SETTLES: "once nothing fails any more, the daemon is subscribed and has nothing left to do";
    GOES_ON: "no part breaks down, and stopping ends in time while the store answers";
}

/// Before a reading is stored.
pub(super) fn stored(sim: &Sim, tables: &Tables, id: i64, time: i64, late: bool) {
    let newest = tables.fed(id).next_back().map(|(time, _)| time);
    let right = if late { newest.is_some_and(|n| time < n) } else { newest.is_none_or(|n| time > n) };
    // What came before may have been refused.
    let right = right || late && tables.troubled(id);
    sim.ensure(right, IN_ORDER, || format!("series {id}, {time} after {newest:?}, late {late}"));
}

/// Before a batch is written.
pub(super) fn batch(sim: &Sim, batch: &WriteBatch) {
    let mut series = BTreeSet::new();
    let apart = batch.states.iter().all(|s| series.insert(s.series));
    sim.ensure(apart, ONE_STATE, || format!("{} checkpoints of {} series", batch.states.len(), series.len()));
}

/// Before a checkpoint is stored.
pub(super) fn checkpointed(sim: &Sim, tables: &Tables, state: &StoredState) {
    let known = tables.fed(state.series_id).any(|(time, _)| time == state.time);
    let known = known || tables.troubled(state.series_id);
    sim.ensure(known, CHECKPOINT_OF_STORED, || format!("series {} at {}", state.series_id, state.time));
}

/// Before a model becomes champion.
pub(super) fn promoted(sim: &Sim, tables: &Tables, stream: &str, model: i64) {
    let series = tables.series.iter().filter(|s| s.stream == stream);
    let others: Vec<_> =
        series.filter_map(|s| tables.states.get(&s.id)).filter(|s| s.model != Some(model)).collect();
    let left = others.iter().map(|s| (s.series_id, s.model)).collect::<Vec<_>>();
    sim.ensure(left.is_empty(), STATES_BEFORE_CHAMPION, || format!("{stream}, model {model}, {left:?}"));
}

/// After a commit.
pub(super) fn silences(sim: &Sim, tables: &Tables) {
    let mut open = BTreeSet::new();
    for ((id, kind, _), end) in &tables.anomalies {
        let alone = *kind != AnomalyKind::Silence.as_str() || end.is_some() || open.insert(id);
        sim.ensure(alone, ONE_SILENCE, || format!("series {id}"));
    }
}

/// After each burst of the engine.
pub(super) fn bounded(sim: &Sim, out: &OutQueue, metrics: &Metrics) {
    let bounds = sim.bounds();
    let longest = sim.config().stream.iter().map(|s| s.horizon).max().unwrap();
    let queued = out.len();
    sim.ensure(queued <= bounds.out / longest, BOUNDED, || format!("{queued} messages to publish"));
    // What was let in while there was room, of readings without forecasts at worst: rows that are not counted
    // until their burst ends.
    let most = bounds.backlog / 21 + 2 * BURST;
    let waiting = usize::try_from(metrics.store_queue.get()).unwrap();
    sim.ensure(waiting <= most, BOUNDED, || format!("{waiting} readings wait, at most {most}"));
}

/// A life has ended in order: readings stored by writes whose answer came, and by all writes.
pub(super) fn counted(sim: &Sim, metrics: &Metrics, (answered, committed): (u64, u64)) {
    let streams = || (0..sim.config().stream.len()).map(|s| metrics.stream(s));
    let received: u64 = streams().map(|s| s.received.get()).sum();
    let rejected =
        |s: &crate::metrics::StreamMetrics| Rejection::ALL.map(|r| s.rejected(r).get()).iter().sum::<u64>();
    let rejected: u64 = streams().map(rejected).sum();
    let stored = metrics.stored.get();
    let left = u64::try_from(metrics.store_queue.get() + metrics.spool_readings.get()).unwrap();
    let settled = stored + rejected;
    // Of a batch that is left, a part may be settled.
    let balanced = if left == 0 { received == settled } else { received <= settled + left };
    // What was committed may not have been heard of, or may be left all the same.
    let true_to_store = stored <= committed && (left > 0 || answered <= stored);
    sim.ensure(balanced && true_to_store, COUNTED, || {
        format!(
            "{received} received, {stored} stored, {rejected} rejected, {left} left, {answered} stored by the \
             store's word, {committed} committed"
        )
    });
}

/// What the daemon published in one life, in order.
pub(super) fn published(sim: &Sim, tables: &Tables, heard: &[(String, Vec<u8>)]) {
    let mut newest: HashMap<&str, i64> = HashMap::new();
    for (topic, payload) in heard {
        let Some(key) = topic.strip_prefix("vidente/forecast/") else { continue };
        let message: Value = serde_json::from_slice(payload).unwrap();
        let time = |v: &Value| v.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_microsecond();
        let origin = time(&message["origin"]);
        let before = newest.insert(key, origin);
        sim.ensure(before.is_none_or(|b| b < origin), PUBLISHED_FORWARD, || {
            format!("{key}: {origin} after {before:?}")
        });
        let Some(id) = tables.id(key) else { continue };
        for (step, number) in message["steps"].as_array().unwrap().iter().zip(1..) {
            let Some(row) = tables.forecasts.get(&(id, origin, number)) else { continue };
            let model = tables.models.iter().find(|m| Some(m.id) == row.model).map_or("naive", |m| &m.name);
            // Read again after a restart, the same reading may have been forecast by another model.
            let same = message["model"] != model
                || (step["mean"] == row.mean
                    && time(&step["time"]) == row.time
                    && step["q05"] == row.quantiles[0]);
            sim.ensure(same || tables.troubled(id), PUBLISHED_AS_STORED, || {
                format!("{key} from {origin}: {step} and {row:?}")
            });
        }
    }
}

/// A start has restored what the store holds.
pub(super) fn restored(sim: &Sim, tables: &Tables, restored: &mut Restored) {
    let stale = |s: &&StoredState| {
        let row = &tables.series[s.series_id as usize - 1];
        tables.champion(&row.stream).map(|m| m.id) != s.model
    };
    let stale = tables.states.values().filter(stale).count();
    sim.note(|| format!("restored {} series, {stale} checkpoints of another model", tables.series.len()));
    for (handle, row) in (0..).zip(&tables.series) {
        let stream = sim.config().stream.iter().position(|s| s.name == row.stream).unwrap();
        let forecast = restored.engine.forecast(handle).to_vec();
        if tables.troubled(row.id) {
            continue;
        }
        let mut replay = Replay::new(sim.config(), stream, restored.installed[stream]);
        let mut said = tables.said(row.id).peekable();
        for (time, value) in tables.fed(row.id) {
            while let Some(word) = said.next_if(|word| word.newest < time) {
                replay.hear(word);
            }
            replay.observe(time, value);
        }
        said.for_each(|word| replay.hear(word));
        let bars = (restored.engine.bar(handle), replay.bar());
        // What a model made of readings is not what another does.
        let tuned = bars.0 == bars.1 || tables.swapped.contains(&row.stream);
        sim.ensure(tuned, TUNED_AS_SAID, || format!("{}: {bars:?}", row.key));
        let expected = replay.forecast();
        sim.ensure(forecast == expected, STATE_IS_REPLAY, || {
            format!("{}: {:?} and not {:?}", row.key, forecast.first(), expected.first())
        });
    }
}

/// All is over: faults have ceased and time has passed.
pub(super) fn ended(sim: &Sim, tables: &Tables, published: &[Published]) {
    let mut sent: BTreeMap<&str, Vec<&Sent>> = BTreeMap::new();
    let deliveries = |of: &Sent| -> usize {
        let same = published.iter().filter(|p| p.publication.readings.contains(of));
        same.map(|p| p.deliveries).sum()
    };
    for (number, message) in published.iter().enumerate() {
        let settled = !message.taken || message.lost || message.acked;
        sim.ensure(settled, ALL_ACKED, || format!("message {number}"));
        for reading in &message.publication.readings {
            sent.entry(&reading.key).or_default().push(reading);
            let copies = tables.copies(reading);
            let lost = message.acked && !reading.refused && copies == 0;
            sim.ensure(!lost, NONE_LOST, || format!("message {number}, {reading:?}"));
            let most = if reading.time.is_some() { 1 } else { deliveries(reading) };
            sim.ensure(copies <= most, NONE_TWICE, || {
                format!("message {number}, {copies} rows, {reading:?}")
            });
        }
    }
    for ((id, time), (value, _)) in &tables.readings {
        let row = tables.series.iter().find(|s| s.id == *id).unwrap();
        let all = sent.get(row.key.as_str()).map_or(&[][..], Vec::as_slice);
        let known = all.iter().any(|s| s.value == *value && s.time.is_none_or(|t| t == *time));
        sim.ensure(known, NONE_INVENTED, || format!("{} at {time}: {value}", row.key));
    }
    forecasts(sim, tables);
}

fn forecasts(sim: &Sim, tables: &Tables) {
    let mut rows: BTreeMap<(i64, i64), Vec<_>> = BTreeMap::new();
    for ((id, origin, step), row) in &tables.forecasts {
        rows.entry((*id, *origin)).or_default().push((*step, row));
    }
    for series in &tables.series {
        if tables.troubled(series.id) {
            continue;
        }
        let stream = sim.config().stream.iter().position(|s| s.name == series.stream).unwrap();
        let models = tables.models.iter().filter(|m| m.stream == series.stream).map(|m| Some(m.id));
        let mut replays: BTreeMap<Option<i64>, Replay> =
            models.chain([None]).map(|m| (m, Replay::new(sim.config(), stream, m))).collect();
        for (time, value) in tables.fed(series.id) {
            let mut made: BTreeMap<Option<i64>, (Vec<Step>, Option<i64>)> = BTreeMap::new();
            for (model, replay) in &mut replays {
                let (steps, says) = replay.observe(time, value);
                made.insert(*model, (steps.to_vec(), says));
            }
            let rows = rows.get(&(series.id, time)).map_or(&[][..], Vec::as_slice);
            let model = rows.first().and_then(|(_, row)| row.model);
            let (steps, says) = &made[&model];
            sim.ensure(rows.len() == steps.len(), FORECAST_ONCE, || {
                format!("{} from {time}: {} rows and {} steps", series.key, rows.len(), steps.len())
            });
            let row = |(number, row): &(i16, &ForecastRow)| {
                (
                    *number,
                    Step { time: Timestamp(row.time), mean: row.mean, quantiles: row.quantiles },
                    row.model,
                )
            };
            let stored: Vec<_> = rows.iter().map(row).collect();
            let expected: Vec<_> = (1..).zip(steps).map(|(n, s)| (n, *s, *says)).collect();
            sim.ensure(rows.len() != steps.len() || stored == expected, FORECAST_EXACT, || {
                format!("{} from {time}: {:?} and not {:?}", series.key, stored.first(), expected.first())
            });
        }
    }
}
