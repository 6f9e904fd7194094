//! The parameters of a recurrent network, in PyTorch's layout and under PyTorch's names.
//!
//! `rnn.weight_ih_l{k}` is (4·hidden × inputs), `rnn.weight_hh_l{k}` (4·hidden × hidden), both
//! row-major with the gates in the order input, forget, cell, output; `head.weight` is
//! (7 × hidden) and gives one row to each level of [`LEVELS`](crate::LEVELS).

use std::collections::HashMap;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use thiserror::Error;

use crate::features::INPUT_NAMES;

/// Outputs of the head: one a quantile level.
pub const OUTPUTS: usize = 7;
/// Gates of an LSTM cell.
pub const GATES: usize = 4;

/// Sizes of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Inputs of the first layer.
    pub inputs: usize,
    /// Hidden units of each layer.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
}

impl Sizes {
    /// Inputs of a layer.
    #[must_use]
    pub fn inputs_of(&self, layer: usize) -> usize {
        if layer == 0 { self.inputs } else { self.hidden }
    }
}

/// Parameters of one LSTM layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Input weights, (4·hidden × inputs).
    pub weight_ih: Vec<f32>,
    /// Recurrent weights, (4·hidden × hidden).
    pub weight_hh: Vec<f32>,
    /// Input bias, 4·hidden.
    pub bias_ih: Vec<f32>,
    /// Recurrent bias, 4·hidden.
    pub bias_hh: Vec<f32>,
}

/// All parameters of a network.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    /// Sizes.
    pub sizes: Sizes,
    /// Layers from the input up.
    pub layers: Vec<Layer>,
    /// Head weights, (7 × hidden).
    pub head_weight: Vec<f32>,
    /// Head bias, 7.
    pub head_bias: Vec<f32>,
}

/// Why a stored model cannot be used.
#[derive(Debug, Error)]
pub enum WeightsError {
    /// Not a safetensors file.
    #[error("not a safetensors file: {0}")]
    Format(#[from] safetensors::SafeTensorError),
    /// A header entry is absent or unreadable.
    #[error("header entry `{0}` is missing or unreadable")]
    Header(&'static str),
    /// A tensor is absent.
    #[error("tensor `{0}` is missing")]
    Missing(String),
    /// A tensor has another shape or type than the header says.
    #[error("tensor `{name}` is {found}, expected f32 of shape {expected:?}")]
    Shape {
        /// Name of the tensor.
        name: String,
        /// What was found.
        found: String,
        /// What the header implies.
        expected: Vec<usize>,
    },
    /// A parameter is NaN or infinite.
    #[error("tensor `{0}` holds a value that is not finite")]
    NotFinite(String),
    /// Made for other inputs than this version computes.
    #[error("made for the inputs [{0}], this version computes [{1}]")]
    Inputs(String, String),
}

impl Weights {
    /// Fresh parameters as PyTorch draws them: uniform in ±1/√hidden.
    #[must_use]
    pub fn random(sizes: Sizes, seed: u64) -> Weights {
        let mut rng = StdRng::seed_from_u64(seed);
        let bound = 1.0 / (sizes.hidden as f32).sqrt();
        let mut draw = |n: usize| (0..n).map(|_| rng.random_range(-bound..bound)).collect::<Vec<f32>>();
        let rows = GATES * sizes.hidden;
        let layers = (0..sizes.layers)
            .map(|k| Layer {
                weight_ih: draw(rows * sizes.inputs_of(k)),
                weight_hh: draw(rows * sizes.hidden),
                bias_ih: draw(rows),
                bias_hh: draw(rows),
            })
            .collect();
        Weights { sizes, layers, head_weight: draw(OUTPUTS * sizes.hidden), head_bias: draw(OUTPUTS) }
    }

    /// Every parameter with its PyTorch name and shape, in a fixed order.
    pub fn named(&self) -> impl Iterator<Item = (String, Vec<usize>, &Vec<f32>)> {
        let sizes = self.sizes;
        let rows = GATES * sizes.hidden;
        self.layers
            .iter()
            .enumerate()
            .flat_map(move |(k, layer)| {
                [
                    (format!("rnn.weight_ih_l{k}"), vec![rows, sizes.inputs_of(k)], &layer.weight_ih),
                    (format!("rnn.weight_hh_l{k}"), vec![rows, sizes.hidden], &layer.weight_hh),
                    (format!("rnn.bias_ih_l{k}"), vec![rows], &layer.bias_ih),
                    (format!("rnn.bias_hh_l{k}"), vec![rows], &layer.bias_hh),
                ]
            })
            .chain([
                ("head.weight".into(), vec![OUTPUTS, sizes.hidden], &self.head_weight),
                ("head.bias".into(), vec![OUTPUTS], &self.head_bias),
            ])
    }

    /// The same parameters, to change, in the order of [`Weights::named`].
    pub fn tensors_mut(&mut self) -> impl Iterator<Item = &mut Vec<f32>> {
        self.layers
            .iter_mut()
            .flat_map(|l| [&mut l.weight_ih, &mut l.weight_hh, &mut l.bias_ih, &mut l.bias_hh])
            .chain([&mut self.head_weight, &mut self.head_bias])
    }

    /// The parameters as a safetensors file, with the sizes and inputs in its header.
    ///
    /// # Errors
    /// If the file cannot be encoded.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, WeightsError> {
        let named: Vec<_> = self.named().collect();
        let bytes: Vec<Vec<u8>> =
            named.iter().map(|(_, _, v)| v.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
        let views = named
            .iter()
            .zip(&bytes)
            .map(|((name, shape, _), data)| {
                Ok((name.clone(), TensorView::new(Dtype::F32, shape.clone(), data)?))
            })
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
        let header = HashMap::from([
            ("cell".to_owned(), "lstm".to_owned()),
            ("hidden".to_owned(), self.sizes.hidden.to_string()),
            ("layers".to_owned(), self.sizes.layers.to_string()),
            ("inputs".to_owned(), INPUT_NAMES.join(",")),
        ]);
        Ok(safetensors::serialize(views, Some(header))?)
    }

    /// Reads what [`Weights::to_safetensors`] writes.
    ///
    /// # Errors
    /// Says which entry or tensor is missing, misshapen or not finite.
    pub fn from_safetensors(bytes: &[u8]) -> Result<Weights, WeightsError> {
        let (_, header) = SafeTensors::read_metadata(bytes)?;
        let header = header.metadata().clone().unwrap_or_default();
        let number = |key: &'static str| {
            header
                .get(key)
                .and_then(|v| v.parse::<usize>().ok())
                .filter(|n| *n > 0)
                .ok_or(WeightsError::Header(key))
        };
        if header.get("cell").map(String::as_str) != Some("lstm") {
            return Err(WeightsError::Header("cell"));
        }
        let inputs = header.get("inputs").ok_or(WeightsError::Header("inputs"))?;
        if *inputs != INPUT_NAMES.join(",") {
            return Err(WeightsError::Inputs(inputs.clone(), INPUT_NAMES.join(",")));
        }
        let sizes = Sizes { inputs: INPUT_NAMES.len(), hidden: number("hidden")?, layers: number("layers")? };
        let file = SafeTensors::deserialize(bytes)?;
        let mut weights = Weights::random(sizes, 0);
        let expected: Vec<_> = weights.named().map(|(name, shape, _)| (name, shape)).collect();
        for ((name, shape), into) in expected.into_iter().zip(weights.tensors_mut()) {
            let view = file.tensor(&name).map_err(|_| WeightsError::Missing(name.clone()))?;
            if view.dtype() != Dtype::F32 || view.shape() != shape {
                let found = format!("{:?} of shape {:?}", view.dtype(), view.shape());
                return Err(WeightsError::Shape { name, found, expected: shape });
            }
            for (to, from) in into.iter_mut().zip(view.data().as_chunks::<4>().0) {
                *to = f32::from_le_bytes(*from);
            }
            if into.iter().any(|x| !x.is_finite()) {
                return Err(WeightsError::NotFinite(name));
            }
        }
        Ok(weights)
    }
}
