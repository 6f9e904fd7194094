//! What writing a batch has in common on both databases: ids for handles, duplicates.

use std::collections::{BTreeMap, HashSet};

use super::promotions::Changed;
use super::{StoreError, without_nul};
use crate::record::{AnomalyChange, AnomalyKind, Broken, NewSeries, ReadingColumns, SeriesHandle};

/// The database's id of each series, by handle.
#[derive(Debug, Default, Clone)]
pub struct SeriesIds {
    /// 0 where the series is not stored yet; ids start at 1.
    ids: Vec<i64>,
}

impl SeriesIds {
    /// Notes the id of a series.
    pub fn insert(&mut self, handle: SeriesHandle, id: i64) {
        let place = handle as usize;
        if self.ids.len() <= place {
            self.ids.resize(place + 1, 0);
        }
        if let Some(slot) = self.ids.get_mut(place) {
            *slot = id;
        }
    }

    /// The id of a series, once it is stored.
    #[must_use]
    pub fn get(&self, handle: SeriesHandle) -> Option<i64> {
        self.ids.get(handle as usize).copied().filter(|&id| id != 0)
    }
}

/// What a commit did with the readings, and with the champions.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Written {
    /// Readings that were not there before.
    pub stored: u64,
    /// Position in the batch of each reading that was already there, or twice in the batch.
    pub duplicates: Vec<usize>,
    /// What became of each change of a champion.
    pub models: Vec<Changed>,
}

/// Ids made in the transaction under way, not to be kept unless it commits.
pub(super) type NewIds = Vec<(SeriesHandle, i64)>;

/// The ids of a column of handles.
pub(super) fn resolve(
    handles: &[SeriesHandle],
    ids: &SeriesIds,
    new: &BTreeMap<SeriesHandle, i64>,
) -> Result<Vec<i64>, StoreError> {
    handles
        .iter()
        .map(|&handle| {
            ids.get(handle)
                .or_else(|| new.get(&handle).copied())
                .ok_or_else(|| StoreError::Refused(format!("series {handle} was never stored")))
        })
        .collect()
}

/// Which readings were duplicates, given the `(series id, time)` of those that were inserted.
pub(super) fn written(readings: &ReadingColumns, ids: &[i64], mut inserted: HashSet<(i64, i64)>) -> Written {
    let stored = inserted.len() as u64;
    let duplicates = ids
        .iter()
        .zip(&readings.time)
        .enumerate()
        .filter(|(_, (id, time))| !inserted.remove(&(**id, **time)))
        .map(|(position, _)| position)
        .collect();
    Written { stored, duplicates, models: Vec::new() }
}

/// Labels as JSON text that both databases take.
pub(super) fn labels(series: &NewSeries) -> Result<String, StoreError> {
    let clean: BTreeMap<_, _> =
        series.labels.iter().map(|(name, value)| (without_nul(name), without_nul(value))).collect();
    serde_json::to_string(&clean).map_err(|e| StoreError::Refused(e.to_string()))
}

/// A row of `anomalies` that begins.
pub(super) struct Began {
    pub(super) series: SeriesHandle,
    pub(super) time: i64,
    pub(super) kind: AnomalyKind,
    pub(super) value: f64,
    pub(super) broken: Option<Broken>,
}

/// A row of `anomalies` that ends.
pub(super) struct Ended {
    pub(super) series: SeriesHandle,
    pub(super) time: i64,
    pub(super) kind: AnomalyKind,
    pub(super) ended_at: i64,
}

/// Beginnings apart from ends: written in this order they give the same as one by one, since an
/// end names its beginning by time and kind.
pub(super) fn by_kind(changes: &[AnomalyChange]) -> (Vec<Began>, Vec<Ended>) {
    let (mut began, mut ended) = (Vec::new(), Vec::new());
    for change in changes {
        match *change {
            AnomalyChange::Began { series, time, kind, value, broken } => {
                began.push(Began { series, time, kind, value, broken });
            }
            AnomalyChange::Ended { series, time, kind, ended_at } => {
                ended.push(Ended { series, time, kind, ended_at });
            }
        }
    }
    (began, ended)
}

/// One way out of a transaction that went through.
pub(super) enum Attempt {
    /// To be committed.
    Complete(Written, NewIds),
    /// Some readings were there already: roll back, and again in the way that says which.
    Duplicates,
}
