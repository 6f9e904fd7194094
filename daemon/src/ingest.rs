//! The hot path: what happens to a message from its arrival to its forecast, in one thread.
//!
//! route → decode → engine → rows to store and messages to publish.

mod anomalies;
mod naming;
mod reload;
mod unheard;

use std::sync::Arc;
use std::time::{Duration, Instant};

use forecaster::series::Outcome;
use forecaster::{Engine, Reading, SECOND, SeriesHandle, Timestamp, Verdict};
use hashbrown::HashMap;

use crate::catalog::{Catalog, Route};
use crate::config::{self, Config};
use crate::control::Follower;
use crate::encode::{self, ForecastMessage};
use crate::message::Packet;
use crate::metrics::{Metrics, Rejection};
use crate::outqueue::{Kind, Outgoing};
use crate::payload::{Arrival, Decoded, Decoder};
use crate::record::WriteBatch;
use crate::topic::Outputs;

use anomalies::Steady;
use unheard::Hearing;

/// Name in messages of the forecast made without a trained model.
pub const NAIVE: &str = "naive";
/// Earliest time taken, 0001-01-01T00:00:00Z: what every store and RFC 3339 can hold.
const EARLIEST: i64 = -62_135_596_800 * SECOND;
/// Of a stream whose readings are rejected that is said at most so often.
const SAY_EVERY: Duration = Duration::from_secs(600);
/// Bytes of a body that are logged at most.
const SHOWN: usize = 200;
/// Clocks of arrival may step back by this much and readings still count as in order.
const CLOCK_STEP: i64 = SECOND;

struct StreamPath {
    name: Arc<str>,
    settings: config::Stream,
    decoder: Decoder,
    /// Whether a reload has not taken it out.
    active: bool,
    /// When it was last said that readings are rejected.
    said: Option<Instant>,
    hearing: Hearing,
}

impl StreamPath {
    fn new(settings: &config::Stream, max_bytes: usize, active: bool) -> StreamPath {
        StreamPath {
            name: settings.name.as_str().into(),
            settings: settings.clone(),
            decoder: Decoder::new(settings, max_bytes),
            active,
            said: None,
            hearing: Hearing::default(),
        }
    }
}

/// What a message led to, besides the changed states.
#[derive(Default)]
pub struct Effects {
    /// Rows to store.
    pub batch: WriteBatch,
    /// Messages to publish.
    pub outgoing: Vec<Outgoing>,
}

/// Rows of readings and forecasts, and messages, that may come together before they are handed on.
const MANY: usize = 4096;

impl Effects {
    fn are_many(&self) -> bool {
        // Of readings that are not stored there are messages alone.
        let rows = self.batch.readings.series.len() + self.batch.forecasts.series.len();
        rows + self.outgoing.len() > MANY
    }
}

/// The series, their states and the way to them.
pub struct Ingest {
    streams: Vec<StreamPath>,
    /// The engine.
    pub engine: Engine,
    /// The series.
    pub catalog: Catalog,
    /// Routes of the topics that have series, a route for each stream that the topic matches.
    routes: HashMap<String, Vec<Route>>,
    outputs: Outputs,
    /// What a reload has changed, and until when messages on these topics may still be on their way.
    former: Vec<(Outputs, Timestamp)>,
    retain: bool,
    max_series: usize,
    metrics: Arc<Metrics>,
    decoded: Decoded,
    steady: Steady,
    /// Whether the newest reading of each series was recorded since the start. One of before may have
    /// been rejected for want of room: of that the store knows.
    recorded: Vec<bool>,
    /// Who follows what is the matter with the series.
    follower: Option<Follower>,
}

/// What a reading has of its message.
#[derive(Clone, Copy)]
struct Origin {
    arrived: Instant,
    now: Timestamp,
    /// Its own time; none means the time of arrival.
    time: Option<Timestamp>,
    /// Whether rows may be stored; not if the store is away and the broker would not wait.
    store: bool,
}

impl Ingest {
    /// An ingest over an engine whose streams are those of the configuration.
    #[must_use]
    pub fn new(config: &Config, engine: Engine, catalog: Catalog, metrics: Arc<Metrics>) -> Ingest {
        let streams = reload::paths(config, &[], Vec::new());
        reload::count_series(&streams, &catalog, &metrics);
        Ingest {
            streams,
            engine,
            catalog,
            routes: HashMap::new(),
            outputs: Outputs::of(config),
            former: Vec::new(),
            retain: config.forecast.retain,
            max_series: config.limits.max_series,
            metrics,
            decoded: Decoded::default(),
            steady: Steady::start(),
            recorded: Vec::new(),
            follower: None,
        }
    }

    /// Name of a stream.
    #[must_use]
    pub fn stream_name(&self, stream: usize) -> Arc<str> {
        self.streams.get(stream).map_or_else(|| "".into(), |s| s.name.clone())
    }

    /// Number of streams, those that a reload took out among them.
    #[must_use]
    pub fn stream_count(&self) -> usize {
        self.streams.len()
    }

    /// Positions and names of the streams that are configured now.
    pub fn streams(&self) -> impl Iterator<Item = (usize, &str)> {
        self.streams.iter().enumerate().filter(|(_, s)| s.active).map(|(stream, s)| (stream, &*s.name))
    }

    /// Whether a stream is configured now.
    #[must_use]
    pub fn is_active(&self, stream: usize) -> bool {
        self.streams.get(stream).is_some_and(|s| s.active)
    }

    /// Takes in a message. With `store` false its readings are forecast from, not stored. What it leads to is
    /// handed `on` whenever it becomes much, which says whether further readings may be stored: one message can make
    /// a hundred megabytes.
    pub fn packet(
        &mut self,
        packet: &Packet,
        mut store: bool,
        effects: &mut Effects,
        on: &mut dyn FnMut(&mut Effects) -> bool,
    ) {
        if let Some(mut routes) = self.routes.remove(packet.topic.as_str()) {
            for route in &mut routes {
                self.message(packet, route, &mut store, effects, on);
            }
            self.routes.insert(packet.topic.clone(), routes);
            return;
        }
        let arrived = self.steady.at(packet.arrived);
        let former = self.former.iter().filter(|(_, until)| arrived < *until).map(|(outputs, _)| outputs);
        if former.chain([&self.outputs]).any(|outputs| outputs.is_own(&packet.topic)) {
            return;
        }
        let mut routes: Vec<Route> =
            (0..self.streams.len()).filter_map(|s| self.route(s, &packet.topic)).collect();
        for route in &mut routes {
            self.message(packet, route, &mut store, effects, on);
        }
        // Only topics with series are remembered: their number is bounded.
        if routes.iter().any(|r| !r.leaves.is_empty() || r.configured.iter().any(Option::is_some)) {
            // Collecting leaves room for four.
            routes.shrink_to_fit();
            self.routes.insert(packet.topic.clone(), routes);
        }
    }

    fn message(
        &mut self,
        packet: &Packet,
        route: &mut Route,
        store: &mut bool,
        effects: &mut Effects,
        on: &mut dyn FnMut(&mut Effects) -> bool,
    ) {
        let Some(path) = self.streams.get_mut(route.stream) else { return };
        path.hearing.heard = true;
        let mut decoded = std::mem::take(&mut self.decoded);
        let arrival = Arrival { topic: &packet.topic, payload: &packet.payload, at: packet.arrived_at };
        path.decoder.decode(arrival, &mut decoded);
        let metrics = Arc::clone(&self.metrics);
        let metrics = metrics.stream(route.stream);
        metrics.received.inc_by((decoded.readings().len() + decoded.rejections().len()) as u64);
        for (position, reason) in decoded.rejections().iter().enumerate() {
            let field = || path.decoder.fields().get(decoded.misfit(position)?).map(String::as_str);
            tracing::debug!(
                topic = packet.topic,
                field = field(),
                payload = beginning(&packet.payload),
                reason = reason.label(),
                "reading rejected"
            );
            metrics.rejected(*reason).inc();
        }
        if let Some(reason) = decoded.rejections().first()
            && path.said.is_none_or(|at| packet.arrived.saturating_duration_since(at) >= SAY_EVERY)
        {
            path.said = Some(packet.arrived);
            // Whoever publishes has chosen it.
            let topic: String = packet.topic.chars().take(200).collect();
            tracing::warn!(
                stream = &*path.name,
                topic,
                reason = reason.label(),
                "readings are rejected: do [[stream]] and the message fit each other? \
                 vidente_readings_rejected_total counts them"
            );
        }
        if let Some(request) = decoded.take_request() {
            tracing::debug!(topic = request.topic, "a node is asked for its births");
            effects.outgoing.push(Outgoing {
                topic: request.topic,
                payload: request.payload,
                retain: false,
                stream: route.stream,
                series: None,
                kind: Kind::Request,
                arrived: None,
            });
        }
        for reading in decoded.readings() {
            let time = reading.time.map(Timestamp);
            let now = Timestamp(packet.arrived_at);
            let origin = Origin { arrived: packet.arrived, now, time, store: *store };
            let taken = if packet.retained && time.is_none() {
                Err(Rejection::Retained)
            } else if time.is_some_and(|t| t.0 < EARLIEST) {
                Err(Rejection::BadTime)
            } else {
                self.series(route, reading, &mut effects.batch)
                    .and_then(|handle| self.reading(handle, reading.value, origin, effects))
            };
            if let Err(reason) = taken {
                tracing::debug!(
                    topic = packet.topic,
                    field = naming::field_name(&self.streams, route.stream, reading.field),
                    value = reading.value,
                    time = reading.time.map(|time| encode::text(Timestamp(time))),
                    reason = reason.label(),
                    "reading rejected"
                );
                metrics.rejected(reason).inc();
            }
            if effects.are_many() {
                *store = on(effects);
            }
        }
        self.decoded = decoded;
    }

    fn reading(
        &mut self,
        handle: SeriesHandle,
        value: f64,
        origin: Origin,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        let last = self.engine.series(handle).and_then(|s| s.last());
        let time = origin.time.unwrap_or_else(|| match last {
            // Readings that arrive within the clock's resolution, or over a small step of it, are
            // still one after the other.
            Some(last) if last.time >= origin.now && last.time.0 - origin.now.0 < CLOCK_STEP => {
                Timestamp(last.time.0 + 1)
            }
            _ => origin.now,
        });
        let reading = Reading { time, value };
        let place = handle as usize;
        if self.recorded.len() <= place {
            self.recorded.resize(place + 1, false);
        }
        let (late, news) = match self.engine.observe(handle, reading, origin.now) {
            Verdict::NotFinite => return Err(Rejection::NotFinite),
            Verdict::Future => return Err(Rejection::Future),
            // Counted by the recorder, as below, if the store has it.
            Verdict::Duplicate if origin.store && !std::mem::replace(&mut self.recorded[place], true) => {
                (true, false)
            }
            Verdict::Duplicate => return Err(Rejection::Duplicate),
            // Counted by the recorder: an old reading that comes twice is a duplicate.
            Verdict::Late => (true, true),
            Verdict::Accepted(outcome) => {
                self.recorded[place] = origin.store;
                self.publish(handle, reading, &outcome, origin, effects);
                (false, true)
            }
        };
        if news {
            self.heard(handle, reading, origin, effects);
        }
        if !origin.store {
            return Err(Rejection::StoreFull);
        }
        let rows = &mut effects.batch.readings;
        rows.series.push(handle);
        rows.time.push(time.0);
        rows.value.push(value);
        rows.late.push(late);
        if !late {
            self.forecast_rows(handle, time, &mut effects.batch);
        }
        Ok(())
    }

    fn forecast_rows(&self, handle: SeriesHandle, origin: Timestamp, batch: &mut WriteBatch) {
        let model = self.engine.model_of(handle).map(|m| m.id);
        let rows = &mut batch.forecasts;
        for (step, number) in self.engine.steps().iter().zip(1_i16..) {
            rows.series.push(handle);
            rows.time.push(step.time.0);
            rows.step.push(number);
            rows.origin.push(origin.0);
            rows.mean.push(step.mean);
            for (column, quantile) in rows.quantiles.iter_mut().zip(step.quantiles) {
                column.push(quantile);
            }
            rows.model.push(model);
        }
    }

    fn publish(
        &self,
        handle: SeriesHandle,
        reading: Reading,
        outcome: &Outcome,
        origin: Origin,
        effects: &mut Effects,
    ) {
        let Some(entry) = self.catalog.get(handle) else { return };
        let payload = encode::forecast(
            &entry.forecast_head,
            &ForecastMessage {
                origin: reading.time,
                model: self.engine.model_of(handle).map_or(NAIVE, |m| &m.name),
                value: reading.value,
                score: outcome.score,
                anomaly: outcome.flagged,
                steps: self.engine.steps(),
            },
        );
        effects.outgoing.push(Outgoing {
            topic: entry.forecast_topic.to_string(),
            payload,
            retain: self.retain,
            stream: entry.stream,
            series: Some(handle),
            kind: Kind::Forecast,
            arrived: Some(origin.arrived),
        });
        if let Some(change) = outcome.change {
            self.anomaly(handle, reading, outcome, change, origin, effects);
        }
    }
}

/// The beginning of a body, as it can be logged.
fn beginning(payload: &[u8]) -> String {
    let shown = payload.get(..SHOWN).unwrap_or(payload);
    let more = if shown.len() < payload.len() { "…" } else { "" };
    format!("{}{more}", String::from_utf8_lossy(shown).escape_debug())
}
