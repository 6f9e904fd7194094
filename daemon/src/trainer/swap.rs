//! How a model reaches the engine: states of all series are rebuilt from the store under its weights and
//! caught up with what came meanwhile, and only then it takes over. Forecasts go on all the time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forecaster::{Installed, Journal, Model, Rebuilt, SeriesHandle};
use hashbrown::HashMap;
use tokio::sync::{mpsc, oneshot};

use super::Trainer;
use crate::config::{self, Config};
use crate::message::{Message, Query, TrainerMessage};
use crate::record::ModelChange;
use crate::store::Past;
use crate::training;
use crate::world::{Real, World};

/// Readings that the engine may have to catch up with itself when it swaps: some milliseconds.
const FEW: usize = 1000;
/// Time between two tries to take over a champion.
const AGAIN: Duration = Duration::from_secs(30);
/// Time between two times that the journal is emptied while states are rebuilt, so that it does not overflow.
const DRAIN_EVERY: Duration = Duration::from_secs(2);
/// Rounds of catching up with what came during the round before.
const ROUNDS: usize = 20;

impl Trainer {
    /// Takes over a champion that another process made, or takes out one that it took back.
    pub(super) async fn follow(&mut self, position: usize, stream: &config::Stream) -> anyhow::Result<()> {
        let champion = self.store.champion_id(&stream.name).await?;
        let installed = self.installed.get(position).copied().flatten();
        if installed == champion || self.again.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        let Some(id) = champion else {
            tracing::info!(stream = %stream.name, "no champion in the store any more");
            return self.uninstall(position, None).await;
        };
        let Some(row) = self.store.model(id).await? else { return Ok(()) };
        if let Err(error) = training::model_of(&row) {
            // Said once: it will not get better.
            tracing::warn!(stream = %stream.name, "the champion {} cannot be used: {error:#}", row.name);
            self.note_installed(position, Some(id));
            return Ok(());
        }
        tracing::info!(stream = %stream.name, model = %row.name, "new champion in the store");
        // Where another model went before it than the one that is running, the shadow is rebuilt afterwards.
        let probation = self.store.probation(&stream.name).await?;
        let probation = probation.is_some_and(|p| p.model == id && p.previous == installed);
        let taken = self.install(position, stream, id, None, probation).await;
        self.again = taken.is_err().then(|| Instant::now() + AGAIN);
        taken
    }

    fn note_installed(&mut self, position: usize, id: Option<i64>) {
        self.installed.get_mut(position).into_iter().for_each(|slot| *slot = id);
    }

    /// Rebuilds every series' state under the model and swaps it in; `change` is committed together with the
    /// new states. Returns once the store holds them.
    pub(super) async fn install(
        &mut self,
        position: usize,
        stream: &config::Stream,
        id: i64,
        change: Option<ModelChange>,
        probation: bool,
    ) -> anyhow::Result<()> {
        self.swap().install(position, stream, id, change, probation).await?;
        self.note_installed(position, Some(id));
        Ok(())
    }

    /// Leaves a stream to the online experts.
    pub(super) async fn uninstall(
        &mut self,
        position: usize,
        change: Option<ModelChange>,
    ) -> anyhow::Result<()> {
        self.swap().uninstall(position, change).await?;
        self.note_installed(position, None);
        Ok(())
    }

    pub(super) fn swap(&self) -> Swap<'_, Real> {
        Swap { world: Real { store: self.store.clone() }, config: &self.config, engine: &self.engine }
    }
}

/// How models change, wherever the readings are kept.
pub(crate) struct Swap<'a, W> {
    /// Where the past is read.
    pub(crate) world: W,
    /// Configuration.
    pub(crate) config: &'a Config,
    /// The engine.
    pub(crate) engine: &'a mpsc::Sender<Message>,
}

impl<W: World> Swap<'_, W> {
    async fn uninstall(&self, position: usize, change: Option<ModelChange>) -> anyhow::Result<()> {
        let (committed, stored) = oneshot::channel();
        self.tell(TrainerMessage::Uninstall { stream: position, change, committed }).await?;
        Ok(stored.await?)
    }

    /// Rebuilds every series' state under the model and swaps it in; `change` is committed together with the
    /// new states. Returns once the store holds them.
    pub(crate) async fn install(
        &self,
        position: usize,
        stream: &config::Stream,
        id: i64,
        change: Option<ModelChange>,
        probation: bool,
    ) -> anyhow::Result<()> {
        let row = self.world.store().model(id).await?.ok_or_else(|| anyhow::anyhow!("model {id} is gone"))?;
        let model = Arc::new(training::model_of(&row)?);
        tracing::debug!(stream = %stream.name, model = %row.name, "states are rebuilt");
        let states = self.states(position, stream, &model).await?.into_iter().collect();
        tracing::debug!(stream = %stream.name, model = %row.name, "states are rebuilt and caught up");
        let model = Installed { id, name: row.name.into(), version: i64::from(row.version), model };
        let ((installed, taken), (committed, stored)) = (oneshot::channel(), oneshot::channel());
        self.tell(TrainerMessage::Install {
            stream: position,
            model,
            states,
            change,
            probation,
            installed,
            committed,
        })
        .await?;
        anyhow::ensure!(
            taken.await?,
            "more readings came during the rebuild than are kept; trying again later"
        );
        stored.await?;
        tracing::debug!(stream = %stream.name, "the swap is committed");
        Ok(())
    }

    /// What a model makes of every series up to now. The engine's journal is open from here on, unless this
    /// fails.
    pub(super) async fn states(
        &self,
        position: usize,
        stream: &config::Stream,
        model: &Arc<Model>,
    ) -> anyhow::Result<HashMap<SeriesHandle, Rebuilt>> {
        let states = self.rebuild(position, stream, model).await;
        if states.is_err() {
            self.tell(TrainerMessage::CloseJournal { stream: position }).await?;
        }
        states
    }

    async fn rebuild(
        &self,
        position: usize,
        stream: &config::Stream,
        model: &Arc<Model>,
    ) -> anyhow::Result<HashMap<SeriesHandle, Rebuilt>> {
        let (committed, all_stored) = oneshot::channel();
        self.tell(TrainerMessage::OpenJournal { stream: position, committed }).await?;
        all_stored.await?;
        let history = training::history(self.world.store(), self.config, &stream.name).await?;
        let spec = training::spec_of(self.config, stream);
        let mut rebuilding =
            std::pin::pin!(training::rebuild_states(&self.world, model.clone(), history, spec));
        let mut since = Vec::new();
        let rebuilt = loop {
            tokio::select! {
                biased;
                rebuilt = &mut rebuilding => break rebuilt?,
                () = tokio::time::sleep(DRAIN_EVERY) => since.append(&mut self.journal(position).await?),
            }
        };
        let handles = self.handles(&stream.name).await?;
        let mut states: HashMap<_, _> =
            rebuilt.into_iter().filter_map(|(id, r)| Some((*handles.get(&id)?, r))).collect();
        for _ in 0..ROUNDS {
            since.append(&mut self.journal(position).await?);
            let enough = since.len() <= FEW;
            states = training::catch_up(&self.world, model.clone(), states, std::mem::take(&mut since), spec)
                .await?;
            if enough {
                break;
            }
        }
        Ok(states)
    }

    /// What came since the engine's journal was last emptied.
    async fn journal(&self, position: usize) -> anyhow::Result<Journal> {
        let (reply, journal) = oneshot::channel();
        self.tell(TrainerMessage::TakeJournal { stream: position, reply }).await?;
        journal.await?.ok_or_else(|| {
            anyhow::anyhow!("more readings came during the rebuild than are kept; trying again later")
        })
    }

    /// Handles of a stream's series by their id in the store.
    async fn handles(&self, stream: &str) -> anyhow::Result<HashMap<i64, SeriesHandle>> {
        let (reply, keys) = oneshot::channel();
        self.engine.send(Message::Query(Query::Handles(reply))).await?;
        let keys = keys.await?;
        let rows = self.world.store().series().await?;
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
