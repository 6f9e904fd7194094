//! `[[stream]]`: what is subscribed to, and how its payloads are read.

use std::collections::HashSet;
use std::time::Duration;

use jiff::tz::{Offset, TimeZone};
use serde::Deserialize;

use super::validate::Problems;
use super::{AnomalyOverride, optional_duration};
use crate::payload;
use crate::topic::{self, Pattern};

/// `[[stream]]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// Name; first part of every series key.
    pub name: String,
    /// Topic pattern, `{x}` for one level, `{x...}` for the rest.
    pub topic: Pattern,
    /// How payloads are read.
    #[serde(default)]
    pub payload: Payload,
    /// Whether bodies are compressed.
    #[serde(default)]
    pub compression: Compression,
    /// Which fields are series; empty means every numeric leaf.
    #[serde(default)]
    pub fields: Vec<String>,
    /// Field holding the time; none means the time of arrival.
    #[serde(default)]
    pub time: Option<String>,
    /// Unit of the times of line protocol.
    #[serde(default)]
    pub precision: Option<Precision>,
    /// Offset from UTC of times that have none, for instance `+02:00`.
    #[serde(default)]
    pub utc_offset: Option<String>,
    /// Time zone of times that have no offset, for instance `Europe/Berlin`.
    #[serde(default)]
    pub zone: Option<String>,
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

/// Reads one of a few words; `$what` says what they are.
macro_rules! words {
    ($type:ty, $what:literal, $example:literal, { $($word:literal => $value:expr),+ $(,)? }) => {
        impl TryFrom<String> for $type {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                match text.as_str() {
                    $($word => Ok($value),)+
                    _ => Err(format!(concat!("\"{}\" is no ", $what, "; write ", $example), text)),
                }
            }
        }
    };
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
    /// A CBOR document.
    Cbor,
    /// What Tasmota publishes on `tele/…/SENSOR`.
    Tasmota,
    /// What zigbee2mqtt publishes for a device.
    Zigbee2mqtt,
    /// A state as Home Assistant writes it.
    HomeAssistant,
    /// Influx line protocol.
    Influx,
    /// Sparkplug B.
    Sparkplug,
}

words!(
    Payload,
    "payload format",
    "\"json\", \"number\", \"cbor\", \"tasmota\", \"zigbee2mqtt\", \"homeassistant\", \"influx\" or \"sparkplug\"",
    {
        "number" => Payload::Number,
        "json" => Payload::Json,
        "cbor" => Payload::Cbor,
        "tasmota" => Payload::Tasmota,
        "zigbee2mqtt" => Payload::Zigbee2mqtt,
        "homeassistant" => Payload::HomeAssistant,
        "influx" => Payload::Influx,
        "sparkplug" => Payload::Sparkplug,
    }
);

/// How bodies are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub enum Compression {
    /// As the first bytes of each say.
    #[default]
    Auto,
    /// Not at all.
    None,
    /// Gzip, each.
    Gzip,
    /// Zlib, each.
    Zlib,
}

words!(
    Compression,
    "compression",
    "\"auto\", \"none\", \"gzip\" or \"zlib\"",
    {
        "auto" => Compression::Auto,
        "none" => Compression::None,
        "gzip" => Compression::Gzip,
        "zlib" => Compression::Zlib,
    }
);

/// Units of Unix times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub enum Precision {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
    /// Microseconds.
    Microseconds,
    /// Nanoseconds.
    #[default]
    Nanoseconds,
}

words!(
    Precision,
    "precision",
    "\"s\", \"ms\", \"us\" or \"ns\"",
    {
        "s" => Precision::Seconds,
        "ms" => Precision::Milliseconds,
        "us" => Precision::Microseconds,
        "ns" => Precision::Nanoseconds,
    }
);

impl Stream {
    /// The zone of times that have no offset, if one is set.
    ///
    /// # Errors
    /// The key that makes no sense, and the reason and the fix.
    pub fn time_zone(&self) -> Result<Option<TimeZone>, (&'static str, String)> {
        match (&self.utc_offset, &self.zone) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => {
                Err(("utc_offset", "is set besides zone; remove one (zone knows summer time)".into()))
            }
            (Some(text), None) => offset(text).map(|offset| Some(offset.to_time_zone())).ok_or_else(|| {
                ("utc_offset", format!("\"{text}\" is no offset; write for instance \"+02:00\""))
            }),
            (None, Some(name)) => TimeZone::get(name).map(Some).map_err(|_| {
                ("zone", format!("\"{name}\" is no time zone; write for instance \"Europe/Berlin\""))
            }),
        }
    }
}

/// `±hh:mm`, less than a day.
fn offset(text: &str) -> Option<Offset> {
    let sign = match text.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let number = |text: &str, below: i32| {
        let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<i32>().ok().filter(|n| digits && *n < below)
    };
    Offset::from_seconds(sign * (number(hours, 24)? * 3600 + number(minutes, 60)? * 60)).ok()
}

/// What makes no sense in one stream.
pub(super) fn check(i: usize, stream: &Stream, problems: &mut Problems) {
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
    check_payload(stream, key, problems);
    check_zone(stream, key, problems);
    match stream.payload {
        Payload::Number | Payload::HomeAssistant => {}
        Payload::Influx | Payload::Sparkplug => check_names(stream, key, problems),
        _ => check_fields(stream, key, problems),
    }
}

/// What does not go with the format.
fn check_payload(stream: &Stream, key: impl Fn(&str) -> String, problems: &mut Problems) {
    let (has_fields, has_time) = (!stream.fields.is_empty(), stream.time.is_some());
    let (fields, time) = match stream.payload {
        Payload::Number => {
            let fix = "is set, but a bare number has no fields; remove it, or write payload = \"json\"";
            (Some(fix), Some(fix))
        }
        Payload::HomeAssistant => {
            let fix = "is set, but a state has no fields; remove it";
            (Some(fix), Some(fix))
        }
        Payload::Json | Payload::Cbor => (None, None),
        Payload::Tasmota => (None, Some("is set, but Tasmota's is Time; remove it")),
        Payload::Zigbee2mqtt => (None, Some("is set, but zigbee2mqtt's is last_seen; remove it")),
        Payload::Influx => (None, Some("is set, but each line has its own; remove it")),
        Payload::Sparkplug => (None, Some("is set, but each metric has its own; remove it")),
    };
    problems.unless(!has_fields || fields.is_none(), key("fields"), fields.unwrap_or_default());
    problems.unless(!has_time || time.is_none(), key("time"), time.unwrap_or_default());
    problems.unless(
        stream.precision.is_none() || stream.payload == Payload::Influx,
        key("precision"),
        "is for payload = \"influx\" only; remove it",
    );
    problems.unless(
        stream.payload != Payload::Sparkplug || payload::sparkplug_filter(&stream.topic.filter()),
        key("topic"),
        "does not capture what payload = \"sparkplug\" needs, all messages of a group; \
         write \"spBv1.0/{group}/{rest...}\", or with the name of one group \"spBv1.0/GROUP/{rest...}\"",
    );
}

fn check_zone(stream: &Stream, key: impl Fn(&str) -> String, problems: &mut Problems) {
    let used = match stream.payload {
        Payload::Tasmota => true,
        Payload::Json | Payload::Cbor => stream.time.is_some(),
        _ => false,
    };
    for (name, set) in [("utc_offset", stream.utc_offset.is_some()), ("zone", stream.zone.is_some())] {
        problems.unless(
            used || !set,
            key(name),
            "is for times without an offset, which this stream does not read; remove it, or set time",
        );
    }
    match stream.time_zone() {
        Err((name, reason)) => problems.unless(false, key(name), reason),
        Ok(zone) => problems.unless(
            zone.is_some() || stream.payload != Payload::Tasmota,
            key("zone"),
            "is missing, and Tasmota's Time has no offset; set zone = \"Europe/Berlin\", \
             or utc_offset = \"+01:00\", as the devices' Timezone is (\"+00:00\" for UTC)",
        ),
    }
}

/// Fields by name, not by path.
fn check_names(stream: &Stream, key: impl Fn(&str) -> String, problems: &mut Problems) {
    let mut seen = HashSet::new();
    for (f, field) in stream.fields.iter().enumerate() {
        let key = key(&format!("fields[{f}]"));
        problems.unless(!field.is_empty(), &key, "is empty; write the name of a field");
        problems.unless(seen.insert(field), key, format!("\"{field}\" is named twice; remove one"));
    }
}

fn check_fields(stream: &Stream, key: impl Fn(&str) -> String, problems: &mut Problems) {
    let time = stream.time.as_deref().map(payload::path);
    if let Some(Err(e)) = &time {
        problems.unless(false, key("time"), e);
    }
    let mut seen = HashSet::new();
    for (f, field) in stream.fields.iter().enumerate() {
        let key = key(&format!("fields[{f}]"));
        match payload::path(field) {
            Err(e) => problems.unless(false, key, e),
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use crate::config::Config;

    fn problems(topic: &str, keys: &str) -> Vec<String> {
        let text = format!("[[stream]]\nname = 'a'\ntopic = '{topic}'\n{keys}");
        Config::parse(&text).unwrap().problems()
    }

    #[test]
    fn each_problem_is_found_alone() {
        const ZONE: &str = "zone = 'Europe/Berlin'";
        for (topic, keys, expected) in [
            ("t/{x}", "payload = 'tasmota'", "zone: is missing, and Tasmota's Time has no offset"),
            ("t/{x}", &format!("payload = 'tasmota'\ntime = 'Time'\n{ZONE}"), "time: is set, but Tasmota's"),
            ("t/{x}", "payload = 'tasmota'\nzone = 'Mars/Olympus'", "zone: \"Mars/Olympus\" is no time zone"),
            ("t/{x}", "payload = 'tasmota'\nutc_offset = '2h'", "utc_offset: \"2h\" is no offset"),
            ("t/{x}", "payload = 'tasmota'\nutc_offset = '+24:00'", "utc_offset: \"+24:00\" is no offset"),
            ("t/{x}", "payload = 'tasmota'\nutc_offset = '+1:00'", "utc_offset: \"+1:00\" is no offset"),
            (
                "t/{x}",
                &format!("payload = 'tasmota'\nutc_offset = '+01:00'\n{ZONE}"),
                "utc_offset: is set besides zone",
            ),
            ("t/{x}", ZONE, "zone: is for times without an offset"),
            ("t/{x}", "payload = 'zigbee2mqtt'\nutc_offset = '+01:00'", "utc_offset: is for times without"),
            ("t/{x}", "payload = 'zigbee2mqtt'\ntime = 't'", "time: is set, but zigbee2mqtt's is last_seen"),
            (
                "t/{x}",
                "payload = 'homeassistant'\nfields = ['a']",
                "fields: is set, but a state has no fields",
            ),
            ("t/{x}", "payload = 'number'\ntime = 'a'", "time: is set, but a bare number"),
            ("t/{x}", "payload = 'influx'\ntime = 'a'", "time: is set, but each line has its own"),
            ("t/{x}", "payload = 'influx'\nfields = ['a', 'a']", "fields[1]: \"a\" is named twice"),
            ("t/{x}", "payload = 'influx'\nfields = ['']", "fields[0]: is empty"),
            ("t/{x}", "precision = 's'", "precision: is for payload = \"influx\" only"),
            ("t/{x}", "payload = 'sparkplug'", "topic: does not capture what payload = \"sparkplug\" needs"),
            ("spBv1.0/g/NDATA/n", "payload = 'sparkplug'", "topic: does not capture"),
            ("spBv1.0/{rest...}", "payload = 'sparkplug'\ntime = 'a'", "time: is set, but each metric"),
        ] {
            let problems = problems(topic, keys);
            assert_eq!(problems.len(), 1, "{keys}: {problems:?}");
            assert!(problems.concat().starts_with(&format!("stream[0].{expected}")), "{keys}: {problems:?}");
        }
    }

    #[test]
    fn the_examples_of_the_readme_are_taken() {
        let readme = include_str!("../../../README.md");
        let section = readme.split("\n## ").find(|section| section.starts_with("Payloads\n")).unwrap();
        let example = section.split("```toml").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let config = Config::parse(example).unwrap();
        assert_eq!(config.problems(), [""; 0]);
        assert_eq!(config.stream.len(), 6);
        for stream in config.stream {
            let named = format!("{:?}", stream.payload).to_lowercase();
            assert!(section.contains(&format!("`{named}`")), "{named} has no row");
        }
    }

    #[test]
    fn what_each_format_takes() {
        for (topic, keys) in [
            ("t/{x}", "payload = 'tasmota'\nzone = 'America/St_Johns'\nfields = ['DS18B20.Temperature']"),
            ("t/{x}", "payload = 'tasmota'\nutc_offset = '-03:30'"),
            ("t/{x}", "time = 'ts'\nzone = 'UTC'\ncompression = 'gzip'"),
            ("t/{x}", "payload = 'cbor'\ntime = 'ts'\nutc_offset = '+14:00'"),
            ("z/{name...}", "payload = 'zigbee2mqtt'\nfields = ['temperature']"),
            ("t/{x}", "payload = 'influx'\nprecision = 'ms'\nfields = ['a/b', 'c.d']"),
            ("spBv1.0/{group}/{rest...}", "payload = 'sparkplug'\nfields = ['Motor/Speed']"),
            ("spBv1.0/plant/{rest...}", "payload = 'sparkplug'"),
            ("spBv1.0/{all...}", "payload = 'sparkplug'"),
        ] {
            assert_eq!(problems(topic, keys), [""; 0], "{keys}");
        }
    }
}
