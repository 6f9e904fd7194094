//! A safetensors file taken apart, to be looked at, or changed and put together again.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use safetensors::{SafeTensors, tensor::TensorView};

pub use safetensors::Dtype;

/// A tensor as it lies in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Type of its values.
    pub dtype: Dtype,
    /// Shape.
    pub shape: Vec<usize>,
    /// Bytes, little-endian, row-major.
    pub data: Vec<u8>,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensors {
    /// The entries of `__metadata__`.
    pub header: HashMap<String, String>,
    /// The tensors, by name.
    pub tensors: HashMap<String, Tensor>,
}

impl Tensors {
    /// Reads a file.
    ///
    /// # Errors
    /// If there is none, or it is no such file.
    pub fn read(path: &str) -> Result<Tensors> {
        let bytes = std::fs::read(path).with_context(|| path.to_owned())?;
        let (_, metadata) = SafeTensors::read_metadata(&bytes)?;
        let tensors = SafeTensors::deserialize(&bytes)?.tensors().into_iter();
        let tensor = |t: TensorView<'_>| Tensor {
            dtype: t.dtype(),
            shape: t.shape().to_vec(),
            data: t.data().to_vec(),
        };
        Ok(Tensors {
            header: metadata.metadata().clone().unwrap_or_default(),
            tensors: tensors.map(|(name, t)| (name, tensor(t))).collect(),
        })
    }

    /// Writes a file.
    ///
    /// # Errors
    /// If a tensor's data is not what its shape says, or the file cannot be written.
    pub fn write(&self, path: &str) -> Result<()> {
        let views = self
            .tensors
            .iter()
            .map(|(name, t)| Ok((name, TensorView::new(t.dtype, t.shape.clone(), &t.data)?)))
            .collect::<Result<Vec<_>>>()?;
        Ok(std::fs::write(path, safetensors::serialize(views, Some(self.header.clone()))?)?)
    }

    /// Shape of a tensor.
    ///
    /// # Errors
    /// If it is missing.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(&self.tensor(name)?.shape)
    }

    /// Values of a tensor of 32-bit floats.
    ///
    /// # Errors
    /// If it is missing, or of another type.
    pub fn floats(&self, name: &str) -> Result<Vec<f32>> {
        let Tensor { dtype, data, .. } = self.tensor(name)?;
        ensure!(*dtype == Dtype::F32, "{name} is {dtype:?}");
        Ok(data.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect())
    }

    /// Values of a tensor of 64-bit whole numbers.
    ///
    /// # Errors
    /// If it is missing, or of another type.
    pub fn integers(&self, name: &str) -> Result<Vec<i64>> {
        let Tensor { dtype, data, .. } = self.tensor(name)?;
        ensure!(*dtype == Dtype::I64, "{name} is {dtype:?}");
        Ok(data.as_chunks().0.iter().map(|x| i64::from_le_bytes(*x)).collect())
    }

    fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.tensors.get(name).with_context(|| format!("no tensor {name}"))
    }
}
