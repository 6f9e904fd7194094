//! Which series there are, and which of them a topic's readings belong to.

use std::collections::BTreeMap;
use std::sync::Arc;

use forecaster::SeriesHandle;
use hashbrown::HashMap;

use crate::encode;
use crate::topic::Outputs;

/// Captured topic levels by name, compact: a map's node would outweigh all else that is kept here.
pub type Labels = Arc<[(Box<str>, Box<str>)]>;

/// Labels as the pairs that are kept.
#[must_use]
pub fn compact(labels: BTreeMap<String, String>) -> Labels {
    labels.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// Labels and further ones, where those have a name of their own.
#[must_use]
pub fn with<'l>(labels: &Labels, further: impl ExactSizeIterator<Item = (&'l str, &'l str)>) -> Labels {
    if further.len() == 0 {
        return labels.clone();
    }
    let mut all = map(labels);
    for (name, value) in further {
        all.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
    compact(all)
}

/// Labels as the map that is stored and shown.
#[must_use]
pub fn map(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// What is known of a series besides its state.
#[derive(Debug)]
pub struct Entry {
    /// `<stream>/<captured levels>/<field>`.
    pub key: Arc<str>,
    /// Position of its stream in the configuration.
    pub stream: usize,
    /// Name of that stream.
    pub stream_name: Arc<str>,
    /// Captured topic levels by name.
    pub labels: Labels,
    /// Topic of its forecasts.
    pub forecast_topic: Box<str>,
    /// Start of each of its forecast messages.
    pub forecast_head: Box<str>,
}

/// All series, by handle and by key.
#[derive(Debug, Default)]
pub struct Catalog {
    entries: Vec<Entry>,
    by_key: HashMap<Arc<str>, SeriesHandle>,
}

impl Catalog {
    /// Adds a series, whose handle must be the next that the engine gives out.
    pub fn add(
        &mut self,
        key: &str,
        (stream, stream_name): (usize, Arc<str>),
        labels: Labels,
        outputs: &Outputs,
    ) {
        let key: Arc<str> = key.into();
        self.by_key.insert(key.clone(), self.entries.len() as SeriesHandle);
        self.entries.push(Entry {
            forecast_topic: outputs.forecast(&key).into(),
            forecast_head: encode::forecast_head(&key).into(),
            key,
            stream,
            stream_name,
            labels,
        });
    }

    /// Publishes the forecasts of all series elsewhere.
    pub fn set_outputs(&mut self, outputs: &Outputs) {
        for entry in &mut self.entries {
            let topic = outputs.forecast(&entry.key);
            if *entry.forecast_topic != *topic {
                entry.forecast_topic = topic.into();
            }
        }
    }

    /// A series.
    #[must_use]
    pub fn get(&self, handle: SeriesHandle) -> Option<&Entry> {
        self.entries.get(handle as usize)
    }

    /// The series of a key.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<SeriesHandle> {
        self.by_key.get(key).copied()
    }

    /// All series, by handle.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Number of series.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// The series that one topic feeds in one stream: known after its first message, so that the
/// messages after it match no patterns and build no keys.
#[derive(Debug)]
pub struct Route {
    /// Position of the stream in the configuration.
    pub stream: usize,
    /// What the keys of its series begin with.
    pub prefix: String,
    /// Captured topic levels by name.
    pub labels: Labels,
    /// Series of the configured fields, by position.
    pub configured: Vec<Option<SeriesHandle>>,
    /// Series of numeric leaves, by field name.
    pub leaves: HashMap<String, SeriesHandle>,
}
