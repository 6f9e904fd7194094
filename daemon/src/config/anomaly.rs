//! `[anomaly]`: what is worth an alarm, and what of it differs on a stream.

use forecaster::{AnomalySettings, Direction};
use serde::{Deserialize, Deserializer};

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
    let text = String::deserialize(d)?;
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
    use crate::config::Config;

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
