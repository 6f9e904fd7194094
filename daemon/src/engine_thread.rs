//! The engine's thread: takes messages one burst at a time, hands rows to the recorder and forecasts
//! to the outgoing queue. It waits for nobody.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

use crate::catalog;
use crate::encode;
use crate::ingest::{Effects, Ingest, NAIVE};
use crate::message::{
    LastForecast, LastReading, Message, Packet, Query, SeriesSnapshot, StreamSnapshot, TrainerMessage,
};
use crate::metrics::Metrics;
use crate::outqueue::OutQueue;
use crate::record::StateRow;
use crate::recorder::{Backlog, Record};

/// Messages taken at a time.
const BURST: usize = 256;
/// States checkpointed between two bursts, so that a checkpoint of many series delays no forecast.
const SLICE: usize = 128;

/// Series looked at between two bursts for having fallen silent.
const LOOKS: usize = 1024;

/// Everything the thread owns and talks to.
pub struct EngineThread {
    /// The way of a reading.
    pub ingest: Ingest,
    /// What it is told; it ends when all senders are gone.
    pub inbox: mpsc::Receiver<Message>,
    /// To the recorder.
    pub records: mpsc::UnboundedSender<Record>,
    /// Bound on what the recorder has not yet written.
    pub backlog: Arc<Backlog>,
    /// To the outgoing connection.
    pub out: Arc<OutQueue>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

impl EngineThread {
    /// Runs until every sender of messages is gone, then checkpoints all that moved.
    pub fn run(mut self) {
        let mut burst = Vec::with_capacity(BURST);
        let mut effects = Effects::default();
        let mut record = Record::default();
        // States still to be checkpointed of those that were due at the last tick.
        let mut due = 0_usize;
        // The tick whose series are still to be looked at.
        let mut tick: Option<Instant> = None;
        // Told when the store holds the last checkpoint.
        let mut committed: Option<oneshot::Receiver<()>> = None;
        loop {
            if due == 0 && tick.is_none() {
                if self.inbox.blocking_recv_many(&mut burst, BURST) == 0 {
                    break;
                }
            } else {
                while burst.len() < BURST
                    && let Ok(message) = self.inbox.try_recv()
                {
                    burst.push(message);
                }
                if due > 0 {
                    self.checkpoint(due.min(SLICE), &mut record);
                    due = due.saturating_sub(SLICE);
                    if due == 0 {
                        let (tell, told) = oneshot::channel();
                        record.committed.push(tell);
                        committed = Some(told);
                    }
                }
                tick = tick.filter(|at| self.ingest.silences(*at, true, LOOKS, &mut effects));
            }
            for message in burst.drain(..) {
                match message {
                    Message::Packet(packet) => self.packet(packet, &mut effects, &mut record),
                    Message::Query(query) => self.answer(query),
                    Message::Trainer(message) => {
                        // A state taken before must not stand in one record with the one taken after.
                        self.flush(&mut effects, &mut record);
                        self.train(message, &mut record);
                        self.flush(&mut effects, &mut record);
                    }
                    Message::Tick { at, listening } => {
                        // While the store is away and memory is full, the inlet takes nothing in.
                        let listening = listening && self.backlog.has_room();
                        if self.ingest.silences(at, listening, LOOKS, &mut effects) {
                            tick = Some(at);
                        }
                    }
                    // While the last one waits for the store, another would only fill memory.
                    Message::Checkpoint => {
                        if due == 0
                            && committed.as_mut().is_none_or(|c| c.try_recv() != Err(TryRecvError::Empty))
                        {
                            due = self.ingest.engine.unsaved();
                            committed = None;
                        }
                    }
                }
            }
            self.quality();
            self.flush(&mut effects, &mut record);
        }
        self.checkpoint(usize::MAX, &mut record);
        self.flush(&mut effects, &mut record);
    }

    fn packet(&mut self, packet: Packet, effects: &mut Effects, record: &mut Record) {
        // At QoS 1 the inlet has seen to the room.
        let store = packet.ack.is_some() || self.backlog.has_room();
        self.ingest.packet(&packet, store, effects);
        record.acks.extend(packet.ack);
    }

    fn checkpoint(&mut self, limit: usize, record: &mut Record) {
        self.ingest.engine.checkpoint(limit, |series, time, model, state| {
            record.batch.states.push(StateRow { series, time: time.0, model, state });
        });
    }

    fn flush(&mut self, effects: &mut Effects, record: &mut Record) {
        self.out.push_all(&mut effects.outgoing);
        // What moved with these readings comes before states that were taken after them.
        let states = std::mem::take(&mut record.batch);
        record.batch = std::mem::take(&mut effects.batch);
        record.batch.append(states);
        if record.batch.is_empty() && record.acks.is_empty() && record.committed.is_empty() {
            return;
        }
        self.backlog.add(&record.batch);
        // The recorder ends after this thread; if it broke down, the supervisor ends the process.
        let _ = self.records.send(std::mem::take(record));
    }

    fn quality(&self) {
        for (stream, _) in self.ingest.streams().enumerate() {
            let quality = self.ingest.engine.quality(stream);
            let metrics = self.metrics.stream(stream);
            if let Some(coverage) = quality.coverage() {
                metrics.coverage.set(coverage);
            }
            if let Some(error) = quality.relative_error() {
                metrics.relative_error.set(error);
            }
            let version = self.ingest.engine.installed(stream).map_or(0, |m| m.version);
            metrics.model_version.set(version);
        }
    }

    fn train(&mut self, message: TrainerMessage, record: &mut Record) {
        match message {
            TrainerMessage::OpenJournal { stream, committed } => {
                self.ingest.engine.open_journal(stream);
                record.committed.push(committed);
            }
            TrainerMessage::CloseJournal { stream } => self.ingest.engine.close_journal(stream),
            TrainerMessage::Install { stream, model, states, promote, installed } => {
                let (id, name) = (model.id, model.name.clone());
                let taken = self.ingest.engine.install(stream, model, states);
                if taken {
                    tracing::info!(stream = %self.ingest.stream_name(stream), model = %name, "model installed");
                    // The states under the new model commit together with its promotion, so that a
                    // restart finds either both or neither.
                    self.checkpoint(usize::MAX, record);
                    record.batch.promote.extend(promote.then_some(id));
                }
                // The trainer may be stopping.
                let _ = installed.send(taken);
            }
        }
    }

    fn answer(&mut self, query: Query) {
        // Whoever asked may have gone away.
        match query {
            Query::Series(reply) => drop(reply.send(self.series())),
            Query::Streams(reply) => drop(reply.send(self.streams())),
            Query::Handles(reply) => self.handles(reply),
        }
    }

    fn handles(&self, reply: oneshot::Sender<hashbrown::HashMap<Arc<str>, forecaster::SeriesHandle>>) {
        let keys = self.ingest.catalog.iter().map(|e| e.key.clone());
        drop(reply.send(keys.zip(0..).collect()));
    }

    fn series(&mut self) -> Vec<SeriesSnapshot> {
        let Ingest { engine, catalog, .. } = &mut self.ingest;
        let mut all: Vec<_> = (0..)
            .zip(catalog.iter())
            .map(|(handle, entry)| {
                let steps: Vec<_> = engine.forecast(handle).iter().map(encode::step_json).collect();
                let model = engine.model_of(handle).map_or(NAIVE, |m| &m.name).to_owned();
                let series = engine.series(handle);
                let last = series.and_then(|s| s.last().map(|last| (last, s.state_of_last())));
                SeriesSnapshot {
                    key: entry.key.to_string(),
                    stream: entry.stream_name.to_string(),
                    labels: catalog::map(&entry.labels),
                    last: last.map(|(last, (score, anomaly))| LastReading {
                        time: encode::text(last.time),
                        value: last.value,
                        score,
                        anomaly,
                    }),
                    forecast: last.filter(|_| !steps.is_empty()).map(|(last, _)| LastForecast {
                        origin: encode::text(last.time),
                        model,
                        steps,
                    }),
                    relative_error: series.and_then(|s| s.relative_error()),
                }
            })
            .collect();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all
    }

    fn streams(&self) -> Vec<StreamSnapshot> {
        let engine = &self.ingest.engine;
        self.ingest
            .streams()
            .enumerate()
            .map(|(stream, name)| StreamSnapshot {
                stream: name.to_owned(),
                model: engine.installed(stream).map_or(NAIVE, |m| &m.name).to_owned(),
                series: self.ingest.catalog.iter().filter(|e| e.stream == stream).count(),
                relative_error: engine.quality(stream).relative_error(),
                coverage: engine.quality(stream).coverage(),
            })
            .collect()
    }
}
