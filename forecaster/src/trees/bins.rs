//! Features cut into few bins, a byte each: what histograms are made of.

/// Bins of a feature.
pub(super) const BINS: usize = 128;
/// Values that a feature's cuts are taken from.
const SAMPLE: usize = 50_000;

/// One feature of every row.
#[derive(Debug)]
pub(super) struct Column {
    /// Rising thresholds; a value's bin is the number of cuts that it exceeds.
    pub(super) cuts: Vec<f32>,
    /// Bin of each row.
    pub(super) bins: Vec<u8>,
}

impl Column {
    /// Cuts at the quantiles of the values, or between all of them where they are few.
    pub(super) fn new(values: impl ExactSizeIterator<Item = f32> + Clone) -> Column {
        let every = values.len().div_ceil(SAMPLE).max(1);
        let cuts = cuts(values.clone().step_by(every).filter(|v| v.is_finite()).collect());
        // NaN exceeds no cut, here as in prediction.
        let bins = values.map(|v| if v.is_nan() { 0 } else { cuts.partition_point(|c| *c < v) as u8 });
        Column { bins: bins.collect(), cuts }
    }
}

fn cuts(mut sample: Vec<f32>) -> Vec<f32> {
    sample.sort_unstable_by(f32::total_cmp);
    let mut distinct = sample.clone();
    distinct.dedup();
    if distinct.len() <= BINS {
        return distinct.windows(2).map(|pair| between(pair[0], pair[1])).collect();
    }
    let mut cuts: Vec<f32> = (1..BINS)
        .filter_map(|k| {
            let lower = sample[k * sample.len() / BINS];
            let upper = distinct.get(distinct.partition_point(|v| *v <= lower))?;
            Some(between(lower, *upper))
        })
        .collect();
    cuts.dedup();
    cuts
}

/// A threshold that `upper` exceeds and `lower` does not.
fn between(lower: f32, upper: f32) -> f32 {
    let middle = lower + (upper - lower) / 2.0;
    if middle < upper { middle } else { lower }
}
