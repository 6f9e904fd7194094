//! What reaches the engine thread, and what it answers.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;
use tokio::sync::oneshot;

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
}

/// Everything the engine thread is told.
#[derive(Debug)]
pub enum Message {
    /// A message from the broker.
    Packet(Packet),
    /// A question from the API.
    Query(Query),
    /// From the trainer.
    Trainer(TrainerMessage),
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

/// Questions about the present, answered from memory.
#[derive(Debug)]
pub enum Query {
    /// All series, ordered by key.
    Series(oneshot::Sender<Vec<SeriesSnapshot>>),
    /// Handle of every series by its key.
    Handles(oneshot::Sender<hashbrown::HashMap<std::sync::Arc<str>, forecaster::SeriesHandle>>),
    /// All streams.
    Streams(oneshot::Sender<Vec<StreamSnapshot>>),
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
        model: forecaster::engine::Installed,
        /// What the model makes of each series' stored readings.
        states: Vec<(forecaster::SeriesHandle, forecaster::Rebuilt)>,
        /// Whether the commit that follows makes it the champion.
        promote: bool,
        /// Told whether the engine took it.
        installed: oneshot::Sender<bool>,
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
}
