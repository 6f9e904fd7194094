//! Reading the text of a file and the variables that override it.
//!
//! The file is taken at its word: a number in quotes is no number. A variable is text, whatever it stands for.

use std::collections::HashMap;
use std::ffi::OsString;

use super::Config;
use super::wording::worded;

/// What the names of variables begin with.
const PREFIX: &str = "VIDENTE";
const SEPARATOR: &str = "__";

/// What is wrong, with the key, the reason and the fix; and where.
#[derive(Debug)]
pub(super) enum Wrong {
    /// In the file.
    File(String),
    /// In the environment; the variable is named.
    Variable(String),
}

/// Variables of ours, by the name that they have.
pub(super) struct Variables(HashMap<String, String>);

impl Variables {
    /// Those of this process.
    pub(super) fn of_environment() -> Variables {
        let ours = |(name, value): (OsString, OsString)| {
            let name = name.into_string().ok().filter(|name| path(name).is_some())?;
            Some((name, value.to_string_lossy().into_owned()))
        };
        Variables(std::env::vars_os().filter_map(ours).collect())
    }

    /// The variable that sets a key, or one of those below it.
    pub(super) fn setting(&self, key: &str) -> Option<&str> {
        let sets = |name: &&str| {
            path(name).is_some_and(|path| {
                path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        };
        self.0.keys().map(String::as_str).filter(sets).min()
    }
}

/// The key that a variable sets.
fn path(variable: &str) -> Option<String> {
    let key = variable.to_lowercase();
    Some(key.strip_prefix(&PREFIX.to_lowercase())?.strip_prefix(SEPARATOR)?.replace(SEPARATOR, "."))
}

impl Config {
    /// Reads the text of a file without validating its meaning; variables of the environment override it.
    ///
    /// # Errors
    /// What is wrong, with the key.
    pub fn parse(text: &str) -> Result<Config, String> {
        Config::parse_with(text, &Variables::of_environment()).map_err(|wrong| match wrong {
            Wrong::File(reason) | Wrong::Variable(reason) => reason,
        })
    }

    pub(super) fn parse_with(text: &str, variables: &Variables) -> Result<Config, Wrong> {
        let config = strict(text).map_err(Wrong::File)?;
        if variables.0.is_empty() {
            return Ok(config);
        }
        config::Config::builder()
            .add_source(config::File::from_str(text, config::FileFormat::Toml))
            .add_source(
                config::Environment::with_prefix(PREFIX)
                    .prefix_separator(SEPARATOR)
                    .separator(SEPARATOR)
                    .source(Some(variables.0.clone())),
            )
            .build()
            .and_then(config::Config::try_deserialize)
            // The file alone is fine.
            .map_err(|error| Wrong::Variable(explain(&error, variables)))
    }
}

/// The file alone.
fn strict(text: &str) -> Result<Config, String> {
    let document = toml::Deserializer::parse(text).map_err(|e| without_source(&e.to_string()))?;
    serde_path_to_error::deserialize(document).map_err(|error| {
        let key = error.path().to_string();
        worded(if key == "." { "" } else { &key }, error.inner().message())
    })
}

/// An error of syntax without the line that it quotes, which may hold a password.
fn without_source(error: &str) -> String {
    let quoted = |line: &&str| {
        line.trim_start_matches([' ', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']).starts_with('|')
    };
    error.lines().filter(|line| !quoted(line)).map(str::trim).collect::<Vec<_>>().join(": ")
}

/// An error that variables have made.
fn explain(error: &config::ConfigError, variables: &Variables) -> String {
    use config::ConfigError as E;
    let (key, said) = match error {
        E::Type { unexpected, expected, key: Some(key), .. } => {
            (dotted(key), format!("is {unexpected}, but must be {expected}"))
        }
        E::At { error, key: Some(key), .. } => (dotted(key), error.to_string()),
        other => (String::new(), other.to_string()),
    };
    let said = worded(&key, &said);
    let key = said.split(": ").next().unwrap_or_default();
    if key.split('.').next() == Some("stream") {
        let variable = variables.setting("stream").unwrap_or("VIDENTE__STREAM");
        return format!("{variable} in the environment: streams can be set in the file only; unset it");
    }
    match variables.setting(key) {
        Some(variable) => format!("{variable} in the environment: {said}"),
        None => format!("a variable VIDENTE__… in the environment: {said}"),
    }
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
        Config::parse_with(text, &Variables(variables)).map_err(|wrong| match wrong {
            Wrong::File(reason) | Wrong::Variable(reason) => reason,
        })
    }

    #[test]
    fn errors_name_key_reason_and_fix() {
        for (text, expected) in [
            (
                "[mqtt]\nurll = 'x'",
                "mqtt.urll: unknown key; allowed here: url, client_id, \
                 username, password_file, ca_file, cert_file, key_file, protocol, qos, max_packet_bytes, \
                 keep_alive, control",
            ),
            (
                "foo = 1",
                "foo: unknown key; allowed here: mqtt, store, spool, http, stream, \
                 forecast, model, training, models, anomaly, homeassistant, limits, log",
            ),
            (
                "[[stream]]\nname='a'\ntopic='b'\nfoo=1",
                "stream[0].foo: unknown key; allowed here: name, topic, \
                 payload, compression, fields, time, precision, utc_offset, zone, interval, horizon, anomaly",
            ),
            (
                "[mqtt]\nqos = 'many'",
                "mqtt.qos: is string \"many\", but must be an integer from 0 up; write for instance 12",
            ),
            (
                "[[stream]]\nname='a'\ntopic='b'\nhorizon='12'",
                "stream[0].horizon: is string \"12\", but must be an integer from 0 up; write 12, without quotes",
            ),
            (
                "[model]\nhidden = -3",
                "model.hidden: is integer `-3`, but must be an integer from 0 up; write for instance 12",
            ),
            (
                "[anomaly]\nwarm_up = 5.5",
                "anomaly.warm_up: is floating point `5.5`, but must be an integer from 0 up; write for instance 12",
            ),
            (
                "[anomaly]\nmin_deviation = '0.5'",
                "anomaly.min_deviation: is string \"0.5\", but must be a number; write 0.5, without quotes",
            ),
            (
                "[forecast]\nretain = 'yes'",
                "forecast.retain: is string \"yes\", but must be a boolean; write true or false, without quotes",
            ),
            (
                "[mqtt]\nusername = 7",
                "mqtt.username: is integer `7`, but must be text; write \"7\", in quotes",
            ),
            (
                "[stream]\nname='a'\ntopic='b'",
                "stream: is map, but must be a list; write its name in double brackets, as in [[stream]]",
            ),
            (
                "[[stream]]\nname='a'\ntopic='b'\nfields='x'",
                "stream[0].fields: is string \"x\", but must be a list; write [\"x\"]",
            ),
            ("mqtt = 1", "mqtt: must be a section; write its keys below its name in brackets"),
            (
                "[training]\nevery = 6",
                "training.every: \"6\" is no duration (time unit needed, for example 6sec or 6ms); write for \
                 instance \"90s\", \"6h\" or \"14d\", or \"off\"",
            ),
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
            "mqtt = 'mqtt://u:hunter2@h'",
        ] {
            let error = parse(&format!("{text}\n{STREAM}"), &[]).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let error = parse(STREAM, &[("VIDENTE__STORE__PASSWORD", "hunter2")]).unwrap_err();
        assert!(error.contains("store.password: unknown key") && !error.contains("hunter2"), "{error}");
        let error = parse(STREAM, &[("VIDENTE__STORE", "postgres://u:hunter2@h/d")]).unwrap_err();
        assert!(error.contains("store: must be a section") && !error.contains("hunter2"), "{error}");
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
    fn wrong_variables_are_errors_that_name_them() {
        for (variable, expected) in [
            (
                ("VIDENTE__MQTT__FOO", "1"),
                "VIDENTE__MQTT__FOO in the environment: mqtt.foo: unknown key; allowed",
            ),
            (("VIDENTE__MQTT__T", "1"), "VIDENTE__MQTT__T in the environment: mqtt.t: unknown key; allowed"),
            (("VIDENTE__FOO", "1"), "VIDENTE__FOO in the environment: foo: unknown key; allowed"),
            (
                ("vidente__model__hidden", "x"),
                "vidente__model__hidden in the environment: model.hidden: is string \"x\", but must be an integer",
            ),
            (
                ("VIDENTE__MQTT__PROTOCOL", "4"),
                "VIDENTE__MQTT__PROTOCOL in the environment: mqtt.protocol: \"4\" is no MQTT version",
            ),
            (("VIDENTE__MQTT", "x"), "VIDENTE__MQTT in the environment: mqtt: must be a section"),
            (
                ("VIDENTE__STREAM__NAME", "x"),
                "VIDENTE__STREAM__NAME in the environment: streams can be set in",
            ),
        ] {
            let error = parse(STREAM, &[variable]).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        let set = Variables([("VIDENTE__HTTP__LISTEN".to_owned(), "x".to_owned())].into());
        assert_eq!(set.setting("http.listen"), Some("VIDENTE__HTTP__LISTEN"));
        assert_eq!((set.setting("http.list"), set.setting("mqtt.url")), (None, None));
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
}
