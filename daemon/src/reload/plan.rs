//! What lies between two configurations, and whether a running daemon can go from one to the other.

use std::sync::Arc;

use crate::config::{Config, Stream};

/// The configuration in force.
#[derive(Debug, Clone)]
pub struct Live {
    /// Its streams stand at positions that never change: those that reloads took out stay where they were,
    /// and new ones come behind.
    pub config: Arc<Config>,
    /// Which of them are configured now.
    pub active: Vec<bool>,
    /// Id of the model that each began with, by position.
    pub installed: Vec<Option<i64>>,
}

impl Live {
    /// What a daemon starts with.
    pub(crate) fn new(config: Arc<Config>, installed: Vec<Option<i64>>) -> Live {
        Live { active: vec![true; config.stream.len()], config, installed }
    }

    /// Positions and settings of the streams that are configured now.
    pub(crate) fn streams(&self) -> impl Iterator<Item = (usize, &Stream)> {
        let all = self.config.stream.iter().enumerate().zip(&self.active);
        all.filter(|(_, active)| **active).map(|(stream, _)| stream)
    }

    /// What to subscribe to.
    pub(crate) fn filters(&self) -> Vec<String> {
        self.streams().map(|(_, stream)| stream.topic.filter()).collect()
    }
}

/// What a reload does.
#[derive(Debug)]
pub(super) struct Plan {
    /// The configuration that follows, its streams by position.
    pub(super) config: Config,
    pub(super) active: Vec<bool>,
    /// Streams that have no position yet; they stand last.
    pub(super) added: usize,
    /// What changes, for people; empty if nothing does.
    pub(super) changes: Vec<String>,
}

/// Keys that need a restart, of sections that else do not.
const FIXED: [&str; 3] = ["homeassistant.discovery", "homeassistant.prefix", "log.format"];

/// Names of the keys of sections that differ; of the section, where no key is named.
macro_rules! differing {
    ($old:expr, $new:expr, $($section:ident { $($key:ident)* })*) => {{
        let mut keys: Vec<String> = Vec::new();
        $(
            let before = keys.len();
            $(
                if $old.$section.$key != $new.$section.$key {
                    keys.push(concat!(stringify!($section), ".", stringify!($key)).to_owned());
                }
            )*
            if before == keys.len() && $old.$section != $new.$section {
                keys.push(stringify!($section).to_owned());
            }
        )*
        keys
    }};
}

impl Plan {
    /// How to go from the configuration in force to one that was read.
    ///
    /// # Errors
    /// Names the keys that need a restart.
    pub(super) fn new(live: &Live, read: Config) -> Result<Plan, Vec<String>> {
        let old = &live.config;
        let fixed = differing!(old, read,
            mqtt {
                url client_id username password_file ca_file cert_file key_file protocol qos max_packet_bytes
                keep_alive control
            }
            store {
                url password_file ca_file cert_file key_file retention checkpoint_every start_timeout timescaledb
            }
            spool { dir max_bytes }
            http { listen token_file cert_file key_file allowed_hosts }
            model { cell nonlinearity hidden layers }
        );
        let mut changes = differing!(old, read,
            forecast { topic retain }
            training { every window min_readings max_readings seed on_drift drift_cooldown }
            models { keep margin max_worse probation }
            anomaly { alarms_per_week direction min_deviation warm_up silence_after }
            homeassistant { discovery prefix expire_after }
            limits { max_series }
            log { level format }
        );
        // Whoever announces can take all of it away; to begin takes what a start makes.
        let ends = |key: &str| key == "homeassistant.discovery" && old.homeassistant.discovery;
        let parts = changes.extract_if(.., |key| FIXED.contains(&key.as_str()) && !ends(key));
        let fixed: Vec<String> = fixed.into_iter().chain(parts).collect();
        if !fixed.is_empty() {
            return Err(fixed);
        }
        let mut config = Config { stream: old.stream.clone(), ..read };
        let mut active = vec![false; old.stream.len()];
        let mut added = 0;
        for stream in read.stream {
            let name = &stream.name;
            match config.stream.iter().position(|known| known.name == *name) {
                Some(position) => {
                    if live.active.get(position) != Some(&true) {
                        changes.push(format!("stream \"{name}\" is back"));
                    } else if let Some(keys) = config.stream.get(position).and_then(|old| keys(old, &stream))
                    {
                        changes.push(format!("stream \"{name}\": {keys}"));
                    }
                    active.get_mut(position).into_iter().for_each(|active| *active = true);
                    if let Some(known) = config.stream.get_mut(position) {
                        *known = stream;
                    }
                }
                None => {
                    changes.push(format!("stream \"{name}\" is new"));
                    config.stream.push(stream);
                    active.push(true);
                    added += 1;
                }
            }
        }
        let gone = live.streams().filter(|(position, _)| active.get(*position) != Some(&true));
        changes.extend(gone.map(|(_, stream)| format!("stream \"{}\" is gone", stream.name)));
        Ok(Plan { config, active, added, changes })
    }
}

/// Names of the keys that differ between two streams of one name.
fn keys(old: &Stream, new: &Stream) -> Option<String> {
    let named = [
        ("topic", old.topic != new.topic),
        ("payload", old.payload != new.payload),
        ("fields", old.fields != new.fields),
        ("time", old.time != new.time),
        ("zone", old.zone != new.zone),
        ("utc_offset", old.utc_offset != new.utc_offset),
        ("precision", old.precision != new.precision),
        ("compression", old.compression != new.compression),
        ("interval", old.interval != new.interval),
        ("horizon", old.horizon != new.horizon),
        ("anomaly", old.anomaly != new.anomaly),
    ];
    let keys: Vec<&str> = named.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect();
    if keys.is_empty() { (old != new).then(|| "further keys".to_owned()) } else { Some(keys.join(", ")) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const STREAMS: &str =
        "[[stream]]\nname = 'a'\ntopic = 'a/{x}'\n[[stream]]\nname = 'b'\ntopic = 'b/{x}'\n";

    fn live(text: &str) -> Live {
        let config = Arc::new(Config::parse(text).unwrap());
        let installed = vec![None; config.stream.len()];
        Live::new(config, installed)
    }

    fn plan(live: &Live, text: &str) -> Result<Plan, Vec<String>> {
        Plan::new(live, Config::parse(text).unwrap())
    }

    #[test]
    fn what_needs_a_restart_is_named_key_by_key() {
        let live = live(STREAMS);
        for (text, keys) in [
            ("[mqtt]\nurl = 'mqtt://other'\nqos = 0", vec!["mqtt.url", "mqtt.qos"]),
            ("[mqtt]\nkeep_alive = '9s'", vec!["mqtt.keep_alive"]),
            ("[store]\nretention = '9d'", vec!["store.retention"]),
            ("[spool]\nmax_bytes = 0", vec!["spool.max_bytes"]),
            ("[http]\nlisten = '[::1]:1'", vec!["http.listen"]),
            ("[model]\nhidden = 9", vec!["model.hidden"]),
            ("[mqtt]\ncontrol = false", vec!["mqtt.control"]),
            (
                "[homeassistant]\ndiscovery = true\nprefix = 'ha'\nexpire_after = '1h'",
                vec!["homeassistant.discovery", "homeassistant.prefix"],
            ),
            // Together with what could be changed.
            ("[log]\nformat = 'json'\nlevel = 'debug'\n[limits]\nmax_series = 1", vec!["log.format"]),
        ] {
            assert_eq!(plan(&live, &format!("{text}\n{STREAMS}")).unwrap_err(), keys, "{text}");
        }
    }

    #[test]
    fn discovery_can_end_but_not_begin() {
        let announcing = format!("[homeassistant]\ndiscovery = true\n{STREAMS}");
        assert_eq!(plan(&live(&announcing), STREAMS).unwrap().changes, ["homeassistant.discovery"]);
        assert_eq!(plan(&live(STREAMS), &announcing).unwrap_err(), ["homeassistant.discovery"]);
    }

    #[test]
    fn what_changes_is_named_and_what_does_not_is_not() {
        let live = live(STREAMS);
        // Defaults written out, the other order.
        let same = "[mqtt]\nqos = 1\n[log]\nlevel = 'info'\n[[stream]]\nname = 'b'\ntopic = 'b/{x}'\nhorizon = 1\n\
                    [[stream]]\nname = 'a'\ntopic = 'a/{x}'\n";
        let plan_of_same = plan(&live, same).unwrap();
        assert_eq!((plan_of_same.changes, plan_of_same.active), (Vec::<String>::new(), vec![true, true]));
        let text = "[anomaly]\nwarm_up = 7\n[homeassistant]\nexpire_after = '1h'\n[training]\nevery = 'off'\n[log]\nlevel = 'debug'\n[[stream]]\n\
                    name = 'a'\ntopic = 'a/{x}'\nhorizon = 3\nanomaly = { direction = 'up' }\n";
        let changes = plan(&live, text).unwrap().changes;
        let expected = [
            "training.every",
            "anomaly.warm_up",
            "homeassistant.expire_after",
            "log.level",
            "stream \"a\": horizon, anomaly",
            "stream \"b\" is gone",
        ];
        assert_eq!(changes, expected);
    }

    #[test]
    fn positions_never_change() {
        let mut now = live(STREAMS);
        let steps = [
            ("[[stream]]\nname = 'c'\ntopic = 'c/{x}'\n[[stream]]\nname = 'b'\ntopic = 'b/{x}'\n", "bc", 1),
            ("[[stream]]\nname = 'a'\ntopic = 'new/{x}'\n[[stream]]\nname = 'd'\ntopic = 'd/{x}'\n", "ad", 1),
            (STREAMS, "ab", 0),
        ];
        for (text, names, added) in steps {
            let plan = plan(&now, text).unwrap();
            assert_eq!(plan.added, added, "{text}");
            now = Live { config: Arc::new(plan.config), active: plan.active, installed: vec![] };
            let active: String = now.streams().map(|(_, stream)| stream.name.as_str()).collect();
            assert_eq!(active, names);
            assert_eq!(now.filters().len(), 2);
        }
        let all: String = now.config.stream.iter().map(|stream| stream.name.as_str()).collect();
        assert_eq!(all, "abcd");
    }
}
