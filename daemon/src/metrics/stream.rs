//! What is counted for each stream.

use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::Rejection;
use super::register::Register;
use crate::training::Outcome;

/// The metrics of one stream, resolved once so that the hot path only adds.
#[derive(Debug, Clone)]
pub struct StreamMetrics {
    pub(super) name: Box<str>,
    /// `vidente_readings_received_total`.
    pub received: IntCounter,
    /// `vidente_readings_late_total`.
    pub late: IntCounter,
    /// `vidente_forecasts_published_total`.
    pub published: IntCounter,
    /// `vidente_forecasts_dropped_total`.
    pub dropped: IntCounter,
    /// `vidente_series`.
    pub series: IntGauge,
    /// `vidente_anomalies_total`.
    pub anomalies: IntCounter,
    /// `vidente_forecast_coverage_ratio`.
    pub coverage: Gauge,
    /// `vidente_forecast_relative_error`.
    pub relative_error: Gauge,
    /// `vidente_model_version`.
    pub model_version: IntGauge,
    /// `vidente_model_probation`.
    pub probation: IntGauge,
    /// `vidente_model_rollbacks_total`.
    pub rollbacks: IntCounter,
    /// `vidente_drifts_total`.
    pub drifts: IntCounter,
    /// `vidente_training_last_success_timestamp_seconds`.
    pub last_success: Gauge,
    rejected: [IntCounter; Rejection::ALL.len()],
}

impl StreamMetrics {
    /// `vidente_readings_rejected_total` for a reason.
    #[must_use]
    pub fn rejected(&self, reason: Rejection) -> &IntCounter {
        &self.rejected[reason as usize]
    }
}

/// The metrics that each stream has of its own.
#[derive(Debug)]
pub(super) struct Families {
    received: IntCounterVec,
    rejected: IntCounterVec,
    late: IntCounterVec,
    published: IntCounterVec,
    dropped: IntCounterVec,
    series: IntGaugeVec,
    anomalies: IntCounterVec,
    coverage: GaugeVec,
    relative_error: GaugeVec,
    model_version: IntGaugeVec,
    probation: IntGaugeVec,
    rollbacks: IntCounterVec,
    drifts: IntCounterVec,
    training_runs: IntCounterVec,
    last_success: GaugeVec,
}

impl Families {
    pub(super) fn new(register: &Register, training_runs: IntCounterVec) -> prometheus::Result<Families> {
        let counters = |name, help| register.counters(name, help, &["stream"]);
        let int_gauges = |name, help| register.int_gauges(name, help, "stream");
        let gauges = |name, help| register.gauges(name, help, "stream");
        Ok(Families {
            received: counters("vidente_readings_received_total", "Readings taken from the broker.")?,
            rejected: register.counters(
                "vidente_readings_rejected_total",
                "Readings that were not stored, by reason.",
                &["stream", "reason"],
            )?,
            late: counters(
                "vidente_readings_late_total",
                "Readings older than the newest of their series: stored, not fed to the model.",
            )?,
            published: counters("vidente_forecasts_published_total", "Forecasts handed to the MQTT client.")?,
            dropped: counters(
                "vidente_forecasts_dropped_total",
                "Forecasts dropped, oldest first, because the broker did not take them.",
            )?,
            series: int_gauges("vidente_series", "Series known.")?,
            anomalies: counters("vidente_anomalies_total", "Anomalies begun.")?,
            coverage: gauges(
                "vidente_forecast_coverage_ratio",
                "Recent share of readings inside the 90 % interval of the forecast one step before.",
            )?,
            relative_error: gauges(
                "vidente_forecast_relative_error",
                "Recent mean absolute error one step ahead over that of the naive forecast.",
            )?,
            model_version: int_gauges("vidente_model_version", "Version of the model in use; 0 is naive.")?,
            probation: int_gauges("vidente_model_probation", "1 while the model in use is on probation.")?,
            rollbacks: counters(
                "vidente_model_rollbacks_total",
                "Champions that did not pass their probation.",
            )?,
            drifts: counters("vidente_drifts_total", "Training runs begun because forecasts became worse.")?,
            training_runs,
            last_success: gauges(
                "vidente_training_last_success_timestamp_seconds",
                "When the latest training run began that made a model which could be judged.",
            )?,
        })
    }

    pub(super) fn of(&self, s: &str) -> StreamMetrics {
        let unknown = |gauge: Gauge| {
            // 0 would read as a perfect error, an interval that never holds, or a run of 1970.
            gauge.set(f64::NAN);
            gauge
        };
        // An alert on what increases sees nothing where the first event is also the first sample.
        for outcome in Outcome::STATUSES {
            self.training_runs.with_label_values(&[s, outcome]);
        }
        StreamMetrics {
            name: s.into(),
            received: self.received.with_label_values(&[s]),
            late: self.late.with_label_values(&[s]),
            published: self.published.with_label_values(&[s]),
            dropped: self.dropped.with_label_values(&[s]),
            series: self.series.with_label_values(&[s]),
            anomalies: self.anomalies.with_label_values(&[s]),
            coverage: unknown(self.coverage.with_label_values(&[s])),
            relative_error: unknown(self.relative_error.with_label_values(&[s])),
            model_version: self.model_version.with_label_values(&[s]),
            probation: self.probation.with_label_values(&[s]),
            rollbacks: self.rollbacks.with_label_values(&[s]),
            drifts: self.drifts.with_label_values(&[s]),
            last_success: unknown(self.last_success.with_label_values(&[s])),
            rejected: Rejection::ALL.map(|r| self.rejected.with_label_values(&[s, r.label()])),
        }
    }
}
