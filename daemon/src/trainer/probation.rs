//! A new champion proves itself: the one before goes on forecasting in its shadow, and comes back if live
//! readings say that it was better.

use std::sync::Arc;

use forecaster::Tally;

use super::{StreamWatch, Trainer};
use crate::config;
use crate::message::TrainerMessage;
use crate::record::{ModelChange, Rollback};
use crate::training;

/// Readings that say enough.
const ENOUGH: u64 = 100;
/// Standard errors by which a loss must have risen to end a probation before its time.
const SURE: f64 = 4.0;

/// What becomes of a champion on probation.
#[derive(Debug, PartialEq)]
enum Fate {
    /// It goes on.
    Wait,
    /// It stays.
    Confirm,
    /// The one before comes back; why.
    RollBack(String),
}

/// What readings over `window` microseconds of their own time say.
fn fate(tally: &Tally, window: i64) -> Fate {
    let Some(rise) = tally.rise().filter(|_| tally.readings >= ENOUGH) else { return Fate::Wait };
    let reason = || {
        format!(
            "its loss over {} live readings was {:.1} % above that of the forecasts before it",
            tally.readings,
            100.0 * rise
        )
    };
    let over = tally.until - tally.from >= window;
    if rise > 0.0 && (over || tally.deviations().is_some_and(|d| d >= SURE)) {
        return Fate::RollBack(reason());
    }
    if over { Fate::Confirm } else { Fate::Wait }
}

impl Trainer {
    /// Lets the model before go on in the shadow of a champion that is on probation in the store and not yet in
    /// the engine; if that fails, it is said.
    pub(super) async fn take_up_probation(&self, position: usize, stream: &config::Stream) {
        if let Err(error) = self.resume_probation(position, stream).await {
            tracing::warn!(stream = %stream.name, "cannot go on with the probation: {error:#}");
        }
    }

    async fn resume_probation(&self, position: usize, stream: &config::Stream) -> anyhow::Result<()> {
        if self.installed.get(position).copied().flatten().is_none() {
            return Ok(());
        }
        let Some(row) = self.store.probation(&stream.name).await? else { return Ok(()) };
        if self.installed.get(position) != Some(&Some(row.model)) {
            return Ok(());
        }
        let tally = row.metrics.and_then(|m| serde_json::from_value(m).ok()).unwrap_or_default();
        let (before, states) = match row.previous {
            None => (None, Default::default()),
            Some(id) => {
                let previous = self.store.model(id).await?;
                let Some(model) = previous.and_then(|row| training::model_of(&row).ok()).map(Arc::new) else {
                    // Without the one before there is nothing to go back to.
                    self.store.confirm(row.id, training::now(), &serde_json::to_value(tally)?).await?;
                    return Ok(());
                };
                let states = self.swap().states(position, stream, &model).await?;
                (Some(model), states)
            }
        };
        self.tell(TrainerMessage::ResumeProbation { stream: position, before, states, tally }).await?;
        tracing::debug!(stream = %stream.name, readings = tally.readings, "the probation goes on");
        Ok(())
    }

    /// Ends a probation that has shown enough.
    pub(super) async fn end_probation(
        &mut self,
        position: usize,
        stream: &config::Stream,
        watch: &StreamWatch,
    ) -> anyhow::Result<()> {
        let Some(tally) = &watch.probation else { return Ok(()) };
        let window = self.config.models.probation.map_or(0, training::micros);
        let reason = match fate(tally, window) {
            Fate::Wait => return Ok(()),
            Fate::Confirm => None,
            Fate::RollBack(reason) => Some(reason),
        };
        if self.installed.get(position) != Some(&watch.model) {
            // The verdict is on a model that has just been replaced.
            return Ok(());
        }
        let row = self.store.probation(&stream.name).await?.filter(|row| Some(row.model) == watch.model);
        let Some(row) = row else {
            // Somebody else has ended it, or another model is champion: `follow` sees to that.
            return self.tell(TrainerMessage::EndProbation { stream: position }).await;
        };
        let reason = match row.previous {
            // Without the one before there is nothing to go back to.
            Some(id) if reason.is_some() && !self.usable(id).await? => None,
            _ => reason,
        };
        let metrics = serde_json::to_value(tally)?;
        let Some(reason) = reason else {
            self.store.confirm(row.id, training::now(), &metrics).await?;
            tracing::info!(stream = %stream.name, readings = tally.readings, "the champion has proved itself");
            return self.tell(TrainerMessage::EndProbation { stream: position }).await;
        };
        self.store.update_probation(row.id, &metrics).await?;
        tracing::warn!(stream = %stream.name, "rolling back: {reason}");
        let rollback =
            Rollback { stream: stream.name.clone(), expected: row.model, reason, at: training::now() };
        let change = Some(ModelChange::Rollback(rollback));
        match row.previous {
            Some(id) => self.install(position, stream, id, change, false).await?,
            None => self.uninstall(position, change).await?,
        }
        self.metrics.stream(position).rollbacks.inc();
        Ok(())
    }

    async fn usable(&self, model: i64) -> anyhow::Result<bool> {
        Ok(self.store.model(model).await?.is_some_and(|row| training::model_of(&row).is_ok()))
    }

    /// Notes how probations stand, so that a restart goes on from there.
    pub(super) async fn note_probations(&self) {
        // The engine is gone when the daemon stops in disorder; then the last note has to do.
        let Ok(watched) = self.watch().await else { return };
        for (stream, watch) in self.config.stream.iter().zip(watched) {
            let Some(tally) = watch.probation else { continue };
            let noted = async {
                let row = self.store.probation(&stream.name).await?;
                if let Some(row) = row.filter(|row| Some(row.model) == watch.model) {
                    self.store.update_probation(row.id, &serde_json::to_value(tally)?).await?;
                }
                anyhow::Ok(())
            };
            if let Err(error) = noted.await {
                tracing::debug!(stream = %stream.name, "cannot note the probation: {error:#}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000_000;

    fn tally(readings: u64, loss: f64, until: i64) -> Tally {
        let mut tally = Tally::default();
        (tally.readings, tally.loss, tally.loss_before) = (readings, loss, 100.0);
        (tally.from, tally.until) = (5 * DAY, 5 * DAY + until);
        tally
    }

    #[test]
    fn a_champion_stays_unless_its_loss_rose() {
        assert_eq!(fate(&tally(99, 90.0, 2 * DAY), DAY), Fate::Wait);
        assert_eq!(fate(&tally(1000, 90.0, DAY / 2), DAY), Fate::Wait);
        assert_eq!(fate(&tally(1000, 110.0, DAY / 2), DAY), Fate::Wait);
        assert_eq!(fate(&tally(1000, 90.0, DAY), DAY), Fate::Confirm);
        assert_eq!(fate(&tally(1000, 100.0, DAY), DAY), Fate::Confirm);
        let reason = "its loss over 1000 live readings was 10.0 % above that of the forecasts before it";
        assert_eq!(fate(&tally(1000, 110.0, DAY), DAY), Fate::RollBack(reason.to_owned()));
    }
}
