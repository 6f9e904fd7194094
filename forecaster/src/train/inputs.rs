//! What a network sees of readings, as a file: to train one elsewhere.

use std::collections::HashMap;

use safetensors::{Dtype, tensor::TensorView};

use super::TrainingSet;
use crate::features::{INPUT_NAMES, INPUTS};
use crate::reading::{LEVELS, Reading};
use crate::stored::{SCALING, StoredError};

/// A series' readings, in order of time.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// Name.
    pub name: String,
    /// Readings.
    pub readings: Vec<Reading>,
}

/// Inputs and targets of some series, as safetensors. Series number i (from 0) has the tensors
///
/// - `series.{i}.inputs`, `f32`, readings × inputs: what a network is fed with each reading,
/// - `series.{i}.targets`, `f32`, readings: the difference to the next reading in units of the series'
///   scale, bounded by ±30; NaN where nothing is to be learned (at the start, before a gap, at the end),
/// - `series.{i}.time`, `i64`, readings: microseconds since 1970;
///
/// and the header holds `series` (a JSON array of names), `inputs` (names, with commas between), `scaling`
/// and `levels` (of the quantiles that the head is to give). A series too short to learn from is left out.
///
/// Returns the file and how many series are in it.
///
/// # Errors
/// If the file cannot be encoded.
pub fn inputs_file(histories: &[Named], interval: Option<i64>) -> Result<(Vec<u8>, usize), StoredError> {
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut names = Vec::new();
    for Named { name, readings } in histories {
        let mut set = TrainingSet::default();
        set.add(readings, interval);
        let Some((inputs, targets)) = set.rows_of_last() else { continue };
        let (i, rows) = (names.len(), readings.len());
        let bytes = |values: &mut dyn Iterator<Item = f32>| values.flat_map(f32::to_le_bytes).collect();
        let inputs = bytes(&mut inputs.iter().flat_map(|row| row[..INPUTS].iter().copied()));
        tensors.push((format!("series.{i}.inputs"), Dtype::F32, vec![rows, INPUTS], inputs));
        let targets = bytes(&mut targets.iter().copied());
        tensors.push((format!("series.{i}.targets"), Dtype::F32, vec![rows], targets));
        let times = readings.iter().flat_map(|r| r.time.0.to_le_bytes()).collect();
        tensors.push((format!("series.{i}.time"), Dtype::I64, vec![rows], times));
        names.push(name.as_str());
    }
    let count = names.len();
    let header = HashMap::from([
        ("series".to_owned(), serde_json::Value::from(names).to_string()),
        ("inputs".to_owned(), INPUT_NAMES.join(",")),
        ("scaling".to_owned(), SCALING.to_owned()),
        ("levels".to_owned(), LEVELS.map(|l| l.to_string()).join(",")),
    ]);
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, data)| Ok((name, TensorView::new(*dtype, shape.clone(), data)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    Ok((safetensors::serialize(views, Some(header))?, count))
}
