//! A model as a file: [safetensors](https://github.com/huggingface/safetensors), all tensors `F32`, under
//! PyTorch's names and in its layout, so that weights go both ways between Vidente and
//! `torch.nn.LSTM`, `GRU` and `RNN`.
//!
//! # Tensors
//! h is the number of hidden units; g of gates: 4 (input, forget, cell, output) for `lstm`, 3 (reset,
//! update, new) for `gru`, 1 for `rnn`; i of inputs. Shapes are row-major, k counts layers from 0.
//!
//! | name | shape |
//! |---|---|
//! | `rnn.weight_ih_l{k}` | g·h × i for k = 0, g·h × h above |
//! | `rnn.weight_hh_l{k}` | g·h × h |
//! | `rnn.bias_ih_l{k}`, `rnn.bias_hh_l{k}` | g·h |
//! | `head.weight` | 7 × h: a row for each of the levels 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95 |
//! | `head.bias` | 7 |
//!
//! So a module with a `torch.nn.LSTM` as `rnn` and a `torch.nn.Linear` as `head` has its `state_dict()`
//! written as it is. Tensors of a second network, which is weighed beside the first, have `2.` before their
//! names. A forest is `trees.feature`, `trees.threshold`, `trees.leaves` and
//! `trees.bias` (see [`crate::trees`]). There may be no other tensor, and no value that is not finite.
//!
//! # Header (`__metadata__`), all values text
//!
//! | entry | value | if absent |
//! |---|---|---|
//! | `cell` | `lstm`, `gru` or `rnn` | an error |
//! | `nonlinearity` | `tanh` or `relu`; with `cell` = `rnn` only | `tanh` |
//! | `hidden`, `layers` | h, number of layers | an error |
//! | `inputs` | names of the columns of `rnn.weight_ih_l0`, in order, with commas between: any of [`INPUT_NAMES`](crate::features::INPUT_NAMES), none twice | an error |
//! | `scaling` | `difference/scale`: the outputs are the seven quantiles of the next difference (next value minus last value) in units of the series' own scale | the same |
//! | `networks` | 1 or 2 | 1 |
//! | `trained_until` | time of the newest reading learned from, µs since 1970 | not known |
//! | `shape` | names what only a forest sees of the readings | an error, if there is a forest |
//!
//! A model made elsewhere may use some of the inputs only: those it does not name get zero weights. What
//! is written always names all.

mod read;
mod write;

use thiserror::Error;

use crate::trees::ForestError;

/// What the outputs are, as the header calls it.
pub(crate) const SCALING: &str = "difference/scale";

/// Why a stored model cannot be used.
#[derive(Debug, Error)]
pub enum StoredError {
    /// Not a safetensors file.
    #[error("not a safetensors file: {0}")]
    Format(#[from] safetensors::SafeTensorError),
    /// A header entry is absent or unreadable.
    #[error("header entry `{0}` is missing, unreadable or out of range")]
    Header(&'static str),
    /// No such cell.
    #[error("header entries `cell` = \"{cell}\", `nonlinearity` = {nonlinearity:?}: {CELLS}")]
    Cell {
        /// The cell's name.
        cell: String,
        /// Its nonlinearity.
        nonlinearity: Option<String>,
    },
    /// The outputs mean something else.
    #[error("header entry `scaling` is \"{0}\", expected \"{SCALING}\"")]
    Scaling(String),
    /// A tensor is absent.
    #[error("tensor `{0}` is missing")]
    Missing(String),
    /// Tensors that no part of a model has.
    #[error("tensors `{0}` belong to no part of this model; leave them out")]
    Unknown(String),
    /// A tensor has another shape or type than the header says.
    #[error("tensor `{name}` is {found}, expected F32 of shape {expected:?}")]
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
    /// Inputs that this version does not compute.
    #[error("header entry `inputs` names {0}, which this version does not compute; it computes {1}")]
    Inputs(String, String),
    /// An input that is named twice.
    #[error("header entry `inputs` names `{0}` twice")]
    Repeated(String),
}

const CELLS: &str = "write lstm, gru or rnn, and a nonlinearity, tanh or relu, for rnn only";

/// What stands before the names of a network's tensors.
fn prefix(network: usize) -> String {
    if network == 0 { String::new() } else { format!("{}.", network + 1) }
}
