//! A model as a file: safetensors with PyTorch's names.
//!
//! The first network's tensors are `rnn.weight_ih_l0` … `head.bias` (see [`crate::weights`]); those of a
//! second one have `2.` before them, and a forest's are `trees.*`. The
//! header holds cell, sizes, the names of the inputs, and up to when (microseconds since 1970) it was
//! trained.

use std::collections::HashMap;

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use thiserror::Error;

use crate::features::{FEATURES, INPUT_NAMES, SHAPE_NAME};
use crate::model::{Model, NETWORKS};
use crate::reading::Timestamp;
use crate::trees::{Forest, ForestError, TENSOR_NAMES};
use crate::weights::{Sizes, Weights};

/// Why a stored model cannot be used.
#[derive(Debug, Error)]
pub enum StoredError {
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
    /// Its trees are none.
    #[error(transparent)]
    Forest(#[from] ForestError),
    /// Made for other inputs than this version computes.
    #[error("made for the inputs [{0}], this version computes [{1}]")]
    Inputs(String, String),
}

/// What stands before the names of a network's tensors.
fn prefix(network: usize) -> String {
    if network == 0 { String::new() } else { format!("{}.", network + 1) }
}

impl Model {
    /// The model as a safetensors file.
    ///
    /// # Errors
    /// If the file cannot be encoded.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, StoredError> {
        let mut named: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
        for (network, weights) in self.weights().enumerate() {
            named.extend(weights.named().map(|(name, shape, values)| {
                (prefix(network) + &name, shape, values.iter().flat_map(|x| x.to_le_bytes()).collect())
            }));
        }
        for (name, shape, values) in self.forest().map(Forest::to_tensors).into_iter().flatten() {
            named.push((name.to_owned(), shape, values.iter().flat_map(|x| x.to_le_bytes()).collect()));
        }
        let views = named
            .iter()
            .map(|(name, shape, data)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), data)?)))
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
        let sizes = self.sizes();
        let header = HashMap::from([
            ("cell".to_owned(), "lstm".to_owned()),
            ("networks".to_owned(), self.weights().count().to_string()),
            ("hidden".to_owned(), sizes.hidden.to_string()),
            ("layers".to_owned(), sizes.layers.to_string()),
            ("inputs".to_owned(), INPUT_NAMES.join(",")),
            ("shape".to_owned(), SHAPE_NAME.to_owned()),
            ("trained_until".to_owned(), self.trained_until().0.to_string()),
        ]);
        Ok(safetensors::serialize(views, Some(header))?)
    }

    /// Reads what [`Model::to_safetensors`] writes.
    ///
    /// # Errors
    /// Says which entry or tensor is missing, misshapen or not finite.
    pub fn from_safetensors(bytes: &[u8]) -> Result<Model, StoredError> {
        let (_, header) = SafeTensors::read_metadata(bytes)?;
        let header = header.metadata().clone().unwrap_or_default();
        let number = |key: &'static str| {
            let number = header.get(key).and_then(|v| v.parse::<usize>().ok());
            number.filter(|n| *n > 0).ok_or(StoredError::Header(key))
        };
        if header.get("cell").map(String::as_str) != Some("lstm") {
            return Err(StoredError::Header("cell"));
        }
        let inputs = header.get("inputs").ok_or(StoredError::Header("inputs"))?;
        if *inputs != INPUT_NAMES.join(",") {
            return Err(StoredError::Inputs(inputs.clone(), INPUT_NAMES.join(",")));
        }
        let networks = if header.contains_key("networks") { number("networks")? } else { 1 };
        if networks > NETWORKS {
            return Err(StoredError::Header("networks"));
        }
        let sizes = Sizes { inputs: INPUT_NAMES.len(), hidden: number("hidden")?, layers: number("layers")? };
        let file = SafeTensors::deserialize(bytes)?;
        let weights = (0..networks).map(|network| {
            let mut weights = Weights::random(sizes, 0);
            let shapes = weights.shapes();
            for ((name, shape), into) in shapes.into_iter().zip(weights.tensors_mut()) {
                *into = tensor(&file, prefix(network) + &name, &shape)?;
            }
            Ok(weights)
        });
        let until = match header.get("trained_until") {
            Some(text) => text.parse().map_err(|_| StoredError::Header("trained_until"))?,
            None => i64::MIN,
        };
        let model = Model::new(weights.collect::<Result<Vec<_>, StoredError>>()?);
        let forest = forest(&file)?;
        if forest.is_some() && header.get("shape").map(String::as_str) != Some(SHAPE_NAME) {
            return Err(StoredError::Header("shape"));
        }
        Ok(model.with_forest(forest).with_trained_until(Timestamp(until)))
    }
}

/// The forest in a file; none if it holds none.
fn forest(file: &SafeTensors<'_>) -> Result<Option<Forest>, StoredError> {
    if !file.names().iter().any(|name| TENSOR_NAMES.contains(name)) {
        return Ok(None);
    }
    let mut tensors = Vec::new();
    for name in TENSOR_NAMES {
        let shape = file.tensor(name).map_err(|_| StoredError::Missing(name.to_owned()))?.shape().to_vec();
        tensors.push((name, shape.clone(), tensor(file, name.to_owned(), &shape)?));
    }
    let tensors = tensors.try_into().map_err(|_| StoredError::Header("trees"))?;
    Ok(Some(Forest::from_tensors(&tensors, FEATURES)?))
}

/// A tensor of `f32`, checked.
fn tensor(file: &SafeTensors<'_>, name: String, shape: &[usize]) -> Result<Vec<f32>, StoredError> {
    let Ok(view) = file.tensor(&name) else { return Err(StoredError::Missing(name)) };
    if view.dtype() != Dtype::F32 || view.shape() != shape {
        let found = format!("{:?} of shape {:?}", view.dtype(), view.shape());
        return Err(StoredError::Shape { name, found, expected: shape.to_vec() });
    }
    let values: Vec<f32> = view.data().as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
    if values.iter().all(|x| x.is_finite()) { Ok(values) } else { Err(StoredError::NotFinite(name)) }
}
