//! The cell of `torch.nn.GRU` (Cho et al. 2014, with the reset gate behind the recurrent product):
//! r, z = σ(W x + b + U h + d), n = tanh(W x + b + r·(U h + d)), h' = (1 − z)·n + z·h.

use dfdx::shapes::HasShape;
use dfdx::tensor::{Cpu, SplitTape, Tape, WithEmptyTape};

use super::{Matrix, gate, with_tape};

/// New hidden output, batch × hidden. `input` and `recurrent` are batch × 3·hidden.
pub(super) fn step<T: Tape<f32, Cpu>>(input: Matrix<T>, recurrent: Matrix<T>, h: Matrix<T>) -> Matrix<T> {
    let hidden = h.shape().1;
    let reset = (gate(&input, 0, hidden) + gate(&recurrent, 0, hidden)).sigmoid();
    let update = (gate(&input, 1, hidden) + gate(&recurrent, 1, hidden)).sigmoid();
    let new = (gate(&input, 2, hidden) + reset * gate(&recurrent, 2, hidden)).tanh();
    let tape = input.split_tape().1.merge(recurrent.split_tape().1);
    with_tape(new.with_empty_tape() + update * (h - new), tape)
}
