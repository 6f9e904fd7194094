//! All wiring: channels, tasks, the order in which they start and stop.
//!
//! ```text
//! the path of a reading: broker ═▶ inlet ──▶ ENGINE ──▶ recorder ═▶ store, or spool
//!                                              │
//! beside it:                                   └──◀▶ trainer, HTTP, control
//! ```
//! The path itself is laid in `path.rs`, where simulations lay it, too.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::admin::{self, Admin, Gate, Pages};
use crate::config::Config;
use crate::control::Control;
use crate::message::Message;
use crate::metrics::Metrics;
use crate::path::{self, Bounds, Path, open_spool};
use crate::pulse::Pulse;
use crate::ready::Ready;
use crate::reload::{Live, Reloader};
use crate::store::{SeriesPage, Store};
use crate::supervise::{Tasks, until_stopped};
use crate::systemd::{self, Systemd};
use crate::trainer::{Demands, Trainer};
use crate::training;
use crate::world::Real;

/// How long stopping may take.
pub(crate) const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Time between two looks for partitions to make and for what retention lets go.
const TEND_EVERY: Duration = Duration::from_secs(3600);

impl Pages for Store {
    type Page = SeriesPage;

    async fn page(&self, key: &str, history: usize) -> anyhow::Result<Option<SeriesPage>> {
        Ok(self.series_page(key, history).await?)
    }
}

/// A daemon that is listening, for whoever started it.
#[derive(Debug)]
pub struct Started {
    /// Where HTTP is served.
    pub url: String,
    /// What is ready.
    pub ready: Arc<Ready>,
}

/// Runs the daemon until `stop` turns true, or a part of it breaks down. A reload reads the configuration from
/// `file`.
///
/// # Errors
/// If it cannot start, a part ends before its time, or some part does not stop within the limit.
pub async fn run(
    config: Config,
    file: Option<PathBuf>,
    mut stop: watch::Receiver<bool>,
    started: impl FnOnce(Started) + Send,
) -> anyhow::Result<()> {
    let config = Arc::new(config);
    let metrics = Metrics::new(config.stream.iter().map(|s| s.name.as_str()))?;
    let ready = Arc::new(Ready::default());
    let pulse = Arc::<Pulse>::default();
    let bounds = Bounds::default();
    let (engine, inbox) = mpsc::channel::<Message>(bounds.inbox);
    let mut tasks = Tasks::default();

    // From here on the signals do not end the process.
    let asked_to_train = signal(SignalKind::user_defined1()).context("listening for SIGUSR1")?;
    let asked_to_reload = signal(SignalKind::hangup()).context("listening for SIGHUP")?;

    // HTTP comes first, so that probes and metrics tell of a store that is away.
    let listener = admin::bind(&config.http.listen).await?;
    let http = listener.local_addr()?;
    let (gate, tls) = (Gate::open(&config.http)?, admin::tls(&config.http)?);

    let store = Store::open(&config.store).await?;
    let mut spool = open_spool(&config, &metrics)?;
    let demands = Arc::new(Demands::new(config.stream.iter().map(|s| s.name.clone())));
    let admin = Admin {
        demands: demands.clone(),
        metrics: metrics.clone(),
        ready: ready.clone(),
        engine: engine.downgrade(),
        pages: store.clone(),
        gate,
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    tasks.spawn("http", admin::serve(listener.into_std()?, tls, admin.router(), stop.clone()));
    started(Started { url: format!("{scheme}://{http}/"), ready: ready.clone() });
    let systemd = Systemd::new(ready.clone(), metrics.clone(), pulse.clone());
    tasks.spawn("systemd", systemd.clone().run(stop.clone()));
    let world = Real { store: store.clone() };
    let restored = tokio::select! {
        restored = path::restore(&world, &mut spool, &config, &ready, &metrics) => restored?,
        // HTTP is all there is to end yet.
        ended = tasks.until_stopped(&mut stop) => return ended,
    };
    let installed = restored.installed.clone();
    let live = watch::Sender::new(Live::new(config.clone(), installed.clone()));
    let filters = watch::Sender::new(config.filters());
    let path = Path {
        world: world.clone(),
        config: config.clone(),
        metrics: metrics.clone(),
        ready: ready.clone(),
        restored,
        spool,
        bounds,
        pulse,
        filters: filters.subscribe(),
        engine: engine.clone(),
        inbox,
    };
    path.start(&mut tasks, &stop)?;

    // Beside it.
    let control = Control {
        live: live.subscribe(),
        store: store.clone(),
        metrics: metrics.clone(),
        engine: engine.downgrade(),
    };
    control.start(&mut tasks, &stop)?;
    let trainer = Trainer {
        config: config.clone(),
        active: vec![true; config.stream.len()],
        live: live.subscribe(),
        store: store.clone(),
        engine: engine.clone(),
        metrics: metrics.clone(),
        installed,
        demands: demands.clone(),
        next: 0,
        again: None,
    };
    tasks.spawn("trainer", trainer.run(stop.clone()));
    tasks.spawn("signals", train_on_signal(asked_to_train, demands.clone(), stop.clone()));
    let reloader = Reloader {
        world,
        file,
        live,
        filters,
        engine: engine.downgrade(),
        bounds,
        metrics,
        demands,
        systemd,
    };
    tasks.spawn("reloads", reloader.run(asked_to_reload, stop.clone()));
    tasks.spawn("upkeep", tend(store, config.store.retention, stop.clone()));
    drop(engine);

    tasks.until_stopped(&mut stop).await?;
    tracing::info!("stopping");
    systemd::stopping();
    tasks.finish(STOP_LIMIT).await
}

/// Asks for a training run of every stream on SIGUSR1.
async fn train_on_signal(
    mut asked: Signal,
    demands: Arc<Demands>,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let work = async {
        while asked.recv().await.is_some() {
            demands.ask(None);
        }
    };
    until_stopped(&mut stop, work).await;
    Ok(())
}

/// Makes partitions ahead and lets go of what retention does not keep, at the start and every hour.
async fn tend(
    store: Store,
    retention: Option<Duration>,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let work = async {
        loop {
            let now = training::now();
            if let Err(error) = store.make_ahead(now).await {
                tracing::warn!("cannot make partitions ahead: {error}");
            }
            if let Some(retention) = retention {
                let before = now.saturating_sub(training::micros(retention));
                if let Err(error) = store.prune(before).await {
                    tracing::warn!("cannot drop what is older than [store] retention: {error}");
                }
            }
            tokio::time::sleep(TEND_EVERY).await;
        }
    };
    until_stopped(&mut stop, work).await;
    Ok(())
}
