//! What the engine thread says of the present.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::EngineThread;
use crate::catalog;
use crate::encode;
use crate::ingest::{Ingest, NAIVE};
use crate::message::{LastForecast, LastReading, Query, SeriesSnapshot, StreamSnapshot};
use crate::trainer::StreamWatch;

impl EngineThread {
    pub(super) fn answer(&mut self, query: Query) {
        // Whoever asked may have gone away.
        match query {
            Query::Series(reply) if reply.is_closed() => {}
            Query::Series(reply) => drop(reply.send(self.series())),
            Query::Streams(reply) => drop(reply.send(self.streams())),
            Query::Handles(reply) => self.handles(reply),
            Query::Watch(reply) => drop(reply.send(self.watch())),
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

    fn handles(&self, reply: oneshot::Sender<hashbrown::HashMap<Arc<str>, forecaster::SeriesHandle>>) {
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
                series: self.ingest.catalog.iter().filter(|e| e.stream == stream).count(),
                relative_error: engine.quality(stream).relative_error(),
                coverage: engine.quality(stream).coverage(),
            })
            .collect()
    }
}
