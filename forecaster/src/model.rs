//! A trained network, ready for streaming.

use crate::features::INPUTS;
use crate::kernel::{HiddenState, Network, Scratch};
use crate::weights::{OUTPUTS, Weights, WeightsError};

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

    /// Feeds a reading's inputs to a hidden state, and returns the quantiles of the next difference
    /// in units of the series' scale, ordered (monotone rearrangement: Chernozhukov, Fernández-Val
    /// & Galichon, Econometrica 78, 2010). None if the network's output is not finite.
    ///
    /// A state of another network's size starts from zero.
    pub fn step(
        &self,
        inputs: &[f32; INPUTS],
        state: &mut HiddenState,
        scratch: &mut Scratch,
    ) -> Option<[f32; OUTPUTS]> {
        if !self.network.fits(state) {
            *state = self.network.zero_state();
        }
        let mut out = self.network.step(inputs, state, scratch);
        out.sort_unstable_by(f32::total_cmp);
        out.iter().all(|q| q.is_finite()).then_some(out)
    }
}
