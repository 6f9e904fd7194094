//! What the models see of a reading.

use crate::experts::{Levels, POINTS, SLOW_POINT, TREND_POINT, WIDE};
use crate::local::{Character, LAGS};
use crate::reading::{DAY, Reading, Timestamp};
use crate::seasonal::Phase;

/// Names of the network's inputs, in order; stored with every model, so that one made for other inputs
/// is refused.
pub const INPUT_NAMES: [&str; 37] = [
    "place",
    "difference",
    "difference_2",
    "elapsed",
    "liveliness",
    "day_sin",
    "day_cos",
    "week_sin",
    "week_cos",
    "ar_slow",
    "ar_fast",
    "ar_narrow",
    "mean_fast",
    "mean",
    "mean_slow",
    "trend",
    "yesterday_move",
    "yesterday",
    "week_move",
    "week",
    "mean_day_move",
    "mean_day",
    "ar_error",
    "ar_narrow_error",
    "season_known",
    "repeats",
    "correlation_1",
    "correlation_2",
    "tail",
    "reach",
    "ar_size",
    "ar_liveliness",
    "grid",
    "naive_q05",
    "naive_q25",
    "naive_q75",
    "naive_q95",
];
/// Number of the network's inputs.
pub const INPUTS: usize = INPUT_NAMES.len();
/// Features that only the trees see: further differences, the shape of the last readings, the hour and
/// the day.
const SHAPE: usize = LAGS - 2 + 14;
/// Names what only the trees see, as [`INPUT_NAMES`] names the rest; to be changed with it.
pub(crate) const SHAPE_NAME: &str = "lags 3-24, windows 3 6 12 24, hour, weekday";
/// Number of features: the network's inputs and what only the trees see.
pub const FEATURES: usize = INPUTS + SHAPE;

/// What is seen of a reading.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sight {
    pub(crate) reading: Reading,
    /// Intervals since the reading before.
    pub(crate) gap: f64,
    /// The time that will be forecast.
    pub(crate) next: Timestamp,
    /// The past at the phase of the reading's time, and of the time that will be forecast.
    pub(crate) now: Phase,
    pub(crate) then: Phase,
    /// Latest differences, newest first.
    pub(crate) lags: [f32; LAGS],
    pub(crate) levels: Levels,
    pub(crate) context: Context,
}

/// What is seen of the series.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context {
    pub(crate) scale: f64,
    pub(crate) level: f64,
    pub(crate) deviation: f64,
    pub(crate) liveliness: f32,
    pub(crate) character: Character,
    /// 0 where there is none.
    pub(crate) grid: f32,
    /// Last errors of the slow and the narrow autoregression.
    pub(crate) errors: [f32; 2],
    /// Size and liveliness of the slow autoregression's errors.
    pub(crate) spread: [f32; 2],
    /// Quantiles 0.05, 0.25, 0.75 and 0.95 of recent differences.
    pub(crate) naive: [f32; 4],
}

/// Keeps large values apart without letting them dominate: linear near 0, bounded by ±8.
fn soften(x: f32) -> f32 {
    x / (1.0 + x.abs() / 8.0)
}

/// In `f32`, whatever it was.
fn single(x: f64) -> f32 {
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

impl Sight {
    fn lag(&self, at: usize) -> f32 {
        single(f64::from(self.lags[at]) / self.context.scale)
    }

    /// How far the value lies from the usual level, in usual deviations.
    fn place(&self) -> f32 {
        single((self.reading.value - self.context.level) / self.context.deviation)
    }
}

/// Inputs of the autoregressions.
pub(crate) fn wide(s: &Sight) -> [f32; WIDE] {
    let bound = |x: f32| x.clamp(-20.0, 20.0);
    let mut x = [0.0; WIDE];
    for (lag, x) in x[..12].iter_mut().enumerate() {
        *x = bound(s.lag(lag));
    }
    x[12] = s.place().clamp(-10.0, 10.0);
    x[13] = bound(s.levels.means[1]);
    x[14] = bound(s.levels.means[2]);
    let seasons = [
        (s.now.mean_day, s.then.mean_day),
        (s.now.yesterday, s.then.yesterday),
        (s.now.last_week, s.then.last_week),
    ];
    for (x, (now, then)) in x[15..21].as_chunks_mut::<2>().0.iter_mut().zip(seasons) {
        *x = [bound(moved(now, then)), bound(0.2 * then.unwrap_or_default())];
    }
    (x[21], x[22]) = phase(s.next, DAY);
    x[23] = 1.0;
    x
}

/// Fills in the features of a reading: where it lies, how it moved and how long that took, how lively
/// the series is (all in units of the series' own scale), the phase of day and week of the time that
/// will be forecast, what experts say of it, and what the series did at that phase before.
pub(crate) fn fill(s: &Sight, points: &[f32; POINTS], out: &mut [f32; FEATURES]) {
    let (day_sin, day_cos) = phase(s.next, DAY);
    let (week_sin, week_cos) = phase(s.next, 7 * DAY);
    let Context { character: c, spread: [size, lively], naive, .. } = s.context;
    let inputs: [f32; INPUTS] = [
        soften(s.place()),
        soften(s.lag(0)),
        soften(s.lag(1)),
        (s.gap.max(1e-3) as f32).ln().clamp(-3.0, 6.0),
        s.context.liveliness.clamp(-4.0, 4.0),
        day_sin,
        day_cos,
        week_sin,
        week_cos,
        soften(points[SLOW_POINT]),
        soften(points[SLOW_POINT + 1]),
        soften(points[SLOW_POINT + 2]),
        soften(s.levels.means[0]),
        soften(s.levels.means[1]),
        soften(s.levels.means[2]),
        soften(points[TREND_POINT]),
        soften(moved(s.now.yesterday, s.then.yesterday)),
        soften(0.2 * s.then.yesterday.unwrap_or_default()),
        soften(moved(s.now.last_week, s.then.last_week)),
        soften(0.2 * s.then.last_week.unwrap_or_default()),
        soften(moved(s.now.mean_day, s.then.mean_day)),
        soften(0.2 * s.then.mean_day.unwrap_or_default()),
        soften(s.context.errors[0]),
        soften(s.context.errors[1]),
        f32::from(u8::from(s.then.mean_day.is_some())),
        c.repeats,
        c.products[0] / (c.square + 0.01),
        c.products[1] / (c.square + 0.01),
        (c.square + 0.01).ln(),
        single(s.context.deviation / s.context.scale).max(0.1).ln().clamp(-3.0, 8.0),
        size.ln().clamp(-6.0, 4.0),
        lively.ln().clamp(-4.0, 4.0),
        s.context.grid.clamp(0.0, 4.0),
        soften(naive[0]),
        soften(naive[1]),
        soften(naive[2]),
        soften(naive[3]),
    ];
    out[..INPUTS].copy_from_slice(&inputs);
    let rest = shape(s);
    out[INPUTS..].copy_from_slice(&rest);
}

/// What the trees see besides.
fn shape(s: &Sight) -> [f32; SHAPE] {
    let mut out = [0.0; SHAPE];
    for (at, x) in out[..LAGS - 2].iter_mut().enumerate() {
        *x = s.lag(at + 2);
    }
    let mut slots = out[LAGS - 2..].iter_mut();
    let mut put = |values: [f32; 2]| values.into_iter().zip(&mut slots).for_each(|(v, slot)| *slot = v);
    // Values of the last readings less the newest, from the differences back.
    let (mut back, mut sum, mut squares) = (0.0_f32, 0.0_f32, 0.0_f32);
    let (mut low, mut high) = (0.0_f32, 0.0_f32);
    for at in 0..LAGS {
        let difference = s.lag(at);
        back -= difference;
        sum += back;
        squares += difference * difference;
        (low, high) = (low.min(back), high.max(back));
        let readings = at + 1;
        if matches!(readings, 3 | 6 | 12 | 24) {
            put([sum / (readings + 1) as f32, (squares / readings as f32).sqrt()]);
        }
        if matches!(readings, 6 | 24) {
            put([low, high]);
        }
    }
    put([s.next.0.rem_euclid(DAY) as f32 / DAY as f32, s.next.0.rem_euclid(7 * DAY).div_euclid(DAY) as f32]);
    out
}
