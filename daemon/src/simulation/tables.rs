//! The tables, and what a commit does to them: the same as in SQL.

use std::collections::{BTreeMap, BTreeSet};

use super::invariants;
use super::sensors::{POISON, REFUSED, Sent};
use super::sim::Sim;
use crate::record::{AnomalyChange, FeedbackRow, ModelChange, Promotion, SeriesHandle, StateRow, WriteBatch};
use crate::store::{
    Changed, ModelName, ModelRow, SeriesIds, SeriesRow, StoreError, StoredFeedback, StoredState, Written,
};

#[derive(Debug, Default, Clone)]
pub(super) struct Tables {
    pub(super) series: Vec<SeriesRow>,
    /// Value, and whether it is late, by series and time.
    pub(super) readings: BTreeMap<(i64, i64), (f64, bool)>,
    /// By series, origin and step.
    pub(super) forecasts: BTreeMap<(i64, i64, i16), ForecastRow>,
    /// When each ended, by series, kind and time.
    pub(super) anomalies: BTreeMap<(i64, &'static str, i64), Option<i64>>,
    pub(super) states: BTreeMap<i64, StoredState>,
    pub(super) models: Vec<ModelRow>,
    /// By series and when it was said.
    pub(super) feedback: BTreeMap<(i64, i64), StoredFeedback>,
    /// Keys of series with rows in batches that were refused, and so written piece by piece.
    pub(super) pieces: BTreeSet<String>,
    /// Streams of which the model changed, or was about to.
    pub(super) swapped: BTreeSet<String>,
    /// Streams of which readings were forecast from and not stored.
    pub(super) unstored: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct ForecastRow {
    pub(super) time: i64,
    pub(super) mean: f64,
    pub(super) quantiles: [f64; 7],
    pub(super) model: Option<i64>,
}

/// Ids by handle that a commit gave.
pub(super) type NewIds = Vec<(SeriesHandle, i64)>;

impl Tables {
    pub(super) fn id(&self, key: &str) -> Option<i64> {
        self.series.iter().find(|s| s.key == key).map(|s| s.id)
    }

    /// Whether the model of a series may have seen what is not stored.
    pub(super) fn troubled(&self, id: i64) -> bool {
        let series = self.series.iter().find(|s| s.id == id).unwrap();
        self.pieces.contains(&series.key) || self.unstored.contains(&series.stream)
    }

    pub(super) fn champion(&self, stream: &str) -> Option<&ModelRow> {
        self.models.iter().find(|m| m.stream == stream && m.status == "champion")
    }

    /// Readings of a series that were fed to the model, in order.
    pub(super) fn fed(&self, id: i64) -> impl DoubleEndedIterator<Item = (i64, f64)> + '_ {
        self.readings
            .range((id, i64::MIN)..=(id, i64::MAX))
            .filter(|(_, (_, late))| !late)
            .map(|((_, time), (value, _))| (*time, *value))
    }

    /// What was said of a series, the first first.
    pub(super) fn said(&self, id: i64) -> impl Iterator<Item = &StoredFeedback> + '_ {
        self.feedback.range((id, i64::MIN)..=(id, i64::MAX)).map(|(_, row)| row)
    }

    /// Whether a reading needs no more to be kept for good.
    pub(super) fn durable(&self, sent: &Sent) -> bool {
        sent.refused || self.copies(sent) > 0
    }

    /// Rows that a reading has: of its time, or of its value where the time is the arrival.
    pub(super) fn copies(&self, sent: &Sent) -> usize {
        let Some(id) = self.id(&sent.key) else { return 0 };
        match sent.time {
            Some(time) => usize::from(self.readings.contains_key(&(id, time))),
            None => {
                let rows = self.readings.range((id, i64::MIN)..=(id, i64::MAX));
                rows.filter(|(_, (value, _))| *value == sent.value).count()
            }
        }
    }

    /// All or nothing.
    pub(super) fn commit(
        &mut self,
        sim: &Sim,
        batch: &WriteBatch,
        ids: &SeriesIds,
    ) -> Result<(Written, NewIds), StoreError> {
        let mut after = self.clone();
        let done = after.apply(sim, batch, ids);
        if done.is_ok() {
            *self = after;
            return done;
        }
        for &handle in &batch.readings.series {
            let new = batch.new_series.iter().find(|s| s.handle == handle).map(|s| &s.key);
            let known = ids.get(handle).and_then(|id| Some(&self.series.iter().find(|s| s.id == id)?.key));
            self.pieces.extend(new.or(known).cloned());
        }
        done
    }

    fn apply(
        &mut self,
        sim: &Sim,
        batch: &WriteBatch,
        ids: &SeriesIds,
    ) -> Result<(Written, NewIds), StoreError> {
        let refused = |what: &str| Err(StoreError::Refused(what.to_owned()));
        let mut new = NewIds::new();
        for series in &batch.new_series {
            if series.key.contains(REFUSED) {
                return refused("such series are refused");
            }
            let id = self.id(&series.key).unwrap_or_else(|| {
                let id = self.series.len() as i64 + 1;
                self.series.push(SeriesRow {
                    id,
                    key: series.key.clone(),
                    stream: series.stream.clone(),
                    labels: series.labels.clone(),
                    field: series.field.clone(),
                });
                id
            });
            new.push((series.handle, id));
        }
        let resolve = |handle: SeriesHandle| {
            let made = || new.iter().find(|(of, _)| *of == handle).map(|(_, id)| *id);
            let id = ids.get(handle).or_else(made);
            id.ok_or_else(|| StoreError::Refused(format!("series {handle} was never stored")))
        };
        let mut written = Written::default();
        for (place, &handle) in batch.readings.series.iter().enumerate() {
            let id = resolve(handle)?;
            let (time, value, late) =
                (batch.readings.time[place], batch.readings.value[place], batch.readings.late[place]);
            if value >= POISON {
                return refused("such values are refused");
            }
            if self.readings.contains_key(&(id, time)) {
                written.duplicates.push(place);
                continue;
            }
            invariants::stored(sim, self, id, time, late);
            self.readings.insert((id, time), (value, late));
            written.stored += 1;
        }
        let rows = &batch.forecasts;
        for (place, &handle) in rows.series.iter().enumerate() {
            let row = ForecastRow {
                time: rows.time[place],
                mean: rows.mean[place],
                quantiles: rows.quantiles.each_ref().map(|column| column[place]),
                model: rows.model[place],
            };
            self.forecasts.entry((resolve(handle)?, rows.origin[place], rows.step[place])).or_insert(row);
        }
        for change in &batch.anomalies {
            match *change {
                AnomalyChange::Began { series, time, kind, .. } => {
                    self.anomalies.entry((resolve(series)?, kind.as_str(), time)).or_insert(None);
                }
                AnomalyChange::Ended { series, time, kind, ended_at } => {
                    self.anomalies
                        .entry((resolve(series)?, kind.as_str(), time))
                        .and_modify(|end| *end = Some(ended_at));
                }
            }
        }
        for StateRow { series, time, model, state } in &batch.states {
            let id = resolve(*series)?;
            let row = StoredState { series_id: id, time: *time, model: *model, state: state.clone() };
            invariants::checkpointed(sim, self, &row);
            self.states.insert(id, row);
        }
        for &FeedbackRow { series, given_at, newest, anomaly, evidence, .. } in &batch.feedback {
            let series_id = resolve(series)?;
            let row = StoredFeedback { series_id, newest, anomaly, evidence };
            self.feedback.entry((series_id, given_at)).or_insert(row);
        }
        for change in &batch.models {
            match change {
                ModelChange::Promote(promotion) => written.models.push(self.promote(sim, promotion)?),
                ModelChange::Rollback(_) => return refused("nobody rolls back here"),
            }
        }
        invariants::silences(sim, self);
        Ok((written, new))
    }

    fn promote(&mut self, sim: &Sim, promotion: &Promotion) -> Result<Changed, StoreError> {
        let Some(stream) = self.models.iter().find(|m| m.id == promotion.model).map(|m| m.stream.clone())
        else {
            return Err(StoreError::Refused("no such model".to_owned()));
        };
        let champion = self.champion(&stream).map(|m| m.id);
        if champion == Some(promotion.model) {
            return Ok(Changed::Promoted);
        }
        if promotion.expected.is_some_and(|expected| expected != champion) {
            let name = |id| self.models.iter().find(|m| m.id == id).map_or("", |m| &m.name).to_owned();
            return Ok(Changed::LeftOut { champion: champion.map(|id| ModelName { id, name: name(id) }) });
        }
        invariants::promoted(sim, self, &stream, promotion.model);
        for model in &mut self.models {
            if Some(model.id) == champion {
                model.status = "retired".to_owned();
            }
            if model.id == promotion.model {
                model.status = "champion".to_owned();
            }
        }
        Ok(Changed::Promoted)
    }
}
