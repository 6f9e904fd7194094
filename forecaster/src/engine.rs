//! The engine: all series of all streams, fed one reading at a time, without I/O and without a
//! clock. The daemon, `backtest` and the tests drive the same one.

mod drift;
mod feedback;
mod probation;
mod quality;
mod silence;
mod streams;
mod swap;

use std::sync::Arc;

pub use drift::Drift;
pub use feedback::Problem;
pub use probation::{SHADOWS, Tally};
pub use quality::Quality;
pub use silence::{Heard, Silence};
pub use swap::Journal;

use drift::Detector;
use probation::Probation;
use silence::{Arrivals, Gaps, Watch};

use crate::anomaly::AnomalySettings;
use crate::model::Model;
use crate::reading::{Reading, SECOND, Step, Timestamp};
use crate::rebuilt::Rebuilt;
use crate::series::{Outcome, Room, Series};

/// Readings this far ahead of the clock are refused.
const MAX_AHEAD: i64 = 3600 * SECOND;
/// Largest value taken: differences and sums of two stay finite.
pub const MAX_VALUE: f64 = 1e300;
/// First byte of an encoded state; to be raised with every change of what a series keeps.
pub const STATE_VERSION: u8 = 4;
/// The version before feedback, which is still read.
const WITHOUT_FEEDBACK: u8 = 3;

/// A series' place in the engine, dense from 0.
pub type SeriesHandle = u32;

/// What the engine needs to know of a stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StreamSpec {
    /// Time between readings in microseconds; none means learned per series.
    pub interval: Option<i64>,
    /// Steps ahead.
    pub horizon: usize,
    /// What is worth an alarm.
    pub anomaly: AnomalySettings,
    /// Intervals without a reading after which a series is silent; 0 for never.
    pub silence_after: u32,
}

impl Default for StreamSpec {
    fn default() -> Self {
        StreamSpec { interval: None, horizon: 1, anomaly: AnomalySettings::default(), silence_after: 0 }
    }
}

/// A stored model as installed in a stream.
#[derive(Debug, Clone)]
pub struct Installed {
    /// Id in the store.
    pub id: i64,
    /// Name in messages, `<stream>-<version>`.
    pub name: Arc<str>,
    /// Version within the stream.
    pub version: i64,
    /// The network.
    pub model: Arc<Model>,
}

/// What became of a reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// Taken in; [`Engine::steps`] holds the forecast made from it.
    Accepted(Outcome),
    /// Older than the newest of its series: to be stored, not fed to the model.
    Late,
    /// As old as the newest of its series.
    Duplicate,
    /// More than an hour ahead of the clock.
    Future,
    /// Not a finite number, or beyond ±1e300.
    NotFinite,
}

#[derive(Debug)]
struct Stream {
    spec: StreamSpec,
    /// Number of its series.
    series: u32,
    model: Option<Installed>,
    journal: Option<Journal>,
    probation: Option<Probation>,
    quality: Quality,
    drift: Detector,
}

impl Stream {
    fn new(spec: StreamSpec) -> Stream {
        let (quality, drift) = Default::default();
        Stream { spec, series: 0, model: None, journal: None, probation: None, quality, drift }
    }
}

#[derive(Debug)]
struct Slot {
    stream: usize,
    dirty: bool,
    series: Series,
    gaps: Gaps,
    arrivals: Arrivals,
}

/// All series of all streams.
#[derive(Debug)]
pub struct Engine {
    streams: Vec<Stream>,
    slots: Vec<Slot>,
    dirty: Vec<SeriesHandle>,
    watch: Watch,
    steps: Vec<Step>,
    room: Room,
}

/// A checkpoint that cannot be read, for instance one of another version.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Its first byte is neither [`STATE_VERSION`] nor that of a version still read.
    #[error("the state was written by another version")]
    Version,
    /// It does not decode.
    #[error("unreadable state: {0}")]
    Format(#[from] postcard::Error),
}

impl Engine {
    /// An engine without series.
    #[must_use]
    pub fn new(streams: impl IntoIterator<Item = StreamSpec>) -> Engine {
        Engine {
            streams: streams.into_iter().map(Stream::new).collect(),
            slots: Vec::new(),
            dirty: Vec::new(),
            watch: Watch::default(),
            steps: Vec::new(),
            room: Room::default(),
        }
    }

    /// Adds a series to a stream; handles count from 0.
    pub fn add_series(&mut self, stream: usize) -> SeriesHandle {
        let (series, gaps, arrivals) = Default::default();
        self.slots.push(Slot { stream, dirty: false, series, gaps, arrivals });
        self.streams.get_mut(stream).into_iter().for_each(|s| s.series += 1);
        self.watch.add();
        (self.slots.len() - 1) as SeriesHandle
    }

    /// Takes in a reading. `now` is the wall clock, against readings from the future.
    ///
    /// # Panics
    /// If `handle` was not given out by [`Engine::add_series`].
    pub fn observe(&mut self, handle: SeriesHandle, reading: Reading, now: Timestamp) -> Verdict {
        self.steps.clear();
        if !(-MAX_VALUE..=MAX_VALUE).contains(&reading.value) {
            return Verdict::NotFinite;
        }
        if reading.time.0.saturating_sub(now.0) > MAX_AHEAD {
            return Verdict::Future;
        }
        let slot = &mut self.slots[handle as usize];
        let stream = &mut self.streams[slot.stream];
        if let Some(last) = slot.series.last() {
            if reading.time == last.time {
                return Verdict::Duplicate;
            }
            if reading.time < last.time {
                return Verdict::Late;
            }
            let StreamSpec { interval, silence_after, .. } = stream.spec;
            if slot.gaps.observe(reading.time.0 - last.time.0, interval, silence_after) {
                self.watch.look_soon(handle);
            }
        }
        if let Some(probation) = &mut stream.probation {
            probation.observe(handle, &slot.series, reading, &stream.spec, &mut self.room);
        }
        let model = stream.model.as_ref().map(|m| &*m.model);
        let outcome = slot.series.observe(reading, &stream.spec, model, &mut self.room, &mut self.steps);
        stream.quality.observe(&outcome);
        if let Some(verification) = &outcome.verification {
            stream.drift.observe(verification, stream.series);
        }
        swap::note(&mut stream.journal, handle, reading);
        if !std::mem::replace(&mut slot.dirty, true) {
            self.dirty.push(handle);
        }
        Verdict::Accepted(outcome)
    }

    /// The forecast made from the last reading observed; empty if it was not accepted, or if the
    /// series' interval or differences are still unknown.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The forecast of a series from its newest reading.
    pub fn forecast(&mut self, handle: SeriesHandle) -> &[Step] {
        self.steps.clear();
        if let Some(slot) = self.slots.get(handle as usize) {
            let stream = &self.streams[slot.stream];
            let model = stream.model.as_ref().map(|m| &*m.model);
            slot.series.forecast(&stream.spec, model, &mut self.room, &mut self.steps);
        }
        &self.steps
    }

    /// The first step of what [`Engine::forecast`] gives, at a fraction of its cost.
    #[must_use]
    pub fn next(&self, handle: SeriesHandle) -> Option<Step> {
        let slot = self.slots.get(handle as usize)?;
        slot.series.next(&self.streams[slot.stream].spec)
    }

    /// Makes the forecast of a series from its newest reading anew, under the model that is installed, and
    /// gives it out in the place of the one before.
    pub fn reissue(&mut self, handle: SeriesHandle) -> &[Step] {
        self.slots.get_mut(handle as usize).into_iter().for_each(|slot| slot.series.give_out());
        self.forecast(handle)
    }

    /// A series.
    #[must_use]
    pub fn series(&self, handle: SeriesHandle) -> Option<&Series> {
        self.slots.get(handle as usize).map(|s| &s.series)
    }

    /// The model that made a series' present forecast; none for the naive one.
    #[must_use]
    pub fn model_of(&self, handle: SeriesHandle) -> Option<&Installed> {
        let slot = self.slots.get(handle as usize)?;
        self.streams[slot.stream].model.as_ref().filter(|_| slot.series.uses_model())
    }

    /// The model installed in a stream.
    #[must_use]
    pub fn installed(&self, stream: usize) -> Option<&Installed> {
        self.streams.get(stream)?.model.as_ref()
    }

    /// Recent quality of a stream's forecasts.
    #[must_use]
    pub fn quality(&self, stream: usize) -> Quality {
        self.streams.get(stream).map(|s| s.quality).unwrap_or_default()
    }

    /// What has drifted in a stream since its model came in, or since [`Engine::reset_drift`].
    #[must_use]
    pub fn drift(&self, stream: usize) -> Option<Drift> {
        self.streams.get(stream)?.drift.drift()
    }

    /// Takes how the forecasts do from here on for what is usual.
    pub fn reset_drift(&mut self, stream: usize) {
        self.streams.get_mut(stream).into_iter().for_each(|s| s.drift = Detector::default());
    }

    /// Sets a stream's model at start, before any series is restored.
    pub fn set_model(&mut self, stream: usize, model: Installed) {
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.model = Some(model);
        }
    }

    /// Series that moved since they were last checkpointed.
    #[must_use]
    pub fn unsaved(&self) -> usize {
        self.dirty.len()
    }

    /// Hands out the states of up to `limit` series that moved since their last checkpoint: time of
    /// the last reading, id of the model whose hidden state it holds, and the encoded state.
    pub fn checkpoint(
        &mut self,
        limit: usize,
        mut each: impl FnMut(SeriesHandle, Timestamp, Option<i64>, Vec<u8>),
    ) {
        for handle in self.dirty.drain(..limit.min(self.dirty.len())) {
            let slot = &mut self.slots[handle as usize];
            slot.dirty = false;
            let model = self.streams[slot.stream].model.as_ref().map(|m| m.id);
            let state = (&slot.series, &slot.gaps, slot.series.taught());
            let state = postcard::to_extend(&state, vec![STATE_VERSION]);
            if let (Some(last), Ok(state)) = (slot.series.last(), state) {
                each(handle, last.time, model, state);
            }
        }
    }

    /// Restores a series from a checkpoint. What it holds of another model than the one installed is
    /// left out, to be rebuilt; returns whether that is so.
    ///
    /// # Errors
    /// If the state cannot be read; the series stays as it was.
    pub fn restore(
        &mut self,
        handle: SeriesHandle,
        model: Option<i64>,
        state: &[u8],
    ) -> Result<bool, StateError> {
        let slot = &mut self.slots[handle as usize];
        let taught;
        (slot.series, slot.gaps, taught) = match state.split_first() {
            Some((&STATE_VERSION, state)) => postcard::from_bytes(state)?,
            Some((&WITHOUT_FEEDBACK, state)) => {
                let (series, gaps) = postcard::from_bytes(state)?;
                (series, gaps, Default::default())
            }
            _ => return Err(StateError::Version),
        };
        slot.series.set_taught(taught);
        self.watch.look_soon(handle);
        let stale = model != self.streams[slot.stream].model.as_ref().map(|m| m.id);
        if stale {
            slot.series.adopt(None);
        }
        Ok(stale)
    }

    /// Gives a series whose checkpoint held another model's state, or none, the one rebuilt.
    pub fn adopt(&mut self, handle: SeriesHandle, rebuilt: Rebuilt) {
        if let Some(slot) = self.slots.get_mut(handle as usize) {
            slot.series.adopt(Some(rebuilt));
        }
    }
}
