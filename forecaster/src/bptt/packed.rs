//! A layer's parameters in panels, and its gradients back out of them.

use super::tiles::{LANES, Lanes, QUAD};
use crate::weights::{Cell, Layer, Sizes};

/// Which blocks of a tile's gates the input and the hidden output go into, gate by gate. Those of a GRU's
/// third gate have to be told apart.
fn blocks(cell: Cell) -> (&'static [usize], &'static [usize]) {
    match cell {
        Cell::Lstm => (&[0, 1, 2, 3], &[0, 1, 2, 3]),
        Cell::Gru => (&[0, 1, 2], &[0, 1, 3]),
        Cell::Tanh | Cell::Relu => (&[0], &[0]),
    }
}

/// Blocks of a tile's gates.
pub(super) fn blocks_of(cell: Cell) -> usize {
    match cell {
        Cell::Lstm | Cell::Gru => 4,
        Cell::Tanh | Cell::Relu => 1,
    }
}

/// Weights into the gates from the input, or from the hidden output.
pub(super) struct Share {
    /// Panels of the gates that it goes into.
    pub(super) into: Vec<usize>,
    /// Panels of what it comes from.
    pub(super) from: Vec<usize>,
    /// Columns of what it comes from.
    pub(super) columns: usize,
    /// For each panel of the gates, a row for each column.
    pub(super) forward: Vec<Lanes>,
    /// For each panel of what it comes from, a row for each column of the gates.
    pub(super) back: Vec<Lanes>,
}

/// A layer.
pub(super) struct Packed {
    pub(super) input: Share,
    pub(super) recurrent: Share,
    /// For each panel of the gates, what the sums start from.
    pub(super) bias: Vec<Lanes>,
}

/// Gradients of a layer, of the forms of [`Share::forward`] (columns rounded up to [`QUAD`]) and
/// [`Packed::bias`].
#[derive(Clone, Default)]
pub(super) struct Sums {
    pub(super) input: Vec<Lanes>,
    pub(super) recurrent: Vec<Lanes>,
    pub(super) bias: Vec<Lanes>,
}

/// Each unit's row in PyTorch's layout, in the order of a share's panels and lanes; none for padding.
fn rows(sizes: Sizes) -> impl Iterator<Item = Option<usize>> {
    let Sizes { hidden, cell, .. } = sizes;
    (0..hidden.div_ceil(LANES)).flat_map(move |tile| {
        (0..cell.gates()).flat_map(move |gate| {
            let units = tile * LANES..(tile + 1) * LANES;
            units.map(move |unit| (unit < hidden).then_some(gate * hidden + unit))
        })
    })
}

impl Share {
    fn new(sizes: Sizes, blocks: &[usize], weight: &[f32], columns: usize) -> Share {
        let tiles = sizes.hidden.div_ceil(LANES);
        let count = blocks_of(sizes.cell);
        let into = (0..tiles).flat_map(|tile| blocks.iter().map(move |b| tile * count + b)).collect();
        let rows: Vec<_> = rows(sizes).collect();
        let at = |row: Option<usize>, column: usize| match row {
            Some(row) if column < columns => weight[row * columns + column],
            _ => 0.0,
        };
        let panels = rows.as_chunks::<LANES>().0.iter();
        let forward = panels.flat_map(|rows| (0..columns).map(|c| rows.map(|row| at(row, c)))).collect();
        let from: Vec<usize> = (0..columns.div_ceil(LANES)).collect();
        let wide = |row, panel: usize| std::array::from_fn(|lane| at(row, panel * LANES + lane));
        let back = from.iter().flat_map(|&panel| rows.iter().map(move |row| wide(*row, panel))).collect();
        Share { into, from, columns, forward, back }
    }

    /// Columns of the gates.
    pub(super) fn gate_columns(&self) -> usize {
        self.into.len() * LANES
    }

    /// Columns in the gradient.
    pub(super) fn padded(&self) -> usize {
        self.columns.next_multiple_of(QUAD)
    }

    /// A gradient out of its panels.
    fn unpack(&self, sizes: Sizes, sums: &[Lanes]) -> Vec<f32> {
        let mut out = vec![0.0; sizes.rows() * self.columns];
        for (n, row) in rows(sizes).enumerate() {
            let Some(row) = row else { continue };
            let from = &sums[n / LANES * self.padded()..];
            for (to, from) in out[row * self.columns..(row + 1) * self.columns].iter_mut().zip(from) {
                *to = from[n % LANES];
            }
        }
        out
    }
}

impl Packed {
    pub(super) fn new(sizes: Sizes, layer: &Layer, columns: usize) -> Packed {
        let (into, from_h) = blocks(sizes.cell);
        let input = Share::new(sizes, into, &layer.weight_ih, columns);
        let recurrent = Share::new(sizes, from_h, &layer.weight_hh, sizes.hidden);
        let mut bias = vec![[0.0; LANES]; sizes.hidden.div_ceil(LANES) * blocks_of(sizes.cell)];
        for (share, values) in [(&input, &layer.bias_ih), (&recurrent, &layer.bias_hh)] {
            for (n, row) in rows(sizes).enumerate() {
                bias[share.into[n / LANES]][n % LANES] += row.map_or(0.0, |row| values[row]);
            }
        }
        Packed { input, recurrent, bias }
    }

    /// Makes gradients zero.
    pub(super) fn clear(&self, sums: &mut Sums) {
        let Sums { input, recurrent, bias } = sums;
        let share = |share: &Share| share.into.len() * share.padded();
        for (sums, rows) in
            [(input, share(&self.input)), (recurrent, share(&self.recurrent)), (bias, self.bias.len())]
        {
            sums.clear();
            sums.resize(rows, [0.0; LANES]);
        }
    }

    /// Gradients in PyTorch's layout: of the input weights, recurrent weights, input bias, recurrent bias.
    pub(super) fn unpack(&self, sizes: Sizes, sums: &Sums) -> [Vec<f32>; 4] {
        let bias = |share: &Share| {
            let mut out = vec![0.0; sizes.rows()];
            for (n, row) in rows(sizes).enumerate() {
                if let Some(row) = row {
                    out[row] = sums.bias[share.into[n / LANES]][n % LANES];
                }
            }
            out
        };
        [
            self.input.unpack(sizes, &sums.input),
            self.recurrent.unpack(sizes, &sums.recurrent),
            bias(&self.input),
            bias(&self.recurrent),
        ]
    }
}

impl Sums {
    /// Adds another part's.
    pub(super) fn add(&mut self, other: &Sums) {
        for (to, from) in [
            (&mut self.input, &other.input),
            (&mut self.recurrent, &other.recurrent),
            (&mut self.bias, &other.bias),
        ] {
            for (to, from) in to.iter_mut().flatten().zip(from.iter().flatten()) {
                *to += from;
            }
        }
    }
}
