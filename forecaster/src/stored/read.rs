//! Reading, with every entry and tensor checked.

use std::collections::{HashMap, HashSet};

use safetensors::{Dtype, SafeTensors};

use super::{SCALING, StoredError, prefix};
use crate::features::{FEATURES, INPUT_NAMES, INPUTS, SHAPE_NAME};
use crate::model::{Model, NETWORKS};
use crate::reading::Timestamp;
use crate::trees::{Forest, TENSOR_NAMES};
use crate::weights::{Cell, Sizes, Weights};

/// Bounds on what a header may say, so that sizes made of it fit into memory.
const MOST_HIDDEN: usize = 1024;
const MOST_LAYERS: usize = 4;

impl Model {
    /// Reads a file as the documentation of the module `stored` describes it.
    ///
    /// # Errors
    /// Says which entry or tensor is missing, misshapen, unknown or not finite.
    pub fn from_safetensors(bytes: &[u8]) -> Result<Model, StoredError> {
        let (_, metadata) = SafeTensors::read_metadata(bytes)?;
        let header = Header(metadata.metadata().clone().unwrap_or_default());
        if let Some(scaling) = header.0.get("scaling").filter(|s| *s != SCALING) {
            return Err(StoredError::Scaling(scaling.clone()));
        }
        let columns = header.columns()?;
        let networks = header.number("networks", NETWORKS, Some(1))?;
        let sizes = Sizes {
            cell: header.cell()?,
            inputs: columns.len(),
            hidden: header.number("hidden", MOST_HIDDEN, None)?,
            layers: header.number("layers", MOST_LAYERS, None)?,
        };
        let until = match header.0.get("trained_until") {
            Some(text) => text.parse().map_err(|_| StoredError::Header("trained_until"))?,
            None => i64::MIN,
        };
        let mut file = File { tensors: SafeTensors::deserialize(bytes)?, read: HashSet::new() };
        let mut weights = Vec::new();
        for network in 0..networks {
            let shapes = sizes.shapes().into_iter();
            let tensors = shapes.map(|(name, shape)| file.tensor(prefix(network) + &name, &shape));
            let tensors = tensors.collect::<Result<Vec<_>, _>>()?;
            weights.push(spread(Weights::from_tensors(sizes, tensors), &columns));
        }
        let forest = file.forest()?;
        file.nothing_else()?;
        if forest.is_some() && header.0.get("shape").map(String::as_str) != Some(SHAPE_NAME) {
            return Err(StoredError::Header("shape"));
        }
        Ok(Model::new(weights).with_forest(forest).with_trained_until(Timestamp(until)))
    }
}

/// The file's header entries.
struct Header(HashMap<String, String>);

impl Header {
    /// A number from 1 to `most`.
    fn number(&self, key: &'static str, most: usize, default: Option<usize>) -> Result<usize, StoredError> {
        let number = match self.0.get(key) {
            Some(text) => text.parse().ok(),
            None => default,
        };
        number.filter(|n| (1..=most).contains(n)).ok_or(StoredError::Header(key))
    }

    fn cell(&self) -> Result<Cell, StoredError> {
        let cell = self.0.get("cell").ok_or(StoredError::Header("cell"))?;
        let nonlinearity = self.0.get("nonlinearity");
        Cell::named(cell, nonlinearity.map(String::as_str))
            .ok_or_else(|| StoredError::Cell { cell: cell.clone(), nonlinearity: nonlinearity.cloned() })
    }

    /// Which input each column of the first layer is for.
    fn columns(&self) -> Result<Vec<usize>, StoredError> {
        let names = self.0.get("inputs").ok_or(StoredError::Header("inputs"))?;
        let mut columns = Vec::new();
        let mut unknown = Vec::new();
        for name in names.split(',').map(str::trim) {
            match INPUT_NAMES.iter().position(|known| *known == name) {
                Some(column) if columns.contains(&column) => {
                    return Err(StoredError::Repeated(name.to_owned()));
                }
                Some(column) => columns.push(column),
                None => unknown.push(format!("`{name}`")),
            }
        }
        if unknown.is_empty() {
            Ok(columns)
        } else {
            Err(StoredError::Inputs(unknown.join(", "), INPUT_NAMES.join(", ")))
        }
    }
}

/// The file's tensors, and which of them have been read.
struct File<'a> {
    tensors: SafeTensors<'a>,
    read: HashSet<String>,
}

impl File<'_> {
    /// A tensor of `f32`, checked.
    fn tensor(&mut self, name: String, shape: &[usize]) -> Result<Vec<f32>, StoredError> {
        let Ok(view) = self.tensors.tensor(&name) else { return Err(StoredError::Missing(name)) };
        if view.dtype() != Dtype::F32 || view.shape() != shape {
            let found = format!("{:?} of shape {:?}", view.dtype(), view.shape());
            return Err(StoredError::Shape { name, found, expected: shape.to_vec() });
        }
        let values: Vec<f32> =
            view.data().as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
        if !values.iter().all(|x| x.is_finite()) {
            return Err(StoredError::NotFinite(name));
        }
        self.read.insert(name);
        Ok(values)
    }

    /// The forest; none if the file holds none.
    fn forest(&mut self) -> Result<Option<Forest>, StoredError> {
        if !self.tensors.names().iter().any(|name| TENSOR_NAMES.contains(name)) {
            return Ok(None);
        }
        let mut tensors = Vec::new();
        for name in TENSOR_NAMES {
            let view = self.tensors.tensor(name).map_err(|_| StoredError::Missing(name.to_owned()))?;
            let shape = view.shape().to_vec();
            tensors.push((name, shape.clone(), self.tensor(name.to_owned(), &shape)?));
        }
        let tensors = tensors.try_into().map_err(|_| StoredError::Header("trees"))?;
        Ok(Some(Forest::from_tensors(&tensors, FEATURES)?))
    }

    /// That every tensor has been read.
    fn nothing_else(&self) -> Result<(), StoredError> {
        let mut unknown: Vec<_> =
            self.tensors.names().into_iter().filter(|name| !self.read.contains(*name)).collect();
        unknown.sort_unstable();
        if unknown.is_empty() { Ok(()) } else { Err(StoredError::Unknown(unknown.join("`, `"))) }
    }
}

/// Weights for all inputs of those for some, zero where there were none.
fn spread(mut weights: Weights, columns: &[usize]) -> Weights {
    if let Some(first) = weights.layers.first_mut() {
        let mut all = vec![0.0; weights.sizes.rows() * INPUTS];
        for (to, from) in all.chunks_exact_mut(INPUTS).zip(first.weight_ih.chunks_exact(columns.len())) {
            for (column, weight) in columns.iter().zip(from) {
                to[*column] = *weight;
            }
        }
        first.weight_ih = all;
    }
    weights.sizes.inputs = INPUTS;
    weights
}
