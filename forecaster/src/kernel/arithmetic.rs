//! Activations that vectorise, with and without fused multiply-add.

/// a·b + c.
#[inline(always)]
pub(crate) fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
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

/// σ(x).
#[inline(always)]
pub(crate) fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FMA>(-x))
}

/// tanh(x), with an absolute error of some units of 2⁻²⁴.
#[inline(always)]
pub(crate) fn tanh<const FMA: bool>(x: f32) -> f32 {
    let e = exp::<FMA>(-2.0 * x);
    (1.0 - e) / (1.0 + e)
}

/// σ(a) · tanh(b), with a single division.
#[inline(always)]
pub(crate) fn sigmoid_tanh<const FMA: bool>(a: f32, b: f32) -> f32 {
    let (a, b) = (exp::<FMA>(-a), exp::<FMA>(-2.0 * b));
    (1.0 - b) / ((1.0 + a) * (1.0 + b))
}
