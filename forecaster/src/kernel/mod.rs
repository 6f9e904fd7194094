//! The streaming step of a network: one reading of one series, fused and free of allocation.
//!
//! Every instruction set runs the same Rust, compiled for it and chosen at run time; the reference
//! is [`crate::cell`], which a property test holds equal.

pub(crate) mod arithmetic;
mod step;

use crate::weights::{Cell, OUTPUTS, Sizes, Weights};
use step::{LANES, Layer, head};

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

/// The same for arithmetic that may fuse its multiplications with additions where the processor can, so that
/// its results differ between processors by rounding.
pub(crate) trait FusedWork {
    /// Does it; to be marked `#[inline(always)]`. `FMA` says whether `f32::mul_add` is one instruction.
    fn run<const FMA: bool>(self);
}

/// Does such work on the widest vectors that this processor has.
pub(crate) fn fused<W: FusedWork>(work: W) {
    match Isa::detect() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => {
            // SAFETY: detection found AVX2 and FMA.
            #[allow(unsafe_code, reason = "calling code compiled for features found at run time")]
            unsafe {
                fused_avx2(work);
            }
        }
        Isa::Neon => work.run::<true>(),
        _ => work.run::<false>(),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn fused_avx2<W: FusedWork>(work: W) {
    work.run::<true>();
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

/// A network packed for streaming.
#[derive(Debug, Clone)]
pub struct Network {
    isa: Isa,
    sizes: Sizes,
    padded: usize,
    /// Of each layer, for each tile of [`LANES`] hidden units: the input bias, a row for each input, the
    /// recurrent bias and a row for each hidden unit; a row holds the gates of the tile side by side.
    layers: Vec<Vec<f32>>,
    /// One row of eight (seven outputs and a zero) for each hidden unit, the bias first.
    head: Vec<[f32; 8]>,
}

/// Room a step works in, one a thread.
#[derive(Debug, Clone, Default)]
pub struct Scratch {
    /// A layer's hidden output before the step.
    old: Vec<f32>,
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
        let sizes @ Sizes { hidden, .. } = weights.sizes;
        let padded = hidden.next_multiple_of(LANES);
        let layers = (0..sizes.layers).map(|k| pack(weights, k, padded)).collect();
        let mut head = vec![[0.0; 8]; 1 + padded];
        if let Some((bias, rows)) = head.split_first_mut() {
            bias[..OUTPUTS].copy_from_slice(&weights.head_bias);
            for (output, from) in weights.head_weight.chunks_exact(hidden).enumerate() {
                for (row, weight) in rows.iter_mut().zip(from) {
                    row[output] = *weight;
                }
            }
        }
        Network { isa, sizes, padded, layers, head }
    }

    /// The code this network runs.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Hidden units of a layer.
    #[must_use]
    pub fn hidden(&self) -> usize {
        self.sizes.hidden
    }

    fn state_len(&self) -> usize {
        let a_layer = if self.sizes.cell == Cell::Lstm { 2 } else { 1 };
        a_layer * self.padded * self.layers.len()
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
        assert!(input.len() == self.sizes.inputs && self.fits(state), "input or state of another network");
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
        let (h, c) = state.values.split_at_mut(self.padded * self.layers.len());
        for (k, rows) in self.layers.iter().enumerate() {
            let span = k * self.padded..(k + 1) * self.padded;
            let (below, h) = h[..span.end].split_at_mut(span.start);
            scratch.old.clear();
            scratch.old.extend_from_slice(h);
            let input = if k == 0 { input } else { &below[span.start - self.padded..] };
            let layer = Layer { rows, input, old: &scratch.old };
            match self.sizes.cell {
                Cell::Lstm => layer.lstm::<FMA>(h, &mut c[span]),
                Cell::Gru => layer.gru::<FMA>(h),
                Cell::Tanh => layer.elman::<FMA, false>(h),
                Cell::Relu => layer.elman::<FMA, true>(h),
            }
        }
        head::<FMA>(&self.head, &h[h.len().saturating_sub(self.padded)..])
    }
}

/// Packs a layer as [`Network`] keeps it. Units from `hidden` to `padded` have zero weights, so their
/// hidden output stays zero.
fn pack(weights: &Weights, k: usize, padded: usize) -> Vec<f32> {
    let (Sizes { hidden, .. }, layer) = (weights.sizes, &weights.layers[k]);
    let (inputs, gates) = (weights.sizes.inputs_of(k), weights.sizes.cell.gates());
    let mut packed = Vec::new();
    for tile in (0..padded).step_by(LANES) {
        let mut row = |value: &dyn Fn(usize) -> f32| {
            for gate in 0..gates {
                let units = tile..tile + LANES;
                packed.extend(units.map(|u| if u < hidden { value(gate * hidden + u) } else { 0.0 }));
            }
        };
        row(&|r| layer.bias_ih[r]);
        // Columns of a layer above the first are the padded hidden units below it.
        for j in 0..if k == 0 { inputs } else { padded } {
            row(&|r| if j < inputs { layer.weight_ih[r * inputs + j] } else { 0.0 });
        }
        row(&|r| layer.bias_hh[r]);
        for j in 0..padded {
            row(&|r| if j < hidden { layer.weight_hh[r * hidden + j] } else { 0.0 });
        }
    }
    packed
}
