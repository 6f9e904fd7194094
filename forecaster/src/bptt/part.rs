//! Some sequences of a batch, side by side.

use std::mem::take;
use std::ops::Range;

use super::packed::{Packed, Sums, blocks_of};
use super::step;
use super::tiles::{LANES, Lanes, Panels, PanelsMut, QUAD, add_outer, add_product, add_rows};
use crate::weights::{Cell, Sizes};

/// A part, and all that going back needs of having gone forward. It is used again for other batches, since
/// fresh memory costs more than what is computed in it.
#[derive(Default)]
pub(super) struct Part {
    /// Sequences of the batch.
    which: Range<usize>,
    /// Rows of a step: the sequences and padding.
    width: usize,
    steps: usize,
    /// Inputs in panels, and their gradient.
    inputs: Vec<Lanes>,
    d_inputs: Vec<Lanes>,
    layers: Vec<Trace>,
    /// Gradients of a layer's hidden outputs at all steps, and of those of the layer below.
    d_outputs: Vec<Lanes>,
    d_below: Vec<Lanes>,
    /// Gradients of a step's hidden outputs and cell states.
    d_h: Vec<Lanes>,
    d_c: Vec<Lanes>,
    turned: Vec<[f32; QUAD]>,
}

/// What a layer did, in panels whose rows are those of all steps in turn.
#[derive(Default)]
struct Trace {
    /// Blocks of each tile's gates, side by side; see [`step`].
    gates: Vec<Lanes>,
    /// Hidden outputs, those before the first step first.
    h: Vec<Lanes>,
    /// Cell states likewise; of an LSTM only.
    c: Vec<Lanes>,
    sums: Sums,
}

/// Copies between a row-major matrix (steps × batch × columns) and panels of a part.
fn visit(part: &Part, (batch, columns): (usize, usize), mut cell: impl FnMut(usize, usize, usize)) {
    for step in 0..part.steps {
        for (row, sequence) in part.which.clone().enumerate() {
            let at = (step * batch + sequence) * columns;
            for panel in 0..columns.div_ceil(LANES) {
                cell(panel, step * part.width + row, at + panel * LANES);
            }
        }
    }
}

/// Blocks of a tile's gates in the rows given.
fn four(gates: &mut [Lanes], rows: usize, tile: usize, range: Range<usize>) -> Option<[&mut [Lanes]; 4]> {
    let mut blocks = gates[tile * 4 * rows..].chunks_exact_mut(rows).map(|b| &mut b[range.clone()]);
    Some([blocks.next()?, blocks.next()?, blocks.next()?, blocks.next()?])
}

/// Makes a buffer so many zeros.
fn clear(buffer: &mut Vec<Lanes>, rows: usize) {
    buffer.clear();
    buffer.resize(rows, [0.0; LANES]);
}

impl Part {
    /// The same memory for other sequences.
    pub(super) fn reused(self, which: Range<usize>, width: usize, steps: usize) -> Part {
        Part { which, width, steps, ..self }
    }

    /// Rows of all steps.
    fn rows(&self) -> usize {
        self.steps * self.width
    }

    /// A matrix of the batch into panels.
    fn take(&self, matrix: &[f32], (batch, columns): (usize, usize), panels: &mut Vec<Lanes>) {
        let rows = self.rows();
        clear(panels, columns.div_ceil(LANES) * rows);
        visit(self, (batch, columns), |panel, row, at| {
            let count = LANES.min(columns - panel * LANES);
            panels[panel * rows + row][..count].copy_from_slice(&matrix[at..at + count]);
        });
    }

    /// The last layer's hidden outputs into a matrix of the batch.
    pub(super) fn outputs(&self, matrix: &mut [f32], batch: usize, hidden: usize) {
        let Some(last) = self.layers.last() else { return };
        visit(self, (batch, hidden), |panel, row, at| {
            let count = LANES.min(hidden - panel * LANES);
            let from = &last.h[panel * (self.rows() + self.width) + self.width + row];
            matrix[at..at + count].copy_from_slice(&from[..count]);
        });
    }

    /// The inputs' gradient into a matrix of the batch, if it was asked for.
    pub(super) fn d_inputs(&self, matrix: &mut [f32], batch: usize, inputs: usize) {
        if self.d_inputs.is_empty() {
            return;
        }
        visit(self, (batch, inputs), |panel, row, at| {
            let count = LANES.min(inputs - panel * LANES);
            let from = &self.d_inputs[panel * self.rows() + row];
            matrix[at..at + count].copy_from_slice(&from[..count]);
        });
    }

    /// Appends a layer's state after the last step, a row for each sequence.
    pub(super) fn last(&self, layer: usize, hidden: usize, h: &mut Vec<f32>, c: &mut Vec<f32>) {
        let rows = self.rows() + self.width;
        for (from, to) in [(&self.layers[layer].h, h), (&self.layers[layer].c, c)] {
            for row in (self.rows()..rows).take(self.which.len()) {
                let all = from.chunks_exact(rows).flat_map(|panel| panel[row]);
                to.extend(all.take(hidden));
            }
        }
    }

    /// The layers' gradients after [`Part::back`].
    pub(super) fn sums(&self) -> impl Iterator<Item = &Sums> {
        self.layers.iter().map(|trace| &trace.sums)
    }

    #[inline(always)]
    pub(super) fn forward<const FMA: bool>(
        &mut self,
        sizes: Sizes,
        layers: &[Packed],
        inputs: &[f32],
        batch: usize,
    ) {
        let (rows, width) = (self.rows(), self.width);
        let tiles = sizes.hidden.div_ceil(LANES);
        let mut panels = take(&mut self.inputs);
        self.take(inputs, (batch, sizes.inputs), &mut panels);
        self.inputs = panels;
        let mut turned = take(&mut self.turned);
        self.layers.resize_with(layers.len(), Trace::default);
        for (k, packed) in layers.iter().enumerate() {
            let mut trace = take(&mut self.layers[k]);
            let Trace { gates, h, c, sums } = &mut trace;
            clear(gates, packed.bias.len() * rows);
            for (panel, bias) in gates.chunks_exact_mut(rows).zip(&packed.bias) {
                panel.fill(*bias);
            }
            let below = self.below(k, &packed.input.from);
            let to = PanelsMut { values: gates, rows, which: &packed.input.into, from: 0 };
            let weights = (packed.input.forward.as_slice(), packed.input.columns);
            add_product::<FMA>(below, weights, rows, &mut turned, to);
            clear(h, tiles * (rows + width));
            clear(c, if sizes.cell == Cell::Lstm { tiles * (rows + width) } else { 0 });
            let weights = (packed.recurrent.forward.as_slice(), packed.recurrent.columns);
            for from in (0..rows).step_by(width) {
                let old = Panels { values: h, rows: rows + width, which: &packed.recurrent.from, from };
                let to = PanelsMut { values: gates, rows, which: &packed.recurrent.into, from };
                add_product::<FMA>(old, weights, width, &mut turned, to);
                for tile in 0..tiles {
                    let h = &mut h[tile * (rows + width) + from..][..2 * width];
                    let (old_h, new_h) = h.split_at_mut(width);
                    let range = from..from + width;
                    match sizes.cell {
                        Cell::Lstm => {
                            let c = &mut c[tile * (rows + width) + from..][..2 * width];
                            let (old_c, new_c) = c.split_at_mut(width);
                            let Some(gates) = four(gates, rows, tile, range) else { continue };
                            step::lstm::<FMA>(gates, old_c, new_c, new_h);
                        }
                        Cell::Gru => {
                            let Some(gates) = four(gates, rows, tile, range) else { continue };
                            step::gru::<FMA>(gates, old_h, new_h);
                        }
                        Cell::Tanh => step::elman::<FMA, false>(&gates[tile * rows + from..], new_h),
                        Cell::Relu => step::elman::<FMA, true>(&gates[tile * rows + from..], new_h),
                    }
                }
            }
            packed.clear(sums);
            self.layers[k] = trace;
        }
        self.turned = turned;
    }

    /// What a layer gets from below.
    fn below<'a>(&'a self, layer: usize, which: &'a [usize]) -> Panels<'a> {
        match layer.checked_sub(1).and_then(|below| self.layers.get(below)) {
            Some(trace) => {
                Panels { values: &trace.h, rows: self.rows() + self.width, which, from: self.width }
            }
            None => Panels { values: &self.inputs, rows: self.rows(), which, from: 0 },
        }
    }

    #[inline(always)]
    pub(super) fn back<const FMA: bool>(
        &mut self,
        sizes: Sizes,
        layers: &[Packed],
        d_outputs: &[f32],
        batch: usize,
        of_inputs: bool,
    ) {
        let rows = self.rows();
        let mut panels = take(&mut self.d_outputs);
        self.take(d_outputs, (batch, sizes.hidden), &mut panels);
        self.d_outputs = panels;
        self.d_inputs.clear();
        for (k, packed) in layers.iter().enumerate().rev() {
            let mut trace = take(&mut self.layers[k]);
            self.back_through::<FMA>(sizes.cell, packed, &mut trace);
            let gates = |which| Panels { values: &trace.gates, rows, which, from: 0 };
            let (input, recurrent) = (&packed.input, &packed.recurrent);
            let below = self.below(k, &input.from);
            add_outer::<FMA>(below, input.padded(), gates(&input.into), rows, &mut trace.sums.input);
            let old = Panels { values: &trace.h, rows: rows + self.width, which: &recurrent.from, from: 0 };
            add_outer::<FMA>(
                old,
                recurrent.padded(),
                gates(&recurrent.into),
                rows,
                &mut trace.sums.recurrent,
            );
            let all: Vec<usize> = (0..sizes.hidden.div_ceil(LANES) * blocks_of(sizes.cell)).collect();
            add_rows(gates(&all), rows, &mut trace.sums.bias);
            if k > 0 || of_inputs {
                let mut d_below = take(&mut self.d_below);
                clear(&mut d_below, input.from.len() * rows);
                let to = PanelsMut { values: &mut d_below, rows, which: &input.from, from: 0 };
                let weights = (input.back.as_slice(), input.gate_columns());
                add_product::<FMA>(gates(&input.into), weights, rows, &mut self.turned, to);
                let to = if k > 0 { &mut self.d_outputs } else { &mut self.d_inputs };
                self.d_below = std::mem::replace(to, d_below);
            }
            self.layers[k] = trace;
        }
    }

    /// From the gradient of a layer's hidden outputs to that of its gates.
    #[inline(always)]
    fn back_through<const FMA: bool>(&mut self, cell: Cell, packed: &Packed, trace: &mut Trace) {
        let (rows, width) = (self.rows(), self.width);
        let tiles = packed.recurrent.from.len();
        let Part { d_outputs, d_h, d_c, turned, .. } = self;
        clear(d_h, tiles * width);
        clear(d_c, tiles * width);
        let weights = (packed.recurrent.back.as_slice(), packed.recurrent.gate_columns());
        for from in (0..rows).step_by(width).rev() {
            for (tile, (d_h, d_c)) in d_h.chunks_exact_mut(width).zip(d_c.chunks_exact_mut(width)).enumerate()
            {
                for (d_h, out) in d_h.iter_mut().zip(&d_outputs[tile * rows + from..]) {
                    for lane in 0..LANES {
                        d_h[lane] += out[lane];
                    }
                }
                let range = from..from + width;
                let start = tile * (rows + width) + from;
                let (old_h, new_h) = trace.h[start..start + 2 * width].split_at(width);
                let gates = &mut trace.gates;
                match cell {
                    Cell::Lstm => {
                        let (old_c, new_c) = trace.c[start..start + 2 * width].split_at(width);
                        let Some(gates) = four(gates, rows, tile, range) else { continue };
                        step::lstm_back::<FMA>(gates, old_c, new_c, d_h, d_c);
                    }
                    Cell::Gru => {
                        let Some(gates) = four(gates, rows, tile, range) else { continue };
                        step::gru_back(gates, old_h, d_h);
                    }
                    Cell::Tanh => step::elman_back::<false>(&mut gates[tile * rows + from..], new_h, d_h),
                    Cell::Relu => step::elman_back::<true>(&mut gates[tile * rows + from..], new_h, d_h),
                }
            }
            if from == 0 {
                break;
            }
            if cell != Cell::Gru {
                d_h.fill([0.0; LANES]);
            }
            let gates = Panels { values: &trace.gates, rows, which: &packed.recurrent.into, from };
            let to = PanelsMut { values: d_h, rows: width, which: &packed.recurrent.from, from: 0 };
            add_product::<FMA>(gates, weights, width, turned, to);
        }
    }
}
