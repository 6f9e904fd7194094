//! The configuration in the forecaster's terms.

use forecaster::train::TrainConfig;
use forecaster::{AnomalySettings, StreamSpec};

use crate::config::{self, Config};

/// Configuration of a network's training.
#[must_use]
pub fn train_config(config: &Config) -> TrainConfig {
    TrainConfig {
        cell: config.model.kind(),
        hidden: config.model.hidden,
        layers: config.model.layers,
        seed: config.training.seed,
        ..TrainConfig::default()
    }
}

/// The interval of a stream in microseconds, if it is configured.
#[must_use]
pub fn interval_of(stream: &config::Stream) -> Option<i64> {
    stream.interval.map(micros)
}

/// What the engine needs to know of a stream.
#[must_use]
pub fn spec_of(config: &Config, stream: &config::Stream) -> StreamSpec {
    let anomaly = stream.anomaly.over(&config.anomaly);
    StreamSpec {
        interval: interval_of(stream),
        horizon: stream.horizon,
        anomaly: AnomalySettings {
            alarms_per_week: anomaly.alarms_per_week,
            direction: anomaly.direction,
            min_deviation: anomaly.min_deviation,
            warm_up: anomaly.warm_up,
        },
        silence_after: anomaly.silence_after,
    }
}

/// A duration in microseconds.
#[must_use]
pub fn micros(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
