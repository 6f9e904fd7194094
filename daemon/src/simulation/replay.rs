//! What an undisturbed engine makes of stored readings.

use std::sync::{Arc, OnceLock};

use forecaster::features::INPUTS;
use forecaster::weights::{Cell, Sizes, Weights};
use forecaster::{Engine, Installed, Model, Reading, SeriesHandle, Step, Timestamp, Verdict};

use super::tables::Tables;
use crate::config::Config;
use crate::store::{ModelRow, StoredFeedback};
use crate::training;

/// Different models that there are.
const MODELS: u64 = 3;

/// Tiny models of random weights, as they are stored and as they run.
fn models() -> &'static [(Vec<u8>, Arc<Model>)] {
    static MADE: OnceLock<Vec<(Vec<u8>, Arc<Model>)>> = OnceLock::new();
    MADE.get_or_init(|| {
        let sizes = Sizes { cell: Cell::Lstm, inputs: INPUTS, hidden: 4, layers: 1 };
        let made = (0..MODELS).map(|seed| {
            let model = Model::new(vec![Weights::random(sizes, seed)]);
            let stored = model.to_safetensors().unwrap();
            // As it is read back, in case something is lost.
            let model = Model::from_safetensors(&stored).unwrap();
            (stored, Arc::new(model))
        });
        made.collect()
    })
}

/// A model that nobody uses yet.
pub(super) fn candidate(tables: &mut Tables, stream: &str) -> i64 {
    let id = tables.models.len() as i64 + 1;
    let version = tables.models.iter().filter(|m| m.stream == stream).count() as i32 + 1;
    let (weights, _) = &models()[id as usize % models().len()];
    tables.models.push(ModelRow {
        id,
        name: format!("{stream}-{version}"),
        stream: stream.to_owned(),
        version,
        cell: "lstm".to_owned(),
        created_at: 0,
        status: "candidate".to_owned(),
        reason: None,
        origin: "trained".to_owned(),
        window_start: None,
        window_end: None,
        metrics: serde_json::json!({}),
        has_weights: true,
        weights: weights.clone(),
    });
    id
}

/// One series in an engine of its own, under one model all the time.
pub(super) struct Replay {
    engine: Engine,
    handle: SeriesHandle,
}

impl Replay {
    pub(super) fn new(config: &Config, stream: usize, model: Option<i64>) -> Replay {
        let mut engine = Engine::new(config.stream.iter().map(|s| training::spec_of(config, s)));
        if let Some(id) = model {
            let model = models()[id as usize % models().len()].1.clone();
            engine.set_model(stream, Installed { id, name: "".into(), version: 1, model });
        }
        let handle = engine.add_series(stream);
        Replay { engine, handle }
    }

    /// The forecast made from a reading, and the model that has a say in it.
    pub(super) fn observe(&mut self, time: i64, value: f64) -> (&[Step], Option<i64>) {
        let reading = Reading { time: Timestamp(time), value };
        let verdict = self.engine.observe(self.handle, reading, Timestamp(i64::MAX));
        assert!(matches!(verdict, Verdict::Accepted(_)), "{verdict:?}");
        (self.engine.steps(), self.engine.model_of(self.handle).map(|m| m.id))
    }

    /// Takes in what was said.
    pub(super) fn hear(&mut self, word: &StoredFeedback) {
        self.engine.teach_again(self.handle, word.evidence, word.anomaly);
    }

    /// The bar that evidence must reach.
    pub(super) fn bar(&self) -> Option<f64> {
        self.engine.bar(self.handle)
    }

    /// The forecast from the newest reading.
    pub(super) fn forecast(&mut self) -> Vec<Step> {
        self.engine.forecast(self.handle).to_vec()
    }
}
