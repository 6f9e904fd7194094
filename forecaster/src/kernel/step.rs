//! The arithmetic of a step, written so that the compiler keeps it in vector registers.

use crate::weights::{GATES, OUTPUTS};

/// Hidden units computed together.
pub(super) const LANES: usize = 16;
/// Floats in a packed row: the four gates of one tile.
pub(super) const TILE: usize = GATES * LANES;

#[inline(always)]
fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    // `mul_add` without the instruction would call a library function for each element.
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Bounds to ±40, where sigmoid and tanh are saturated in `f32` and products of two exponentials
/// still finite. One instruction a side: `f32::min` has to mind NaN.
#[inline(always)]
fn bound(x: f32) -> f32 {
    let x = if x < 40.0 { x } else { 40.0 };
    if x > -40.0 { x } else { -40.0 }
}

/// e^x within 2 units in the last place on ±40, saturating outside (Cephes `expf`: argument
/// reduction by ln 2 in two parts and a polynomial of degree 5).
#[inline(always)]
fn exp<const FMA: bool>(x: f32) -> f32 {
    // 1.5 · 2^23: adding it rounds to an integer, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let x = bound(x);
    let rounded = mul_add::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = mul_add::<FMA>(n, 2.121_944_4e-4, mul_add::<FMA>(n, -0.693_359_4, x));
    let p = mul_add::<FMA>(1.987_569_1e-4, r, 1.398_199_9e-3);
    let p = mul_add::<FMA>(p, r, 8.333_452e-3);
    let p = mul_add::<FMA>(p, r, 4.166_579_6e-2);
    let p = mul_add::<FMA>(p, r, 1.666_666_5e-1);
    let p = mul_add::<FMA>(p, r, 0.5);
    let p = mul_add::<FMA>(p, r * r, r) + 1.0;
    p * f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23))
}

/// σ(a) · tanh(b), with a single division.
#[inline(always)]
fn sigmoid_tanh<const FMA: bool>(a: f32, b: f32) -> f32 {
    let (a, b) = (exp::<FMA>(-a), exp::<FMA>(-2.0 * b));
    (1.0 - b) / ((1.0 + a) * (1.0 + b))
}

/// One LSTM layer: `column` is the input followed by the old hidden output; `h` and `c` become new.
#[inline(always)]
pub(super) fn layer_step<const FMA: bool>(
    tiles: &[[f32; TILE]],
    column: &[f32],
    h: &mut [f32],
    c: &mut [f32],
) {
    let h = h.as_chunks_mut::<LANES>().0.iter_mut();
    let c = c.as_chunks_mut::<LANES>().0.iter_mut();
    for ((rows, h), c) in tiles.chunks_exact(1 + column.len()).zip(h).zip(c) {
        let Some((bias, rows)) = rows.split_first() else { continue };
        let mut gates = *bias;
        for (row, &x) in rows.iter().zip(column) {
            for (gate, &w) in gates.iter_mut().zip(row) {
                *gate = mul_add::<FMA>(w, x, *gate);
            }
        }
        // Local arrays, so that nothing can alias and the lanes go through vector registers.
        let (mut new_c, mut new_h) = (*c, [0.0; LANES]);
        for lane in 0..LANES {
            let [input, forget] = [gates[lane], gates[LANES + lane]];
            let [cell, output] = [gates[2 * LANES + lane], gates[3 * LANES + lane]];
            let kept = new_c[lane] / (1.0 + exp::<FMA>(-forget));
            new_c[lane] = kept + sigmoid_tanh::<FMA>(input, cell);
            new_h[lane] = sigmoid_tanh::<FMA>(output, new_c[lane]);
        }
        (*c, *h) = (new_c, new_h);
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
