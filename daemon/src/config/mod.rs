//! The configuration file: its sections, their defaults, and how it is read.
//!
//! The only module that knows the crates `config` and `toml`. Reading checks the shape (types, unknown keys);
//! `validate` checks the meaning.

mod anomaly;
mod doubts;
mod homeassistant;
mod load;
mod log;
mod model;
mod read;
#[cfg(test)]
mod reference;
mod secrets;
mod spool;
mod stream;
mod training;
mod validate;
mod wording;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

pub use anomaly::{Anomaly, AnomalyOverride};
pub use homeassistant::HomeAssistant;
pub use load::{ConfigError, locate};
pub use log::{Format, Level, Log};
pub use model::{Cell, Model, Nonlinearity};
pub use spool::Spool;
pub use stream::{Compression, Payload, Precision, Stream};
pub use training::{Models, Training};

/// The whole file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `[mqtt]`: the broker.
    #[serde(default)]
    pub mqtt: Mqtt,
    /// `[store]`: where readings and forecasts are kept.
    #[serde(default)]
    pub store: Store,
    /// `[spool]`: where readings are kept while the store takes none.
    #[serde(default)]
    pub spool: Spool,
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
    /// `[models]`: which model forecasts, and which are kept.
    #[serde(default)]
    pub models: Models,
    /// `[anomaly]`: what is worth an alarm.
    #[serde(default)]
    pub anomaly: Anomaly,
    /// `[homeassistant]`: what Home Assistant is told of by itself.
    #[serde(default)]
    pub homeassistant: HomeAssistant,
    /// `[limits]`: bounds on what input can make the daemon do.
    #[serde(default)]
    pub limits: Limits,
    /// `[log]`: what is logged.
    #[serde(default)]
    pub log: Log,
}

/// `[mqtt]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mqtt {
    /// `mqtt://host:port` or `mqtts://host:port`.
    pub url: String,
    /// Client id of the incoming connection; the outgoing one appends `-out`, that for control `-control`.
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
    /// How often an idle connection is proved to be alive; one that hangs is given up after two of these.
    #[serde(deserialize_with = "duration")]
    pub keep_alive: Duration,
    /// Whether requests are taken.
    pub control: bool,
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
            keep_alive: Duration::from_secs(30),
            control: true,
        }
    }
}

/// MQTT versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Text")]
pub enum Protocol {
    /// MQTT 5.
    V5,
    /// MQTT 3.1.1.
    V311,
}

impl TryFrom<Text> for Protocol {
    type Error = String;

    fn try_from(text: Text) -> Result<Self, String> {
        let text = String::from(text);
        match text.as_str() {
            "5" => Ok(Protocol::V5),
            "3.1.1" => Ok(Protocol::V311),
            _ => Err(format!("\"{text}\" is no MQTT version spoken here; write \"5\" or \"3.1.1\"")),
        }
    }
}

/// `[store]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// `postgres://user@host/database` or `sqlite:///path/to/file.db`.
    pub url: String,
    /// File holding the database password.
    pub password_file: Option<PathBuf>,
    /// PEM file of authorities to trust besides the system's; with it the server is verified in full.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client certificate; with it, too.
    pub cert_file: Option<PathBuf>,
    /// PEM file of the client certificate's key.
    pub key_file: Option<PathBuf>,
    /// How long readings and forecasts are kept at least; none keeps all.
    #[serde(deserialize_with = "optional_duration")]
    pub retention: Option<Duration>,
    /// How often the states of series that moved are checkpointed.
    #[serde(deserialize_with = "duration")]
    pub checkpoint_every: Duration,
    /// How long a start waits for a store that is away; none waits for ever.
    #[serde(deserialize_with = "duration_or_off")]
    pub start_timeout: Option<Duration>,
    /// Whether hypertables are made where TimescaleDB is in the database when the tables are made.
    pub timescaledb: bool,
}

impl Default for Store {
    fn default() -> Self {
        Store {
            url: "postgres://vidente@127.0.0.1/vidente".into(),
            password_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            retention: None,
            checkpoint_every: Duration::from_secs(10),
            start_timeout: None,
            timescaledb: true,
        }
    }
}

/// `[http]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Address and port to listen on.
    pub listen: String,
    /// File holding the bearer token asked for everything but the probes and the page without its data.
    pub token_file: Option<PathBuf>,
    /// PEM file of the server's certificate; with it HTTP is HTTPS.
    pub cert_file: Option<PathBuf>,
    /// PEM file of the certificate's key.
    pub key_file: Option<PathBuf>,
    /// Names by which it may be asked besides `localhost`, where there is no token.
    #[serde(deserialize_with = "names")]
    pub allowed_hosts: Vec<String>,
}

impl Default for Http {
    fn default() -> Self {
        Http {
            listen: "127.0.0.1:9464".into(),
            token_file: None,
            cert_file: None,
            key_file: None,
            allowed_hosts: Vec::new(),
        }
    }
}

impl Config {
    /// Topic filters of the streams.
    #[must_use]
    pub fn filters(&self) -> Vec<String> {
        self.stream.iter().map(|s| s.topic.filter()).collect()
    }
}

/// `[forecast]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
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

/// `[limits]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
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

/// Text, or a number that is taken for its text.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a string")]
enum Text {
    Quoted(String),
    Integer(i64),
    Number(f64),
}

impl From<Text> for String {
    fn from(text: Text) -> String {
        match text {
            Text::Quoted(text) => text,
            Text::Integer(number) => number.to_string(),
            Text::Number(number) => number.to_string(),
        }
    }
}

fn text<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    Text::deserialize(d).map(String::from)
}

fn duration<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    parse(&text(d)?).map_err(serde::de::Error::custom)
}

fn optional_duration<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
    duration(d).map(Some)
}

fn duration_or_off<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
    let text = text(d)?;
    if text == "off" {
        Ok(None)
    } else {
        parse(&text).map(Some).map_err(|e| serde::de::Error::custom(format!("{e}, or \"off\"")))
    }
}

/// A list, or, since a variable holds no list, names with commas between.
fn names<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a list of names")]
    enum Names {
        Text(String),
        List(Vec<String>),
    }
    Ok(match Names::deserialize(d)? {
        Names::Text(text) => text.split(',').map(|name| name.trim().to_owned()).collect(),
        Names::List(names) => names,
    })
}
