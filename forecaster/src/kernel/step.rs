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

/// e^x within 2 units in the last place on ±87, saturating outside (Cephes `expf`: argument
/// reduction by ln 2 in two parts and a polynomial of degree 5).
#[inline(always)]
fn exp<const FMA: bool>(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2^23: adding it rounds to an integer
    let x = x.clamp(-87.0, 87.0);
    let n = mul_add::<FMA>(x, std::f32::consts::LOG2_E, ROUND) - ROUND;
    let r = mul_add::<FMA>(n, 2.121_944_4e-4, mul_add::<FMA>(n, -0.693_359_4, x));
    let p = mul_add::<FMA>(1.987_569_1e-4, r, 1.398_199_9e-3);
    let p = mul_add::<FMA>(p, r, 8.333_452e-3);
    let p = mul_add::<FMA>(p, r, 4.166_579_6e-2);
    let p = mul_add::<FMA>(p, r, 1.666_666_5e-1);
    let p = mul_add::<FMA>(p, r, 5.000_000_1e-1);
    let p = mul_add::<FMA>(p, r * r, r) + 1.0;
    p * f32::from_bits(((n as i32 + 127) << 23) as u32)
}

#[inline(always)]
fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FMA>(-x))
}

#[inline(always)]
fn tanh<const FMA: bool>(x: f32) -> f32 {
    1.0 - 2.0 / (exp::<FMA>(2.0 * x) + 1.0)
}

/// One LSTM layer: `column` is the input followed by the old hidden output; `h` and `c` become new.
#[inline(always)]
pub(super) fn layer_step<const FMA: bool>(tiles: &[[f32; TILE]], column: &[f32], h: &mut [f32], c: &mut [f32]) {
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
        for lane in 0..LANES {
            let input = sigmoid::<FMA>(gates[lane]);
            let forget = sigmoid::<FMA>(gates[LANES + lane]);
            let cell = tanh::<FMA>(gates[2 * LANES + lane]);
            let output = sigmoid::<FMA>(gates[3 * LANES + lane]);
            c[lane] = mul_add::<FMA>(forget, c[lane], input * cell);
            h[lane] = output * tanh::<FMA>(c[lane]);
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
    let mut out = [0.0; OUTPUTS];
    for (o, out) in out.iter_mut().enumerate() {
        *out = bias[o] + (sums[0][o] + sums[1][o]) + (sums[2][o] + sums[3][o]);
    }
    out
}
