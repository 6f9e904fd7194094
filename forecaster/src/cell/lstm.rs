//! The cell of `torch.nn.LSTM` (Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000):
//! i, f, o = σ(W x + b + U h + d), g = tanh(…), c' = f·c + i·g, h' = o·tanh(c').

use dfdx::shapes::HasShape;
use dfdx::tensor::{Cpu, SplitTape, Tape, WithEmptyTape};

use super::{Matrix, gate, with_tape};

/// New hidden output, batch × hidden; `c` becomes new. `gates` is batch × 4·hidden.
pub(super) fn step<T: Tape<f32, Cpu>>(gates: Matrix<T>, c: &mut Matrix<T>) -> Matrix<T> {
    let hidden = c.shape().1;
    let (input, forget) = (gate(&gates, 0, hidden).sigmoid(), gate(&gates, 1, hidden).sigmoid());
    let (cell, output) = (gate(&gates, 2, hidden).tanh(), gate(&gates, 3, hidden).sigmoid());
    let (_, tape) = gates.split_tape();
    let next = forget * c.with_empty_tape() + input * cell;
    *c = next.with_empty_tape();
    with_tape(output * next.tanh(), tape)
}
