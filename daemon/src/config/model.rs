//! `[model]`: kind and size of the recurrent network.

use serde::Deserialize;

/// `[model]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Model {
    /// Kind of recurrent cell.
    pub cell: Cell,
    /// What an `rnn` puts its sums through; tanh unless given.
    pub nonlinearity: Option<Nonlinearity>,
    /// Hidden units of a layer.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
}

impl Default for Model {
    fn default() -> Self {
        Model { cell: Cell::Lstm, nonlinearity: None, hidden: 32, layers: 1 }
    }
}

impl Model {
    /// The forecaster's kind of cell.
    #[must_use]
    pub fn kind(&self) -> forecaster::weights::Cell {
        match (self.cell, self.nonlinearity) {
            (Cell::Lstm, _) => forecaster::weights::Cell::Lstm,
            (Cell::Gru, _) => forecaster::weights::Cell::Gru,
            (Cell::Rnn, Some(Nonlinearity::Relu)) => forecaster::weights::Cell::Relu,
            (Cell::Rnn, _) => forecaster::weights::Cell::Tanh,
        }
    }
}

/// Recurrent cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Cell {
    /// Long short-term memory.
    Lstm,
    /// Gated recurrent unit.
    Gru,
    /// Elman network.
    Rnn,
}

impl TryFrom<String> for Cell {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "lstm" => Ok(Cell::Lstm),
            "gru" => Ok(Cell::Gru),
            "rnn" => Ok(Cell::Rnn),
            _ => Err(format!("\"{text}\" is no cell; write \"lstm\", \"gru\" or \"rnn\"")),
        }
    }
}

/// Nonlinearities of an Elman network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Nonlinearity {
    /// Hyperbolic tangent.
    Tanh,
    /// The positive part.
    Relu,
}

impl TryFrom<String> for Nonlinearity {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "tanh" => Ok(Nonlinearity::Tanh),
            "relu" => Ok(Nonlinearity::Relu),
            _ => Err(format!("\"{text}\" is no nonlinearity; write \"tanh\" or \"relu\"")),
        }
    }
}
