//! Streams that come, change or pause while the engine runs. What is not named here stays as it is, to the
//! bit.

use super::{Engine, SeriesHandle, Slot, StreamSpec};
use crate::reading::Timestamp;

impl Engine {
    /// Takes over the streams and series of another engine, behind its own: their numbers begin where these
    /// end.
    pub fn absorb(&mut self, other: Engine) {
        let (streams, series) = (self.streams.len(), self.slots.len() as SeriesHandle);
        self.streams.extend(other.streams);
        let slots = other.slots.into_iter();
        self.slots.extend(slots.map(|slot| Slot { stream: slot.stream + streams, ..slot }));
        self.dirty.extend(other.dirty.into_iter().map(|handle| handle + series));
        self.watch.absorb(other.watch);
    }

    /// Handles a stream by other rules from its next reading on, as a restart with them would. Whether they are
    /// others.
    pub fn set_spec(&mut self, stream: usize, spec: StreamSpec) -> bool {
        let Some(target) = self.streams.get_mut(stream) else { return false };
        let changed = std::mem::replace(&mut target.spec, spec) != spec;
        if changed {
            // One that could not fall silent may do so now.
            self.each_series(stream, |watch, handle, _| watch.look_soon(handle));
        }
        changed
    }

    /// Listens to a stream from `now` on, by the clock of [`Engine::heard`]: what was not heard of it before is
    /// no silence.
    pub fn listen(&mut self, stream: usize, now: Timestamp) {
        self.each_series(stream, |watch, handle, slot| {
            slot.arrivals.hear(now);
            watch.look_soon(handle);
        });
    }

    fn each_series(
        &mut self,
        stream: usize,
        mut each: impl FnMut(&mut super::Watch, SeriesHandle, &mut Slot),
    ) {
        for (handle, slot) in (0..).zip(&mut self.slots).filter(|(_, slot)| slot.stream == stream) {
            each(&mut self.watch, handle, slot);
        }
    }
}
