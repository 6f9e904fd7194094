//! The configuration file: its sections, their defaults, and how it is read.
//!
//! The only module that knows the `config` crate. Reading checks the shape (types, unknown keys);
//! `validate` checks the meaning.

mod anomaly;
mod load;
mod validate;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

pub use anomaly::{Anomaly, AnomalyOverride};
pub use load::{ConfigError, locate};

use crate::topic::Pattern;

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `[mqtt]`: the broker.
    #[serde(default)]
    pub mqtt: Mqtt,
    /// `[store]`: where readings and forecasts are kept.
    #[serde(default)]
    pub store: Store,
    /// `[http]`: metrics, probes, API and page.
    #[serde(default)]
    pub http: Http,
    /// `[[stream]]`: what to subscribe to, one model each.
    #[serde(default)]
    pub stream: Vec<Stream>,
    /// `[forecast]`: what is published.
    #[serde(default)]
    pub forecast: Forecast,
    /// `[model]`: size of the recurrent network.
    #[serde(default)]
    pub model: Model,
    /// `[training]`: when and on what the model is trained.
    #[serde(default)]
    pub training: Training,
    /// `[anomaly]`: what is worth an alarm.
    #[serde(default)]
    pub anomaly: Anomaly,
    /// `[limits]`: bounds on what input can make the daemon do.
    #[serde(default)]
    pub limits: Limits,
}

/// `[mqtt]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mqtt {
    /// `mqtt://host:port` or `mqtts://host:port`.
    pub url: String,
    /// Client id of the incoming connection; the outgoing one appends `-out`.
    pub client_id: String,
    /// User name, if the broker asks for one.
    pub username: Option<String>,
    /// File holding the password.
    pub password_file: Option<PathBuf>,
    /// PEM file of the authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client certificate.
    pub cert_file: Option<PathBuf>,
    /// PEM file of the client certificate's key.
    pub key_file: Option<PathBuf>,
    /// MQTT version spoken.
    pub protocol: Protocol,
    /// Quality of service of the subscriptions, 0 or 1.
    pub qos: u8,
    /// Largest packet taken in or sent, in bytes.
    pub max_packet_bytes: usize,
}

impl Default for Mqtt {
    fn default() -> Self {
        Mqtt {
            url: "mqtt://127.0.0.1:1883".into(),
            client_id: "vidente".into(),
            username: None,
            password_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            protocol: Protocol::V5,
            qos: 1,
            max_packet_bytes: 1 << 20,
        }
    }
}

/// MQTT versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Protocol {
    /// MQTT 5.
    V5,
    /// MQTT 3.1.1.
    V311,
}

impl TryFrom<String> for Protocol {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "5" => Ok(Protocol::V5),
            "3.1.1" => Ok(Protocol::V311),
            _ => Err(format!("\"{text}\" is no MQTT version spoken here; write \"5\" or \"3.1.1\"")),
        }
    }
}

/// `[store]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// `postgres://user@host/database` or `sqlite:///path/to/file.db`.
    pub url: String,
    /// File holding the database password.
    pub password_file: Option<PathBuf>,
    /// How long readings and forecasts are kept at least; none keeps all.
    #[serde(deserialize_with = "optional_duration")]
    pub retention: Option<Duration>,
    /// How often the states of series that moved are checkpointed.
    #[serde(deserialize_with = "duration")]
    pub checkpoint_every: Duration,
}

impl Default for Store {
    fn default() -> Self {
        Store {
            url: "postgres://vidente@127.0.0.1/vidente".into(),
            password_file: None,
            retention: None,
            checkpoint_every: Duration::from_secs(10),
        }
    }
}

/// `[http]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Address and port to listen on.
    pub listen: String,
    /// File holding the bearer token asked on everything but `/live` and `/ready`.
    pub token_file: Option<PathBuf>,
}

impl Default for Http {
    fn default() -> Self {
        Http { listen: "127.0.0.1:9464".into(), token_file: None }
    }
}

/// `[[stream]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// Name; first part of every series key.
    pub name: String,
    /// Topic pattern, `{x}` for one level, `{x...}` for the rest.
    pub topic: Pattern,
    /// How payloads are read.
    #[serde(default)]
    pub payload: Payload,
    /// Which fields are series; empty means every numeric leaf.
    #[serde(default)]
    pub fields: Vec<String>,
    /// Field holding the time; none means the time of arrival.
    #[serde(default)]
    pub time: Option<String>,
    /// Time between readings; none means learned per series.
    #[serde(default, deserialize_with = "optional_duration")]
    pub interval: Option<Duration>,
    /// Steps ahead.
    #[serde(default = "one")]
    pub horizon: usize,
    /// What differs from `[anomaly]`.
    #[serde(default)]
    pub anomaly: AnomalyOverride,
}

fn one() -> usize {
    1
}

/// Payload formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub enum Payload {
    /// A bare number; the field is named `value`.
    Number,
    /// A JSON document.
    #[default]
    Json,
}

impl TryFrom<String> for Payload {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "number" => Ok(Payload::Number),
            "json" => Ok(Payload::Json),
            _ => Err(format!("\"{text}\" is no payload format; write \"json\" or \"number\"")),
        }
    }
}

/// `[forecast]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Forecast {
    /// Topic of the forecasts; must hold `{series}`.
    pub topic: String,
    /// Whether the broker keeps the latest forecast of each series.
    pub retain: bool,
}

impl Default for Forecast {
    fn default() -> Self {
        Forecast { topic: "vidente/forecast/{series}".into(), retain: true }
    }
}

/// `[model]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Model {
    /// Kind of recurrent cell.
    pub cell: Cell,
    /// Hidden units of a layer.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
}

impl Default for Model {
    fn default() -> Self {
        Model { cell: Cell::Lstm, hidden: 32, layers: 1 }
    }
}

/// Recurrent cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Cell {
    /// Long short-term memory.
    Lstm,
}

impl TryFrom<String> for Cell {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "lstm" => Ok(Cell::Lstm),
            _ => Err(format!(
                "\"{text}\" is not available; lstm is the only cell in this version, write \"lstm\""
            )),
        }
    }
}

/// `[training]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Training {
    /// Time between runs; none never trains.
    #[serde(deserialize_with = "duration_or_off")]
    pub every: Option<Duration>,
    /// How far back from the stream's newest reading the training data reaches.
    #[serde(deserialize_with = "duration")]
    pub window: Duration,
    /// Readings of the stream, all series together, needed for a run.
    pub min_readings: u64,
    /// Seed of the run; the same seed and data give the same weights.
    pub seed: u64,
}

impl Default for Training {
    fn default() -> Self {
        Training {
            every: Some(Duration::from_secs(6 * 3600)),
            window: Duration::from_secs(14 * 86_400),
            min_readings: 1000,
            seed: 1,
        }
    }
}

/// `[limits]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Series the daemon takes on; readings of further ones are rejected and counted.
    pub max_series: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { max_series: 100_000 }
    }
}

fn parse(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| {
        format!("\"{text}\" is no duration ({e}); write for instance \"90s\", \"6h\" or \"14d\"")
    })
}

fn duration<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(d)?).map_err(serde::de::Error::custom)
}

fn optional_duration<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
    duration(d).map(Some)
}

fn duration_or_off<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(d)?;
    if text == "off" {
        Ok(None)
    } else {
        parse(&text).map(Some).map_err(|e| serde::de::Error::custom(format!("{e}, or \"off\"")))
    }
}
