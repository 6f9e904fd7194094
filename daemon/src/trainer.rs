//! The daemon's trainer: decides when to train, and brings new models into the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use forecaster::{Installed, Model};
use hashbrown::HashMap;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::{self, Config};
use crate::message::{Message, Query, TrainerMessage};
use crate::metrics::Metrics;
use crate::store::Store;
use crate::training::{self, Outcome};

/// Time between looks at whether there is something to do.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Looks between checks for a champion that somebody else made (`vidente train`).
const LOOKS_PER_CHECK: u64 = 15;
/// A failed run is tried again after this long, or after `every` if that is shorter.
const RETRY: Duration = Duration::from_secs(300);

/// How long a run may take to end once the daemon stops.
const GIVE_UP: Duration = Duration::from_secs(5);
/// Outcome of a run that broke down.
const FAILED: &str = "failed";

/// See the module.
pub struct Trainer {
    /// Configuration.
    pub config: Arc<Config>,
    /// Where history comes from and models go.
    pub store: Store,
    /// The engine thread.
    pub engine: mpsc::Sender<Message>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Id of the model that each stream runs, by position.
    pub installed: Vec<Option<i64>>,
}

impl Trainer {
    /// Trains until told to stop; a run under way is given up then.
    ///
    /// # Errors
    /// Never for a failed run, which is logged and tried again; only if the engine is gone.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let giving_up = Arc::new(AtomicBool::new(false));
        let busy = Arc::new(AtomicBool::new(false));
        let mut work = std::pin::pin!(self.work(giving_up.clone(), busy.clone()));
        tokio::select! {
            result = &mut work => return result,
            _ = stop.wait_for(|stop| *stop) => giving_up.store(true, Ordering::Relaxed),
        }
        if busy.load(Ordering::Relaxed) {
            // A run notices within an update or so, and its row says that it was stopped.
            let _ = tokio::time::timeout(GIVE_UP, work).await;
        }
        Ok(())
    }

    async fn work(&mut self, giving_up: Arc<AtomicBool>, busy: Arc<AtomicBool>) -> anyhow::Result<()> {
        let streams = self.config.stream.clone();
        let mut due: Vec<Instant> = Vec::new();
        for stream in &streams {
            due.push(self.first_due(due.len(), stream).await);
        }
        for look in 0_u64.. {
            tokio::time::sleep(LOOK_EVERY).await;
            for (position, stream) in streams.iter().enumerate() {
                if look % LOOKS_PER_CHECK == LOOKS_PER_CHECK - 1
                    && let Err(error) = self.follow(position, stream).await
                {
                    tracing::warn!(stream = %stream.name, "cannot look for a new champion: {error:#}");
                }
                let Some(every) = self.config.training.every else { continue };
                let Some(at) = due.get_mut(position) else { continue };
                if Instant::now() < *at || !self.enough(stream).await {
                    continue;
                }
                let started = Instant::now();
                busy.store(true, Ordering::Relaxed);
                let failed = self.train(position, stream, giving_up.clone()).await == FAILED;
                busy.store(false, Ordering::Relaxed);
                if giving_up.load(Ordering::Relaxed) {
                    return Ok(());
                }
                *at = started + if failed { every.min(RETRY) } else { every };
            }
        }
        Ok(())
    }

    /// When a stream is first due: at once without a model that can be used, else `every` after its model
    /// was made.
    async fn first_due(&self, position: usize, stream: &config::Stream) -> Instant {
        if self.installed.get(position).is_none_or(Option::is_none) {
            return Instant::now();
        }
        let (Some(every), Ok(Some(champion))) =
            (self.config.training.every, self.store.champion(&stream.name).await)
        else {
            return Instant::now();
        };
        let age = training::now().saturating_sub(champion.created_at).max(0);
        Instant::now() + every.saturating_sub(Duration::from_micros(age.unsigned_abs()))
    }

    async fn enough(&self, stream: &config::Stream) -> bool {
        let needed = self.config.training.min_readings;
        let count = async {
            let Some(newest) = self.store.newest(&stream.name).await? else { return Ok(0) };
            let since = newest.saturating_sub(training::micros(self.config.training.window));
            self.store.reading_count(&stream.name, since).await
        };
        match count.await {
            Ok(count) => count >= needed,
            Err(error) => {
                tracing::debug!(stream = %stream.name, "cannot count readings: {error}");
                false
            }
        }
    }

    /// One run, and the swap; how they ended.
    async fn train(
        &mut self,
        position: usize,
        stream: &config::Stream,
        giving_up: Arc<AtomicBool>,
    ) -> &'static str {
        tracing::info!(stream = %stream.name, "training begins");
        let started = Instant::now();
        let name = stream.name.clone();
        let look = move |p: &forecaster::train::Progress| {
            tracing::debug!(stream = %name, update = p.update, loss = p.validation_loss, "training");
        };
        let result = training::run(&self.store, &self.config, stream, giving_up, look).await;
        let seconds = started.elapsed().as_secs_f64();
        self.metrics.training_duration.with_label_values(&[&stream.name]).observe(seconds);
        let outcome = match result {
            Ok(Outcome::Better(model, report)) => {
                tracing::info!(
                    stream = %stream.name, model = %model.name, seconds, updates = report.updates,
                    relative_error = report.relative_error, "training done"
                );
                match self.install(position, stream, model.id, true).await {
                    Ok(()) => "succeeded",
                    Err(error) => {
                        tracing::warn!(stream = %stream.name, "cannot install {}: {error:#}", model.name);
                        FAILED
                    }
                }
            }
            Ok(Outcome::Worse(model, report)) => {
                tracing::info!(
                    stream = %stream.name, model = %model.name, loss = report.validation_loss,
                    naive_loss = report.naive_loss, "no better than naive, kept as a candidate"
                );
                "rejected"
            }
            Ok(Outcome::Skipped(reason)) => {
                tracing::info!(stream = %stream.name, "training skipped: {reason}");
                "skipped"
            }
            Err(error) => {
                tracing::warn!(stream = %stream.name, "training failed: {error:#}");
                FAILED
            }
        };
        self.metrics.training_runs.with_label_values(&[stream.name.as_str(), outcome]).inc();
        outcome
    }

    /// Takes over a champion that another process made.
    async fn follow(&mut self, position: usize, stream: &config::Stream) -> anyhow::Result<()> {
        let champion = self.store.champion(&stream.name).await?;
        match champion {
            Some(model) if self.installed.get(position) != Some(&Some(model.id)) => {
                if let Err(error) = Model::from_safetensors(&model.weights) {
                    // Said once: it will not get better.
                    tracing::warn!(stream = %stream.name, "the champion {} cannot be used: {error}", model.name);
                    self.installed.get_mut(position).into_iter().for_each(|slot| *slot = Some(model.id));
                    return Ok(());
                }
                tracing::info!(stream = %stream.name, model = %model.name, "new champion in the store");
                self.install(position, stream, model.id, false).await
            }
            _ => Ok(()),
        }
    }

    /// Rebuilds every series' state under the model and swaps it in: the engine keeps the inputs of
    /// the readings that come meanwhile, and forecasts go on all the time.
    async fn install(
        &mut self,
        position: usize,
        stream: &config::Stream,
        id: i64,
        promote: bool,
    ) -> anyhow::Result<()> {
        let installed = self.swap(position, stream, id, promote).await;
        match &installed {
            Ok(()) => self.installed.get_mut(position).into_iter().for_each(|slot| *slot = Some(id)),
            Err(_) => self.tell(TrainerMessage::CloseJournal { stream: position }).await?,
        }
        installed
    }

    async fn swap(
        &self,
        position: usize,
        stream: &config::Stream,
        id: i64,
        promote: bool,
    ) -> anyhow::Result<()> {
        let row = self.store.model(id).await?.ok_or_else(|| anyhow::anyhow!("model {id} is gone"))?;
        let model = Arc::new(Model::from_safetensors(&row.weights)?);
        let (committed, all_stored) = oneshot::channel();
        self.tell(TrainerMessage::OpenJournal { stream: position, committed }).await?;
        all_stored.await?;
        let history = training::history(&self.store, &self.config, &stream.name).await?;
        let rebuilt =
            training::rebuild_states(model.clone(), history, training::spec_of(&self.config, stream)).await?;
        let handles = self.handles(&stream.name).await?;
        let states = rebuilt.into_iter().filter_map(|(id, r)| Some((*handles.get(&id)?, r))).collect();
        let model = Installed { id, name: row.name.into(), version: i64::from(row.version), model };
        let (installed, result) = oneshot::channel();
        self.tell(TrainerMessage::Install { stream: position, model, states, promote, installed }).await?;
        anyhow::ensure!(
            result.await?,
            "more readings came during the rebuild than are kept; trying again later"
        );
        Ok(())
    }

    /// Handles of a stream's series by their id in the store.
    async fn handles(&self, stream: &str) -> anyhow::Result<HashMap<i64, forecaster::SeriesHandle>> {
        let (reply, keys) = oneshot::channel();
        self.engine.send(Message::Query(Query::Handles(reply))).await?;
        let keys = keys.await?;
        let rows = self.store.series().await?;
        Ok(rows
            .into_iter()
            .filter(|row| row.stream == stream)
            .filter_map(|row| Some((row.id, *keys.get(row.key.as_str())?)))
            .collect())
    }

    async fn tell(&self, message: TrainerMessage) -> anyhow::Result<()> {
        Ok(self.engine.send(Message::Trainer(message)).await?)
    }
}
