//! `systemctl reload`, or SIGHUP: the configuration is read again and taken over without a pause, as a whole or
//! not at all.

mod plan;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot, watch};

pub use plan::Live;
use plan::Plan;

use crate::config::Config;
use crate::logging;
use crate::message::{Message, Reload};
use crate::metrics::Metrics;
use crate::path::Bounds;
use crate::restore::{self, Restored};
use crate::supervise::until_stopped;
use crate::systemd::Systemd;
use crate::trainer::Demands;
use crate::world::World;

/// How long the store may take to give out what it knows of new streams.
const RESTORE_LIMIT: Duration = Duration::from_secs(60);

/// Reads the configuration again when asked to.
pub(crate) struct Reloader<W> {
    pub(crate) world: W,
    /// None if the configuration does not come from a file.
    pub(crate) file: Option<PathBuf>,
    /// What is in force; the trainer goes by it.
    pub(crate) live: watch::Sender<Live>,
    /// What to subscribe to.
    pub(crate) filters: watch::Sender<Vec<String>>,
    pub(crate) engine: mpsc::WeakSender<Message>,
    pub(crate) bounds: Bounds,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) demands: Arc<Demands>,
    pub(crate) systemd: Systemd,
}

impl<W: World> Reloader<W> {
    /// Reloads on each signal, until the daemon stops.
    ///
    /// # Errors
    /// Never: what cannot be taken over is refused.
    pub(crate) async fn run(self, mut asked: Signal, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let work = async {
            while asked.recv().await.is_some() {
                self.systemd.reloading();
                self.systemd.reloaded(&match self.reload().await {
                    Ok(changes) => {
                        let changes = if changes.is_empty() {
                            "nothing has changed".to_owned()
                        } else {
                            changes.join("; ")
                        };
                        tracing::info!("reloaded: {changes}");
                        format!("reloaded: {changes}")
                    }
                    Err(error) => {
                        tracing::error!("reload refused, all stays as it was: {error:#}");
                        format!("reload refused, all stays as it was: {error:#}")
                    }
                });
            }
        };
        until_stopped(&mut stop, work).await;
        Ok(())
    }

    /// What has changed.
    async fn reload(&self) -> anyhow::Result<Vec<String>> {
        let Some(file) = &self.file else { bail!("there is no configuration file") };
        let read = Config::load(file)?;
        for warning in read.warnings() {
            tracing::warn!("{warning}");
        }
        let live = self.live.borrow().clone();
        let plan = Plan::new(&live, read)
            .map_err(|keys| anyhow::anyhow!("{}: restart the daemon to change that", keys.join(", ")))?;
        if plan.changes.is_empty() {
            return Ok(plan.changes);
        }
        let restored = self.restored(&plan).await?;
        // From here on nothing fails, unless the daemon ends.
        self.take_over(live, plan, restored).await
    }

    /// What the store knows of streams that are new here: another daemon, or this one before, may have had
    /// them.
    async fn restored(&self, plan: &Plan) -> anyhow::Result<Option<Restored>> {
        if plan.added == 0 {
            return Ok(None);
        }
        let first = plan.config.stream.len() - plan.added;
        let stream = plan.config.stream.get(first..).unwrap_or_default().to_vec();
        let config = Config { stream, ..plan.config.clone() };
        let restored = tokio::time::timeout(RESTORE_LIMIT, restore::restore(&self.world, &config)).await;
        let restored = restored
            .unwrap_or_else(|_| bail!("it takes longer than {RESTORE_LIMIT:?}; restart the daemon instead"))
            .context("the store cannot say what it knows of the new streams")?;
        Ok(Some(restored))
    }

    async fn take_over(
        &self,
        live: Live,
        plan: Plan,
        restored: Option<Restored>,
    ) -> anyhow::Result<Vec<String>> {
        let Plan { config, active, added, mut changes } = plan;
        let config = Arc::new(config);
        let mut installed = live.installed;
        installed.extend(restored.iter().flat_map(|restored| restored.installed.iter().copied()));
        let first = config.stream.len() - added;
        for stream in config.stream.get(first..).unwrap_or_default() {
            self.metrics.add_stream(&stream.name);
        }
        let engine = self.engine.upgrade().context("the daemon stops")?;
        let (done, taken) = oneshot::channel();
        let reload = Reload {
            config: config.clone(),
            active: active.clone(),
            restored,
            out: self.bounds.messages(&config),
            done: Some(done),
        };
        ensure!(engine.send(Message::Reload(Box::new(reload))).await.is_ok(), "the engine is gone");
        taken.await.context("the engine is gone")?;
        if config.log.level != live.config.log.level && !logging::set_level(config.log.level) {
            changes.push("VIDENTE_LOG still says what is logged".to_owned());
        }
        self.demands.set_streams(config.stream.iter().map(|s| s.name.as_str()).zip(active.iter().copied()));
        let live = Live { config, active, installed };
        self.filters.send_replace(live.filters());
        self.live.send_replace(live);
        Ok(changes)
    }
}
