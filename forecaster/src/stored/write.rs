//! Writing.

use std::collections::HashMap;

use safetensors::{Dtype, tensor::TensorView};

use super::{SCALING, StoredError, prefix};
use crate::features::{INPUT_NAMES, SHAPE_NAME};
use crate::model::Model;
use crate::trees::Forest;

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
        let mut header: HashMap<String, String> = [
            ("cell", sizes.cell.name().to_owned()),
            ("networks", self.weights().count().to_string()),
            ("hidden", sizes.hidden.to_string()),
            ("layers", sizes.layers.to_string()),
            ("inputs", INPUT_NAMES.join(",")),
            ("scaling", SCALING.to_owned()),
            ("shape", SHAPE_NAME.to_owned()),
            ("trained_until", self.trained_until().0.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        if let Some(nonlinearity) = sizes.cell.nonlinearity() {
            header.insert("nonlinearity".to_owned(), nonlinearity.to_owned());
        }
        Ok(safetensors::serialize(views, Some(header))?)
    }
}
