//! The Prometheus metrics. Names are the users' contract; no label is ever per series.

use std::sync::Arc;

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::store::Trouble;

/// Why a reading was not stored. The set is closed, so the label stays bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// The payload is not of the configured format.
    Unparseable,
    /// A configured field, or every numeric leaf, is absent.
    MissingField,
    /// The field holds something that is no number.
    NotANumber,
    /// NaN or infinite, or too large for a double.
    NotFinite,
    /// The time field is absent or cannot be read.
    BadTime,
    /// More than an hour in the future.
    Future,
    /// The series already has a reading of that time.
    Duplicate,
    /// `[limits] max_series` is reached.
    SeriesLimit,
    /// The series key would be longer than stores and brokers take.
    KeyTooLong,
    /// A retained copy without a time of its own.
    Retained,
    /// A Sparkplug metric that no birth has named, or whose type none has told.
    NoBirth,
    /// The store is away, the queue is full and the broker does not wait (QoS 0).
    StoreFull,
    /// The database takes writes, but not this row.
    StoreRefused,
}

impl Rejection {
    /// All of them, in the order of the enum.
    pub const ALL: [Rejection; 13] = [
        Rejection::Unparseable,
        Rejection::MissingField,
        Rejection::NotANumber,
        Rejection::NotFinite,
        Rejection::BadTime,
        Rejection::Future,
        Rejection::Duplicate,
        Rejection::SeriesLimit,
        Rejection::KeyTooLong,
        Rejection::Retained,
        Rejection::NoBirth,
        Rejection::StoreFull,
        Rejection::StoreRefused,
    ];

    /// The label's value.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Rejection::Unparseable => "unparseable",
            Rejection::MissingField => "missing_field",
            Rejection::NotANumber => "not_a_number",
            Rejection::NotFinite => "not_finite",
            Rejection::BadTime => "bad_time",
            Rejection::Future => "future",
            Rejection::Duplicate => "duplicate",
            Rejection::SeriesLimit => "series_limit",
            Rejection::KeyTooLong => "key_too_long",
            Rejection::Retained => "retained",
            Rejection::NoBirth => "no_birth",
            Rejection::StoreFull => "store_full",
            Rejection::StoreRefused => "store_refused",
        }
    }
}

/// The metrics of one stream, resolved once so that the hot path only adds.
#[derive(Debug, Clone)]
pub struct StreamMetrics {
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
    rejected: [IntCounter; Rejection::ALL.len()],
}

impl StreamMetrics {
    /// `vidente_readings_rejected_total` for a reason.
    #[must_use]
    pub fn rejected(&self, reason: Rejection) -> &IntCounter {
        &self.rejected[reason as usize]
    }
}

/// All metrics and the registry they are in.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    streams: Vec<StreamMetrics>,
    /// `vidente_readings_stored_total`.
    pub stored: IntCounter,
    /// `vidente_forecast_latency_seconds`.
    pub latency: Histogram,
    /// `vidente_training_runs_total{stream,outcome}`.
    pub training_runs: IntCounterVec,
    /// `vidente_training_duration_seconds{stream}`.
    pub training_duration: HistogramVec,
    /// `vidente_store_up`.
    pub store_up: IntGauge,
    /// `vidente_mqtt_connected`.
    pub mqtt_connected: IntGauge,
    /// `vidente_store_queue_readings`.
    pub store_queue: IntGauge,
    /// `vidente_spool_bytes`.
    pub spool_bytes: IntGauge,
    /// `vidente_spool_readings`.
    pub spool_readings: IntGauge,
    /// `vidente_spool_recovered_readings_total`.
    pub spool_recovered: IntCounter,
    /// `vidente_spool_max_bytes`.
    pub spool_max_bytes: IntGauge,
    /// `vidente_spool_writable`.
    pub spool_writable: IntGauge,
    store_trouble: [IntGauge; Trouble::ALL.len()],
}

impl Metrics {
    /// Registers every metric, with a set for each stream.
    ///
    /// # Errors
    /// If a name is refused by the registry, which a test rules out.
    pub fn new<'a>(streams: impl IntoIterator<Item = &'a str>) -> prometheus::Result<Arc<Metrics>> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            prometheus::Result::Ok(vec)
        };
        let labelled = |name: &str, help: &str, label: &str| {
            let vec = IntGaugeVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(vec.clone()))?;
            prometheus::Result::Ok(vec)
        };
        let int_gauges = |name: &str, help: &str| labelled(name, help, "stream");
        let gauges = |name: &str, help: &str| {
            let vec = GaugeVec::new(Opts::new(name, help), &["stream"])?;
            registry.register(Box::new(vec.clone()))?;
            prometheus::Result::Ok(vec)
        };
        let int_gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            prometheus::Result::Ok(gauge)
        };
        let received =
            counters("vidente_readings_received_total", "Readings taken from the broker.", &["stream"])?;
        let rejected = counters(
            "vidente_readings_rejected_total",
            "Readings that were not stored, by reason.",
            &["stream", "reason"],
        )?;
        let late = counters(
            "vidente_readings_late_total",
            "Readings older than the newest of their series: stored, not fed to the model.",
            &["stream"],
        )?;
        let published = counters(
            "vidente_forecasts_published_total",
            "Forecasts handed to the MQTT client.",
            &["stream"],
        )?;
        let dropped = counters(
            "vidente_forecasts_dropped_total",
            "Forecasts dropped, oldest first, because the broker did not take them.",
            &["stream"],
        )?;
        let series = int_gauges("vidente_series", "Series known.")?;
        let anomalies = counters("vidente_anomalies_total", "Anomalies begun.", &["stream"])?;
        let coverage = gauges(
            "vidente_forecast_coverage_ratio",
            "Recent share of readings inside the 90 % interval of the forecast one step before.",
        )?;
        let relative_error = gauges(
            "vidente_forecast_relative_error",
            "Recent mean absolute error one step ahead over that of the naive forecast.",
        )?;
        let model_version = int_gauges("vidente_model_version", "Version of the model in use; 0 is naive.")?;
        let probation = int_gauges("vidente_model_probation", "1 while the model in use is on probation.")?;
        let rollbacks = counters(
            "vidente_model_rollbacks_total",
            "Champions that did not pass their probation.",
            &["stream"],
        )?;
        let drifts = counters(
            "vidente_drifts_total",
            "Training runs begun because forecasts became worse.",
            &["stream"],
        )?;
        let stored = IntCounter::new("vidente_readings_stored_total", "Readings committed to the store.")?;
        registry.register(Box::new(stored.clone()))?;
        let latency = Histogram::with_opts(
            HistogramOpts::new(
                "vidente_forecast_latency_seconds",
                "From a packet's arrival to its forecast handed to the MQTT client.",
            )
            .buckets(vec![
                25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25,
                1.0, 5.0,
            ]),
        )?;
        registry.register(Box::new(latency.clone()))?;
        let training_runs =
            counters("vidente_training_runs_total", "Training runs, by outcome.", &["stream", "outcome"])?;
        let training_duration = HistogramVec::new(
            HistogramOpts::new("vidente_training_duration_seconds", "Duration of training runs.")
                .buckets(vec![1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0]),
            &["stream"],
        )?;
        registry.register(Box::new(training_duration.clone()))?;
        let store_up = int_gauge("vidente_store_up", "1 while the store takes writes.")?;
        let mqtt_connected = int_gauge("vidente_mqtt_connected", "1 while the incoming connection stands.")?;
        let store_queue = int_gauge(
            "vidente_store_queue_readings",
            "Readings that wait in memory, neither committed nor in the spool.",
        )?;
        let store_trouble = labelled(
            "vidente_store_trouble",
            "1 for what is the matter with the store while it is away or slow.",
            "kind",
        )?;
        let spool_bytes = int_gauge("vidente_spool_bytes", "Bytes of the spool on disk.")?;
        let spool_readings =
            int_gauge("vidente_spool_readings", "Readings in the spool that are not in the store.")?;
        let spool_recovered = IntCounter::new(
            "vidente_spool_recovered_readings_total",
            "Readings that the process before received, stored from the spool at the start.",
        )?;
        registry.register(Box::new(spool_recovered.clone()))?;
        let spool_max_bytes =
            int_gauge("vidente_spool_max_bytes", "Bytes that the spool may take; 0: there is none.")?;
        let spool_writable =
            int_gauge("vidente_spool_writable", "1 unless the spool is full, broken or not there.")?;
        let unknown = |gauge: Gauge| {
            // 0 would read as a perfect error, or an interval that never holds.
            gauge.set(f64::NAN);
            gauge
        };
        let streams = streams
            .into_iter()
            .map(|s| StreamMetrics {
                received: received.with_label_values(&[s]),
                late: late.with_label_values(&[s]),
                published: published.with_label_values(&[s]),
                dropped: dropped.with_label_values(&[s]),
                series: series.with_label_values(&[s]),
                anomalies: anomalies.with_label_values(&[s]),
                coverage: unknown(coverage.with_label_values(&[s])),
                relative_error: unknown(relative_error.with_label_values(&[s])),
                model_version: model_version.with_label_values(&[s]),
                probation: probation.with_label_values(&[s]),
                rollbacks: rollbacks.with_label_values(&[s]),
                drifts: drifts.with_label_values(&[s]),
                rejected: Rejection::ALL.map(|r| rejected.with_label_values(&[s, r.label()])),
            })
            .collect();
        Ok(Arc::new(Metrics {
            registry,
            streams,
            stored,
            latency,
            training_runs,
            training_duration,
            store_up,
            mqtt_connected,
            store_queue,
            spool_bytes,
            spool_readings,
            spool_recovered,
            spool_max_bytes,
            spool_writable,
            store_trouble: Trouble::ALL.map(|t| store_trouble.with_label_values(&[t.label()])),
        }))
    }

    /// Metrics of the stream at a position in the configuration.
    #[must_use]
    pub fn stream(&self, position: usize) -> &StreamMetrics {
        &self.streams[position]
    }

    /// Notes what is the matter with the store; none if nothing is.
    pub fn set_trouble(&self, trouble: Option<Trouble>) {
        for (kind, gauge) in Trouble::ALL.into_iter().zip(&self.store_trouble) {
            gauge.set(i64::from(trouble == Some(kind)));
        }
    }

    /// What is the matter with the store, if anything is.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        let mut kinds = Trouble::ALL.into_iter().zip(&self.store_trouble);
        kinds.find(|(_, gauge)| gauge.get() == 1).map(|(kind, _)| kind)
    }

    /// The text that `/metrics` answers.
    ///
    /// # Errors
    /// If encoding fails.
    pub fn encode(&self) -> prometheus::Result<Vec<u8>> {
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        Ok(out)
    }
}
