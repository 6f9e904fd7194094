//! Another configuration while readings come: what it does not change goes on as if nothing had been.

use forecaster::{SECOND, Timestamp};

use super::{Effects, Ingest, StreamPath};
use crate::catalog::Catalog;
use crate::clock;
use crate::config::{self, Config};
use crate::message::Reload;
use crate::metrics::Metrics;
use crate::record::NewSeries;
use crate::restore::Restored;
use crate::topic::Outputs;
use crate::training;

/// How long messages on an output of before may take to come back from the broker.
const ON_THEIR_WAY: i64 = 60 * SECOND;

impl Ingest {
    /// Goes by another configuration from the next message on.
    pub fn reload(&mut self, reload: Reload, effects: &mut Effects) {
        let Reload { config, active, restored, .. } = reload;
        let outputs = Outputs::of(&config);
        let now = self.steady.at(clock::steady());
        self.former.retain(|(_, until)| now < *until);
        if outputs != self.outputs {
            let former = std::mem::replace(&mut self.outputs, outputs);
            self.former.push((former, Timestamp(now.0 + ON_THEIR_WAY)));
        }
        if let Some(restored) = restored {
            self.absorb(restored, effects);
        }
        self.catalog.set_outputs(&self.outputs);
        self.retain = config.forecast.retain;
        self.max_series = config.limits.max_series;
        for (stream, settings) in config.stream.iter().enumerate() {
            let was_active = self.streams.get(stream).is_some_and(|path| path.active);
            let is_active = active.get(stream).copied().unwrap_or_default();
            let mut spec = training::spec_of(&config, settings);
            if is_active && !was_active {
                self.engine.listen(stream, now);
            }
            if !is_active {
                // Nobody listens to it.
                spec.silence_after = 0;
            }
            self.engine.set_spec(stream, spec);
        }
        // What was decided by the patterns and fields of before.
        self.routes.clear();
        self.streams = paths(&config, &active, std::mem::take(&mut self.streams));
        count_series(&self.streams, &self.catalog, &self.metrics);
    }

    /// Takes over what the store knows of streams that are new.
    fn absorb(&mut self, restored: Restored, effects: &mut Effects) {
        let (streams, first) = (self.streams.len(), self.catalog.len() as u32);
        self.engine.absorb(restored.engine);
        for (entry, handle) in restored.catalog.iter().zip(first..) {
            // Known to the store, but whoever writes to it has to learn of their handles.
            effects.batch.new_series.push(NewSeries {
                handle,
                key: entry.key.to_string(),
                stream: entry.stream_name.to_string(),
                labels: crate::catalog::map(&entry.labels),
                field: entry.key.rsplit('/').next().unwrap_or_default().to_owned(),
            });
            let stream = (entry.stream + streams, entry.stream_name.clone());
            self.catalog.add(&entry.key, stream, entry.labels.clone(), &self.outputs);
        }
    }
}

/// The way into each stream; into one that is not active nothing gets. Decoders of streams that are as before
/// know what they knew.
pub(super) fn paths(config: &Config, active: &[bool], before: Vec<StreamPath>) -> Vec<StreamPath> {
    let active = active.iter().copied().chain(std::iter::repeat(true));
    let mut before = before.into_iter();
    let path = |(settings, active): (&config::Stream, bool)| match before.next() {
        // What one that was out knew has passed.
        Some(path) if path.active && path.settings == *settings => StreamPath { active, ..path },
        _ => StreamPath::new(settings, config.mqtt.max_packet_bytes, active),
    };
    config.stream.iter().zip(active).map(path).collect()
}

/// Sets `vidente_series`.
pub(super) fn count_series(streams: &[StreamPath], catalog: &Catalog, metrics: &Metrics) {
    let mut counts = vec![0; streams.len()];
    for entry in catalog.iter() {
        counts.get_mut(entry.stream).into_iter().for_each(|count| *count += 1);
    }
    for (stream, (path, count)) in streams.iter().zip(counts).enumerate() {
        let metrics = metrics.stream(stream);
        metrics.series.set(if path.active { count } else { 0 });
        if !path.active {
            metrics.coverage.set(f64::NAN);
            metrics.relative_error.set(f64::NAN);
            metrics.model_version.set(0);
            metrics.probation.set(0);
        }
    }
}
