//! A trained network, ready for streaming.

use serde::{Deserialize, Serialize};

use crate::aggregate::{Lanes, MEAN};
use crate::features::{FEATURES, INPUTS};
use crate::kernel::{HiddenState, Network, Scratch};
use crate::mixer::MODELS;
use crate::reading::mean_of;
use crate::weights::{Weights, WeightsError};

/// Weights and their packed form.
#[derive(Debug, Clone)]
pub struct Model {
    weights: Weights,
    network: Network,
}

impl Model {
    /// Makes a model of weights.
    #[must_use]
    pub fn new(weights: Weights) -> Model {
        Model { network: Network::new(&weights), weights }
    }

    /// Reads a stored model.
    ///
    /// # Errors
    /// If the file does not hold a network for this version's inputs.
    pub fn from_safetensors(bytes: &[u8]) -> Result<Model, WeightsError> {
        Weights::from_safetensors(bytes).map(Model::new)
    }

    /// The weights.
    #[must_use]
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The packed network.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Feeds a reading's features to the state, and returns what network and trees make of them: the
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
        if !self.network.fits(&state.hidden) {
            state.hidden = self.network.zero_state();
        }
        [ordered(self.network.step(&features[..INPUTS], &mut state.hidden, scratch)), None]
    }
}

/// What a model keeps of a series between readings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ModelState {
    hidden: HiddenState,
}

fn ordered(mut quantiles: [f32; 7]) -> Option<Lanes> {
    quantiles.sort_unstable_by(f32::total_cmp);
    let mut lanes = [0.0; 8];
    lanes[..MEAN].copy_from_slice(&quantiles);
    lanes[MEAN] = mean_of(&quantiles);
    lanes.iter().all(|q| q.is_finite()).then_some(lanes)
}
