//! One machine: a daemon over the simulated world, started, stopped and killed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

use super::broker::Broker;
use super::invariants;
use super::link::{self, SimClient, SimLink};
use super::replay;
use super::sim::{Sim, lock};
use super::store::SimStore;
use crate::app::STOP_LIMIT;
use crate::clock::Clock;
use crate::config;
use crate::control::{ControlMessage, Taught};
use crate::engine_thread::{BURST, EngineThread, Left, ROOM_EVERY, Rounds};
use crate::message::Message;
use crate::metrics::{Metrics, Rejection};
use crate::mqtt::Role;
use crate::path::{self, Path};
use crate::ready::Ready;
use crate::record::{Cause, ModelChange, Promotion, SeriesHandle};
use crate::supervise::Tasks;
use crate::trainer::Swap;
use crate::world::World;

/// What the simulated daemon stands on.
#[derive(Clone)]
pub(super) struct SimWorld {
    pub(super) sim: Sim,
    pub(super) store: SimStore,
    pub(super) broker: Broker,
}

impl World for SimWorld {
    type Store = SimStore;
    type Client = SimClient;
    type Link = SimLink;

    fn store(&self) -> &SimStore {
        &self.store
    }

    fn clock(&self) -> Clock {
        self.sim.clock()
    }

    fn connect(&self, _mqtt: &config::Mqtt, role: Role) -> anyhow::Result<(SimClient, SimLink)> {
        Ok(link::open(&self.broker, &self.sim, role))
    }

    async fn engine(self, thread: EngineThread) -> anyhow::Result<()> {
        let mut rounds = Rounds::new(thread);
        loop {
            let most = if self.sim.dice(4) == 0 { 1 } else { BURST };
            if rounds.idle() && rounds.engine.inbox.recv_many(&mut rounds.burst, most).await == 0 {
                break;
            }
            rounds.next();
            invariants::bounded(&self.sim, &rounds.engine.out, &rounds.engine.metrics);
            self.note_unstored(&rounds.engine.metrics);
            self.sim.pause().await;
        }
        loop {
            match rounds.finish() {
                Left::Nothing => return Ok(()),
                Left::More => {}
                Left::NoRoom => sleep(ROOM_EVERY).await,
            }
        }
    }

    async fn aside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
        self.sim.pause().await;
        Ok(work())
    }
}

impl SimWorld {
    fn note_unstored(&self, metrics: &Metrics) {
        for (position, stream) in self.sim.config().stream.iter().enumerate() {
            if metrics.stream(position).rejected(Rejection::StoreFull).get() > 0 {
                self.store.with(|t| t.unstored.insert(stream.name.clone()));
            }
        }
    }
}

/// From a start to an end.
struct Life {
    task: JoinHandle<anyhow::Result<()>>,
    stop: watch::Sender<bool>,
    metrics: Arc<Metrics>,
    engine: Arc<Mutex<Option<mpsc::WeakSender<Message>>>>,
    swap: Option<JoinHandle<()>>,
    /// Who gave feedback and waits until it is stored.
    asking: JoinSet<()>,
}

pub(super) struct Machine {
    pub(super) world: SimWorld,
    life: Option<Life>,
    /// When feedback was given last.
    given_at: Arc<AsyncMutex<i64>>,
}

impl Machine {
    pub(super) fn new(world: SimWorld) -> Machine {
        Machine { world, life: None, given_at: Arc::default() }
    }

    pub(super) fn start(&mut self) {
        let sim = &self.world.sim;
        sim.note(|| "start".to_owned());
        self.world.store.take_stored();
        let metrics = Metrics::new(sim.config().stream.iter().map(|s| s.name.as_str())).unwrap();
        let (stop, stopped) = watch::channel(false);
        let engine = Arc::default();
        let task = tokio::spawn(daemon(self.world.clone(), metrics.clone(), Arc::clone(&engine), stopped));
        self.life = Some(Life { task, stop, metrics, engine, swap: None, asking: JoinSet::new() });
    }

    /// Starts a daemon again that ended because the store went away while it started.
    pub(super) async fn tend(&mut self) {
        if self.life.as_ref().is_some_and(|life| life.task.is_finished()) {
            let life = self.life.take().unwrap();
            let ended = life.task.await.unwrap_or_else(|error| Err(error.into()));
            let text = ended.map_or_else(|error| format!("{error:#}"), |()| "no error".to_owned());
            let (sim, store) = (&self.world.sim, &self.world.store);
            sim.note(|| format!("ended: {text}"));
            let excused = text.contains("restoring the series") && store.troubled(Duration::from_secs(60));
            sim.ensure(excused, invariants::GOES_ON, || text);
            self.heard();
            sleep(Duration::from_secs(1)).await;
            self.start();
        }
    }

    /// Whether all that was taken in is stored, and all that was swapped is.
    pub(super) fn settled(&self) -> bool {
        let life = self.life.as_ref().unwrap();
        let metrics = &life.metrics;
        let stored = metrics.store_queue.get() == 0 && metrics.spool_readings.get() == 0;
        stored && life.swap.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it as a power cut does.
    pub(super) async fn kill(&mut self) {
        let Some(life) = self.life.take() else { return };
        self.world.sim.note(|| "kill".to_owned());
        life.task.abort();
        drop(life.asking);
        if let Some(swap) = life.swap {
            swap.abort();
        }
        // Tasks are taken down when it is their turn.
        let _ = life.task.await;
        for _ in 0..16 {
            tokio::task::yield_now().await;
        }
        self.heard();
    }

    /// Ends it as SIGTERM does.
    pub(super) async fn stop(&mut self) {
        let Some(life) = self.life.take() else { return };
        let (sim, store) = (&self.world.sim, &self.world.store);
        sim.note(|| "stop".to_owned());
        life.stop.send_replace(true);
        drop(life.asking);
        if let Some(swap) = life.swap {
            swap.abort();
        }
        let ended = life.task.await.unwrap_or_else(|error| Err(error.into()));
        match ended {
            Ok(()) if lock(&life.engine).is_some() => {
                sim.note(|| "stopped".to_owned());
                invariants::counted(sim, &life.metrics, store.take_stored());
            }
            Ok(()) => sim.note(|| "stopped before it had begun".to_owned()),
            Err(error) => {
                let text = format!("{error:#}");
                sim.note(|| format!("not stopped: {text}"));
                let excused = store.troubled(STOP_LIMIT + Duration::from_secs(70));
                sim.ensure(excused, invariants::GOES_ON, || text);
                for _ in 0..16 {
                    tokio::task::yield_now().await;
                }
            }
        }
        self.heard();
    }

    fn heard(&self) {
        let heard = self.world.broker.take_heard();
        self.world.store.with(|t| invariants::published(&self.world.sim, t, &heard));
    }

    /// A user says something of a series, of a time or of its latest anomaly. As the desk does it: one after the
    /// other, and told once it is stored.
    pub(super) fn feedback(&mut self, key: String, time: Option<i64>, anomaly: bool) {
        let Some(life) = &mut self.life else { return };
        let Some(engine) = lock(&life.engine).as_ref().and_then(mpsc::WeakSender::upgrade) else { return };
        let (world, given_at) = (self.world.clone(), self.given_at.clone());
        life.asking.spawn(async move {
            let (reply, known) = oneshot::channel();
            let message = ControlMessage::Known(0, usize::MAX, reply);
            if engine.send(Message::Control(message)).await.is_err() {
                return;
            }
            let Ok(known) = known.await else { return };
            let Some(series) = known.iter().position(|known| *known.key == *key) else { return };
            let mut last = given_at.lock().await;
            let given_at = world.clock().now().max(*last + 1);
            *last = given_at;
            let (reply, taught) = oneshot::channel();
            let series = series as SeriesHandle;
            let message = ControlMessage::Teach { series, time, anomaly, given_at, reply };
            if engine.send(Message::Control(message)).await.is_err() {
                return;
            }
            let Ok(taught) = taught.await else { return };
            drop((last, engine));
            let moved = matches!(&taught, Taught::Tuned(tuned, _) if tuned.before != tuned.after);
            world.sim.note(|| format!("feedback on {key} moves its bar: {moved}; {taught:?}"));
            if let Taught::Tuned(tuned, stored) = taught
                && stored.await.is_ok()
            {
                let kept = world
                    .store
                    .with(|t| t.id(&key).is_some_and(|id| t.feedback.contains_key(&(id, given_at))));
                let kept = kept || !tuned.news;
                world.sim.ensure(kept, invariants::SAID_IS_STORED, || format!("{key} at {given_at}"));
            }
        });
    }

    /// Brings a new model in, as the trainer does; one at a time.
    pub(super) fn new_model(&mut self, position: usize, probation: bool) {
        let Some(life) = &mut self.life else { return };
        if life.swap.as_ref().is_some_and(|swap| !swap.is_finished()) {
            return;
        }
        let Some(engine) = lock(&life.engine).as_ref().and_then(mpsc::WeakSender::upgrade) else { return };
        let world = self.world.clone();
        life.swap = Some(tokio::spawn(async move {
            let config = world.sim.config().clone();
            let stream = &config.stream[position];
            let (model, expected) = world
                .store
                .with(|t| (replay::candidate(t, &stream.name), t.champion(&stream.name).map(|m| m.id)));
            world.store.with(|t| t.swapped.insert(stream.name.clone()));
            world.sim.note(|| format!("model {model} comes in on {}", stream.name));
            let change = ModelChange::Promote(Promotion {
                model,
                expected: Some(expected),
                cause: Cause::Training,
                at: world.clock().now(),
                probation,
            });
            let swap = Swap { world: world.clone(), config: &config, engine: &engine };
            let done = swap.install(position, stream, model, Some(change), probation).await;
            world.sim.note(|| format!("model {model}: {done:?}"));
        }));
    }
}

/// The daemon, without HTTP and without training.
async fn daemon(
    world: SimWorld,
    metrics: Arc<Metrics>,
    begun: Arc<Mutex<Option<mpsc::WeakSender<Message>>>>,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let (config, bounds) = (world.sim.config().clone(), world.sim.bounds());
    let ready = Arc::new(Ready::default());
    let (engine, inbox) = mpsc::channel(bounds.inbox);
    let mut tasks = Tasks::default();
    let mut spool = path::open_spool(&config, &metrics)?;
    let mut restored = tokio::select! {
        biased;
        restored = path::restore(&world, &mut spool, &config, &ready, &metrics) => restored?,
        ended = tasks.until_stopped(&mut stop) => return ended,
    };
    // What was drained was received by the life before.
    world.store.take_stored();
    world.store.with(|t| invariants::restored(&world.sim, t, &mut restored));
    *lock(&begun) = Some(engine.downgrade());
    let (pulse, filters) = (Arc::default(), watch::channel(config.filters()).1);
    let path = Path { world, config, metrics, ready, restored, spool, bounds, pulse, filters, engine, inbox };
    path.start(&mut tasks, &stop)?;
    tasks.until_stopped(&mut stop).await?;
    tasks.finish(STOP_LIMIT).await
}

/// Waits until something holds, or so long.
pub(super) async fn wait_until(longest: Duration, mut holds: impl AsyncFnMut() -> bool) -> bool {
    let until = Instant::now() + longest;
    while Instant::now() < until {
        if holds().await {
            return true;
        }
        sleep(Duration::from_millis(500)).await;
    }
    false
}
