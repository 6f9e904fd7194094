//! `[anomaly]`: what is worth an alarm, and what of it differs on a stream.

use forecaster::{AnomalySettings, Direction};
use serde::{Deserialize, Deserializer};

use super::validate::Problems;
use super::{Config, text};

/// Intervals without a reading after which a series counts as silent.
const SILENCE_AFTER: u32 = 5;

/// `[anomaly]`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Anomaly {
    /// Alarms a week that normal data of one series may cause; 0 raises nothing.
    pub alarms_per_week: f64,
    /// Side of the forecast that matters.
    #[serde(deserialize_with = "direction")]
    pub direction: Direction,
    /// Least distance from the forecast's median, in the series' own unit.
    pub min_deviation: f64,
    /// Readings of a series before a value is flagged.
    pub warm_up: u32,
    /// Intervals without a reading after which a series is silent; 0 for never.
    #[serde(deserialize_with = "count_or_off")]
    pub silence_after: u32,
}

impl Default for Anomaly {
    fn default() -> Self {
        let AnomalySettings { alarms_per_week, direction, min_deviation, warm_up } =
            AnomalySettings::default();
        Anomaly { alarms_per_week, direction, min_deviation, warm_up, silence_after: SILENCE_AFTER }
    }
}

/// `anomaly` of a `[[stream]]`: the same keys, each optional.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "the same as in Anomaly")]
pub struct AnomalyOverride {
    pub alarms_per_week: Option<f64>,
    #[serde(deserialize_with = "some_direction")]
    pub direction: Option<Direction>,
    pub min_deviation: Option<f64>,
    pub warm_up: Option<u32>,
    #[serde(deserialize_with = "some_count_or_off")]
    pub silence_after: Option<u32>,
}

impl AnomalyOverride {
    /// The section, with what is set here in place of its own.
    #[must_use]
    pub fn over(&self, section: &Anomaly) -> Anomaly {
        Anomaly {
            alarms_per_week: self.alarms_per_week.unwrap_or(section.alarms_per_week),
            direction: self.direction.unwrap_or(section.direction),
            min_deviation: self.min_deviation.unwrap_or(section.min_deviation),
            warm_up: self.warm_up.unwrap_or(section.warm_up),
            silence_after: self.silence_after.unwrap_or(section.silence_after),
        }
    }
}

/// What makes no sense, in the section and on each stream.
pub(super) fn check(config: &Config, problems: &mut Problems) {
    check_one(&config.anomaly, "anomaly", problems);
    for (i, stream) in config.stream.iter().enumerate() {
        // Over the defaults, so that a fault of the section is told once.
        check_one(&stream.anomaly.over(&Anomaly::default()), &format!("stream[{i}].anomaly"), problems);
    }
}

fn check_one(anomaly: &Anomaly, section: &str, problems: &mut Problems) {
    problems.unless(
        (0.0..=1e6).contains(&anomaly.alarms_per_week),
        format!("{section}.alarms_per_week"),
        format!("{} is not from 0 (none) to 1000000; 1 suits most", anomaly.alarms_per_week),
    );
    problems.unless(
        (0.0..f64::INFINITY).contains(&anomaly.min_deviation),
        format!("{section}.min_deviation"),
        format!("{} is not 0 or more; write it in the unit of the series", anomaly.min_deviation),
    );
    problems.unless(
        anomaly.silence_after != 1 && anomaly.silence_after <= 1_000_000,
        format!("{section}.silence_after"),
        format!(
            "{} is not from 2 to 1000000 intervals (the next reading is due after one); 5 suits most, \
             \"off\" raises nothing",
            anomaly.silence_after
        ),
    );
}

fn direction<'de, D: Deserializer<'de>>(d: D) -> Result<Direction, D::Error> {
    match String::deserialize(d)?.as_str() {
        "both" => Ok(Direction::Both),
        "up" => Ok(Direction::Up),
        "down" => Ok(Direction::Down),
        other => Err(serde::de::Error::custom(format!(
            "\"{other}\" is no direction; write \"both\", \"up\" or \"down\""
        ))),
    }
}

fn some_direction<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Direction>, D::Error> {
    direction(d).map(Some)
}

fn count_or_off<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    let text = text(d)?;
    if text == "off" {
        return Ok(0);
    }
    text.parse().map_err(|_| {
        serde::de::Error::custom(format!(
            "\"{text}\" is no number of intervals; write for instance 5, or \"off\""
        ))
    })
}

fn some_count_or_off<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u32>, D::Error> {
    count_or_off(d).map(Some)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn each_problem_is_found_alone() {
        for (section, stream, expected) in [
            ("alarms_per_week = -1", "", "anomaly.alarms_per_week: -1 is not from 0"),
            ("alarms_per_week = nan", "", "anomaly.alarms_per_week: NaN is not from 0"),
            ("min_deviation = -0.1", "", "anomaly.min_deviation: -0.1 is not 0 or more"),
            ("silence_after = 1", "", "anomaly.silence_after: 1 is not from 2"),
            ("", "min_deviation = -1", "stream[0].anomaly.min_deviation: -1 is not 0 or more"),
        ] {
            let text = format!(
                "[anomaly]\n{section}\n[[stream]]\nname = 'a'\ntopic = 'a'\nanomaly = {{ {stream} }}\n"
            );
            let problems = Config::parse(&text).unwrap().problems();
            assert_eq!(problems.len(), 1, "{text}: {problems:?}");
            assert!(problems.concat().starts_with(expected), "{text}: {problems:?}");
        }
    }

    #[test]
    fn a_stream_overrides_the_section_key_by_key() {
        let config = Config::parse(
            "[anomaly]\ndirection = 'up'\nsilence_after = 8\nwarm_up = 7\n\
             [[stream]]\nname = 'a'\ntopic = 'a'\n\
             anomaly = { min_deviation = 0.5, silence_after = 'off', direction = 'down' }\n\
             [[stream]]\nname = 'b'\ntopic = 'b'\n",
        )
        .unwrap();
        assert!(config.problems().is_empty(), "{:?}", config.problems());
        let all: Vec<Anomaly> = config.stream.iter().map(|s| s.anomaly.over(&config.anomaly)).collect();
        let section =
            Anomaly { direction: Direction::Up, silence_after: 8, warm_up: 7, ..Anomaly::default() };
        assert_eq!(all[1], section);
        assert_eq!(
            all[0],
            Anomaly { direction: Direction::Down, silence_after: 0, min_deviation: 0.5, ..section }
        );
    }
}
