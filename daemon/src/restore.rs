//! Start: every series continues where it was.

use std::collections::VecDeque;
use std::sync::Arc;

use forecaster::{Engine, Installed, Reading, SeriesHandle, Timestamp};
use hashbrown::{HashMap, HashSet};

use crate::catalog::{self, Catalog};
use crate::config::Config;
use crate::store::{Past, SeriesIds, StoredFeedback};
use crate::topic::Outputs;
use crate::training;
use crate::world::World;

/// What the store knew.
#[derive(Debug)]
pub struct Restored {
    /// The engine with every series' state.
    pub engine: Engine,
    /// The series.
    pub catalog: Catalog,
    /// Their ids in the store.
    pub ids: SeriesIds,
    /// Id of the model that each stream runs, by position.
    pub installed: Vec<Option<i64>>,
}

/// Restores each series' checkpoint, replays the readings stored since, and rebuilds the hidden
/// states of series whose checkpoint holds another model's than the present champion.
///
/// # Errors
/// If the store fails.
pub(crate) async fn restore<W: World>(world: &W, config: &Config) -> anyhow::Result<Restored> {
    let store = world.store();
    let mut engine = Engine::new(config.stream.iter().map(|s| training::spec_of(config, s)));
    let installed = champions(store, config, &mut engine).await?;
    let outputs = Outputs::new(&config.forecast.topic);
    let (mut catalog, mut ids) = (Catalog::default(), SeriesIds::default());
    let mut handles: HashMap<i64, SeriesHandle> = HashMap::new();
    let names: Vec<Arc<str>> = config.stream.iter().map(|s| s.name.as_str().into()).collect();
    for row in store.series().await? {
        let Some(stream) = names.iter().position(|name| **name == *row.stream) else { continue };
        let handle = engine.add_series(stream);
        if let Some(name) = names.get(stream) {
            catalog.add(&row.key, (stream, name.clone()), catalog::compact(row.labels), &outputs);
        }
        ids.insert(handle, row.id);
        handles.insert(row.id, handle);
    }
    for (stream, spec) in config.stream.iter().enumerate() {
        let mut stale: HashSet<i64> = handles
            .iter()
            .filter(|(_, h)| catalog.get(**h).is_some_and(|e| e.stream == stream))
            .map(|(id, _)| *id)
            .collect();
        let mut useless = Vec::new();
        for row in store.states(&spec.name).await? {
            let Some(handle) = handles.get(&row.series_id) else { continue };
            if row.model.is_some() && engine.installed(stream).is_none() {
                // The process ended before its model became champion, or that was taken back. What the
                // experts have learned beside a model is not what they learn alone.
                useless.push(row.series_id);
                continue;
            }
            match engine.restore(*handle, row.model, &row.state) {
                Ok(true) => {}
                Ok(false) => drop(stale.remove(&row.series_id)),
                Err(error) => {
                    tracing::warn!(series = row.series_id, %error, "checkpoint left out, replaying all readings");
                    useless.push(row.series_id);
                }
            }
        }
        // Without them the replay below begins with the first reading.
        store.delete_states(&useless).await?;
        let mut said = Said::new(store.feedback_after_states(&spec.name).await?);
        let mut replayed = 0_u64;
        store
            .readings_after_states(&spec.name, |row| {
                if let Some(handle) = handles.get(&row.series_id) {
                    said.before(row.series_id, row.time, &mut engine, *handle);
                    let reading = Reading { time: Timestamp(row.time), value: row.value };
                    engine.observe(*handle, reading, Timestamp(i64::MAX));
                    replayed += 1;
                }
            })
            .await?;
        said.rest(&mut engine, &handles);
        for (series, since) in store.open_silences(&spec.name).await? {
            if let Some(handle) = handles.get(&series) {
                engine.restore_silence(*handle, Timestamp(since));
            }
        }
        tracing::info!(stream = %spec.name, replayed, "series restored");
        if let Some(model) = engine.installed(stream).map(|m| m.model.clone()).filter(|_| !stale.is_empty()) {
            let mut history = training::history(store, config, &spec.name).await?;
            history.retain(|(id, _)| stale.contains(id));
            for (id, rebuilt) in
                training::rebuild_states(world, model, history, training::spec_of(config, spec)).await?
            {
                if let Some(handle) = handles.get(&id) {
                    engine.adopt(*handle, rebuilt);
                }
            }
        }
    }
    Ok(Restored { engine, catalog, ids, installed })
}

/// What users said of a stream's series, to be said again in its place among the readings. Of each series, the
/// first comes first.
struct Said(HashMap<i64, VecDeque<StoredFeedback>>);

impl Said {
    fn new(rows: Vec<StoredFeedback>) -> Said {
        let mut by_series: HashMap<i64, VecDeque<StoredFeedback>> = HashMap::new();
        rows.into_iter().for_each(|row| by_series.entry(row.series_id).or_default().push_back(row));
        Said(by_series)
    }

    /// Says what was said before a reading came.
    fn before(&mut self, series: i64, time: i64, engine: &mut Engine, handle: SeriesHandle) {
        let Some(rows) = self.0.get_mut(&series) else { return };
        while let Some(row) = rows.pop_front_if(|row| row.newest < time) {
            engine.teach_again(handle, row.evidence, row.anomaly);
        }
    }

    /// Says what was said after the last reading.
    fn rest(self, engine: &mut Engine, handles: &HashMap<i64, SeriesHandle>) {
        for (series, rows) in self.0 {
            let Some(handle) = handles.get(&series) else { continue };
            rows.iter().for_each(|row| engine.teach_again(*handle, row.evidence, row.anomaly));
        }
    }
}

async fn champions(
    store: &impl Past,
    config: &Config,
    engine: &mut Engine,
) -> anyhow::Result<Vec<Option<i64>>> {
    let mut installed = Vec::new();
    for (stream, spec) in config.stream.iter().enumerate() {
        let mut id = None;
        if let Some(row) = store.champion(&spec.name).await? {
            match training::model_of(&row) {
                Ok(model) => {
                    id = Some(row.id);
                    let (name, version) = (row.name.into(), i64::from(row.version));
                    engine.set_model(stream, Installed { id: row.id, name, version, model: Arc::new(model) });
                }
                Err(error) => tracing::error!(
                    "the champion {} cannot be used, forecasts are naive until the next training: {error:#}",
                    row.name
                ),
            }
        }
        installed.push(id);
    }
    Ok(installed)
}
