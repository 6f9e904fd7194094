//! The arithmetic of a step, written so that the compiler keeps it in vector registers.

use super::arithmetic::{mul_add, sigmoid, sigmoid_tanh, tanh};
use crate::weights::OUTPUTS;

/// Hidden units computed together: a tile.
pub(super) const LANES: usize = 16;

/// Sums that a narrow row is spread over, since each has to wait for its last addition.
const PARTS: usize = 4;

/// Adds bias and weighted rows, of which the bias is the first, to `sums`.
#[inline(always)]
fn accumulate<const FMA: bool, const WIDTH: usize>(
    rows: &[[f32; WIDTH]],
    column: &[f32],
    sums: &mut [f32; WIDTH],
) {
    let Some((bias, rows)) = rows.split_first() else { return };
    let mut own = *sums;
    for (sum, b) in own.iter_mut().zip(bias) {
        *sum += b;
    }
    for (row, &x) in rows.iter().zip(column) {
        for (sum, &w) in own.iter_mut().zip(row) {
            *sum = mul_add::<FMA>(w, x, *sum);
        }
    }
    *sums = own;
}

/// The same for rows so narrow that one sum would be waited for.
#[inline(always)]
fn accumulate_in_parts<const FMA: bool>(rows: &[[f32; LANES]], column: &[f32], sums: &mut [f32; LANES]) {
    let Some((bias, rows)) = rows.split_first() else { return };
    let mut parts = [[0.0; LANES]; PARTS];
    let (fours, rest) = rows.as_chunks::<PARTS>();
    let (columns, last) = column.as_chunks::<PARTS>();
    for (rows, x) in fours.iter().zip(columns) {
        for part in 0..PARTS {
            for lane in 0..LANES {
                parts[part][lane] = mul_add::<FMA>(rows[part][lane], x[part], parts[part][lane]);
            }
        }
    }
    for ((row, &x), part) in rest.iter().zip(last).zip(&mut parts) {
        for lane in 0..LANES {
            part[lane] = mul_add::<FMA>(row[lane], x, part[lane]);
        }
    }
    for lane in 0..LANES {
        sums[lane] += bias[lane] + (parts[0][lane] + parts[1][lane]) + (parts[2][lane] + parts[3][lane]);
    }
}

/// One layer's packed rows and what they are applied to.
pub(super) struct Layer<'a> {
    /// Of each tile in turn: input bias, a row for each input, recurrent bias, a row for each hidden unit.
    pub(super) rows: &'a [f32],
    /// Input.
    pub(super) input: &'a [f32],
    /// The old hidden output.
    pub(super) old: &'a [f32],
}

impl Layer<'_> {
    /// Each tile's rows of the input and of the old hidden output.
    #[inline(always)]
    fn tiles<const WIDTH: usize>(&self) -> impl Iterator<Item = (&[[f32; WIDTH]], &[[f32; WIDTH]])> {
        let inputs = 1 + self.input.len();
        let tiles = self.rows.as_chunks::<WIDTH>().0.chunks_exact(inputs + 1 + self.old.len());
        tiles.map(move |rows| rows.split_at(inputs))
    }

    /// One LSTM layer: `h` and `c` become new.
    #[inline(always)]
    pub(super) fn lstm<const FMA: bool>(&self, h: &mut [f32], c: &mut [f32]) {
        let h = h.as_chunks_mut::<LANES>().0.iter_mut();
        let c = c.as_chunks_mut::<LANES>().0.iter_mut();
        for (((below, before), h), c) in self.tiles::<{ 4 * LANES }>().zip(h).zip(c) {
            let mut gates = [0.0; 4 * LANES];
            accumulate::<FMA, _>(below, self.input, &mut gates);
            accumulate::<FMA, _>(before, self.old, &mut gates);
            // Local arrays, so that nothing can alias and the lanes go through vector registers.
            let (mut new_c, mut new_h) = (*c, [0.0; LANES]);
            for lane in 0..LANES {
                let [input, forget] = [gates[lane], gates[LANES + lane]];
                let [cell, output] = [gates[2 * LANES + lane], gates[3 * LANES + lane]];
                let kept = new_c[lane] * sigmoid::<FMA>(forget);
                new_c[lane] = kept + sigmoid_tanh::<FMA>(input, cell);
                new_h[lane] = sigmoid_tanh::<FMA>(output, new_c[lane]);
            }
            (*c, *h) = (new_c, new_h);
        }
    }

    /// One GRU layer: `h` becomes new.
    #[inline(always)]
    pub(super) fn gru<const FMA: bool>(&self, h: &mut [f32]) {
        let h = h.as_chunks_mut::<LANES>().0.iter_mut();
        for ((below, before), h) in self.tiles::<{ 3 * LANES }>().zip(h) {
            let (mut x, mut u) = ([0.0; 3 * LANES], [0.0; 3 * LANES]);
            accumulate::<FMA, _>(below, self.input, &mut x);
            accumulate::<FMA, _>(before, self.old, &mut u);
            let mut new = *h;
            for lane in 0..LANES {
                let reset = sigmoid::<FMA>(x[lane] + u[lane]);
                let update = sigmoid::<FMA>(x[LANES + lane] + u[LANES + lane]);
                let n = tanh::<FMA>(mul_add::<FMA>(reset, u[2 * LANES + lane], x[2 * LANES + lane]));
                new[lane] = mul_add::<FMA>(update, new[lane] - n, n);
            }
            *h = new;
        }
    }

    /// One layer of an Elman network with tanh, or with relu: `h` becomes new.
    #[inline(always)]
    pub(super) fn elman<const FMA: bool, const RELU: bool>(&self, h: &mut [f32]) {
        let h = h.as_chunks_mut::<LANES>().0.iter_mut();
        for ((below, before), h) in self.tiles::<LANES>().zip(h) {
            let mut sums = [0.0; LANES];
            accumulate_in_parts::<FMA>(below, self.input, &mut sums);
            accumulate_in_parts::<FMA>(before, self.old, &mut sums);
            for sum in &mut sums {
                *sum = match RELU {
                    true if *sum < 0.0 => 0.0,
                    true => *sum,
                    false => tanh::<FMA>(*sum),
                };
            }
            *h = sums;
        }
    }
}

/// The linear head over the last layer's hidden output.
#[inline(always)]
pub(super) fn head<const FMA: bool>(rows: &[[f32; 8]], h: &[f32]) -> [f32; OUTPUTS] {
    let mut sums = [[0.0_f32; 8]; 4];
    let Some((bias, rows)) = rows.split_first() else { return [0.0; OUTPUTS] };
    for (rows, h) in rows.as_chunks::<4>().0.iter().zip(h.as_chunks::<4>().0) {
        for part in 0..4 {
            for lane in 0..8 {
                sums[part][lane] = mul_add::<FMA>(rows[part][lane], h[part], sums[part][lane]);
            }
        }
    }
    let mut out = *bias;
    for lane in 0..8 {
        out[lane] += (sums[0][lane] + sums[1][lane]) + (sums[2][lane] + sums[3][lane]);
    }
    let [out @ .., _] = out;
    out
}
