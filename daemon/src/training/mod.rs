//! One training run: history out of the store, a candidate, its trial against the champion, its row in the
//! store. The daemon's trainer and `vidente train` both run this.

mod history;
mod judge;
mod settings;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context;
use forecaster::judge::cutoff;
use forecaster::train::{Progress, Report, TrainError, TrainingSet, train_until};
use forecaster::{Model, Timestamp};
use serde_json::{Value, json};
use tokio::sync::watch;

pub use history::History;
pub use judge::{Champion, Judgement, Unjudged, judge};
pub use settings::{interval_of, micros, spec_of, train_config};

pub(crate) use history::{catch_up, history, on_low_priority, rebuild_states};

use crate::config::{self, Config};
use crate::record::{Cause, Promotion};
use crate::store::{ModelRow, NewModel, NewRun, Origin, RunOutcome, RunWindow, SavedModel, Store, Trigger};

/// Share of the latest readings that a candidate does not learn from and is judged on.
pub const HELD_OUT: f64 = 0.15;
/// Time between two notes of how far a run is.
const NOTE_EVERY: Duration = Duration::from_secs(2);
/// Why a model that is to be champion is none.
const NOT_YET: &str =
    "better, but it has not taken over: it is about to, or the process that made it ended first";
/// Share of a run that the first network takes; forest, refit and trial follow.
const NETWORK_SHARE: f64 = 0.8;

/// A model that a run made.
#[derive(Debug)]
pub struct Candidate {
    /// What the store named it.
    pub saved: SavedModel,
    /// What training measured.
    pub report: Report,
    /// How it was judged; none if there was nothing to judge on.
    pub judgement: Option<Judgement>,
    /// Both, as the store has them.
    pub metrics: Value,
    /// Id of the champion that it was held against.
    pub champion: Option<i64>,
}

/// What a run came to.
#[derive(Debug)]
pub enum Outcome {
    /// A model that is to be champion.
    Better(Box<Candidate>),
    /// A model that stays a candidate; why.
    Worse(Box<Candidate>, String),
    /// There was too little to learn from; the reason.
    Skipped(String),
}

impl Outcome {
    /// All that [`Outcome::status`] can say.
    pub const STATUSES: [&str; 5] = ["succeeded", "rejected", "skipped", "interrupted", "failed"];

    /// As in `training_runs.status` and the label of `vidente_training_runs_total`.
    #[must_use]
    pub fn status(result: &anyhow::Result<Outcome>) -> &'static str {
        match result {
            Ok(Outcome::Better(..)) => "succeeded",
            Ok(Outcome::Worse(..)) => "rejected",
            Ok(Outcome::Skipped(_)) => "skipped",
            Err(error) if matches!(error.downcast_ref(), Some(TrainError::Stopped)) => "interrupted",
            Err(_) => "failed",
        }
    }
}

/// Who runs training in the daemon: the same after a restart, so that runs cut off can be told.
#[must_use]
pub fn daemon_owner(config: &Config) -> &str {
    &config.mqtt.client_id
}

/// Runs training once for a stream and writes its row in `training_runs`. The model is saved as a
/// candidate.
///
/// # Errors
/// If the store fails, or training breaks down or is stopped; the row says so.
pub async fn run(
    store: &Store,
    config: &Config,
    stream: &config::Stream,
    trigger: Trigger,
    stop: Arc<AtomicBool>,
    look: impl FnMut(&Progress) + Send + 'static,
) -> anyhow::Result<Outcome> {
    let owner = match trigger {
        Trigger::Command => format!("vidente train {}", std::process::id()),
        Trigger::Schedule | Trigger::Demand | Trigger::Drift => daemon_owner(config).to_owned(),
    };
    let seed = config.training.seed;
    let run = NewRun { stream: &stream.name, started_at: now(), trigger, owner: &owner, seed };
    let run = store.start_training_run(&run).await?;
    let outcome = Attempt { store, config, stream, run, stop }.make(look).await;
    let (error, metrics, model) = match &outcome {
        Ok(Outcome::Better(c)) => (None, c.metrics.clone(), Some(c.saved.id)),
        Ok(Outcome::Worse(c, reason)) => (Some(reason.clone()), c.metrics.clone(), Some(c.saved.id)),
        Ok(Outcome::Skipped(reason)) => (Some(reason.clone()), json!({}), None),
        Err(error) => (Some(format!("{error:#}")), json!({}), None),
    };
    let status = Outcome::status(&outcome);
    let ended = RunOutcome { finished_at: now(), status, error, metrics, model };
    // Whatever happens to the row, a model that was made is not lost by it.
    if let Err(error) = store.finish_training_run(run, &ended).await {
        tracing::warn!(stream = %stream.name, "cannot note how the run ended: {error}");
    }
    match store.drop_old_weights(&stream.name, config.models.keep).await {
        Ok(names) => {
            for name in names {
                tracing::info!(stream = %stream.name, "weights of {name} dropped, [models] keep is {}", config.models.keep);
            }
        }
        Err(error) => tracing::debug!(stream = %stream.name, "cannot drop old weights: {error}"),
    }
    outcome
}

/// What is kept of a model beside the weights, and read when they are gone.
///
/// # Errors
/// If it cannot be written as JSON.
pub fn metrics(
    model: &Model,
    report: Option<&Report>,
    judgement: Option<&Judgement>,
) -> serde_json::Result<Value> {
    let sizes = model.sizes();
    let mut metrics = report.map_or_else(|| Ok(json!({})), serde_json::to_value)?;
    if let Some(metrics) = metrics.as_object_mut() {
        let networks = model.weights().count();
        metrics.insert(
            "sizes".to_owned(),
            json!({"networks": networks, "hidden": sizes.hidden, "layers": sizes.layers}),
        );
        if let Some(judgement) = judgement {
            metrics.insert("judged".to_owned(), serde_json::to_value(judgement)?);
        }
    }
    Ok(metrics)
}

/// A run under way.
struct Attempt<'a> {
    store: &'a Store,
    config: &'a Config,
    stream: &'a config::Stream,
    run: i64,
    stop: Arc<AtomicBool>,
}

impl Attempt<'_> {
    async fn make(&self, look: impl FnMut(&Progress) + Send + 'static) -> anyhow::Result<Outcome> {
        let history = history(self.store, self.config, &self.stream.name).await;
        let mut history = history.context("reading the history")?;
        history::thin(&mut history, self.config.training.max_readings);
        let history = Arc::new(history);
        let readings: usize = history.iter().map(|(_, r)| r.len()).sum();
        let needed = self.config.training.min_readings;
        if (readings as u64) < needed {
            let reason = format!("{readings} readings in the window, min_readings is {needed}");
            return Ok(Outcome::Skipped(reason));
        }
        let until = cutoff(history.iter().map(|(_, r)| r.as_slice()), HELD_OUT);
        let start = history.iter().filter_map(|(_, r)| r.first()).map(|r| r.time.0).min();
        if let Some(start) = start {
            let window = RunWindow { start, end: until.0, readings: readings as u64 };
            self.store.window_of_run(self.run, now(), window).await?;
        }
        let (model, report) = match self.learn(history.clone(), until, look).await? {
            Ok(trained) => trained,
            Err(e @ TrainError::TooLittle { .. }) => return Ok(Outcome::Skipped(e.to_string())),
            Err(e) => return Err(e.into()),
        };
        tracing::debug!(stream = %self.stream.name, "trained, the trial begins");
        let (champion, judgement) = self.judge(model.clone(), history, until).await?;
        let reason = self.against_promotion(&champion, judgement.as_ref()).await?;
        tracing::debug!(stream = %self.stream.name, "judged, the model is saved");
        let metrics = metrics(&model, Some(&report), judgement.as_ref())?;
        let saved = self
            .store
            .save_model(&NewModel {
                stream: self.stream.name.clone(),
                cell: model.sizes().cell.name().to_owned(),
                created_at: now(),
                metrics: metrics.clone(),
                weights: model.to_safetensors()?,
                origin: Origin::Trained,
                // Taken away with the promotion; it stays if the process ends before.
                reason: Some(reason.clone().unwrap_or_else(|| NOT_YET.to_owned())),
                window_start: start,
                window_end: Some(until.0),
            })
            .await
            .context("saving the model")?;
        let candidate = Box::new(Candidate { saved, report, judgement, metrics, champion: champion.id });
        Ok(match reason {
            None => Outcome::Better(candidate),
            Some(reason) => Outcome::Worse(candidate, reason),
        })
    }

    /// Learns from what lies up to a time, and notes how far it is meanwhile.
    async fn learn(
        &self,
        history: Arc<History>,
        until: Timestamp,
        mut look: impl FnMut(&Progress) + Send + 'static,
    ) -> anyhow::Result<Result<(Arc<Model>, Report), TrainError>> {
        let (config, interval) = (train_config(self.config), interval_of(self.stream));
        let (noted, curve) = watch::channel(Vec::new());
        let stop = self.stop.clone();
        let learning = on_low_priority(move || {
            let mut set = TrainingSet::default();
            for (_, readings) in &*history {
                set.add(&readings[..readings.partition_point(|r| r.time <= until)], interval);
            }
            drop(history);
            let trained = train_until(&set, &config, &stop, |progress| {
                look(progress);
                noted.send_modify(|curve| curve.push(*progress));
                ControlFlow::Continue(())
            });
            trained.map(|(model, report)| (Arc::new(model), report))
        });
        tokio::select! {
            trained = learning => trained,
            () = self.note(curve) => anyhow::bail!("the training thread ended"),
        }
    }

    /// Notes how far the run is, again and again.
    async fn note(&self, mut curve: watch::Receiver<Vec<Progress>>) {
        loop {
            tokio::time::sleep(NOTE_EVERY).await;
            let curve = curve.borrow_and_update().clone();
            let done = curve.last().map_or(0.0, |p| p.update as f64 / p.max_updates.max(1) as f64);
            let noted = self
                .store
                .progress_of_run(self.run, now(), NETWORK_SHARE * done, &json!({ "curve": curve }))
                .await;
            if let Err(error) = noted {
                tracing::debug!(stream = %self.stream.name, "cannot note how far training is: {error}");
            }
        }
    }

    async fn judge(
        &self,
        candidate: Arc<Model>,
        history: Arc<History>,
        until: Timestamp,
    ) -> anyhow::Result<(Champion, Option<Judgement>)> {
        let champion = Champion::of(self.store, &self.stream.name).await?;
        let spec = spec_of(self.config, self.stream);
        let rules = &self.config.models;
        let judged =
            judge(candidate, champion.clone(), history, until, spec, rules, self.stop.clone()).await?;
        match judged {
            Ok(judgement) => Ok((champion, Some(judgement))),
            Err(Unjudged::NoReadings) => Ok((champion, None)),
            Err(Unjudged::Stopped) => Err(TrainError::Stopped.into()),
        }
    }

    /// What speaks against making the candidate champion.
    async fn against_promotion(
        &self,
        champion: &Champion,
        judgement: Option<&Judgement>,
    ) -> anyhow::Result<Option<String>> {
        let Some(judgement) = judgement else {
            return Ok(Some(
                "there are no readings that neither it nor the champion has learned from".to_owned(),
            ));
        };
        if !judgement.decision.won {
            return Ok(Some(judgement.decision.reason.clone()));
        }
        let probation = self.store.probation(&self.stream.name).await?;
        // A champion that cannot be used has nothing to prove.
        Ok(match (probation, &champion.name) {
            (Some(_), Some(name)) if champion.model.is_some() => {
                Some(format!("better than {name}, which is still on probation"))
            }
            _ => None,
        })
    }
}

/// The model of a row.
///
/// # Errors
/// If its weights were dropped, or this version cannot use them.
pub fn model_of(row: &ModelRow) -> anyhow::Result<Model> {
    Ok(Model::from_safetensors(row.kept_weights()?)?)
}

/// Makes the candidate of a run champion, if it is held against the present one.
#[must_use]
pub fn promotion(candidate: &Candidate, config: &Config) -> Promotion {
    Promotion {
        model: candidate.saved.id,
        expected: Some(candidate.champion),
        cause: Cause::Training,
        at: now(),
        probation: config.models.probation.is_some(),
    }
}

/// Microseconds since the Unix epoch.
#[must_use]
pub fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, micros)
}
