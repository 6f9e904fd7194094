//! How one model takes over from another: a journal keeps the readings that come while states are rebuilt,
//! and the model replaced may go on in the shadow of the new one.

use std::sync::Arc;

use hashbrown::HashMap;

use super::probation::{Probation, Tally};
use super::{Detector, Engine, Installed, Quality, SeriesHandle};
use crate::model::Model;
use crate::reading::Reading;
use crate::rebuilt::Rebuilt;

/// Readings kept while a model is being brought up to date; beyond it the model is not installed.
const MAX_JOURNAL: usize = 1 << 20;

/// Readings of a stream in the order they came.
pub type Journal = Vec<(SeriesHandle, Reading)>;

/// Notes a reading; one beyond the bound marks the journal as overflown.
pub(super) fn note(journal: &mut Option<Journal>, handle: SeriesHandle, reading: Reading) {
    if let Some(journal) = journal
        && journal.len() <= MAX_JOURNAL
    {
        journal.push((handle, reading));
    }
}

impl Engine {
    /// From here on keeps the readings of a stream, so that a model whose states were rebuilt from
    /// readings up to now can catch up.
    pub fn open_journal(&mut self, stream: usize) {
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.journal = Some(Vec::new());
        }
    }

    /// Stops keeping them: the model will not come after all.
    pub fn close_journal(&mut self, stream: usize) {
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.journal = None;
        }
    }

    /// Hands out what the journal holds, and goes on with an empty one. None if it overflowed or is closed.
    pub fn take_journal(&mut self, stream: usize) -> Option<Journal> {
        let journal = self.streams.get_mut(stream)?.journal.as_mut()?;
        (journal.len() <= MAX_JOURNAL).then(|| std::mem::take(journal))
    }

    /// Swaps a model in. `states` are rebuilt from the stored readings; series without one start
    /// from zero. What the journal holds beyond is replayed first, and the next forecast of each
    /// series is the new model's. False, and nothing changed, if the journal overflowed.
    ///
    /// On `probation`, the model before (or the online experts alone) goes on in the new one's shadow.
    pub fn install(
        &mut self,
        stream: usize,
        model: Installed,
        states: Vec<(SeriesHandle, Rebuilt)>,
        probation: bool,
    ) -> bool {
        let Some(target) = self.streams.get_mut(stream) else { return false };
        let journal = target.journal.take().unwrap_or_default();
        if journal.len() > MAX_JOURNAL {
            return false;
        }
        let spec = target.spec;
        let mut rebuilt: HashMap<SeriesHandle, Rebuilt> = states.into_iter().collect();
        for (handle, reading) in journal {
            let state = rebuilt.entry(handle).or_default();
            state.step(reading, &spec, &model.model, true, &mut self.room);
        }
        self.change_model(stream, Some(model), rebuilt, probation);
        true
    }

    /// Takes a stream's model out: the online experts forecast alone.
    pub fn uninstall(&mut self, stream: usize) {
        self.change_model(stream, None, HashMap::new(), false);
    }

    fn change_model(
        &mut self,
        stream: usize,
        model: Option<Installed>,
        mut rebuilt: HashMap<SeriesHandle, Rebuilt>,
        probation: bool,
    ) {
        let handles: Vec<SeriesHandle> = self.handles(stream).collect();
        let Some(target) = self.streams.get_mut(stream) else { return };
        let before = std::mem::replace(&mut target.model, model);
        target.probation = probation.then(|| {
            let series = |handle| self.slots[handle as usize].series.clone();
            Probation::new(before.map(|m| m.model), &handles, series, Tally::default())
        });
        target.quality = Quality::default();
        target.drift = Detector::default();
        for handle in handles {
            let slot = &mut self.slots[handle as usize];
            slot.series.change_model(rebuilt.remove(&handle));
            if !slot.dirty && slot.series.last().is_some() {
                slot.dirty = true;
                self.dirty.push(handle);
            }
        }
    }

    /// Goes on with a probation that a restart interrupted: `states` are those of the model before, rebuilt
    /// from the stored readings (none of the online experts alone), and `tally` is what was counted.
    pub fn resume_probation(
        &mut self,
        stream: usize,
        before: Option<Arc<Model>>,
        mut states: HashMap<SeriesHandle, Rebuilt>,
        tally: Tally,
    ) {
        let handles: Vec<SeriesHandle> = self.handles(stream).collect();
        let Some(target) = self.streams.get_mut(stream) else { return };
        for (handle, reading) in target.journal.take().unwrap_or_default() {
            if let (Some(model), Some(state)) = (&before, states.get_mut(&handle)) {
                state.step(reading, &target.spec, model, true, &mut self.room);
            }
        }
        let series = |handle| {
            let mut series = self.slots[handle as usize].series.clone();
            series.adopt(states.remove(&handle));
            series
        };
        target.probation = Some(Probation::new(before, &handles, series, tally));
    }

    /// What the probation of a stream's model counted; none if it is on none.
    #[must_use]
    pub fn probation(&self, stream: usize) -> Option<Tally> {
        Some(self.streams.get(stream)?.probation.as_ref()?.tally())
    }

    /// Ends the probation: the model before is let go.
    pub fn end_probation(&mut self, stream: usize) {
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.probation = None;
        }
    }

    /// Series of a stream.
    fn handles(&self, stream: usize) -> impl Iterator<Item = SeriesHandle> + '_ {
        (0..).zip(&self.slots).filter(move |(_, s)| s.stream == stream).map(|(handle, _)| handle)
    }
}
