//! What reaches the engine thread, and what it answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use forecaster::{Installed, Journal, Model, Reading, Rebuilt, SeriesHandle, Tally, Timestamp};
use hashbrown::HashMap;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::config::Config;
use crate::control::ControlMessage;
use crate::feed::Mailbox;
use crate::record::ModelChange;
use crate::restore::Restored;
use crate::trainer::StreamWatch;

/// Permission to acknowledge one packet, once everything in it is durable.
///
/// Packet ids mean nothing on another connection, hence the generation: an ack whose connection is
/// gone is dropped, and the broker delivers the packet again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckToken {
    /// Which connection since start the packet came over.
    pub generation: u64,
    /// The packet's id on that connection.
    pub packet_id: u16,
}

/// A message as it came from the broker.
#[derive(Debug)]
pub struct Packet {
    /// Topic.
    pub topic: String,
    /// Body.
    pub payload: Vec<u8>,
    /// Whether it is a retained copy delivered on subscribing, and so nothing new.
    pub retained: bool,
    /// What acknowledges it; none at quality of service 0.
    pub ack: Option<AckToken>,
    /// When it arrived, for latency.
    pub arrived: Instant,
    /// When it arrived, microseconds since the Unix epoch, for streams without a time field.
    pub arrived_at: i64,
    /// Its share of the bytes that may be under way to the engine; none for a small body.
    pub share: Option<OwnedSemaphorePermit>,
}

/// Everything the engine thread is told.
#[derive(Debug)]
pub enum Message {
    /// A message from the broker.
    Packet(Packet),
    /// A question from the API.
    Query(Query),
    /// From control.
    Control(ControlMessage),
    /// From the trainer.
    Trainer(TrainerMessage),
    /// Another configuration.
    Reload(Box<Reload>),
    /// Time to checkpoint the series that moved.
    Checkpoint,
    /// Time to look for series that fell silent.
    Tick {
        /// Now.
        at: Instant,
        /// Whether readings could be heard up to now.
        listening: bool,
    },
}

/// Another configuration for the path of a reading.
#[derive(Debug)]
pub struct Reload {
    /// Streams stand at their positions, those that were taken out among them.
    pub config: Arc<Config>,
    /// Which of them are configured now.
    pub active: Vec<bool>,
    /// What the store knows of streams behind those that there were; none if there are none.
    pub restored: Option<Restored>,
    /// Messages that may wait for the broker.
    pub out: usize,
    /// Told once it goes by it.
    pub done: Option<oneshot::Sender<()>>,
}

/// Questions about the present, answered from memory.
#[derive(Debug)]
pub enum Query {
    /// All series, ordered by key.
    Series(oneshot::Sender<Vec<SeriesSnapshot>>),
    /// Handle of every series by its key.
    Handles(oneshot::Sender<HashMap<Arc<str>, SeriesHandle>>),
    /// How each stream's model does, by position.
    Watch(oneshot::Sender<Vec<StreamWatch>>),
    /// All streams.
    Streams(oneshot::Sender<Vec<StreamSnapshot>>),
    /// Some of all series, so that the engine is never held for long.
    Part {
        /// How many series come before, in the order in which they were first seen.
        from: usize,
        /// Told the series.
        reply: oneshot::Sender<SeriesPart>,
    },
    /// What a series is forecast by.
    Experts {
        /// Key of the series.
        key: String,
        /// Told the experts; none if there is no such series.
        reply: oneshot::Sender<Option<Vec<Expert>>>,
    },
    /// Somebody wants to hear what is published, until the mailbox is dropped.
    Listen {
        /// The series whose forecasts and anomalies are meant; none means the anomalies of all.
        key: Option<String>,
        /// Where to put it.
        mailbox: Arc<Mailbox>,
        /// Told whether there is such a series.
        reply: oneshot::Sender<bool>,
    },
}

/// How a model reaches the engine: the trainer opens a journal (from then on the engine keeps the
/// inputs it feeds to the old model), rebuilds every hidden state from the store, and installs.
#[derive(Debug)]
pub enum TrainerMessage {
    /// Start keeping the stream's inputs; answered once all readings accepted before are committed.
    OpenJournal {
        /// Position of the stream in the configuration.
        stream: usize,
        /// Told when the store holds everything accepted so far.
        committed: oneshot::Sender<()>,
    },
    /// Hand over what was kept so far, and go on keeping.
    TakeJournal {
        /// Position of the stream in the configuration.
        stream: usize,
        /// Told the readings; none if there were too many to be kept.
        reply: oneshot::Sender<Option<Journal>>,
    },
    /// The model will not come after all: stop keeping inputs.
    CloseJournal {
        /// Position of the stream in the configuration.
        stream: usize,
    },
    /// Swap the model in.
    Install {
        /// Position of the stream in the configuration.
        stream: usize,
        /// The model.
        model: Installed,
        /// What the model makes of each series' stored readings.
        states: Vec<(SeriesHandle, Rebuilt)>,
        /// What the commit that follows does to the champion.
        change: Option<ModelChange>,
        /// Whether the model before goes on in its shadow.
        probation: bool,
        /// Told whether the engine took it.
        installed: oneshot::Sender<bool>,
        /// Told when the store holds the states under the new model.
        committed: oneshot::Sender<()>,
    },
    /// Take the model out.
    Uninstall {
        /// Position of the stream in the configuration.
        stream: usize,
        /// What the commit that follows does to the champion.
        change: Option<ModelChange>,
        /// Told when the store holds the states without it.
        committed: oneshot::Sender<()>,
    },
    /// Let a model go on in the shadow of the champion.
    ResumeProbation {
        /// Position of the stream in the configuration.
        stream: usize,
        /// The model before; none for the online experts alone.
        before: Option<Arc<Model>>,
        /// What it makes of each series' stored readings.
        states: HashMap<SeriesHandle, Rebuilt>,
        /// What was counted before the restart.
        tally: Tally,
    },
    /// Let go of the model in the shadow.
    EndProbation {
        /// Position of the stream in the configuration.
        stream: usize,
    },
    /// Take how forecasts do from here on for what is usual.
    ResetDrift {
        /// Position of the stream in the configuration.
        stream: usize,
    },
}

/// One series now, as `/api/v1/series` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct SeriesSnapshot {
    /// `<stream>/<captured levels>/<field>`.
    pub key: String,
    /// Name of its stream.
    pub stream: String,
    /// Captured topic levels by name.
    pub labels: BTreeMap<String, String>,
    /// The newest reading, if one came since the store was made.
    pub last: Option<LastReading>,
    /// What is forecast from it.
    pub forecast: Option<LastForecast>,
    /// Recent mean absolute error of the first step over the naive forecast's; below 1 is better.
    pub relative_error: Option<f64>,
}

/// A reading as the API shows it.
#[derive(Debug, Clone, Serialize)]
pub struct LastReading {
    /// RFC 3339.
    pub time: String,
    /// Value.
    pub value: f64,
    /// How abnormal it was, 0 to 1.
    pub score: f64,
    /// Whether the series is in an anomaly.
    pub anomaly: bool,
}

/// A forecast as the API shows it.
#[derive(Debug, Clone, Serialize)]
pub struct LastForecast {
    /// Time of the reading it was made at, RFC 3339.
    pub origin: String,
    /// Name of the model, or `naive`.
    pub model: String,
    /// One object a step: `time`, `mean`, `q05` … `q95`.
    pub steps: Vec<serde_json::Value>,
}

/// Some of all series, for the overview.
#[derive(Debug, Clone, Default)]
pub struct SeriesPart {
    /// The series, in the order in which they were first seen.
    pub rows: Vec<SeriesRow>,
    /// How many there are in all.
    pub total: usize,
}

/// One series now, for the overview.
#[derive(Debug, Clone)]
pub struct SeriesRow {
    /// `<stream>/<captured levels>/<field>`.
    pub key: Arc<str>,
    /// Name of its stream.
    pub stream: Arc<str>,
    /// The newest reading.
    pub last: Option<Reading>,
    /// How abnormal that was, 0 to 1.
    pub score: f64,
    /// When the anomaly began that the series is in.
    pub flagged_since: Option<Timestamp>,
    /// When a reading was due, if the series is silent.
    pub silent_since: Option<Timestamp>,
    /// q05, median and q95 of the next reading.
    pub next: Option<[f64; 3]>,
    /// Recent mean absolute error of the first step over the naive forecast's; below 1 is better.
    pub relative_error: Option<f64>,
}

/// One of the experts that a series is forecast by.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Expert {
    /// What it is called.
    pub name: &'static str,
    /// Its share in the forecast of the next reading; those of a series add up to 1.
    pub weight: f32,
}

/// One stream now, as `/api/v1/streams` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct StreamSnapshot {
    /// Name.
    pub stream: String,
    /// Name of the model, or `naive`.
    pub model: String,
    /// Series seen.
    pub series: usize,
    /// Recent mean absolute error of the first step over the naive forecast's; below 1 is better.
    pub relative_error: Option<f64>,
    /// Recent share of readings inside the 90 % interval.
    pub coverage: Option<f64>,
    /// Whether a message has come on its topic since the start.
    pub heard: bool,
}
