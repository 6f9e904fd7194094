//! What the engine's thread answers when it is asked about the present.

use std::sync::Arc;

use forecaster::SeriesHandle;
use tokio::sync::oneshot;

use crate::catalog;
use crate::encode::{self, ForecastMessage};
use crate::engine_thread::EngineThread;
use crate::feed::Mailbox;
use crate::ingest::{Ingest, NAIVE};
use crate::message::{
    Expert, LastForecast, LastReading, Query, SeriesPart, SeriesRow, SeriesSnapshot, StreamSnapshot,
};
use crate::trainer::StreamWatch;

/// Most series in one [`SeriesPart`]: some hundred microseconds of the engine's time.
pub(crate) const PART: usize = 1024;

impl EngineThread {
    pub(crate) fn answer(&mut self, query: Query) {
        // Whoever asked may have gone away.
        match query {
            Query::Series(reply) if reply.is_closed() => {}
            Query::Series(reply) => drop(reply.send(self.series())),
            Query::Streams(reply) => drop(reply.send(self.streams())),
            Query::Handles(reply) => self.handles(reply),
            Query::Watch(reply) => drop(reply.send(self.watch())),
            Query::Part { from, reply } => drop(reply.send(self.part(from))),
            Query::Experts { key, reply } => drop(reply.send(self.experts(&key))),
            Query::Listen { key: None, mailbox, reply } => {
                self.listeners.add(&mailbox);
                let _ = reply.send(true);
            }
            Query::Listen { key: Some(key), mailbox, reply } => {
                let _ = reply.send(self.listen(&key, &mailbox));
            }
        }
    }

    fn watch(&self) -> Vec<StreamWatch> {
        let engine = &self.ingest.engine;
        let watch = |stream| StreamWatch {
            model: engine.installed(stream).map(|m| m.id),
            drift: engine.drift(stream),
            probation: engine.probation(stream),
        };
        (0..self.ingest.stream_count()).map(watch).collect()
    }

    fn handles(&self, reply: oneshot::Sender<hashbrown::HashMap<Arc<str>, SeriesHandle>>) {
        let keys = self.ingest.catalog.iter().map(|e| e.key.clone());
        drop(reply.send(keys.zip(0..).collect()));
    }

    fn series(&mut self) -> Vec<SeriesSnapshot> {
        let active: Vec<bool> = (0..self.ingest.stream_count()).map(|s| self.ingest.is_active(s)).collect();
        let Ingest { engine, catalog, .. } = &mut self.ingest;
        let mut all: Vec<_> = (0..)
            .zip(catalog.iter())
            .filter(|(_, entry)| active.get(entry.stream).is_some_and(|active| *active))
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
            .map(|(stream, name)| StreamSnapshot {
                stream: name.to_owned(),
                model: engine.installed(stream).map_or(NAIVE, |m| &m.name).to_owned(),
                series: usize::try_from(self.metrics.stream(stream).series.get()).unwrap_or_default(),
                relative_error: engine.quality(stream).relative_error(),
                coverage: engine.quality(stream).coverage(),
                heard: self.ingest.is_heard(stream),
            })
            .collect()
    }

    /// The series from a handle on, as many as may be given at once.
    fn part(&self, from: usize) -> SeriesPart {
        let Ingest { engine, catalog, .. } = &self.ingest;
        let rows = (0..).zip(catalog.iter()).skip(from).take(PART).map(|(handle, entry)| {
            let series = engine.series(handle);
            let last = series.and_then(|s| s.last());
            let [low, median, high] = [0, forecaster::MEDIAN, 6];
            SeriesRow {
                key: entry.key.clone(),
                stream: entry.stream_name.clone(),
                last,
                score: series.map_or(0.0, |s| s.state_of_last().0),
                flagged_since: series.and_then(|s| s.flagged_since()),
                silent_since: engine.silent_since(handle),
                next: engine.next(handle).map(|step| [low, median, high].map(|level| step.quantiles[level])),
                relative_error: series.and_then(|s| s.relative_error()),
            }
        });
        SeriesPart { rows: rows.collect(), total: catalog.len() }
    }

    fn experts(&self, key: &str) -> Option<Vec<Expert>> {
        let series = self.ingest.engine.series(self.active(key)?)?;
        Some(series.experts().into_iter().map(|(name, weight)| Expert { name, weight }).collect())
    }

    /// A series, unless a reload has taken its stream out.
    fn active(&self, key: &str) -> Option<SeriesHandle> {
        let handle = self.ingest.catalog.find(key)?;
        self.ingest.catalog.get(handle).filter(|entry| self.ingest.is_active(entry.stream)).map(|_| handle)
    }

    /// Lets somebody hear a series, beginning with its present forecast. False if there is no such series.
    fn listen(&mut self, key: &str, mailbox: &Arc<Mailbox>) -> bool {
        let Some(handle) = self.active(key) else { return false };
        let Ingest { engine, catalog, .. } = &mut self.ingest;
        let Some(entry) = catalog.get(handle) else { return false };
        self.listeners.add_series(handle, mailbox);
        engine.forecast(handle);
        let series = engine.series(handle);
        if let Some((last, (score, anomaly))) = series.and_then(|s| s.last().map(|l| (l, s.state_of_last())))
        {
            let message = ForecastMessage {
                origin: last.time,
                model: engine.model_of(handle).map_or(NAIVE, |m| &m.name),
                value: last.value,
                score,
                anomaly,
                steps: engine.steps(),
            };
            mailbox.put_forecast(&encode::forecast(&entry.forecast_head, &message));
        }
        true
    }
}
