//! A trained model, ready for streaming.

use serde::{Deserialize, Serialize};

use crate::aggregate::{Lanes, MEAN};
use crate::features::{FEATURES, INPUTS};
use crate::kernel::{HiddenState, Network, Scratch};
use crate::mixer::MODELS;
use crate::reading::{Timestamp, mean_of};
use crate::trees::Forest;
use crate::weights::{Cell, Sizes, Weights};

/// Networks of a model at most: two that were drawn differently err differently.
pub const NETWORKS: usize = 2;

/// Bound on an answer, in units of the scale.
const LARGEST: f32 = 1e6;

/// Weights and their packed form.
#[derive(Debug, Clone)]
pub struct Model {
    networks: Vec<(Weights, Network)>,
    forest: Option<Forest>,
    trained_until: Timestamp,
}

impl Model {
    /// Makes a model of the weights of its networks, of which all have the same sizes; those beyond
    /// [`NETWORKS`] are left out.
    #[must_use]
    pub fn new(weights: Vec<Weights>) -> Model {
        let networks = weights.into_iter().take(NETWORKS);
        Model {
            networks: networks.map(|w| (w.clone(), Network::new(&w))).collect(),
            forest: None,
            trained_until: Timestamp(i64::MIN),
        }
    }

    /// The same with a forest beside the networks.
    #[must_use]
    pub fn with_forest(self, forest: Option<Forest>) -> Model {
        Model { forest, ..self }
    }

    /// The same, trained on readings up to a time.
    #[must_use]
    pub fn with_trained_until(self, trained_until: Timestamp) -> Model {
        Model { trained_until, ..self }
    }

    /// Time of the newest reading it was trained on; the earliest of all if that is not known.
    #[must_use]
    pub fn trained_until(&self) -> Timestamp {
        self.trained_until
    }

    /// The forest, if there is one.
    #[must_use]
    pub fn forest(&self) -> Option<&Forest> {
        self.forest.as_ref()
    }

    /// The networks' weights.
    pub fn weights(&self) -> impl Iterator<Item = &Weights> {
        self.networks.iter().map(|(weights, _)| weights)
    }

    /// Kind and sizes of the networks.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        self.weights()
            .next()
            .map_or(Sizes { cell: Cell::Lstm, inputs: INPUTS, hidden: 0, layers: 0 }, |w| w.sizes)
    }

    /// Feeds a reading's features to the state, and returns what each network and the forest make of them: the
    /// quantiles of the next difference in units of the series' scale, ordered (monotone rearrangement:
    /// Chernozhukov, Fernández-Val & Galichon, Econometrica 78, 2010), and their mean. None where an
    /// output is not finite.
    ///
    /// A state of another network's size starts from zero.
    pub(crate) fn answer(
        &self,
        features: &[f32; FEATURES],
        state: &mut ModelState,
        scratch: &mut Scratch,
    ) -> [Option<Lanes>; MODELS] {
        let mut answers = [None; MODELS];
        let inputs = &features[..INPUTS];
        for (((_, network), hidden), answer) in self.networks.iter().zip(&mut state.hidden).zip(&mut answers)
        {
            if !network.fits(hidden) {
                *hidden = network.zero_state();
            }
            let quantiles = network.step(inputs, hidden, scratch);
            if quantiles.iter().all(|q| q.is_finite()) {
                *answer = ordered(quantiles);
            } else {
                // Nothing bounds the hidden output of an Elman network with relu: one that has run away
                // would never come back.
                *hidden = network.zero_state();
            }
        }
        if let (Some(answer), Some(forest)) = (answers.last_mut(), &self.forest) {
            *answer = ordered(forest.predict(features));
        }
        answers
    }
}

/// What a model keeps of a series between readings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ModelState {
    hidden: [HiddenState; NETWORKS],
}

fn ordered(mut quantiles: [f32; 7]) -> Option<Lanes> {
    quantiles.iter_mut().for_each(|q| *q = q.clamp(-LARGEST, LARGEST));
    quantiles.sort_unstable_by(f32::total_cmp);
    let mut lanes = [0.0; 8];
    lanes[..MEAN].copy_from_slice(&quantiles);
    lanes[MEAN] = mean_of(&quantiles);
    lanes.iter().all(|q| q.is_finite()).then_some(lanes)
}
