//! What a cell does to its gates in one step, and back. The equations stand in [`crate::cell`].
//!
//! `gates` are the blocks of one tile of hidden units for the rows of one step: sums before forward,
//! what they became after it, and the gradients of the sums after backward.

use super::tiles::{LANES, Lanes};
use crate::kernel::arithmetic::{mul_add, sigmoid, sigmoid_tanh, tanh};

/// LSTM: the new cell state and hidden output.
#[inline(always)]
pub(super) fn lstm<const FMA: bool>(
    gates: [&mut [Lanes]; 4],
    old_c: &[Lanes],
    new_c: &mut [Lanes],
    new_h: &mut [Lanes],
) {
    let [input, forget, cell, output] = gates;
    let gates = input.iter_mut().zip(forget).zip(cell).zip(output);
    for ((((((i, f), g), o), old), new), h) in gates.zip(old_c).zip(new_c).zip(new_h) {
        // Local arrays, so that nothing can alias and the lanes go through vector registers.
        let (mut a, mut b, mut c, mut d) = (*i, *f, *g, *o);
        let (mut state, mut out) = (*old, [0.0; LANES]);
        for lane in 0..LANES {
            a[lane] = sigmoid::<FMA>(a[lane]);
            b[lane] = sigmoid::<FMA>(b[lane]);
            c[lane] = tanh::<FMA>(c[lane]);
            state[lane] = mul_add::<FMA>(b[lane], state[lane], a[lane] * c[lane]);
            out[lane] = sigmoid_tanh::<FMA>(d[lane], state[lane]);
            d[lane] = sigmoid::<FMA>(d[lane]);
        }
        (*i, *f, *g, *o, *new, *h) = (a, b, c, d, state, out);
    }
}

/// LSTM, back: `d_c` becomes the gradient of the old cell state.
#[inline(always)]
pub(super) fn lstm_back<const FMA: bool>(
    gates: [&mut [Lanes]; 4],
    old_c: &[Lanes],
    new_c: &[Lanes],
    d_h: &[Lanes],
    d_c: &mut [Lanes],
) {
    let [input, forget, cell, output] = gates;
    let gates = input.iter_mut().zip(forget).zip(cell).zip(output);
    for (((((((i, f), g), o), old), new), d_h), d_c) in gates.zip(old_c).zip(new_c).zip(d_h).zip(d_c) {
        let (mut a, mut b, mut c, mut d, mut state) = (*i, *f, *g, *o, *d_c);
        for lane in 0..LANES {
            let (i, f, g, o) = (a[lane], b[lane], c[lane], d[lane]);
            let t = tanh::<FMA>(new[lane]);
            let d_state = mul_add::<FMA>(d_h[lane] * o, 1.0 - t * t, state[lane]);
            a[lane] = d_state * g * i * (1.0 - i);
            b[lane] = d_state * old[lane] * f * (1.0 - f);
            c[lane] = d_state * i * (1.0 - g * g);
            d[lane] = d_h[lane] * t * o * (1.0 - o);
            state[lane] = d_state * f;
        }
        (*i, *f, *g, *o, *d_c) = (a, b, c, d, state);
    }
}

/// GRU: the new hidden output. The fourth block is the recurrent share of the third gate.
#[inline(always)]
pub(super) fn gru<const FMA: bool>(gates: [&mut [Lanes]; 4], old_h: &[Lanes], new_h: &mut [Lanes]) {
    let [reset, update, new, share] = gates;
    let gates = reset.iter_mut().zip(update).zip(new).zip(share);
    for (((((r, z), n), u), old), h) in gates.zip(old_h).zip(new_h) {
        let (mut a, mut b, mut c, mut out) = (*r, *z, *n, *old);
        for lane in 0..LANES {
            a[lane] = sigmoid::<FMA>(a[lane]);
            b[lane] = sigmoid::<FMA>(b[lane]);
            c[lane] = tanh::<FMA>(mul_add::<FMA>(a[lane], u[lane], c[lane]));
            out[lane] = mul_add::<FMA>(b[lane], out[lane] - c[lane], c[lane]);
        }
        (*r, *z, *n, *h) = (a, b, c, out);
    }
}

/// GRU, back: `d_h` becomes what of it goes past the gates to the old hidden output.
#[inline(always)]
pub(super) fn gru_back(gates: [&mut [Lanes]; 4], old_h: &[Lanes], d_h: &mut [Lanes]) {
    let [reset, update, new, share] = gates;
    let gates = reset.iter_mut().zip(update).zip(new).zip(share);
    for (((((r, z), n), u), old), d_h) in gates.zip(old_h).zip(d_h) {
        let (mut a, mut b, mut c, mut e, mut d) = (*r, *z, *n, *u, *d_h);
        for lane in 0..LANES {
            let (r, z, n) = (a[lane], b[lane], c[lane]);
            let d_n = d[lane] * (1.0 - z) * (1.0 - n * n);
            a[lane] = d_n * e[lane] * r * (1.0 - r);
            b[lane] = d[lane] * (old[lane] - n) * z * (1.0 - z);
            c[lane] = d_n;
            e[lane] = d_n * r;
            d[lane] *= z;
        }
        (*r, *z, *n, *u, *d_h) = (a, b, c, e, d);
    }
}

/// Elman with tanh, or with relu: the new hidden output.
#[inline(always)]
pub(super) fn elman<const FMA: bool, const RELU: bool>(sums: &[Lanes], new_h: &mut [Lanes]) {
    for (sum, h) in sums.iter().zip(new_h) {
        for lane in 0..LANES {
            // Not `max`, which would hide NaN.
            h[lane] = match RELU {
                true if sum[lane] < 0.0 => 0.0,
                true => sum[lane],
                false => tanh::<FMA>(sum[lane]),
            };
        }
    }
}

/// Elman, back.
#[inline(always)]
pub(super) fn elman_back<const RELU: bool>(sums: &mut [Lanes], new_h: &[Lanes], d_h: &[Lanes]) {
    for ((sum, h), d) in sums.iter_mut().zip(new_h).zip(d_h) {
        for lane in 0..LANES {
            let slope = match RELU {
                true if h[lane] > 0.0 => 1.0,
                true => 0.0,
                false => 1.0 - h[lane] * h[lane],
            };
            sum[lane] = d[lane] * slope;
        }
    }
}
