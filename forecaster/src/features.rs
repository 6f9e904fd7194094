//! What the network sees of a reading.

use crate::reading::{DAY, Reading, Timestamp};
use crate::scale::Scale;

/// Names of the inputs, in order; stored with every model, so that one made for other inputs is
/// refused.
pub const INPUT_NAMES: [&str; 8] =
    ["place", "difference", "elapsed", "liveliness", "day_sin", "day_cos", "week_sin", "week_cos"];
/// Number of inputs.
pub const INPUTS: usize = INPUT_NAMES.len();

/// Keeps large values apart without letting them dominate: linear near 0, bounded by ±8.
fn soften(x: f64) -> f32 {
    // A wild value over a tiny scale may be infinite.
    let x = x.clamp(-1e9, 1e9);
    (x / (1.0 + x.abs() / 8.0)) as f32
}

/// Inputs for a reading: where it lies, how it moved, how long that took, how lively the series is
/// (all scaled by the series' own [`Scale`]), and the phase of day and week of the time that will
/// be forecast.
#[must_use]
pub(crate) fn inputs(
    reading: Reading,
    difference: f64,
    gap: f64,
    forecast_for: Timestamp,
    scale: &Scale,
) -> [f32; INPUTS] {
    let phase = |period: i64| {
        let turn = forecast_for.0.rem_euclid(period) as f64 / period as f64;
        (turn * std::f64::consts::TAU).sin_cos()
    };
    let (day_sin, day_cos) = phase(DAY);
    let (week_sin, week_cos) = phase(7 * DAY);
    [
        soften(scale.place(reading.value)),
        soften(difference / scale.scale()),
        gap.max(1e-3).ln().clamp(-3.0, 6.0) as f32,
        scale.liveliness().clamp(-4.0, 4.0) as f32,
        day_sin as f32,
        day_cos as f32,
        week_sin as f32,
        week_cos as f32,
    ]
}
