//! Whether the values of a configuration make sense, beyond having the right types.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use url::Url;

use super::{Config, Forecast, Http, Mqtt, Payload, Store, Stream, anomaly};
use crate::mqtt::tls_config;
use crate::payload;
use crate::topic::{self, SERIES_PLACEHOLDER};

/// Largest packet that MQTT can express.
const MQTT_MAX_PACKET: usize = 268_435_455;
/// Collects problems as `key: reason; fix`.
#[derive(Default)]
pub(super) struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, key: impl AsRef<str>, reason_and_fix: impl AsRef<str>) {
        self.0.push(format!("{}: {}", key.as_ref(), reason_and_fix.as_ref()));
    }

    pub(super) fn unless(&mut self, fine: bool, key: impl AsRef<str>, reason_and_fix: impl AsRef<str>) {
        if !fine {
            self.add(key, reason_and_fix);
        }
    }

    fn file(&mut self, key: &str, path: Option<&Path>) {
        let Some(path) = path else { return };
        // Opening a directory succeeds, reading it does not.
        let problem = match File::open(path).and_then(|f| f.metadata()) {
            Ok(meta) if meta.is_dir() => "is a directory".to_owned(),
            Ok(_) => return,
            Err(e) => format!("cannot be read ({e})"),
        };
        self.add(key, format!("{} {problem}; name a file that this user may read", path.display()));
    }

    fn positive(&mut self, key: &str, duration: Option<Duration>) {
        self.unless(
            duration.is_none_or(|d| !d.is_zero()),
            key,
            "is zero; write for instance \"10s\", or leave it out",
        );
    }
}

impl Config {
    /// What makes no sense, each entry `key: reason; fix`. Empty means the daemon can start.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Problems::default();
        mqtt(&self.mqtt, &mut problems);
        store(&self.store, &mut problems);
        http(&self.http, &mut problems);
        problems.unless(
            !self.stream.is_empty(),
            "stream",
            "there is none, so nothing would be subscribed to; add a [[stream]] with a name and a topic",
        );
        let mut names = HashSet::new();
        for (i, s) in self.stream.iter().enumerate() {
            stream(i, s, &mut problems);
            problems.unless(
                names.insert(s.name.as_str()),
                format!("stream[{i}].name"),
                format!("\"{}\" is taken by another stream; names must differ", s.name),
            );
        }
        forecast(&self.forecast, &mut problems);
        problems.unless(
            (1..=256).contains(&self.model.hidden),
            "model.hidden",
            format!("{} is not from 1 to 256; 32 suits most", self.model.hidden),
        );
        problems.unless(
            (1..=4).contains(&self.model.layers),
            "model.layers",
            format!("{} is not from 1 to 4; 1 suits most", self.model.layers),
        );
        problems.positive("training.every", self.training.every);
        problems.positive("training.window", Some(self.training.window));
        problems.unless(
            self.training.min_readings > 0,
            "training.min_readings",
            "is 0, and nothing can be learned from nothing; write for instance 1000",
        );
        anomaly::check(self, &mut problems);
        problems.unless(
            (1..=u32::MAX as usize).contains(&self.limits.max_series),
            "limits.max_series",
            format!("{} is not from 1 to {}", self.limits.max_series, u32::MAX),
        );
        problems.0
    }
}

fn mqtt(mqtt: &Mqtt, problems: &mut Problems) {
    let mut tls = false;
    match Url::parse(&mqtt.url) {
        Err(e) => {
            problems.add("mqtt.url", format!("is no URL ({e}); write for instance \"mqtt://127.0.0.1:1883\""))
        }
        Ok(url) => {
            tls = url.scheme() == "mqtts";
            problems.unless(
                matches!(url.scheme(), "mqtt" | "mqtts"),
                "mqtt.url",
                format!("begins with {}://; write mqtt:// or, for TLS, mqtts://", url.scheme()),
            );
            problems.unless(
                url.host_str().is_some_and(|h| !h.is_empty()),
                "mqtt.url",
                "names no host; write for instance \"mqtt://127.0.0.1:1883\"",
            );
            problems.unless(
                url.username().is_empty() && url.password().is_none(),
                "mqtt.url",
                "holds credentials; use username and password_file",
            );
            problems.unless(
                matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none(),
                "mqtt.url",
                "has something after host and port; remove it",
            );
        }
    }
    problems.unless(
        !mqtt.client_id.is_empty(),
        "mqtt.client_id",
        "is empty, but the broker keeps the session under it; write for instance \"vidente\"",
    );
    problems.unless(
        mqtt.password_file.is_none() || mqtt.username.is_some(),
        "mqtt.password_file",
        "is set without mqtt.username; set both",
    );
    problems.unless(mqtt.qos <= 1, "mqtt.qos", format!("{} is not 0 or 1", mqtt.qos));
    problems.unless(
        (1024..=MQTT_MAX_PACKET).contains(&mqtt.max_packet_bytes),
        "mqtt.max_packet_bytes",
        format!("{} is not from 1024 to {MQTT_MAX_PACKET}; 1048576 suits most", mqtt.max_packet_bytes),
    );
    problems.unless(
        mqtt.cert_file.is_some() == mqtt.key_file.is_some(),
        if mqtt.cert_file.is_some() { "mqtt.cert_file" } else { "mqtt.key_file" },
        "needs its other half; set both cert_file and key_file, or none",
    );
    for (key, path) in [
        ("mqtt.ca_file", &mqtt.ca_file),
        ("mqtt.cert_file", &mqtt.cert_file),
        ("mqtt.key_file", &mqtt.key_file),
    ] {
        problems.unless(
            path.is_none() || tls,
            key,
            "is for TLS, but mqtt.url does not begin with mqtts://; change one of the two",
        );
        problems.file(key, path.as_deref());
    }
    problems.file("mqtt.password_file", mqtt.password_file.as_deref());
    // Only files that are fine so far are worth a look inside.
    if tls
        && problems.0.is_empty()
        && let Err(e) = tls_config(mqtt)
    {
        problems.add("mqtt", format!("{e:#}; set ca_file, cert_file and key_file to files in PEM that fit"));
    }
}

fn store(store: &Store, problems: &mut Problems) {
    if let Some(path) = store.url.strip_prefix("sqlite:") {
        problems.unless(
            path.strip_prefix("//").is_some_and(|p| !p.is_empty() && !p.starts_with('?')),
            "store.url",
            "names no file; write for instance \"sqlite:///var/lib/vidente/vidente.db\"",
        );
    } else {
        match Url::parse(&store.url) {
            Ok(url) if matches!(url.scheme(), "postgres" | "postgresql") => problems.unless(
                url.password().is_none(),
                "store.url",
                "holds a password; put it into a file and name that in password_file",
            ),
            _ => problems.add(
                "store.url",
                "is no URL of a store; write postgres://user@host/database or sqlite:///path/to/file.db",
            ),
        }
    }
    problems.file("store.password_file", store.password_file.as_deref());
    problems.positive("store.retention", store.retention);
    problems.positive("store.checkpoint_every", Some(store.checkpoint_every));
}

fn http(http: &Http, problems: &mut Problems) {
    let fine = http
        .listen
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        && (http.listen.parse::<std::net::SocketAddr>().is_ok() || http.listen.matches(':').count() == 1);
    problems.unless(
        fine,
        "http.listen",
        format!("\"{}\" is no address with a port; write for instance \"127.0.0.1:9464\"", http.listen),
    );
    problems.file("http.token_file", http.token_file.as_deref());
}

fn stream(i: usize, stream: &Stream, problems: &mut Problems) {
    let key = |name: &str| format!("stream[{i}].{name}");
    problems.unless(
        !stream.name.is_empty()
            && stream.name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')),
        key("name"),
        format!("\"{}\" must be made of letters, digits, _ and - (it begins every series key)", stream.name),
    );
    problems.unless(
        (1..=1000).contains(&stream.horizon),
        key("horizon"),
        format!("{} is not from 1 to 1000", stream.horizon),
    );
    problems.positive(&key("interval"), stream.interval);
    if stream.payload == Payload::Number {
        for (name, set) in [("fields", !stream.fields.is_empty()), ("time", stream.time.is_some())] {
            problems.unless(
                !set,
                key(name),
                "is set, but a bare number has no fields; remove it, or write payload = \"json\"",
            );
        }
        return;
    }
    let time = stream.time.as_deref().map(payload::path);
    if let Some(Err(e)) = &time {
        problems.add(key("time"), e);
    }
    let mut seen = HashSet::new();
    for (f, field) in stream.fields.iter().enumerate() {
        let key = key(&format!("fields[{f}]"));
        match payload::path(field) {
            Err(e) => problems.add(key, e),
            Ok(path) => {
                problems.unless(
                    time.as_ref().is_none_or(|t| t.as_ref() != Ok(&path)),
                    &key,
                    format!("\"{field}\" is the time field; remove it from fields"),
                );
                problems.unless(
                    seen.insert(topic::field_name(&path)),
                    key,
                    format!("\"{field}\" is named twice; remove one"),
                );
            }
        }
    }
}

fn forecast(forecast: &Forecast, problems: &mut Problems) {
    let topic = &forecast.topic;
    let levels: Vec<&str> = topic.split('/').collect();
    if topic.contains(['+', '#', '\0']) || topic.starts_with('$') {
        problems.add(
            "forecast.topic",
            format!("\"{topic}\" cannot be published on: it has a wildcard or begins with $; remove that"),
        );
    } else if topic.matches(SERIES_PLACEHOLDER).count() != 1 || !levels.contains(&SERIES_PLACEHOLDER) {
        problems.add(
            "forecast.topic",
            format!(
                "\"{topic}\" must hold {SERIES_PLACEHOLDER} once, as a level of its own; \
                 write for instance \"vidente/forecast/{{series}}\""
            ),
        );
    } else if levels.iter().all(|l| l.is_empty() || *l == SERIES_PLACEHOLDER) {
        problems.add(
            "forecast.topic",
            format!(
                "\"{topic}\" has no level of its own, so Vidente could not tell its forecasts from readings; \
                 write for instance \"vidente/forecast/{{series}}\""
            ),
        );
    } else if topic.replace(SERIES_PLACEHOLDER, "").contains(['{', '}']) {
        problems.add(
            "forecast.topic",
            format!(
                "\"{topic}\" holds braces besides {SERIES_PLACEHOLDER}, the only thing filled in; remove them"
            ),
        );
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use crate::config::Config;

    const STREAM: &str = "[[stream]]\nname = \"a\"\ntopic = \"b/{x}\"\n";

    #[test]
    fn each_problem_is_found_alone() {
        for (text, expected) in [
            ("[mqtt]\nurl = 'http://h'", "mqtt.url: begins with http://"),
            ("[mqtt]\nurl = 'nonsense'", "mqtt.url: is no URL"),
            ("[mqtt]\nurl = 'mqtt://u:p@h'", "mqtt.url: holds credentials"),
            ("[mqtt]\nurl = 'mqtt://h/topic'", "mqtt.url: has something after"),
            ("[mqtt]\nclient_id = ''", "mqtt.client_id: is empty"),
            ("[mqtt]\nqos = 2", "mqtt.qos: 2 is not 0 or 1"),
            ("[mqtt]\nmax_packet_bytes = 10", "mqtt.max_packet_bytes: 10 is not"),
            ("[mqtt]\npassword_file = '/dev/null'", "mqtt.password_file: is set without mqtt.username"),
            (
                "[mqtt]\nusername = 'u'\npassword_file = '/nonexistent'",
                "mqtt.password_file: /nonexistent cannot be read",
            ),
            ("[mqtt]\nusername = 'u'\npassword_file = '/'", "mqtt.password_file: / is a directory"),
            ("[mqtt]\nca_file = '/dev/null'", "mqtt.ca_file: is for TLS, but"),
            ("[mqtt]\nurl='mqtts://h'\ncert_file = '/dev/null'", "mqtt.cert_file: needs its other half"),
            ("[mqtt]\nurl='mqtts://h'\nkey_file = '/dev/null'", "mqtt.key_file: needs its other half"),
            ("[mqtt]\nurl='mqtts://h'\nca_file = '/dev/null'", "mqtt: /dev/null holds no certificate"),
            ("[store]\nurl = 'mysql://h'", "store.url: is no URL of a store"),
            ("[store]\nurl = 'postgres://u:p@h/d'", "store.url: holds a password"),
            ("[store]\nurl = 'sqlite://'", "store.url: names no file"),
            ("[store]\nretention = '0s'", "store.retention: is zero"),
            ("[store]\ncheckpoint_every = '0s'", "store.checkpoint_every: is zero"),
            ("[http]\nlisten = 'here'", "http.listen: \"here\" is no address"),
            ("[http]\nlisten = '1.2.3.4:99999'", "http.listen:"),
            ("[http]\ntoken_file = '/nonexistent'", "http.token_file: /nonexistent cannot be read"),
            ("[forecast]\ntopic = 'f'", "forecast.topic: \"f\" must hold {series} once"),
            ("[forecast]\ntopic = 'f/{series}/{series}'", "forecast.topic:"),
            ("[forecast]\ntopic = 'f/x{series}'", "forecast.topic:"),
            ("[forecast]\ntopic = 'f/+/{series}'", "forecast.topic: \"f/+/{series}\" cannot be published on"),
            ("[forecast]\ntopic = '{series}'", "forecast.topic: \"{series}\" has no level of its own"),
            (
                "[forecast]\ntopic = '{site}/{series}'",
                "forecast.topic: \"{site}/{series}\" holds braces besides",
            ),
            ("[model]\nhidden = 0", "model.hidden: 0 is not from 1 to 256"),
            ("[model]\nlayers = 5", "model.layers: 5 is not from 1 to 4"),
            ("[training]\nevery = '0s'", "training.every: is zero"),
            ("[training]\nwindow = '0s'", "training.window: is zero"),
            ("[training]\nmin_readings = 0", "training.min_readings: is 0"),
            ("[limits]\nmax_series = 0", "limits.max_series: 0 is not"),
        ] {
            let problems = Config::parse(&format!("{text}\n{STREAM}")).unwrap().problems();
            assert_eq!(problems.len(), 1, "{text}: {problems:?}");
            assert!(problems.concat().starts_with(expected), "{text}: {problems:?}");
        }
    }

    #[test]
    fn streams_are_checked_one_by_one() {
        for (keys, expected) in [
            ("name = 'a b'\ntopic = 't'", "stream[1].name: \"a b\" must be made of"),
            ("name = 'a'\ntopic = 't'", "stream[1].name: \"a\" is taken"),
            ("name = 'c'\ntopic = 't'\nhorizon = 0", "stream[1].horizon: 0 is not from 1 to 1000"),
            ("name = 'c'\ntopic = 't'\nhorizon = 1001", "stream[1].horizon: 1001 is not"),
            ("name = 'c'\ntopic = 't'\ninterval = '0s'", "stream[1].interval: is zero"),
            (
                "name = 'c'\ntopic = 't'\npayload = 'number'\ntime = 'ts'",
                "stream[1].time: is set, but a bare number",
            ),
            ("name = 'c'\ntopic = 't'\npayload = 'number'\nfields = ['x']", "stream[1].fields: is set, but"),
            ("name = 'c'\ntopic = 't'\nfields = ['a..b']", "stream[1].fields[0]: \"a..b\" has an empty part"),
            (
                "name = 'c'\ntopic = 't'\nfields = ['a.b', '/a/b']",
                "stream[1].fields[1]: \"/a/b\" is named twice",
            ),
            (
                "name = 'c'\ntopic = 't'\nfields = ['ts']\ntime = '/ts'",
                "stream[1].fields[0]: \"ts\" is the time",
            ),
            ("name = 'c'\ntopic = 't'\ntime = ''", "stream[1].time: is empty"),
        ] {
            let problems = Config::parse(&format!("{STREAM}[[stream]]\n{keys}")).unwrap().problems();
            assert_eq!(problems.len(), 1, "{keys}: {problems:?}");
            assert!(problems.concat().starts_with(expected), "{keys}: {problems:?}");
        }
        assert!(Config::parse("").unwrap().problems().concat().starts_with("stream: there is none"));
    }

    #[test]
    fn what_is_fine_passes() {
        for text in [
            "[mqtt]\nurl = 'mqtt://[::1]:1883'",
            "[mqtt]\nprotocol = 5",
            "[http]\nlisten = '[::1]:9464'",
            "[http]\nlisten = 'localhost:0'",
            "[store]\nurl = 'sqlite:///tmp/x.db'",
            "[forecast]\ntopic = 'site/{series}/forecast'",
            "[training]\nevery = 'off'",
        ] {
            let problems = Config::parse(&format!("{text}\n{STREAM}")).unwrap().problems();
            assert!(problems.is_empty(), "{text}: {problems:?}");
        }
    }
}
