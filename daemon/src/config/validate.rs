//! Whether the values of a configuration make sense, beyond having the right types.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::{Cell, Config, Forecast, Http, Mqtt, Store, anomaly, homeassistant, spool, stream, training};
use crate::secret::Secret;
use crate::store::postgres_url_problem;
use crate::tls;
use crate::topic::{Outputs, PROBLEM_PREFIX, REQUEST_PREFIX, RESPONSE_PREFIX, SERIES_PLACEHOLDER};

/// Largest packet that MQTT can express.
const MQTT_MAX_PACKET: usize = 268_435_455;
/// What `rumqttc` takes at least, and after how long nobody would still call a connection alive.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));

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

    fn secret(&mut self, key: &str, path: Option<&Path>) {
        if let Some(Err(problem)) = path.map(Secret::read) {
            self.add(key, problem);
        }
    }

    /// Certificate and key only make sense together, and have to fit.
    fn tls(&mut self, section: &str, files: tls::Files<'_>, server: bool) {
        let before = self.0.len();
        let key = |name: &str| format!("{section}.{name}");
        self.unless(
            files.cert.is_some() == files.key.is_some(),
            key(if files.cert.is_some() { "cert_file" } else { "key_file" }),
            "needs its other half; set both cert_file and key_file, or none",
        );
        for (name, path) in [("ca_file", files.ca), ("cert_file", files.cert), ("key_file", files.key)] {
            self.file(&key(name), path.map(PathBuf::as_path));
        }
        // Only files that are fine so far are worth a look inside.
        if self.0.len() > before {
            return;
        }
        let used = match (server, files.cert, files.key) {
            (true, Some(cert), Some(key)) => tls::server(cert, key).map(drop),
            (true, ..) => Ok(()),
            (false, ..) => tls::client(files).map(drop),
        };
        if let Err(e) = used {
            self.add(section, format!("{e:#}; set ca_file, cert_file and key_file to files in PEM that fit"));
        }
    }

    pub(super) fn positive(&mut self, key: &str, duration: Option<Duration>) {
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
        spool::check(&self.spool, &mut problems);
        http(&self.http, &mut problems);
        problems.unless(
            !self.stream.is_empty(),
            "stream",
            "there is none, so nothing would be subscribed to; add a [[stream]] with a name and a topic",
        );
        let mut names = HashSet::new();
        for (i, s) in self.stream.iter().enumerate() {
            stream::check(i, s, &mut problems);
            problems.unless(
                names.insert(s.name.as_str()),
                format!("stream[{i}].name"),
                format!("\"{}\" is taken by another stream; names must differ", s.name),
            );
        }
        let before = problems.0.len();
        forecast(&self.forecast, &mut problems);
        if problems.0.len() == before {
            own_topics(self, &mut problems);
        }
        problems.unless(
            self.model.cell == Cell::Rnn || self.model.nonlinearity.is_none(),
            "model.nonlinearity",
            "is for cell = \"rnn\" only; leave it out, or write cell = \"rnn\"",
        );
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
        training::check(self, &mut problems);
        anomaly::check(self, &mut problems);
        homeassistant::check(&self.homeassistant, &mut problems);
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
        (KEEP_ALIVE.0..=KEEP_ALIVE.1).contains(&mqtt.keep_alive),
        "mqtt.keep_alive",
        format!("{} is not from 5s to 1h; 30s suits most", humantime::format_duration(mqtt.keep_alive)),
    );
    let files = mqtt.tls_files();
    if tls {
        problems.tls("mqtt", files, false);
    } else {
        for (name, path) in [("ca_file", files.ca), ("cert_file", files.cert), ("key_file", files.key)] {
            problems.unless(
                path.is_none(),
                format!("mqtt.{name}"),
                "is for TLS, but mqtt.url does not begin with mqtts://; change one of the two",
            );
        }
    }
    problems.secret("mqtt.password_file", mqtt.password_file.as_deref());
}

fn store(store: &Store, problems: &mut Problems) {
    if let Some(path) = store.url.strip_prefix("sqlite:") {
        for (name, path) in [
            ("password_file", &store.password_file),
            ("ca_file", &store.ca_file),
            ("cert_file", &store.cert_file),
            ("key_file", &store.key_file),
        ] {
            problems.unless(
                path.is_none(),
                format!("store.{name}"),
                "is for Postgres, but store.url names a file of SQLite; remove it",
            );
        }
        problems.unless(
            path.strip_prefix("//").is_some_and(|p| !p.is_empty() && !p.starts_with('?')),
            "store.url",
            "names no file; write for instance \"sqlite:///var/lib/vidente/vidente.db\"",
        );
        let file = Path::new(path.trim_start_matches("//").split('?').next().unwrap_or_default());
        let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty());
        problems.unless(
            dir.is_none_or(Path::is_dir),
            "store.url",
            format!(
                "the directory {} does not exist; make it (mkdir -p), or name another file",
                dir.unwrap_or(file).display()
            ),
        );
        problems.unless(
            !file.is_dir(),
            "store.url",
            format!(
                "{} is a directory; name a file in it, for instance \"sqlite://{}/vidente.db\"",
                file.display(),
                file.display()
            ),
        );
    } else if matches!(store.url.split_once(':'), Some(("postgres" | "postgresql", _))) {
        if let Some(problem) = postgres_url_problem(store) {
            problems.add("store.url", problem);
        }
        let files = store.tls_files();
        if files.ca.is_some() || files.cert.is_some() || files.key.is_some() {
            problems.tls("store", files, false);
        }
    } else {
        problems.add(
            "store.url",
            "is no URL of a store; write postgres://user@host/database or sqlite:///path/to/file.db",
        );
    }
    problems.secret("store.password_file", store.password_file.as_deref());
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
    problems.secret("http.token_file", http.token_file.as_deref());
    if let Some(Ok(token)) = http.token_file.as_deref().map(Secret::read) {
        problems.unless(
            token.expose().bytes().all(|b| b.is_ascii_graphic()),
            "http.token_file",
            "holds a character that a header cannot carry; make a token with: openssl rand -hex 32",
        );
    }
    problems.tls("http", http.tls_files(), true);
    for name in &http.allowed_hosts {
        problems.unless(
            !name.is_empty() && !name.contains([':', '/', '*']),
            "http.allowed_hosts",
            format!("\"{name}\" is no name of a host; write it without scheme and port"),
        );
    }
}

/// A stream all of whose messages would be taken for Vidente's own hears nothing.
fn own_topics(config: &Config, problems: &mut Problems) {
    let outputs = Outputs::of(config);
    for (i, stream) in config.stream.iter().enumerate() {
        let filter = stream.topic.filter();
        problems.unless(
            !outputs.is_own(&filter),
            format!("stream[{i}].topic"),
            format!(
                "all topics of \"{filter}\" are Vidente's own outputs (forecast.topic is \"{}\"), which are never \
                 taken in; change one of them",
                config.forecast.topic
            ),
        );
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
    } else if [REQUEST_PREFIX, RESPONSE_PREFIX, PROBLEM_PREFIX].iter().any(|p| topic.starts_with(p)) {
        problems.add(
            "forecast.topic",
            format!(
                "\"{topic}\" begins like topics of requests, answers or problems, which are something else; \
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
mod tests;
