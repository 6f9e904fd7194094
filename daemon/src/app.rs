//! All wiring: channels, tasks, the order in which they start and stop.
//!
//! ```text
//! the path of a reading: broker ═▶ inlet ──▶ ENGINE ──▶ recorder ═▶ store, or spool
//!                                              │
//! beside it:                                   └──◀▶ trainer, HTTP
//! ```
//! The path itself is laid in `path.rs`, where simulations lay it, too.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use crate::admin::{self, Admin, Gate, Pages};
use crate::config::Config;
use crate::message::{Message, Query};
use crate::metrics::Metrics;
use crate::path::{self, Bounds, Path, open_spool};
use crate::ready::Ready;
use crate::store::{SeriesPage, Store};
use crate::supervise::{Tasks, until_stopped};
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

/// Runs the daemon until `stop` turns true, or a part of it breaks down.
///
/// # Errors
/// If it cannot start, a part ends before its time, or some part does not stop within the limit.
pub async fn run(
    config: Config,
    mut stop: watch::Receiver<bool>,
    started: impl FnOnce(Started) + Send,
) -> anyhow::Result<()> {
    let config = Arc::new(config);
    let metrics = Metrics::new(config.stream.iter().map(|s| s.name.as_str()))?;
    let ready = Arc::new(Ready::default());
    let bounds = Bounds::default();
    let (engine, inbox) = mpsc::channel::<Message>(bounds.inbox);
    let mut tasks = Tasks::default();

    // From here on the signal does not end the process.
    let asked_to_train = signal(SignalKind::user_defined1()).context("listening for SIGUSR1")?;

    // HTTP comes first, so that probes and metrics tell of a store that is away.
    let listener = TcpListener::bind(&config.http.listen)
        .await
        .with_context(|| format!("[http] listen: cannot bind {}", config.http.listen))?;
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
    let world = Real { store: store.clone() };
    let restored = tokio::select! {
        restored = path::restore(&world, &mut spool, &config, &ready, &metrics) => restored?,
        // HTTP is all there is to end yet.
        ended = tasks.until_stopped(&mut stop) => return ended,
    };
    let installed = restored.installed.clone();
    let path = Path {
        world: world.clone(),
        config: config.clone(),
        metrics: metrics.clone(),
        ready: ready.clone(),
        restored,
        spool,
        bounds,
        engine: engine.clone(),
        inbox,
    };
    path.start(&mut tasks, &stop)?;

    // Beside it.
    let trainer = Trainer {
        config: config.clone(),
        store: store.clone(),
        engine: engine.clone(),
        metrics,
        installed,
        demands: demands.clone(),
        next: 0,
        again: None,
    };
    tasks.spawn("trainer", trainer.run(stop.clone()));
    tasks.spawn("signals", train_on_signal(asked_to_train, demands, stop.clone()));
    tasks.spawn("watchdog", watchdog(ready, engine.downgrade(), stop.clone()));
    tasks.spawn("upkeep", tend(store, config.store.retention, stop.clone()));
    drop(engine);

    tasks.until_stopped(&mut stop).await?;
    tracing::info!("stopping");
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
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

/// Tells systemd when the daemon is ready, and from then on that the engine makes progress.
async fn watchdog(
    ready: Arc<Ready>,
    engine: mpsc::WeakSender<Message>,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    use sd_notify::NotifyState;
    let work = async {
        while !ready.missing().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tracing::info!("ready");
        // Without systemd there is nobody to tell.
        let _ = sd_notify::notify(&[NotifyState::Ready]);
        let Some(limit) = sd_notify::watchdog_enabled() else { return };
        loop {
            let (reply, answer) = oneshot::channel();
            let Some(engine) = engine.upgrade() else { return };
            if engine.send(Message::Query(Query::Streams(reply))).await.is_ok() && answer.await.is_ok() {
                let _ = sd_notify::notify(&[NotifyState::Watchdog]);
            }
            drop(engine);
            tokio::time::sleep(limit / 3).await;
        }
    };
    until_stopped(&mut stop, work).await;
    // The daemon goes on without anybody to watch over it.
    let _ = stop.wait_for(|stop| *stop).await;
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
