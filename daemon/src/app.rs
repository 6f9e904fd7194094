//! All wiring: channels, tasks, the order in which they start and stop.
//!
//! ```text
//! broker ═▶ inlet ──▶ ENGINE ──▶ recorder ═▶ store ──ack after commit──▶ inlet
//!                       │  └──▶ out queue ──▶ outlet ═▶ broker
//!                       └──◀▶ trainer, HTTP
//! ```
//! To stop, the inputs close, and each part ends when the one before it has: the inlet lets go of
//! the engine, the engine of the recorder and the out queue, the recorder of the inlet's acks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

use crate::admin::{self, Admin, Pages};
use crate::config::Config;
use crate::engine_thread::EngineThread;
use crate::ingest::Ingest;
use crate::message::{Message, Query};
use crate::metrics::Metrics;
use crate::mqtt;
use crate::outqueue::OutQueue;
use crate::ready::Ready;
use crate::recorder::{Backlog, Recorder};
use crate::restore::{self, Restored};
use crate::store::{SeriesPage, Store};
use crate::supervise::Tasks;
use crate::trainer::Trainer;
use crate::training;

/// Messages on the way from the inlet to the engine.
const INBOX: usize = 8192;
/// Rows of readings and forecasts that the recorder may hold while the store is away: some 20 MB.
const BACKLOG: usize = 200_000;
/// Forecast steps on the way to the broker, some 15 MB as messages.
const OUT_QUEUE: usize = 65_536;
/// How long stopping may take.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// How long the outlet may take to hand over what is queued when it stops.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait between two tries to open the store.
const STORE_RETRY: Duration = Duration::from_secs(5);
/// Time between two looks for series that fell silent.
const TICK_EVERY: Duration = Duration::from_millis(500);
/// Time between two looks for what retention lets go.
const PRUNE_EVERY: Duration = Duration::from_secs(3600);

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
    pub http: SocketAddr,
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
    let (engine, inbox) = mpsc::channel::<Message>(INBOX);
    let mut tasks = Tasks::default();

    // HTTP comes first, so that probes and metrics tell of a store that is away.
    let listener = TcpListener::bind(&config.http.listen)
        .await
        .with_context(|| format!("[http] listen: cannot bind {}", config.http.listen))?;
    let http = listener.local_addr()?;
    let token = match &config.http.token_file {
        Some(file) => {
            let text =
                std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
            Some(text.trim_end().to_owned())
        }
        None => None,
    };

    let store = Store::open(&config.store).await?;
    let admin = Admin {
        metrics: metrics.clone(),
        ready: ready.clone(),
        engine: engine.downgrade(),
        pages: store.clone(),
        token,
    };
    tasks.spawn("http", admin::serve(listener, admin.router(), stop.clone()));
    started(Started { http, ready: ready.clone() });
    let restored = tokio::select! {
        restored = restore(&store, &config, &ready, &metrics) => restored?,
        // HTTP is all there is to end yet.
        ended = tasks.until_stopped(&mut stop) => return ended,
    };
    let Restored { engine: restored_engine, catalog, ids, installed } = restored;

    // The path of a reading, from its end to its beginning.
    let (records, recorded) = mpsc::unbounded_channel();
    let (acks, acked) = mpsc::unbounded_channel();
    let longest = config.stream.iter().map(|s| s.horizon).max().unwrap_or(1).max(1);
    let backlog = Backlog::new(BACKLOG, metrics.store_queue.clone());
    let out = Arc::new(OutQueue::new(OUT_QUEUE / longest, metrics.clone()));
    let streams = config.stream.iter().map(|s| s.name.clone()).collect();
    let stream_of = catalog.iter().map(|e| e.stream).collect();
    let recorder = Recorder::new(store.clone(), metrics.clone(), backlog.clone(), ids, streams, stream_of);
    tasks.spawn_plain("recorder", recorder.run(recorded, acks));
    tasks.spawn("outlet", mqtt::run_outlet(config.mqtt.clone(), out.clone(), metrics.clone(), DRAIN_LIMIT));
    let ingest = Ingest::new(&config, restored_engine, catalog, metrics.clone());
    let thread = EngineThread {
        ingest,
        inbox,
        records,
        backlog: backlog.clone(),
        out: out.clone(),
        metrics: metrics.clone(),
    };
    let ended = thread_of(thread)?;
    tasks.spawn("engine", async move {
        let result = ended.await.context("the engine thread panicked");
        out.close();
        result
    });
    let filters = config.stream.iter().map(|s| s.topic.filter()).collect();
    let inlet = mqtt::run_inlet(
        config.mqtt.clone(),
        filters,
        mqtt::Intake { engine: engine.clone(), backlog },
        acked,
        ready.clone(),
        metrics.clone(),
        stop.clone(),
    );
    tasks.spawn("inlet", inlet);

    // Beside it.
    let trainer =
        Trainer { config: config.clone(), store: store.clone(), engine: engine.clone(), metrics, installed };
    tasks.spawn("trainer", trainer.run(stop.clone()));
    tasks.spawn("checkpoints", checkpoints(config.store.checkpoint_every, engine.downgrade(), stop.clone()));
    tasks.spawn("ticks", ticks(ready.clone(), engine.downgrade(), stop.clone()));
    tasks.spawn("watchdog", watchdog(ready, engine.downgrade(), stop.clone()));
    if let Some(retention) = config.store.retention {
        tasks.spawn("retention", prune(store, retention, stop.clone()));
    }
    drop(engine);

    tasks.until_stopped(&mut stop).await?;
    tracing::info!("stopping");
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    tasks.finish(STOP_LIMIT).await
}

/// Runs work to its end, unless it is time to stop.
async fn until_stopped<T>(stop: &mut watch::Receiver<bool>, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        result = work => Some(result),
        _ = stop.wait_for(|stop| *stop) => None,
    }
}

/// Waits for the store, however long it is away, and restores the series from it.
async fn restore(
    store: &Store,
    config: &Config,
    ready: &Ready,
    metrics: &Metrics,
) -> anyhow::Result<Restored> {
    let mut wait = Duration::from_millis(200);
    while let Err(error) = store.migrate().await {
        tracing::warn!("the store is not there yet, trying again: {error}");
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(STORE_RETRY);
    }
    metrics.store_up.set(1);
    ready.set_migrated();
    let restored = restore::restore(store, config).await.context("restoring the series")?;
    ready.set_restored();
    tracing::info!(series = restored.catalog.len(), "restored");
    Ok(restored)
}

/// Starts the engine's thread; the receiver hears of its end, or of the sender's if it panicked.
fn thread_of(thread: EngineThread) -> anyhow::Result<oneshot::Receiver<()>> {
    let (done, ended) = oneshot::channel();
    std::thread::Builder::new().name("engine".to_owned()).spawn(move || {
        thread.run();
        // The daemon waits for this unless it is past its deadline.
        let _ = done.send(());
    })?;
    Ok(ended)
}

async fn checkpoints(
    every: Duration,
    engine: mpsc::WeakSender<Message>,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let work = async {
        loop {
            tokio::time::sleep(every).await;
            let Some(engine) = engine.upgrade() else { return };
            if engine.send(Message::Checkpoint).await.is_err() {
                return;
            }
        }
    };
    until_stopped(&mut stop, work).await;
    Ok(())
}

/// Has the engine look for series that fell silent.
async fn ticks(
    ready: Arc<Ready>,
    engine: mpsc::WeakSender<Message>,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let work = async {
        loop {
            tokio::time::sleep(TICK_EVERY).await;
            let Some(engine) = engine.upgrade() else { return };
            // Without a subscription nobody can be heard.
            let message = Message::Tick { at: Instant::now(), listening: ready.missing().is_empty() };
            if engine.send(message).await.is_err() {
                return;
            }
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

async fn prune(store: Store, retention: Duration, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    let work = async {
        loop {
            let before = training::now().saturating_sub(training::micros(retention));
            if let Err(error) = store.prune(before).await {
                tracing::warn!("cannot drop what is older than [store] retention: {error}");
            }
            tokio::time::sleep(PRUNE_EVERY).await;
        }
    };
    until_stopped(&mut stop, work).await;
    Ok(())
}
