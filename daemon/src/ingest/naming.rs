//! Which series a topic and a field are.

use forecaster::SeriesHandle;
use hashbrown::HashMap;

use super::{Ingest, StreamPath};
use crate::catalog::{self, Route};
use crate::metrics::Rejection;
use crate::payload::{Decoding, Field, Naming};
use crate::record::{NewSeries, WriteBatch};
use crate::topic::{self, Captures, MAX_KEY};

impl Ingest {
    /// The way of a topic into a stream, if it matches.
    pub(super) fn route(&self, stream: usize, topic: &str) -> Option<Route> {
        let path = self.streams.get(stream).filter(|path| path.active)?;
        let captures = path.settings.topic.matches(topic)?;
        let (captures, labels) = match path.decoder.naming(topic, &captures) {
            Naming::Captures => {
                let labels = path.settings.topic.labels(&captures);
                (captures, labels)
            }
            Naming::Parts(parts) => {
                let labels =
                    parts.iter().map(|(name, part)| ((*name).to_owned(), (*part).to_owned())).collect();
                (Captures::of(parts.into_iter().map(|(_, part)| part).collect()), labels)
            }
            Naming::Nothing => return None,
        };
        Some(Route {
            stream,
            prefix: topic::key_prefix(&path.name, &captures),
            labels: catalog::compact(labels),
            configured: vec![None; path.decoder.fields().len()],
            leaves: HashMap::new(),
        })
    }

    /// The series of a field; made, with its row, if it is new and there is room.
    pub(super) fn series(
        &mut self,
        route: &mut Route,
        reading: Decoding<'_>,
        batch: &mut WriteBatch,
    ) -> Result<SeriesHandle, Rejection> {
        let field = reading.field;
        let known = match field {
            Field::Configured(position) => route.configured.get(position).copied().flatten(),
            Field::Leaf(name) => route.leaves.get(name).copied(),
        };
        if let Some(handle) = known {
            return Ok(handle);
        }
        let name = field_name(&self.streams, route.stream, field);
        let key = [&route.prefix, name].concat();
        let handle = match self.catalog.find(&key) {
            Some(handle) => handle,
            None if key.len() > MAX_KEY => return Err(Rejection::KeyTooLong),
            None if self.catalog.len() >= self.max_series => return Err(Rejection::SeriesLimit),
            None => {
                let handle = self.engine.add_series(route.stream);
                let stream = self.stream_name(route.stream);
                let labels = catalog::with(&route.labels, reading.labels());
                // Line protocol has measurement and tags before it.
                let field = name.rsplit('/').next().unwrap_or(name).to_owned();
                batch.new_series.push(NewSeries {
                    handle,
                    key: key.clone(),
                    stream: stream.to_string(),
                    labels: catalog::map(&labels),
                    field,
                });
                self.catalog.add(&key, (route.stream, stream), labels, &self.outputs);
                self.metrics.stream(route.stream).series.inc();
                handle
            }
        };
        match field {
            Field::Configured(position) => {
                if let Some(slot) = route.configured.get_mut(position) {
                    *slot = Some(handle);
                }
            }
            Field::Leaf(name) => {
                route.leaves.insert(name.to_owned(), handle);
            }
        }
        Ok(handle)
    }
}

/// Name of a field, as it stands in series keys.
pub(super) fn field_name<'a>(streams: &'a [StreamPath], stream: usize, field: Field<'a>) -> &'a str {
    match field {
        Field::Configured(position) => {
            streams.get(stream).and_then(|s| s.decoder.fields().get(position)).map_or("", String::as_str)
        }
        Field::Leaf(name) => name,
    }
}
