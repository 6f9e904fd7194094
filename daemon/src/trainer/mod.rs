//! The daemon's trainer: decides when to train, brings new models into the engine, and takes them out again
//! if they do not prove themselves. One run at a time.

mod demands;
mod probation;
mod schedule;
mod swap;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use forecaster::{Drift, Tally};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

pub use demands::Demands;
use schedule::Schedule;
#[cfg(test)]
pub(crate) use swap::Swap;

use crate::config::{self, Config};
use crate::message::{Message, Query, TrainerMessage};
use crate::metrics::Metrics;
use crate::record::ModelChange;
use crate::reload::Live;
use crate::store::{Store, Trigger};
use crate::training::{self, Outcome};

/// Time between looks at whether there is something to do.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Looks between two notes of how a probation stands, and between two searches for runs cut off.
const LOOKS_PER_NOTE: u64 = 15;
/// A run of which nothing was heard for so long was cut off.
const STALE: Duration = Duration::from_secs(600);
/// How long a run may take to end once the daemon stops.
const GIVE_UP: Duration = Duration::from_secs(5);
/// How long the last note of how probations stand may take.
const LAST_NOTE: Duration = Duration::from_secs(2);

/// What the engine says of a stream.
#[derive(Debug, Clone, Copy)]
pub struct StreamWatch {
    /// Id of the model that it runs.
    pub model: Option<i64>,
    /// What has drifted since its model came in.
    pub drift: Option<Drift>,
    /// How its model did on probation so far.
    pub probation: Option<Tally>,
}

/// See the module.
pub struct Trainer {
    /// The configuration in force, streams by position.
    pub config: Arc<Config>,
    /// Which of them are configured now.
    pub active: Vec<bool>,
    /// What follows it after a reload.
    pub live: watch::Receiver<Live>,
    /// Where history comes from and models go.
    pub store: Store,
    /// The engine thread.
    pub engine: mpsc::Sender<Message>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Id of the model that each stream runs, by position.
    pub installed: Vec<Option<i64>>,
    /// Runs that somebody asks for.
    pub demands: Arc<Demands>,
    /// The stream whose turn it is.
    pub next: usize,
    /// A champion that could not be taken over is tried again after this.
    pub again: Option<Instant>,
}

/// The run under way.
struct Running {
    position: usize,
    started: Instant,
    run: JoinHandle<anyhow::Result<Outcome>>,
}

impl Trainer {
    /// Trains until told to stop; a run under way is given up then.
    ///
    /// # Errors
    /// Never for a failed run, which is logged and tried again; only if the engine is gone.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let giving_up = Arc::new(AtomicBool::new(false));
        let mut running = None;
        {
            let work = self.work(&mut running, giving_up.clone());
            tokio::select! {
                result = work => return result,
                _ = stop.wait_for(|stop| *stop) => giving_up.store(true, Ordering::Relaxed),
            }
        }
        if let Some(Running { run, .. }) = running {
            // It notices within an update or so, and its row says that it was stopped.
            let _ = tokio::time::timeout(GIVE_UP, run).await;
        }
        // A store that is away must not hold up the end: the last note has to do.
        let _ = tokio::time::timeout(LAST_NOTE, self.note_probations()).await;
        Ok(())
    }

    async fn work(
        &mut self,
        running: &mut Option<Running>,
        giving_up: Arc<AtomicBool>,
    ) -> anyhow::Result<()> {
        let mut schedule = Schedule::new(self).await;
        // This daemon runs none yet, so those of its name were cut off.
        self.end_runs_cut_off(training::daemon_owner(&self.config)).await;
        for (position, stream) in self.streams() {
            self.take_up_probation(position, &stream).await;
        }
        self.note_runs().await;
        for look in 1_u64.. {
            self.wait(running, &mut schedule).await?;
            self.follow_reload(&mut schedule).await;
            let streams = self.streams();
            let watched = self.watch().await?;
            for (position, stream) in &streams {
                let (position, Some(watch)) = (*position, watched.get(*position)) else { continue };
                // The store may have been away at the start.
                if watch.probation.is_none() {
                    self.take_up_probation(position, stream).await;
                }
                if let Err(error) = self.follow(position, stream).await {
                    tracing::warn!(stream = %stream.name, "cannot look for a new champion: {error:#}");
                }
                if let Err(error) = self.end_probation(position, stream, watch).await {
                    tracing::warn!(stream = %stream.name, "cannot end the probation: {error:#}");
                }
            }
            if look % LOOKS_PER_NOTE == 0 {
                self.note_probations().await;
                self.end_runs_cut_off("").await;
                self.note_runs().await;
            }
            // By turns, so that one stream whose runs take long does not keep the others waiting for ever.
            let next = self.next;
            let (before, from) = streams.split_at(streams.partition_point(|(position, _)| *position < next));
            for (position, stream) in from.iter().chain(before) {
                let (position, Some(watch)) = (*position, watched.get(*position)) else { continue };
                if running.is_none()
                    && let Some(trigger) = schedule.trigger(self, position, stream, watch).await
                {
                    self.next = position + 1;
                    *running = Some(self.begin(position, stream, trigger, giving_up.clone()).await?);
                }
            }
        }
        Ok(())
    }

    /// Positions and settings of the streams that are configured now.
    fn streams(&self) -> Vec<(usize, config::Stream)> {
        let all = self.config.stream.iter().enumerate().zip(&self.active);
        all.filter(|(_, active)| **active).map(|((position, stream), _)| (position, stream.clone())).collect()
    }

    /// Goes by the configuration of a reload, if there was one.
    async fn follow_reload(&mut self, schedule: &mut Schedule) {
        let Live { config, active, installed } = match self.live.has_changed() {
            Ok(true) => self.live.borrow_and_update().clone(),
            // Nobody reloads any more.
            Ok(false) | Err(_) => return,
        };
        let known = self.config.stream.len();
        self.installed.extend(installed.get(known..).unwrap_or_default());
        self.config = config;
        self.active = active;
        schedule.follow_reload(self).await;
        for (position, stream) in self.streams().iter().filter(|(position, _)| *position >= known) {
            self.take_up_probation(*position, stream).await;
        }
    }

    /// Waits for the next look, or for the run under way to end, and brings its model in.
    async fn wait(&mut self, running: &mut Option<Running>, schedule: &mut Schedule) -> anyhow::Result<()> {
        let Some(Running { run, .. }) = running else {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.demands.asked() => {}
            }
            return Ok(());
        };
        let ended = tokio::select! {
            ended = run => ended,
            () = tokio::time::sleep(LOOK_EVERY) => return Ok(()),
        };
        if let Some(Running { position, started, .. }) = running.take()
            && let Some(stream) = self.config.stream.get(position).cloned()
        {
            let outcome = ended.map_err(anyhow::Error::from).flatten();
            let status = self.end(position, &stream, started, outcome).await;
            schedule.ended(&self.config, position, started, status);
        }
        Ok(())
    }

    async fn watch(&self) -> anyhow::Result<Vec<StreamWatch>> {
        let (reply, watched) = oneshot::channel();
        self.engine.send(Message::Query(Query::Watch(reply))).await?;
        Ok(watched.await?)
    }

    async fn begin(
        &self,
        position: usize,
        stream: &config::Stream,
        trigger: Trigger,
        giving_up: Arc<AtomicBool>,
    ) -> anyhow::Result<Running> {
        tracing::info!(stream = %stream.name, trigger = trigger.as_str(), "training begins");
        // From here on what is usual is learned anew: drift that a run does not mend must not begin one after
        // the other.
        self.tell(TrainerMessage::ResetDrift { stream: position }).await?;
        let (store, config, stream) = (self.store.clone(), self.config.clone(), stream.clone());
        let name = stream.name.clone();
        let look = move |p: &forecaster::train::Progress| {
            tracing::debug!(stream = %name, update = p.update, loss = p.validation_loss, "training");
        };
        let run =
            tokio::spawn(
                async move { training::run(&store, &config, &stream, trigger, giving_up, look).await },
            );
        Ok(Running { position, started: Instant::now(), run })
    }

    /// Says how a run ended, and makes its model champion if it is to be; how it ended.
    async fn end(
        &mut self,
        position: usize,
        stream: &config::Stream,
        started: Instant,
        outcome: anyhow::Result<Outcome>,
    ) -> &'static str {
        let seconds = started.elapsed().as_secs_f64();
        self.metrics.training_duration.with_label_values(&[&stream.name]).observe(seconds);
        let mut status = Outcome::status(&outcome);
        match outcome {
            Ok(Outcome::Better(candidate)) => {
                let name = &candidate.saved.name;
                tracing::info!(
                    stream = %stream.name, model = %name, seconds, updates = candidate.report.updates,
                    "training done, a new champion"
                );
                let change = ModelChange::Promote(training::promotion(&candidate, &self.config));
                let probation = self.config.models.probation.is_some();
                let id = candidate.saved.id;
                if let Err(error) = self.install(position, stream, id, Some(change), probation).await {
                    tracing::warn!(stream = %stream.name, "cannot install {name}, trying again: {error:#}");
                    // As champion in the store it is taken over as soon as that goes.
                    let promotion = training::promotion(&candidate, &self.config);
                    if let Err(error) = self.store.promote(promotion).await {
                        tracing::warn!(stream = %stream.name, "cannot promote {name}: {error}");
                        status = "failed";
                    }
                } else if let Ok(champion) = self.store.champion_id(&stream.name).await
                    && champion != Some(id)
                {
                    tracing::info!(stream = %stream.name, "another model became champion before {name}");
                    status = "rejected";
                }
            }
            Ok(Outcome::Worse(candidate, reason)) => tracing::info!(
                stream = %stream.name, model = %candidate.saved.name, seconds, "kept as a candidate: {reason}"
            ),
            Ok(Outcome::Skipped(reason)) => {
                tracing::info!(stream = %stream.name, "training skipped: {reason}");
            }
            Err(error) => tracing::warn!(stream = %stream.name, "training {status}: {error:#}"),
        }
        self.metrics.training_runs.with_label_values(&[stream.name.as_str(), status]).inc();
        self.note_runs().await;
        status
    }

    /// Shows in the metrics when runs come and when the latest ones were, those of `vidente train` included.
    async fn note_runs(&self) {
        let every = self.config.training.every.map_or(0.0, |every| every.as_secs_f64());
        self.metrics.training_interval.set(every);
        for (position, stream) in self.streams() {
            match self.store.last_training_run(&stream.name).await {
                Ok(Some(began)) => self.metrics.stream(position).last_success.set(began as f64 / 1e6),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(stream = %stream.name, "cannot look for training runs: {error}")
                }
            }
        }
    }

    /// Ends the rows of runs that nobody runs any more: those of an owner, and those of which nothing was
    /// heard for long.
    async fn end_runs_cut_off(&self, owner: &str) {
        let now = training::now();
        match self.store.interrupt_runs(owner, now, now.saturating_sub(training::micros(STALE))).await {
            Ok(0) => {}
            Ok(runs) => tracing::info!("{runs} training run(s) had been cut off"),
            Err(error) => tracing::debug!("cannot look for training runs cut off: {error}"),
        }
    }

    async fn tell(&self, message: TrainerMessage) -> anyhow::Result<()> {
        Ok(self.engine.send(Message::Trainer(message)).await?)
    }
}
