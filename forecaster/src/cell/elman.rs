//! The cell of `torch.nn.RNN` (Elman 1990): h' = tanh(W x + b + U h + d), or relu in tanh's place.

use dfdx::tensor::{Cpu, Tape};

use super::Matrix;

/// New hidden output, batch × hidden.
pub(super) fn tanh<T: Tape<f32, Cpu>>(gates: Matrix<T>) -> Matrix<T> {
    gates.tanh()
}

/// New hidden output, batch × hidden.
pub(super) fn relu<T: Tape<f32, Cpu>>(gates: Matrix<T>) -> Matrix<T> {
    gates.relu()
}
