//! When a stream is trained.

use std::time::{Duration, Instant};

use super::{StreamWatch, Trainer};
use crate::config::{self, Config};
use crate::store::Trigger;
use crate::training;

/// A failed run is tried again after this long, or after `every` if that is shorter.
const RETRY: Duration = Duration::from_secs(300);

/// What is known of each stream, by position.
pub(super) struct Schedule {
    streams: Vec<Due>,
}

struct Due {
    /// When `[training] every` asks for a run.
    at: Instant,
    /// When the last run began.
    last: Option<Instant>,
    /// Time of the newest reading that it could learn from.
    newest: Option<i64>,
}

impl Schedule {
    pub(super) async fn new(trainer: &Trainer) -> Schedule {
        let mut streams = Vec::new();
        for (position, stream) in trainer.config.stream.iter().enumerate() {
            streams.push(Due { at: first_due(trainer, position, stream).await, last: None, newest: None });
        }
        Schedule { streams }
    }

    /// After a reload: new streams, and another `every`.
    pub(super) async fn follow_reload(&mut self, trainer: &Trainer) {
        for (position, stream) in trainer.config.stream.iter().enumerate().skip(self.streams.len()) {
            self.streams.push(Due {
                at: first_due(trainer, position, stream).await,
                last: None,
                newest: None,
            });
        }
        // A shorter time between runs counts from now on; a longer one from the next run.
        if let Some(every) = trainer.config.training.every {
            let latest = Instant::now() + every;
            self.streams.iter_mut().for_each(|due| due.at = due.at.min(latest));
        }
    }

    /// What makes a run of a stream begin now, if anything does.
    pub(super) async fn trigger(
        &mut self,
        trainer: &Trainer,
        position: usize,
        stream: &config::Stream,
        watch: &StreamWatch,
    ) -> Option<Trigger> {
        if trainer.demands.take(position) {
            return Some(Trigger::Demand);
        }
        let due = self.streams.get_mut(position)?;
        let training = &trainer.config.training;
        // A champion on probation is not challenged: two verdicts at once would tell nothing.
        if training.every.is_none() || watch.probation.is_some() {
            return None;
        }
        let drifted = watch.drift.filter(|_| {
            training.on_drift && due.last.is_none_or(|last| last.elapsed() >= training.drift_cooldown)
        });
        let trigger = match drifted {
            Some(_) => Trigger::Drift,
            None if Instant::now() >= due.at => Trigger::Schedule,
            None => return None,
        };
        let newest = enough(trainer, stream).await?;
        if due.newest == Some(newest) {
            // The same readings would give the same model.
            return None;
        }
        due.newest = Some(newest);
        if let Some(drift) = drifted {
            tracing::info!(stream = %stream.name, "drift: {}", drift.reason());
            trainer.metrics.stream(position).drifts.inc();
        }
        Some(trigger)
    }

    /// Notes that a run has ended.
    pub(super) fn ended(&mut self, config: &Config, position: usize, started: Instant, status: &str) {
        let Some(due) = self.streams.get_mut(position) else { return };
        due.last = Some(started);
        if status == "failed" {
            due.newest = None;
        }
        if let Some(every) = config.training.every {
            due.at = started + if status == "failed" { every.min(RETRY) } else { every };
        }
    }
}

/// When a stream is first due: at once without a model that can be used, else `every` after its last run.
async fn first_due(trainer: &Trainer, position: usize, stream: &config::Stream) -> Instant {
    if trainer.installed.get(position).is_none_or(Option::is_none) {
        return Instant::now();
    }
    let (Some(every), Ok(Some(last))) =
        (trainer.config.training.every, trainer.store.last_training_run(&stream.name).await)
    else {
        return Instant::now();
    };
    let age = training::now().saturating_sub(last).max(0);
    Instant::now() + every.saturating_sub(Duration::from_micros(age.unsigned_abs()))
}

/// Time of the stream's newest reading, if there are enough to train on.
async fn enough(trainer: &Trainer, stream: &config::Stream) -> Option<i64> {
    let training = &trainer.config.training;
    let count = async {
        let Some(newest) = trainer.store.newest(&stream.name).await? else { return anyhow::Ok(None) };
        let since = newest.saturating_sub(training::micros(training.window));
        let count = trainer.store.reading_count(&stream.name, since).await?;
        Ok((count >= training.min_readings).then_some(newest))
    };
    count.await.unwrap_or_else(|error| {
        tracing::debug!(stream = %stream.name, "cannot count readings: {error:#}");
        None
    })
}
