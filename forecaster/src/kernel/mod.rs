//! The streaming step of the network: one reading of one series, fused and free of allocation.
//!
//! Every instruction set runs the same Rust, compiled for it and chosen at run time; the reference
//! is [`crate::cell`], which a property test holds equal.

mod step;

use crate::weights::{GATES, OUTPUTS, Weights};
use step::{LANES, TILE, head, layer_step};

/// The code that a step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// AVX2 with fused multiply-add.
    Avx2,
    /// AArch64 with NEON, which every such processor has.
    Neon,
    /// Any processor.
    Portable,
}

impl Isa {
    /// The fastest that this processor has.
    #[must_use]
    pub fn detect() -> Isa {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            return Isa::Avx2;
        }
        if cfg!(target_arch = "aarch64") { Isa::Neon } else { Isa::Portable }
    }
}

/// A piece of arithmetic that is worth compiling for wide vectors.
pub(crate) trait Work {
    /// What comes of it.
    type Output;

    /// Does it. To be marked `#[inline(always)]`: what is not inlined is compiled for any processor.
    fn run(self) -> Self::Output;
}

/// Does work on the widest vectors that this processor has. The results are the same on all: nothing is
/// fused or reordered.
#[inline(always)]
pub(crate) fn vectorised<W: Work>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    if Isa::detect() == Isa::Avx2 {
        // SAFETY: detection found AVX2 and FMA.
        #[allow(unsafe_code, reason = "calling code compiled for features found at run time")]
        return unsafe { vectorised_avx2(work) };
    }
    work.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn vectorised_avx2<W: Work>(work: W) -> W::Output {
    work.run()
}

/// Hidden state (h, c) of one series, all layers, padded to the kernel's lanes.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct HiddenState {
    /// h of all layers, then c of all.
    values: Box<[f32]>,
}

impl HiddenState {
    /// Hidden output of a layer, of the length it was made with or shorter.
    #[must_use]
    pub fn output(&self, layer: usize, hidden: usize) -> &[f32] {
        let padded = hidden.next_multiple_of(LANES);
        self.values.get(layer * padded..layer * padded + hidden).unwrap_or_default()
    }
}

/// One layer, packed: for each tile of [`LANES`] hidden units, the bias and then a row for each
/// input and each hidden unit; a row holds the four gates of the tile side by side.
#[derive(Debug, Clone)]
struct PackedLayer {
    tiles: Vec<[f32; TILE]>,
}

/// A network packed for streaming.
#[derive(Debug, Clone)]
pub struct Network {
    isa: Isa,
    inputs: usize,
    hidden: usize,
    padded: usize,
    layers: Vec<PackedLayer>,
    /// One row of eight (seven outputs and a zero) for each hidden unit, the bias first.
    head: Vec<[f32; 8]>,
}

/// Room a step works in, one a thread.
#[derive(Debug, Clone, Default)]
pub struct Scratch {
    column: Vec<f32>,
}

impl Network {
    /// Packs weights for the fastest code that this processor has.
    #[must_use]
    pub fn new(weights: &Weights) -> Network {
        Network::with_isa(weights, Isa::detect())
    }

    /// Packs weights for the code given; one the processor lacks falls back to portable.
    #[must_use]
    pub fn with_isa(weights: &Weights, isa: Isa) -> Network {
        let isa = if isa == Isa::detect() { isa } else { Isa::Portable };
        let hidden = weights.sizes.hidden;
        let padded = hidden.next_multiple_of(LANES);
        let layers = weights
            .layers
            .iter()
            .enumerate()
            .map(|(k, layer)| {
                let inputs = weights.sizes.inputs_of(k);
                // Columns of a layer above the first are the padded hidden units below it.
                let columns = if k == 0 { inputs } else { padded };
                let mut tiles = Vec::with_capacity((padded / LANES) * (1 + columns + padded));
                for tile in 0..padded / LANES {
                    let row = |value: &dyn Fn(usize) -> f32| {
                        let mut out = [0.0; TILE];
                        for gate in 0..GATES {
                            for lane in 0..LANES {
                                let unit = tile * LANES + lane;
                                if unit < hidden {
                                    out[gate * LANES + lane] = value(gate * hidden + unit);
                                }
                            }
                        }
                        out
                    };
                    tiles.push(row(&|r| layer.bias_ih[r] + layer.bias_hh[r]));
                    for j in 0..columns {
                        tiles.push(row(&|r| if j < inputs { layer.weight_ih[r * inputs + j] } else { 0.0 }));
                    }
                    for j in 0..padded {
                        tiles.push(row(&|r| if j < hidden { layer.weight_hh[r * hidden + j] } else { 0.0 }));
                    }
                }
                PackedLayer { tiles }
            })
            .collect();
        let mut head = vec![[0.0; 8]; 1 + padded];
        if let Some((bias, rows)) = head.split_first_mut() {
            bias[..OUTPUTS].copy_from_slice(&weights.head_bias);
            for (output, from) in weights.head_weight.chunks_exact(hidden).enumerate() {
                for (row, weight) in rows.iter_mut().zip(from) {
                    row[output] = *weight;
                }
            }
        }
        Network { isa, inputs: weights.sizes.inputs, hidden, padded, layers, head }
    }

    /// The code this network runs.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Hidden units of a layer.
    #[must_use]
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    fn state_len(&self) -> usize {
        2 * self.padded * self.layers.len()
    }

    /// The state before the first reading: all zero.
    #[must_use]
    pub fn zero_state(&self) -> HiddenState {
        HiddenState { values: vec![0.0; self.state_len()].into() }
    }

    /// Whether a state is of this network's size.
    #[must_use]
    pub fn fits(&self, state: &HiddenState) -> bool {
        state.values.len() == self.state_len()
    }

    /// Feeds one input to the state, and returns what the head makes of the new hidden output.
    ///
    /// # Panics
    /// If `input` or `state` is of another size than the network's.
    pub fn step(&self, input: &[f32], state: &mut HiddenState, scratch: &mut Scratch) -> [f32; OUTPUTS] {
        assert!(input.len() == self.inputs && self.fits(state), "input or state of another network");
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                // SAFETY: `with_isa` keeps `Avx2` only where detection found AVX2 and FMA.
                #[allow(unsafe_code, reason = "calling code compiled for features found at run time")]
                unsafe {
                    self.step_avx2(input, state, scratch)
                }
            }
            Isa::Neon => self.step_with::<true>(input, state, scratch),
            _ => self.step_with::<false>(input, state, scratch),
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn step_avx2(&self, input: &[f32], state: &mut HiddenState, scratch: &mut Scratch) -> [f32; OUTPUTS] {
        self.step_with::<true>(input, state, scratch)
    }

    #[inline(always)]
    fn step_with<const FMA: bool>(
        &self,
        input: &[f32],
        state: &mut HiddenState,
        scratch: &mut Scratch,
    ) -> [f32; OUTPUTS] {
        let column = &mut scratch.column;
        let (h, c) = state.values.split_at_mut(self.padded * self.layers.len());
        let mut below = 0;
        for (k, layer) in self.layers.iter().enumerate() {
            let span = k * self.padded..(k + 1) * self.padded;
            column.clear();
            if k == 0 {
                column.extend_from_slice(input);
            } else {
                column.extend_from_slice(&h[below..below + self.padded]);
            }
            column.extend_from_slice(&h[span.clone()]);
            below = span.start;
            layer_step::<FMA>(&layer.tiles, column, &mut h[span.clone()], &mut c[span]);
        }
        head::<FMA>(&self.head, &h[below..below + self.padded])
    }
}
