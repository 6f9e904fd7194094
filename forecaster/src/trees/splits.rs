//! The question that a level of a tree asks, chosen by histograms of gradients.

use super::bins::{BINS, Column};

/// Gradients of three levels of a row (0.1, 0.5, 0.9), and one to count it.
pub(super) type Gradient = [f32; 4];
/// Added to the count of rows of a side, so that few of them decide little.
const LAMBDA: f32 = 20.0;

/// A question: a feature and the cut that its values may exceed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Question {
    pub(super) column: usize,
    pub(super) cut: usize,
}

/// What one side of a split is worth: how far its gradients agree.
fn worth(side: &Gradient) -> f32 {
    let [a, b, c, count] = side;
    (a * a + b * b + c * c) / (count + LAMBDA)
}

/// The question that all nodes of a level ask, to the greatest gain in agreement over all of them
/// (Friedman 2001; one for the whole level as in Prokhorenkova et al. 2018). `rows` are those of the
/// sample, `nodes` and `gradients` theirs.
pub(super) fn best(
    columns: &[Column],
    candidates: &[usize],
    (rows, nodes, gradients): (&[u32], &[u8], &[Gradient]),
    level: usize,
) -> Option<Question> {
    let mut histogram = vec![[0.0_f32; 4]; BINS << level];
    let mut best: Option<(f32, Question)> = None;
    for &at in candidates {
        let Some(column) = columns.get(at).filter(|c| !c.cuts.is_empty()) else { continue };
        histogram.fill([0.0; 4]);
        for ((row, node), gradient) in rows.iter().zip(nodes).zip(gradients) {
            let bin = column.bins[*row as usize];
            let cell = &mut histogram[usize::from(*node) * BINS + usize::from(bin)];
            for (sum, g) in cell.iter_mut().zip(gradient) {
                *sum += g;
            }
        }
        let gains = gains(&histogram, column.cuts.len());
        for (cut, gain) in gains[..column.cuts.len()].iter().enumerate() {
            if best.is_none_or(|(most, _)| *gain > most) {
                best = Some((*gain, Question { column: at, cut }));
            }
        }
    }
    best.map(|(_, question)| question)
}

/// What each cut is worth over all nodes.
fn gains(histogram: &[Gradient], cuts: usize) -> [f32; BINS] {
    let mut gains = [0.0; BINS];
    for node in histogram.chunks_exact(BINS) {
        let mut whole = [0.0_f32; 4];
        for cell in node {
            whole.iter_mut().zip(cell).for_each(|(w, c)| *w += c);
        }
        let mut below = [0.0_f32; 4];
        for (gain, cell) in gains.iter_mut().zip(node).take(cuts) {
            below.iter_mut().zip(cell).for_each(|(b, c)| *b += c);
            let above = [0, 1, 2, 3].map(|i: usize| whole[i] - below[i]);
            *gain += worth(&below) + worth(&above);
        }
    }
    gains
}
