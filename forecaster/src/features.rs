//! What the models see of a reading.

use crate::experts::{POINTS, WIDE};
use crate::local::{Character, LAGS};
use crate::reading::{DAY, Reading, Timestamp};
use crate::scale::Scale;
use crate::seasonal::Phase;

/// Names of the network's inputs, in order; stored with every model, so that one made for other inputs
/// is refused.
pub const INPUT_NAMES: [&str; 30] = [
    "place", "difference", "difference_2", "elapsed", "liveliness", "day_sin", "day_cos", "week_sin",
    "week_cos", "ar_slow", "ar_fast", "ar_narrow", "mean_fast", "mean", "mean_slow", "trend",
    "yesterday_move", "yesterday", "week_move", "week", "mean_day_move", "mean_day", "ar_error",
    "ar_narrow_error", "seasons_known", "repeats", "correlation_1", "correlation_2", "tail", "reach",
];
/// Number of the network's inputs.
pub const INPUTS: usize = INPUT_NAMES.len();
/// Number of features: the network's inputs and what only the trees see.
pub const FEATURES: usize = INPUTS + LAGS - 2 + 14;

/// What features are made from.
pub(crate) struct Sight<'a> {
    pub(crate) reading: Reading,
    pub(crate) gap: f64,
    /// The time that will be forecast.
    pub(crate) next: Timestamp,
    pub(crate) scale: &'a Scale,
    pub(crate) lags: &'a [f64; LAGS],
    pub(crate) means: [f32; 3],
    pub(crate) now: Phase,
    pub(crate) then: Phase,
    pub(crate) character: Character,
    pub(crate) errors: [f32; 2],
}

/// Keeps large values apart without letting them dominate: linear near 0, bounded by ±8.
fn soften(x: f32) -> f32 {
    x / (1.0 + x.abs() / 8.0)
}

/// In `f32`, whatever it was.
fn narrow(x: f64) -> f32 {
    x.clamp(-1e9, 1e9) as f32
}

/// Sine and cosine of the phase of a time within a period.
fn phase(time: Timestamp, period: i64) -> (f32, f32) {
    let turn = time.0.rem_euclid(period) as f32 / period as f32;
    (turn * std::f32::consts::TAU).sin_cos()
}

fn moved(now: Option<f32>, then: Option<f32>) -> f32 {
    now.zip(then).map_or(0.0, |(now, then)| then - now)
}

/// Inputs of the autoregressions.
pub(crate) fn wide(s: &Sight<'_>) -> [f32; WIDE] {
    let unit = 1.0 / s.scale.scale();
    let mut x = [0.0; WIDE];
    for (x, lag) in x.iter_mut().zip(&s.lags[..12]) {
        *x = narrow(lag * unit).clamp(-20.0, 20.0);
    }
    let bound = |x: f32| x.clamp(-20.0, 20.0);
    x[12] = narrow(s.scale.place(s.reading.value)).clamp(-10.0, 10.0);
    x[13] = bound(s.means[1]);
    x[14] = bound(s.means[2]);
    x[15] = bound(moved(s.now.mean_day, s.then.mean_day));
    x[16] = bound(0.2 * s.then.mean_day.unwrap_or_default());
    x[17] = bound(moved(s.now.yesterday, s.then.yesterday));
    x[18] = bound(0.2 * s.then.yesterday.unwrap_or_default());
    x[19] = bound(moved(s.now.last_week, s.then.last_week));
    x[20] = bound(0.2 * s.then.last_week.unwrap_or_default());
    (x[21], x[22]) = phase(s.next, DAY);
    x[23] = 1.0;
    x
}

/// Fills in the features of a reading: where it lies, how it moved and how long that took, how lively
/// the series is (all in units of the series' own [`Scale`]), the phase of day and week of the time
/// that will be forecast, what experts say of it, and what the series did at that phase before.
pub(crate) fn fill(s: &Sight<'_>, points: &[Option<f32>; POINTS], out: &mut [f32]) {
    let unit = 1.0 / s.scale.scale();
    let lag = |i: usize| narrow(s.lags[i] * unit);
    let (day_sin, day_cos) = phase(s.next, DAY);
    let (week_sin, week_cos) = phase(s.next, 7 * DAY);
    let point = |i: usize| soften(points.get(i).copied().flatten().unwrap_or_default());
    let c = &s.character;
    let inputs: [f32; INPUTS] = [
        soften(narrow(s.scale.place(s.reading.value))),
        soften(lag(0)),
        soften(lag(1)),
        (s.gap.max(1e-3) as f32).ln().clamp(-3.0, 6.0),
        s.scale.liveliness().clamp(-4.0, 4.0) as f32,
        day_sin,
        day_cos,
        week_sin,
        week_cos,
        point(5),
        point(6),
        point(7),
        soften(s.means[0]),
        soften(s.means[1]),
        soften(s.means[2]),
        point(4),
        soften(moved(s.now.yesterday, s.then.yesterday)),
        soften(0.2 * s.then.yesterday.unwrap_or_default()),
        soften(moved(s.now.last_week, s.then.last_week)),
        soften(0.2 * s.then.last_week.unwrap_or_default()),
        soften(moved(s.now.mean_day, s.then.mean_day)),
        soften(0.2 * s.then.mean_day.unwrap_or_default()),
        soften(s.errors[0]),
        soften(s.errors[1]),
        f32::from(u8::from(s.then.mean_day.is_some())),
        c.repeats,
        c.products[0] / (c.square + 0.01),
        c.products[1] / (c.square + 0.01),
        (c.square + 0.01).ln(),
        narrow((s.scale.deviation() * unit).max(0.1).ln()).clamp(-3.0, 8.0),
    ];
    let (head, rest) = out.split_at_mut(INPUTS);
    head.copy_from_slice(&inputs);
    let (lags, rest) = rest.split_at_mut(LAGS - 2);
    for (i, x) in lags.iter_mut().enumerate() {
        *x = lag(i + 2);
    }
    // Values of the last readings less the newest, from the differences back.
    let (mut back, mut sum, mut low, mut high) = (0.0_f32, 0.0_f32, 0.0_f32, 0.0_f32);
    let (mut squares, mut at) = (0.0_f32, 0);
    let mut put = |x: f32| {
        if let Some(slot) = rest.get_mut(at) {
            *slot = x;
        }
        at += 1;
    };
    for i in 0..LAGS {
        let d = lag(i);
        back -= d;
        sum += back;
        squares += d * d;
        (low, high) = (low.min(back), high.max(back));
        if matches!(i + 1, 3 | 6 | 12 | 24) {
            put(sum / (i + 2) as f32);
            put((squares / (i + 1) as f32).sqrt());
        }
        if matches!(i + 1, 6 | 24) {
            put(low);
            put(high);
        }
    }
    put(s.next.0.rem_euclid(DAY) as f32 / DAY as f32);
    put(s.next.0.rem_euclid(7 * DAY).div_euclid(DAY) as f32);
}
