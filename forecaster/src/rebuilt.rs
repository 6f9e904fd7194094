//! What a model would have made of a series' past: its states before it is swapped in.

use crate::engine::StreamSpec;
use crate::model::Model;
use crate::reading::Reading;
use crate::series::{Room, Series};
use crate::train::learned;

/// What a model makes of a series' past.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rebuilt {
    series: Box<Series>,
}

impl Rebuilt {
    pub(crate) fn into_series(self) -> Series {
        *self.series
    }

    /// Takes in a further reading; one that is not newer is passed over.
    pub fn step(&mut self, reading: Reading, spec: &StreamSpec, model: &Model, heard: bool, room: &mut Room) {
        if self.series.last().is_none_or(|last| reading.time > last.time) {
            self.series.follow(reading, spec, Some(model), heard, room);
        }
    }
}

/// What a model makes of a series' readings, in order of time; none if there are none. The model is not
/// heard on those before the slice that was held out: its errors there say nothing of those to come.
#[must_use]
pub fn rebuild(model: &Model, readings: &[Reading], spec: &StreamSpec) -> Option<Rebuilt> {
    let known = readings.partition_point(|r| r.time <= model.trained_until());
    let mut room = Room::default();
    let mut rebuilt: Option<Rebuilt> = None;
    for (row, reading) in readings.iter().enumerate() {
        let heard = row >= learned(known);
        rebuilt.get_or_insert_default().step(*reading, spec, model, heard, &mut room);
    }
    rebuilt
}
