//! The engine's thread: takes messages one burst at a time, hands rows to the recorder and forecasts
//! to the outgoing queue. It waits for nobody.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

use crate::feed::Listeners;
use crate::ingest::{Effects, Ingest};
use crate::message::{Message, Packet, Reload, TrainerMessage};
use crate::metrics::Metrics;
use crate::outqueue::OutQueue;
use crate::pulse::Pulse;
use crate::record::{ModelChange, StateRow};
use crate::recorder::{Backlog, Record};

/// Messages taken at a time.
pub(crate) const BURST: usize = 256;

/// Between two looks for room at the end.
pub(crate) const ROOM_EVERY: Duration = Duration::from_millis(2);
/// Series looked at between two bursts for having fallen silent.
const LOOKS: usize = 1024;

/// Everything the thread owns and talks to.
pub struct EngineThread {
    /// The way of a reading.
    pub ingest: Ingest,
    /// What it is told; it ends when all senders are gone.
    pub inbox: mpsc::Receiver<Message>,
    /// To the recorder.
    pub records: mpsc::UnboundedSender<Record>,
    /// Bound on what the recorder has not yet written.
    pub backlog: Arc<Backlog>,
    /// To the outgoing connection.
    pub out: Arc<OutQueue>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Whether it gets on.
    pub pulse: Arc<Pulse>,
    /// States checkpointed between two bursts, so that a checkpoint of many series delays no forecast.
    pub slice: usize,
    /// Who hears what is published.
    pub listeners: Listeners,
}

/// What stands between two bursts.
pub(crate) struct Rounds {
    pub(crate) engine: EngineThread,
    /// Messages to be handled next.
    pub(crate) burst: Vec<Message>,
    /// Packets to be acknowledged that came when there was no room for their rows. The inlet sends no more
    /// meanwhile, so they are those that were on the way.
    waiting: VecDeque<Packet>,
    effects: Effects,
    record: Record,
    saving: Saving,
    /// The tick whose series are still to be looked at.
    tick: Option<Instant>,
}

/// Checkpoints under way.
#[derive(Default)]
struct Saving {
    /// States still to be checkpointed of those that were due.
    due: usize,
    /// Told when the store holds the last checkpoint.
    committed: Option<oneshot::Receiver<()>>,
    /// What changes the champion once all states that are due have been handed to the recorder …
    changes: Vec<ModelChange>,
    /// … and who is told of that.
    told: Vec<oneshot::Sender<()>>,
}

impl Saving {
    fn hand_over(&mut self, record: &mut Record) {
        record.batch.models.append(&mut self.changes);
        record.committed.append(&mut self.told);
    }
}

impl Rounds {
    pub(crate) fn new(engine: EngineThread) -> Rounds {
        Rounds {
            engine,
            burst: Vec::with_capacity(BURST),
            waiting: VecDeque::new(),
            effects: Effects::default(),
            record: Record::default(),
            saving: Saving::default(),
            tick: None,
        }
    }

    /// Whether there is nothing to do before the next message. Where there is no room for states, one comes soon:
    /// ticks do.
    pub(crate) fn idle(&self) -> bool {
        !self.may_save() && self.tick.is_none() && !self.may_go_on()
    }

    fn may_go_on(&self) -> bool {
        !self.waiting.is_empty() && self.engine.backlog.has_room()
    }

    fn may_save(&self) -> bool {
        self.saving.due > 0 && self.engine.backlog.has_room_for_states()
    }

    /// Waits for messages, or while packets wait, for room, which comes without one. False once there are no more.
    fn receive(&mut self) -> bool {
        if self.waiting.is_empty() {
            return self.engine.inbox.blocking_recv_many(&mut self.burst, BURST) > 0;
        }
        std::thread::sleep(ROOM_EVERY);
        loop {
            match self.engine.inbox.try_recv() {
                Ok(message) => self.burst.push(message),
                Err(mpsc::error::TryRecvError::Empty) => return true,
                Err(mpsc::error::TryRecvError::Disconnected) => return !self.burst.is_empty(),
            }
            if self.burst.len() >= BURST {
                return true;
            }
        }
    }

    /// Does a part of what takes long, if there is any, and handles a burst.
    pub(crate) fn next(&mut self) {
        let (may_save, may_go_on) = (self.may_save(), self.may_go_on());
        let Rounds { engine, burst, waiting, effects, record, saving, tick } = self;
        if may_save || may_go_on || tick.is_some() {
            while burst.len() < BURST
                && let Ok(message) = engine.inbox.try_recv()
            {
                burst.push(message);
            }
            if may_save {
                let slice = engine.slice;
                engine.checkpoint(saving.due.min(slice), record);
                saving.due = saving.due.saturating_sub(slice);
                if saving.due == 0 {
                    let (tell, told) = oneshot::channel();
                    record.committed.push(tell);
                    saving.committed = Some(told);
                    saving.hand_over(record);
                }
            }
            *tick = tick.filter(|at| engine.ingest.silences(*at, true, LOOKS, effects));
        }
        while engine.backlog.has_room()
            && let Some(packet) = waiting.pop_front()
        {
            engine.packet(packet, effects, record);
        }
        for message in burst.drain(..) {
            match message {
                Message::Packet(packet)
                    if packet.ack.is_some() && !(waiting.is_empty() && engine.backlog.has_room()) =>
                {
                    waiting.push_back(packet);
                }
                Message::Packet(packet) => engine.packet(packet, effects, record),
                Message::Query(query) => engine.answer(query),
                Message::Control(message) => engine.control(message, record),
                Message::Trainer(message) => {
                    // A state taken before must not stand in one record with the one taken after.
                    engine.flush(effects, record);
                    engine.train(message, saving, record);
                    engine.flush(effects, record);
                }
                Message::Tick { at, listening } => {
                    engine.listeners.prune();
                    // While the store is away and memory is full, the inlet takes nothing in.
                    let listening = listening && waiting.is_empty() && engine.backlog.has_room();
                    engine.ingest.unheard(at, listening);
                    if engine.ingest.silences(at, listening, LOOKS, effects) {
                        *tick = Some(at);
                    }
                }
                Message::Reload(reload) => {
                    engine.flush(effects, record);
                    engine.reload(*reload, effects);
                    engine.flush(effects, record);
                }
                // While the last one waits for the store, another would only fill memory.
                Message::Checkpoint => {
                    let last = saving.committed.as_mut();
                    if saving.due == 0 && last.is_none_or(|c| c.try_recv() != Err(TryRecvError::Empty)) {
                        saving.due = engine.ingest.engine.unsaved();
                        saving.committed = None;
                    }
                }
            }
        }
        engine.quality();
        engine.flush(effects, record);
        engine.backlog.set_waiting(!waiting.is_empty());
        engine.pulse.beat();
    }

    /// At the end: checkpoints a part of what moved, if the store takes it. Without that the next start
    /// replays more readings.
    pub(crate) fn finish(&mut self) -> Left {
        let Rounds { engine, effects, record, saving, .. } = self;
        engine.flush(effects, record);
        if engine.ingest.engine.unsaved() > 0 {
            if engine.backlog.is_away() {
                return Left::Nothing;
            }
            if !engine.backlog.has_room_for_states() {
                return Left::NoRoom;
            }
            engine.checkpoint(engine.slice, record);
        }
        if engine.ingest.engine.unsaved() > 0 {
            engine.flush(effects, record);
            return Left::More;
        }
        saving.hand_over(record);
        engine.flush(effects, record);
        Left::Nothing
    }
}

/// Where what a burst led to goes.
struct Onward<'e> {
    records: &'e mpsc::UnboundedSender<Record>,
    backlog: &'e Backlog,
    out: &'e OutQueue,
    listeners: &'e Listeners,
}

impl Onward<'_> {
    fn flush(&self, effects: &mut Effects, record: &mut Record) {
        self.listeners.hear(&effects.outgoing);
        self.out.push_all(&mut effects.outgoing);
        // What moved with these readings comes before states that were taken after them.
        let states = std::mem::take(&mut record.batch);
        record.batch = std::mem::take(&mut effects.batch);
        record.batch.append(states);
        if record.is_empty() {
            return;
        }
        self.backlog.add(&record.batch);
        // The recorder ends after this thread; if it broke down, the supervisor ends the process.
        let _ = self.records.send(std::mem::take(record));
    }
}

/// What is left to do at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    Nothing,
    /// More at once.
    More,
    /// More, once there is room.
    NoRoom,
}

impl EngineThread {
    /// Runs until every sender of messages is gone, then checkpoints all that moved.
    pub fn run(self) {
        let mut rounds = Rounds::new(self);
        while !rounds.idle() || rounds.receive() {
            rounds.next();
        }
        loop {
            match rounds.finish() {
                Left::Nothing => break,
                Left::More => {}
                Left::NoRoom => std::thread::sleep(ROOM_EVERY),
            }
        }
    }

    fn packet(&mut self, packet: Packet, effects: &mut Effects, record: &mut Record) {
        let EngineThread { ingest, records, backlog, out, pulse, listeners, .. } = self;
        // At QoS 1 there is room, or it would wait.
        let store = packet.ack.is_some() || backlog.has_room();
        let onward = Onward { records, backlog, out, listeners };
        ingest.packet(&packet, store, effects, &mut |effects| {
            onward.flush(effects, record);
            pulse.beat();
            packet.ack.is_some() || backlog.has_room()
        });
        record.acks.extend(packet.ack);
        pulse.beat();
    }

    fn checkpoint(&mut self, limit: usize, record: &mut Record) {
        self.ingest.engine.checkpoint(limit, |series, time, model, state| {
            record.batch.states.push(StateRow { series, time: time.0, model, state });
        });
    }

    fn flush(&self, effects: &mut Effects, record: &mut Record) {
        let EngineThread { records, backlog, out, listeners, .. } = self;
        Onward { records, backlog, out, listeners }.flush(effects, record);
    }

    fn quality(&self) {
        for (stream, _) in self.ingest.streams() {
            let quality = self.ingest.engine.quality(stream);
            let metrics = self.metrics.stream(stream);
            if let Some(coverage) = quality.coverage() {
                metrics.coverage.set(coverage);
            }
            if let Some(error) = quality.relative_error() {
                metrics.relative_error.set(error);
            }
            let version = self.ingest.engine.installed(stream).map_or(0, |m| m.version);
            metrics.model_version.set(version);
            metrics.probation.set(i64::from(self.ingest.engine.probation(stream).is_some()));
        }
    }

    fn train(&mut self, message: TrainerMessage, saving: &mut Saving, record: &mut Record) {
        match message {
            TrainerMessage::OpenJournal { stream, committed } => {
                self.ingest.engine.open_journal(stream);
                record.committed.push(committed);
            }
            TrainerMessage::CloseJournal { stream } => self.ingest.engine.close_journal(stream),
            TrainerMessage::TakeJournal { stream, reply } => {
                drop(reply.send(self.ingest.engine.take_journal(stream)));
            }
            TrainerMessage::Install { stream, model, states, change, probation, installed, committed } => {
                let name = model.name.clone();
                let taken = self.ingest.engine.install(stream, model, states, probation);
                if taken {
                    tracing::info!(stream = %self.ingest.stream_name(stream), model = %name, "model installed");
                    self.changed(change, committed, saving, record);
                }
                // The trainer may be stopping.
                let _ = installed.send(taken);
            }
            TrainerMessage::Uninstall { stream, change, committed } => {
                self.ingest.engine.uninstall(stream);
                tracing::info!(stream = %self.ingest.stream_name(stream), "model taken out");
                self.changed(change, committed, saving, record);
            }
            TrainerMessage::ResumeProbation { stream, before, states, tally } => {
                self.ingest.engine.resume_probation(stream, before, states, tally);
            }
            TrainerMessage::EndProbation { stream } => self.ingest.engine.end_probation(stream),
            TrainerMessage::ResetDrift { stream } => self.ingest.engine.reset_drift(stream),
        }
    }

    /// The champion changes in the store once that holds all states under the new model. A process that ends
    /// before leaves states of a model that is not champion, which a restart rebuilds.
    fn changed(
        &mut self,
        change: Option<ModelChange>,
        committed: oneshot::Sender<()>,
        saving: &mut Saving,
        record: &mut Record,
    ) {
        saving.due = self.ingest.engine.unsaved();
        saving.changes.extend(change);
        saving.told.push(committed);
        if saving.due == 0 {
            saving.hand_over(record);
        }
    }

    fn reload(&mut self, mut reload: Reload, effects: &mut Effects) {
        self.out.set_capacity(reload.out);
        let done = reload.done.take();
        self.ingest.reload(reload, effects);
        // Whoever asked may be stopping.
        done.map(|done| done.send(()));
    }
}
