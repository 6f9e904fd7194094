//! Products of matrices whose columns stand in panels of [`LANES`], four rows of them at a time.
//!
//! A matrix of r rows is a list of panels, each r rows of [`LANES`] neighbouring columns. So whatever
//! the sizes, the innermost loops run over whole vectors, and columns beyond the last are zeros.

use crate::kernel::arithmetic::mul_add;

/// Columns of a panel.
pub(super) const LANES: usize = 16;
/// Rows that are multiplied together; the numbers of rows are multiples of it.
pub(super) const QUAD: usize = 4;
/// Rows summed over before going to the next panel, so that those of all panels stay in the nearest cache.
const BLOCK: usize = 64;

/// A row of a panel.
pub(super) type Lanes = [f32; LANES];

/// Some panels of a matrix, from some row on.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a> {
    pub(super) values: &'a [Lanes],
    /// Rows of a panel.
    pub(super) rows: usize,
    /// Which panels, in order.
    pub(super) which: &'a [usize],
    /// First row.
    pub(super) from: usize,
}

impl<'a> Panels<'a> {
    /// Rows of one panel from `row` on.
    #[inline(always)]
    fn panel(&self, which: usize, row: usize, rows: usize) -> &'a [Lanes] {
        let start = which * self.rows + self.from + row;
        &self.values[start..start + rows]
    }
}

/// The same, to change.
pub(super) struct PanelsMut<'a> {
    pub(super) values: &'a mut [Lanes],
    pub(super) rows: usize,
    pub(super) which: &'a [usize],
    pub(super) from: usize,
}

/// Adds a·w to `to`, for `rows` rows. `w` holds for each panel of `to` one row for each of the `depth`
/// columns of `a`.
#[inline(always)]
pub(super) fn add_product<const FMA: bool>(
    a: Panels<'_>,
    (w, depth): (&[Lanes], usize),
    rows: usize,
    turned: &mut Vec<[f32; QUAD]>,
    to: PanelsMut<'_>,
) {
    turned.resize(a.which.len() * LANES, [0.0; QUAD]);
    for row in (0..rows).step_by(QUAD) {
        for (panel, turned) in a.which.iter().zip(turned.as_chunks_mut::<LANES>().0) {
            let Some(block) = a.panel(*panel, row, QUAD).first_chunk::<QUAD>() else { continue };
            for lane in 0..LANES {
                turned[lane] = [block[0][lane], block[1][lane], block[2][lane], block[3][lane]];
            }
        }
        for (w, panel) in w.chunks_exact(depth).zip(to.which) {
            let at = panel * to.rows + to.from + row;
            let Some(to) = to.values[at..].first_chunk_mut::<QUAD>() else { continue };
            let mut sums = *to;
            for (a, w) in turned.iter().zip(w) {
                for i in 0..QUAD {
                    for lane in 0..LANES {
                        sums[i][lane] = mul_add::<FMA>(w[lane], a[i], sums[i][lane]);
                    }
                }
            }
            *to = sums;
        }
    }
}

/// Adds aᵀ·b over `rows` rows to `to`, which holds for each panel of `b` one row for each column of `a`,
/// `depth` of them, a multiple of [`QUAD`].
#[inline(always)]
pub(super) fn add_outer<const FMA: bool>(
    a: Panels<'_>,
    depth: usize,
    b: Panels<'_>,
    rows: usize,
    to: &mut [Lanes],
) {
    for row in (0..rows).step_by(BLOCK) {
        let block = BLOCK.min(rows - row);
        for (panel, to) in b.which.iter().zip(to.chunks_exact_mut(depth)) {
            let b = b.panel(*panel, row, block);
            for (quad, to) in to.as_chunks_mut::<QUAD>().0.iter_mut().enumerate() {
                let a = a.panel(a.which[quad * QUAD / LANES], row, block);
                let offset = quad % (LANES / QUAD);
                let mut sums = *to;
                for (a, b) in a.iter().zip(b) {
                    let a = a.as_chunks::<QUAD>().0[offset];
                    for i in 0..QUAD {
                        for lane in 0..LANES {
                            sums[i][lane] = mul_add::<FMA>(b[lane], a[i], sums[i][lane]);
                        }
                    }
                }
                *to = sums;
            }
        }
    }
}

/// Adds the sum of each panel's rows to `to`.
#[inline(always)]
pub(super) fn add_rows(b: Panels<'_>, rows: usize, to: &mut [Lanes]) {
    for (panel, to) in b.which.iter().zip(to) {
        let mut sum = *to;
        for row in b.panel(*panel, 0, rows) {
            for lane in 0..LANES {
                sum[lane] += row[lane];
            }
        }
        *to = sum;
    }
}
