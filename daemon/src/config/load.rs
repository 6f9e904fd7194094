//! Finding, reading and overriding the file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::Config;

/// Places looked at, in order, when no path is given.
const DEFAULT_PATHS: [&str; 2] = ["/etc/vidente/vidente.toml", "./vidente.toml"];

/// A configuration that cannot be used; the command ends with status 78 (EX_CONFIG).
#[derive(Debug, Error)]
pub enum ConfigError {
    /// No file was given and none stands in the default places.
    #[error("no configuration file: neither {} nor {} exists; pass --config FILE", DEFAULT_PATHS[0], DEFAULT_PATHS[1])]
    Missing,
    /// The file cannot be read or does not have the right shape.
    #[error("{}: {reason}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What is wrong, with the key.
        reason: String,
    },
    /// The file was read, and some values make no sense.
    #[error("{}", problems.iter().map(|p| format!("{}: {p}", file.display())).collect::<Vec<_>>().join("\n"))]
    Invalid {
        /// The file.
        file: PathBuf,
        /// One entry a problem: key, reason, fix.
        problems: Vec<String>,
    },
}

/// The file to read: the one given, or the first that exists in the default places.
///
/// # Errors
/// [`ConfigError::Missing`] if there is none.
pub fn locate(given: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
    given.or_else(|| DEFAULT_PATHS.iter().map(PathBuf::from).find(|p| p.exists())).ok_or(ConfigError::Missing)
}

impl Config {
    /// Reads and validates a file; environment variables `VIDENTE__SECTION__KEY` override it.
    ///
    /// # Errors
    /// Names the file, the key, the reason and the fix.
    pub fn load(file: &Path) -> Result<Config, ConfigError> {
        let unreadable = |reason: String| ConfigError::Unreadable { file: file.to_owned(), reason };
        let text = std::fs::read_to_string(file).map_err(|e| unreadable(e.to_string()))?;
        let mut config = Config::parse(&text).map_err(unreadable)?;
        config.find_credentials(std::env::var_os("CREDENTIALS_DIRECTORY").as_deref().map(Path::new));
        let problems = config.problems();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Invalid { file: file.to_owned(), problems })
        }
    }

    /// Reads the text of a file without validating its meaning.
    ///
    /// # Errors
    /// What is wrong, with the key.
    pub fn parse(text: &str) -> Result<Config, String> {
        Config::parse_with(text, None)
    }

    /// Like [`Config::parse`], with variables instead of the environment's, if given.
    fn parse_with(text: &str, variables: Option<HashMap<String, String>>) -> Result<Config, String> {
        config::Config::builder()
            .add_source(config::File::from_str(text, config::FileFormat::Toml))
            .add_source(
                config::Environment::with_prefix("VIDENTE")
                    .prefix_separator("__")
                    .separator("__")
                    .source(variables),
            )
            .build()
            .and_then(config::Config::try_deserialize)
            .map_err(|e| explain(&e))
    }
}

/// The error as `key: reason`, the way [`Config::problems`] words its own.
fn explain(error: &config::ConfigError) -> String {
    use config::ConfigError as E;
    match error {
        E::NotFound(key) => format!("{}: is missing; add it", dotted(key)),
        E::Type { unexpected, expected, key: Some(key), origin } => {
            let place = origin.as_deref().map(|o| format!(" in {o}")).unwrap_or_default();
            format!("{}: is {unexpected}{place}, but must be {expected}", dotted(key))
        }
        E::At { error, key: Some(key), .. } => {
            let reason = error.to_string();
            unknown_key(&format!("{}.", dotted(key)), &reason)
                .unwrap_or_else(|| format!("{}: {reason}", dotted(key)))
        }
        other => unknown_key("", &other.to_string()).unwrap_or_else(|| without_source(&other.to_string())),
    }
}

/// An error of syntax without the line that it quotes, which may hold a password.
fn without_source(error: &str) -> String {
    let quoted = |line: &&str| {
        line.trim_start_matches([' ', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']).starts_with('|')
    };
    error.lines().filter(|line| !quoted(line)).map(str::trim).collect::<Vec<_>>().join(": ")
}

/// Serde's words for an unknown key, as ours.
fn unknown_key(parent: &str, reason: &str) -> Option<String> {
    let (name, allowed) = reason.strip_prefix("unknown field `")?.split_once("`, expected ")?;
    let key = format!("{parent}{name}");
    let allowed = allowed.trim_start_matches("one of ").replace('`', "");
    let variable = key.to_uppercase().replace('.', "__");
    Some(format!("{key}: unknown key, in the file or as VIDENTE__{variable}; allowed here: {allowed}"))
}

/// `stream[0]topic`, as the `config` crate writes it, with its dot.
fn dotted(key: &str) -> String {
    key.replace(']', "].").trim_end_matches('.').replace("..", ".")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const STREAM: &str = "[[stream]]\nname = \"a\"\ntopic = \"b/{x}\"\n";

    fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Config::parse_with(text, Some(variables))
    }

    #[test]
    fn errors_name_key_reason_and_fix() {
        for (text, expected) in [
            (
                "[mqtt]\nurll = 'x'",
                "mqtt.urll: unknown key, in the file or as VIDENTE__MQTT__URLL; allowed here: url, client_id, \
                 username, password_file, ca_file, cert_file, key_file, protocol, qos, max_packet_bytes, \
                 keep_alive, control",
            ),
            (
                "foo = 1",
                "foo: unknown key, in the file or as VIDENTE__FOO; allowed here: mqtt, store, spool, http, stream, \
                 forecast, model, training, models, anomaly, homeassistant, limits, log",
            ),
            (
                "[[stream]]\nname='a'\ntopic='b'\nfoo=1",
                "stream[0].foo: unknown key, in the file or as VIDENTE__STREAM[0]__FOO; allowed here: name, topic, \
                 payload, compression, fields, time, precision, utc_offset, zone, interval, horizon, anomaly",
            ),
            ("[mqtt]\nqos = 'many'", "mqtt.qos: is string \"many\", but must be an integer"),
            (
                "[mqtt]\nprotocol = '4'",
                "mqtt.protocol: \"4\" is no MQTT version spoken here; write \"5\" or \"3.1.1\"",
            ),
            (
                "[store]\nretention = '9x'",
                "store.retention: \"9x\" is no duration (unknown time unit \"x\", supported units: ns, us/µs, ms, \
                 sec, min, hours, days, weeks, months, years (and few variations)); write for instance \"90s\", \
                 \"6h\" or \"14d\"",
            ),
            (
                "[[stream]]\nname='a'\ntopic='a/+'",
                "stream[0].topic: \"a/+\" has a bare +, by which two devices could share a series; name the level, \
                 for instance {device}",
            ),
            ("[[stream]]\ntopic = 'a'", "stream[0].name: is missing; add it"),
            ("[[stream]]\nname = 'a'", "stream[0].topic: is missing; add it"),
            ("[model]\ncell = 'GRU'", "model.cell: \"GRU\" is no cell; write \"lstm\", \"gru\" or \"rnn\""),
            (
                "[model]\nnonlinearity = 'sin'",
                "model.nonlinearity: \"sin\" is no nonlinearity; write \"tanh\" or \"relu\"",
            ),
            (
                "[anomaly]\ndirection = 'left'",
                "anomaly.direction: \"left\" is no direction; write \"both\", \"up\" or \"down\"",
            ),
            (
                "[anomaly]\nsilence_after = 'soon'",
                "anomaly.silence_after: \"soon\" is no number of intervals; write for instance 5, or \"off\"",
            ),
            (
                "[[stream]]\nname='a'\ntopic='b'\npayload='xml'",
                "stream[0].payload: \"xml\" is no payload format; write \"json\", \"number\", \"cbor\", \"tasmota\", \
                 \"zigbee2mqtt\", \"homeassistant\", \"influx\" or \"sparkplug\"",
            ),
        ] {
            assert_eq!(parse(text, &[]).unwrap_err(), expected, "{text}");
        }
        let syntax = parse("[mqtt", &[]).unwrap_err();
        assert!(syntax.contains("line 1, column 6"), "{syntax}");
    }

    #[test]
    fn what_is_wrong_is_not_quoted_where_it_may_be_a_secret() {
        for text in [
            "[store]\nurl = \"postgres://u:hunter2@h/d\npassword_file = \"x\"",
            "[store]\npassword = hunter2",
            "[store]\npassword = \"hunter2\"",
            "[store]\nurl = 'x'\nurl = 'postgres://u:hunter2@h/d'",
            "[mqtt]\npassword_file = ['hunter2']",
        ] {
            let error = parse(&format!("{text}\n{STREAM}"), &[]).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let error = parse(STREAM, &[("VIDENTE__STORE__PASSWORD", "hunter2")]).unwrap_err();
        assert!(error.contains("store.password: unknown key") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn variables_override_the_file() {
        let config = parse(
            &format!("[mqtt]\nurl = \"mqtt://file\"\n{STREAM}"),
            &[
                ("VIDENTE__MQTT__URL", "mqtt://variable"),
                ("VIDENTE__MQTT__PROTOCOL", "3.1.1"),
                ("VIDENTE__MODEL__HIDDEN", "64"),
                ("VIDENTE__FORECAST__RETAIN", "false"),
                ("VIDENTE__STORE__CHECKPOINT_EVERY", "20s"),
                ("VIDENTE__TRAINING__EVERY", "off"),
                ("VIDENTE__ANOMALY__ALARMS_PER_WEEK", "0.5"),
                ("VIDENTE__ANOMALY__SILENCE_AFTER", "9"),
                ("VIDENTE__HTTP__ALLOWED_HOSTS", "hub.lan, 10.0.0.9"),
                ("UNRELATED__MQTT__URL", "x"),
            ],
        )
        .unwrap();
        assert_eq!(config.mqtt.url, "mqtt://variable");
        assert_eq!(config.mqtt.protocol, crate::config::Protocol::V311);
        assert_eq!(config.model.hidden, 64);
        assert!(!config.forecast.retain);
        assert_eq!(config.store.checkpoint_every.as_secs(), 20);
        assert_eq!(config.training.every, None);
        assert_eq!(config.http.allowed_hosts, ["hub.lan", "10.0.0.9"]);
        assert_eq!((config.anomaly.alarms_per_week, config.anomaly.silence_after), (0.5, 9));
    }

    #[test]
    fn wrong_variables_are_errors() {
        for (variable, expected) in [
            (
                ("VIDENTE__MQTT__FOO", "1"),
                "mqtt.foo: unknown key, in the file or as VIDENTE__MQTT__FOO; allowed",
            ),
            (("VIDENTE__FOO", "1"), "foo: unknown key, in the file or as VIDENTE__FOO; allowed"),
            (
                ("VIDENTE__MODEL__HIDDEN", "x"),
                "model.hidden: is string \"x\" in the environment, but must be an integer",
            ),
            (("VIDENTE__STREAM__NAME", "x"), "stream: invalid type: map, expected a sequence"),
        ] {
            let error = parse(STREAM, &[variable]).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn defaults_are_the_contract() {
        let config = parse(STREAM, &[]).unwrap();
        assert_eq!(config.mqtt.url, "mqtt://127.0.0.1:1883");
        assert_eq!(config.mqtt.qos, 1);
        assert_eq!(config.http.listen, "127.0.0.1:9464");
        assert_eq!(config.forecast.topic, "vidente/forecast/{series}");
        assert_eq!((config.model.hidden, config.model.layers), (32, 1));
        assert_eq!(config.training.min_readings, 1000);
        assert_eq!(config.stream.first().unwrap().horizon, 1);
        assert!(config.problems().is_empty(), "{:?}", config.problems());
    }

    #[test]
    fn loading_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("v.toml");
        assert!(matches!(Config::load(&file).unwrap_err(), ConfigError::Unreadable { .. }));
        std::fs::write(&file, "[model]\nhidden = 0\nlayers = 9\n").unwrap();
        let text = Config::load(&file).unwrap_err().to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines.iter().all(|l| l.starts_with(&format!("{}: ", file.display()))), "{text}");
    }
}
