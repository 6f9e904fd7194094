//! One training run: history out of the store, a network, its model into the store. The daemon's
//! trainer and `vidente train` both run this.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use forecaster::train::{Progress, Report, TrainConfig, TrainError, TrainingSet, train_until};
use forecaster::{AnomalySettings, Model, Reading, Rebuilt, StreamSpec, Timestamp, rebuild};
use tokio::sync::oneshot;

use crate::config::{self, Config};
use crate::store::{NewModel, RunOutcome, SavedModel, Store};

/// Priority of the training thread: the lowest, so that the hot path goes first.
const NICE: i32 = 19;

/// Readings of a stream that a run takes into memory (32 MB, and some 600 MB more as it learns) …
const MAX_READINGS: usize = 2_000_000;
/// … but of each series at least so many.
const MIN_OF_SERIES: usize = 256;

/// Configuration of a network's training.
#[must_use]
pub fn train_config(config: &Config) -> TrainConfig {
    TrainConfig {
        hidden: config.model.hidden,
        layers: config.model.layers,
        seed: config.training.seed,
        ..TrainConfig::default()
    }
}

/// A stored series' readings, in order of time.
pub type History = Vec<(i64, Vec<Reading>)>;

/// The interval of a stream in microseconds, if it is configured.
#[must_use]
pub fn interval_of(stream: &config::Stream) -> Option<i64> {
    stream.interval.map(micros)
}

/// What the engine needs to know of a stream.
#[must_use]
pub fn spec_of(config: &Config, stream: &config::Stream) -> StreamSpec {
    let anomaly = stream.anomaly.over(&config.anomaly);
    StreamSpec {
        interval: interval_of(stream),
        horizon: stream.horizon,
        anomaly: AnomalySettings {
            alarms_per_week: anomaly.alarms_per_week,
            direction: anomaly.direction,
            min_deviation: anomaly.min_deviation,
            warm_up: anomaly.warm_up,
        },
        silence_after: anomaly.silence_after,
    }
}

/// A duration in microseconds.
#[must_use]
pub fn micros(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// What a run came to.
#[derive(Debug)]
pub enum Outcome {
    /// A model that beats the naive forecast on the held-out slice.
    Better(SavedModel, Box<Report>),
    /// A model that does not; it is kept as a candidate.
    Worse(SavedModel, Box<Report>),
    /// There was too little to learn from; the reason.
    Skipped(String),
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
    stop: Arc<AtomicBool>,
    look: impl FnMut(&Progress) + Send + 'static,
) -> anyhow::Result<Outcome> {
    let run = store.start_training_run(&stream.name, now()).await?;
    let outcome = attempt(store, config, stream, stop, look).await;
    let finished_at = now();
    let row = match &outcome {
        Ok(Outcome::Better(model, report)) => RunOutcome {
            finished_at,
            status: "succeeded",
            error: None,
            metrics: serde_json::to_value(report)?,
            model: Some(model.id),
        },
        Ok(Outcome::Worse(model, report)) => RunOutcome {
            finished_at,
            status: "rejected",
            error: Some("no better than the naive forecast on the held-out slice".to_owned()),
            metrics: serde_json::to_value(report)?,
            model: Some(model.id),
        },
        Ok(Outcome::Skipped(reason)) => RunOutcome {
            finished_at,
            status: "skipped",
            error: Some(reason.clone()),
            metrics: serde_json::json!({}),
            model: None,
        },
        Err(error) => RunOutcome {
            finished_at,
            status: "failed",
            error: Some(format!("{error:#}")),
            metrics: serde_json::json!({}),
            model: None,
        },
    };
    store.finish_training_run(run, &row).await?;
    outcome
}

async fn attempt(
    store: &Store,
    config: &Config,
    stream: &config::Stream,
    stop: Arc<AtomicBool>,
    look: impl FnMut(&Progress) + Send + 'static,
) -> anyhow::Result<Outcome> {
    let history = history(store, config, &stream.name).await.context("reading the history")?;
    let readings: usize = history.iter().map(|(_, r)| r.len()).sum();
    let needed = config.training.min_readings;
    if (readings as u64) < needed {
        return Ok(Outcome::Skipped(format!("{readings} readings in the window, min_readings is {needed}")));
    }
    let (train_config, interval) = (train_config(config), interval_of(stream));
    let trained = on_low_priority(move || learn(history, interval, &train_config, &stop, look)).await?;
    let (model, report) = match trained {
        Ok(trained) => trained,
        Err(e @ TrainError::TooLittle { .. }) => return Ok(Outcome::Skipped(e.to_string())),
        Err(e) => return Err(e.into()),
    };
    let saved = store
        .save_model(&NewModel {
            stream: stream.name.clone(),
            cell: "lstm".to_owned(),
            created_at: now(),
            metrics: serde_json::to_value(&report)?,
            weights: model.to_safetensors()?,
        })
        .await
        .context("saving the model")?;
    let report = Box::new(report);
    if report.validation_loss < report.naive_loss {
        Ok(Outcome::Better(saved, report))
    } else {
        Ok(Outcome::Worse(saved, report))
    }
}

fn learn(
    history: History,
    interval: Option<i64>,
    config: &TrainConfig,
    stop: &AtomicBool,
    mut look: impl FnMut(&Progress),
) -> Result<(Model, Report), TrainError> {
    let mut set = TrainingSet::default();
    for (_, readings) in history {
        set.add(&readings, interval);
    }
    train_until(&set, config, stop, |progress| {
        look(progress);
        ControlFlow::Continue(())
    })
}

/// The stored readings of a stream, back by the training window from its newest; of very many, the
/// latest of each series, so that memory stays bounded.
///
/// # Errors
/// If the store fails.
pub async fn history(store: &Store, config: &Config, stream: &str) -> anyhow::Result<History> {
    let Some(newest) = store.newest(stream).await? else { return Ok(Vec::new()) };
    let since = newest.saturating_sub(micros(config.training.window));
    let series = store.series().await?.iter().filter(|row| row.stream == stream).count();
    let most = (MAX_READINGS / series.max(1)).max(MIN_OF_SERIES);
    let mut history: History = Vec::new();
    store
        .history(stream, since, |row| {
            let reading = Reading { time: Timestamp(row.time), value: row.value };
            match history.last_mut() {
                Some((series, readings)) if *series == row.series_id => {
                    if readings.len() == 2 * most {
                        readings.drain(..most);
                    }
                    readings.push(reading);
                }
                last => {
                    last.into_iter().for_each(|(_, readings)| keep_latest(readings, most));
                    history.push((row.series_id, vec![reading]));
                }
            }
        })
        .await?;
    history.last_mut().into_iter().for_each(|(_, readings)| keep_latest(readings, most));
    Ok(history)
}

fn keep_latest(readings: &mut Vec<Reading>, most: usize) {
    readings.drain(..readings.len().saturating_sub(most));
    readings.shrink_to_fit();
}

/// What a model makes of each series' stored readings, by id in the store.
///
/// # Errors
/// If the thread breaks down.
pub async fn rebuild_states(
    model: Arc<Model>,
    history: History,
    spec: StreamSpec,
) -> anyhow::Result<Vec<(i64, Rebuilt)>> {
    on_low_priority(move || {
        history
            .into_iter()
            .filter_map(|(series, readings)| Some((series, rebuild(&model, &readings, &spec)?)))
            .collect()
    })
    .await
}

/// Runs work on a thread of its own, at the lowest priority.
async fn on_low_priority<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
    let (done, result) = oneshot::channel();
    std::thread::Builder::new().name("training".to_owned()).spawn(move || {
        // On Linux this is the priority of the calling thread alone. Without it training still works.
        if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE) {
            tracing::debug!(%error, "training at ordinary priority");
        }
        // The receiver is gone only when the daemon is stopping.
        let _ = done.send(work());
    })?;
    result.await.context("the training thread panicked")
}

/// Microseconds since the Unix epoch.
#[must_use]
pub fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, micros)
}
