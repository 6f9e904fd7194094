//! The path of a reading: its channels and tasks, and the order in which they start and stop.
//!
//! ```text
//! broker ═▶ inlet ──▶ ENGINE ──▶ recorder ═▶ store, or spool ──ack──▶ inlet
//!                       └──▶ out queue ──▶ outlet ═▶ broker
//! ```
//! To stop, the inputs close, and each part ends when the one before it has: the inlet lets go of
//! the engine, the engine of the recorder and the out queue, the recorder of the inlet's acks.

use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::{mpsc, watch};

use crate::clock;
use crate::config::Config;
use crate::engine_thread::EngineThread;
use crate::feed::Listeners;
use crate::ingest::Ingest;
use crate::message::Message;
use crate::metrics::Metrics;
use crate::mqtt::{self, Role};
use crate::outqueue::OutQueue;
use crate::pulse::Pulse;
use crate::ready::Ready;
use crate::recorder::{self, Backlog, Outages, Recorder, Writer};
use crate::restore::{self, Restored};
use crate::spool::Spool;
use crate::store::{Past, StoreError};
use crate::supervise::{Tasks, until_stopped};
use crate::world::World;

/// How long the outlet may take to hand over what is queued when it stops.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// How often a start is mentioned that the store does not answer.
const START_REMIND: Duration = Duration::from_secs(30);
/// Time between two looks for series that fell silent.
const TICK_EVERY: Duration = Duration::from_millis(500);

/// How much may be under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Messages on the way from the inlet to the engine.
    pub(crate) inbox: usize,
    /// Bytes of rows that the recorder may hold in memory while neither store nor spool take them.
    pub(crate) backlog: usize,
    /// Forecast steps on the way to the broker, some 15 MB as messages.
    pub(crate) out: usize,
    /// As in [`EngineThread`].
    pub(crate) slice: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { inbox: 8192, backlog: 32 << 20, out: 65_536, slice: 128 }
    }
}

impl Bounds {
    /// Messages that may be on the way to the broker.
    pub(crate) fn messages(&self, config: &Config) -> usize {
        let longest = config.stream.iter().map(|s| s.horizon).max().unwrap_or(1).max(1);
        self.out / longest
    }
}

/// The spool, unless there is to be none, or its folder was not named and cannot be used.
///
/// # Errors
/// If the folder that was named cannot be used.
pub(crate) fn open_spool(config: &Config, metrics: &Metrics) -> anyhow::Result<Option<Spool>> {
    let max_bytes = config.spool.max_bytes;
    if max_bytes == 0 {
        return Ok(None);
    }
    match Spool::open(&config.spool_dir(), max_bytes) {
        Ok(spool) => {
            let gauge = |number| i64::try_from(number).unwrap_or(i64::MAX);
            metrics.spool_max_bytes.set(gauge(max_bytes));
            metrics.spool_bytes.set(gauge(spool.bytes()));
            metrics.spool_readings.set(gauge(spool.readings()));
            metrics.spool_writable.set(1);
            Ok(Some(spool))
        }
        // What is in a folder that is there must not be passed over.
        Err(error)
            if config.spool.dir.is_none()
                && matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
                ) =>
        {
            tracing::warn!(
                "no spool, so what the store does not take waits at the broker; name a folder in spool.dir: \
                 {error}"
            );
            Ok(None)
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => bail!(
            "spool.dir: {error}; a second daemon needs an mqtt.client_id of its own (the default folder and the \
             broker's session follow it), and a spool.dir of its own where one is named"
        ),
        Err(error) => Err(error).context("spool.dir: name a folder that this daemon alone may use"),
    }
}

/// Waits for the store, as long as the configuration says, and restores the series from it.
///
/// # Errors
/// If the store is away for longer than that, or cannot be used.
pub(crate) async fn restore<W: World>(
    world: &W,
    spool: &mut Option<Spool>,
    config: &Config,
    ready: &Ready,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Restored> {
    let begun = clock::steady();
    let mut outages = Outages::default();
    let restored = loop {
        let mut attempt = pin!(begin(world, spool, config, ready, metrics));
        let ended = loop {
            match tokio::time::timeout(START_REMIND, &mut attempt).await {
                Ok(ended) => break ended,
                Err(_) => tracing::warn!(
                    "not started yet: missing {}; a large store takes a while, one that hangs never answers",
                    ready.missing().join(", ")
                ),
            }
        };
        let error = match ended {
            Ok(restored) => break restored,
            Err(error) => error,
        };
        metrics.store_up.set(0);
        let Some(away @ StoreError::Unavailable(trouble, _)) = error.downcast_ref() else {
            return Err(error);
        };
        metrics.set_trouble(Some(*trouble));
        let waited = clock::steady().saturating_duration_since(begun);
        if config.store.start_timeout.is_some_and(|limit| waited >= limit) {
            return Err(error.context("[store] start_timeout: the store is away"));
        }
        tokio::time::sleep(outages.failed(away)).await;
    };
    outages.succeeded();
    metrics.set_trouble(None);
    ready.set_restored();
    tracing::info!(series = restored.catalog.len(), "restored");
    Ok(restored)
}

/// Everything that the start asks of the store; may be done again if it fails half way.
async fn begin<W: World>(
    world: &W,
    spool: &mut Option<Spool>,
    config: &Config,
    ready: &Ready,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Restored> {
    world.store().migrate().await?;
    metrics.store_up.set(1);
    ready.set_migrated();
    if let Some(spool) = spool {
        recorder::drain(world.store(), spool, metrics).await?;
    }
    restore::restore(world, config).await.context("restoring the series")
}

/// What the path is made of.
pub(crate) struct Path<W> {
    pub(crate) world: W,
    pub(crate) config: Arc<Config>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) ready: Arc<Ready>,
    pub(crate) restored: Restored,
    /// Empty; none if there is none.
    pub(crate) spool: Option<Spool>,
    pub(crate) bounds: Bounds,
    pub(crate) pulse: Arc<Pulse>,
    /// What to subscribe to.
    pub(crate) filters: watch::Receiver<Vec<String>>,
    /// Both ends of the engine's inbox; the path ends when all senders are gone.
    pub(crate) engine: mpsc::Sender<Message>,
    pub(crate) inbox: mpsc::Receiver<Message>,
}

impl<W: World> Path<W> {
    /// Starts its tasks, from its end to its beginning.
    ///
    /// # Errors
    /// If a file named in the configuration cannot be used.
    pub(crate) fn start(self, tasks: &mut Tasks, stop: &watch::Receiver<bool>) -> anyhow::Result<()> {
        let Path { world, config, metrics, ready, restored, spool, bounds, pulse, filters, engine, inbox } =
            self;
        let Restored { engine: restored_engine, catalog, ids, installed: _ } = restored;
        let (records, recorded) = mpsc::unbounded_channel();
        let (acks, acked) = mpsc::unbounded_channel();
        let backlog = Backlog::new(bounds.backlog, metrics.store_queue.clone());
        let out = Arc::new(OutQueue::new(bounds.messages(&config), metrics.clone()));
        let stream_of = catalog.iter().map(|e| e.stream).collect();
        let writer = Writer::new(world.store().clone(), metrics.clone(), ids, Some(stream_of));
        let recorder = Recorder::new(writer, spool, backlog.clone(), metrics.clone());
        tasks.spawn_plain("recorder", recorder.run(recorded, acks));
        let link = world.connect(&config.mqtt, Role::Out)?;
        let outlet = mqtt::run_outlet(link, config.mqtt.clone(), out.clone(), metrics.clone(), DRAIN_LIMIT);
        tasks.spawn_plain("outlet", outlet);
        let thread = EngineThread {
            ingest: Ingest::new(&config, restored_engine, catalog, metrics.clone()),
            inbox,
            records,
            backlog: backlog.clone(),
            out: out.clone(),
            metrics: metrics.clone(),
            pulse,
            slice: bounds.slice,
            listeners: Listeners::default(),
        };
        let ended = world.clone().engine(thread);
        tasks.spawn("engine", async move {
            let result = ended.await;
            out.close();
            result
        });
        let inlet = mqtt::run_inlet(
            world.connect(&config.mqtt, Role::In)?,
            config.mqtt.clone(),
            filters,
            mqtt::Intake { engine: engine.clone(), acks: acked, backlog, clock: world.clock() },
            ready.clone(),
            metrics,
            stop.clone(),
        );
        tasks.spawn("inlet", inlet);
        let every = config.store.checkpoint_every;
        let checkpoint = || Message::Checkpoint;
        tasks.spawn("checkpoints", remind(every, checkpoint, engine.downgrade(), stop.clone()));
        // It looks for series that fell silent; without a subscription nobody can be heard.
        let tick = move || Message::Tick { at: clock::steady(), listening: ready.missing().is_empty() };
        tasks.spawn("ticks", remind(TICK_EVERY, tick, engine.downgrade(), stop.clone()));
        Ok(())
    }
}

/// Sends the engine a message at intervals.
async fn remind(
    every: Duration,
    message: impl Fn() -> Message,
    engine: mpsc::WeakSender<Message>,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let work = async {
        loop {
            tokio::time::sleep(every).await;
            let Some(engine) = engine.upgrade() else { return };
            if engine.send(message()).await.is_err() {
                return;
            }
        }
    };
    until_stopped(&mut stop, work).await;
    Ok(())
}
