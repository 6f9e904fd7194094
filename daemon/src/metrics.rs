//! The Prometheus metrics. Names are the users' contract; no label is ever per series.

mod register;
mod rejection;
mod stream;

use std::sync::Arc;

use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry, TextEncoder,
};

use crate::store::Trouble;
use register::Register;
use stream::Families;

pub use rejection::Rejection;
pub use stream::StreamMetrics;

/// Upper ends of the latency's buckets, in seconds.
const LATENCIES: [f64; 15] =
    [25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 1.0, 5.0];
/// The same of training runs.
const DURATIONS: [f64; 7] = [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0];

/// All metrics and the registry they are in.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    families: Families,
    /// By position in the configuration; a reload adds some.
    streams: boxcar::Vec<StreamMetrics>,
    /// `vidente_readings_stored_total`.
    pub stored: IntCounter,
    /// `vidente_forecast_latency_seconds`.
    pub latency: Histogram,
    /// `vidente_training_runs_total{stream,outcome}`.
    pub training_runs: IntCounterVec,
    /// `vidente_training_duration_seconds{stream}`.
    pub training_duration: HistogramVec,
    /// `vidente_training_interval_seconds`.
    pub training_interval: Gauge,
    /// `vidente_store_up`.
    pub store_up: IntGauge,
    /// `vidente_mqtt_connected`.
    pub mqtt_connected: IntGauge,
    /// `vidente_store_queue_readings`.
    pub store_queue: IntGauge,
    /// `vidente_requests_total{request,outcome}`.
    pub requests: IntCounterVec,
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
        let register = Register(Registry::new());
        // Memory, processor time, threads and files: `process_…`.
        register.0.register(Box::new(ProcessCollector::for_self()))?;
        register
            .int_gauges("vidente_build_info", "1; the version is in its label.", "version")?
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        let training_runs = register.counters(
            "vidente_training_runs_total",
            "Training runs, by outcome.",
            &["stream", "outcome"],
        )?;
        let families = Families::new(&register, training_runs.clone())?;
        let all = boxcar::Vec::new();
        for name in streams {
            all.push(families.of(name));
        }
        let store_trouble = register.int_gauges(
            "vidente_store_trouble",
            "1 for what is the matter with the store while it is away or slow.",
            "kind",
        )?;
        Ok(Arc::new(Metrics {
            families,
            streams: all,
            stored: register.counter("vidente_readings_stored_total", "Readings committed to the store.")?,
            latency: register.histogram(
                "vidente_forecast_latency_seconds",
                "From a packet's arrival to its forecast handed to the MQTT client.",
                &LATENCIES,
            )?,
            training_runs,
            training_duration: register.histograms(
                "vidente_training_duration_seconds",
                "Duration of training runs.",
                "stream",
                &DURATIONS,
            )?,
            training_interval: register.gauge(
                "vidente_training_interval_seconds",
                "Time between scheduled training runs; 0: never.",
            )?,
            requests: register.counters(
                "vidente_requests_total",
                "Requests over MQTT, by outcome.",
                &["request", "outcome"],
            )?,
            store_up: register.int_gauge("vidente_store_up", "1 while the store takes writes.")?,
            mqtt_connected: register
                .int_gauge("vidente_mqtt_connected", "1 while the incoming connection stands.")?,
            store_queue: register.int_gauge(
                "vidente_store_queue_readings",
                "Readings that wait in memory, neither committed nor in the spool.",
            )?,
            spool_bytes: register.int_gauge("vidente_spool_bytes", "Bytes of the spool on disk.")?,
            spool_readings: register
                .int_gauge("vidente_spool_readings", "Readings in the spool that are not in the store.")?,
            spool_recovered: register.counter(
                "vidente_spool_recovered_readings_total",
                "Readings that the process before received, stored from the spool at the start.",
            )?,
            spool_max_bytes: register
                .int_gauge("vidente_spool_max_bytes", "Bytes that the spool may take; 0: there is none.")?,
            spool_writable: register
                .int_gauge("vidente_spool_writable", "1 unless the spool is full, broken or not there.")?,
            store_trouble: Trouble::ALL.map(|t| store_trouble.with_label_values(&[t.label()])),
            registry: register.0,
        }))
    }

    /// Adds the metrics of a stream, whose position in the configuration is the next.
    pub fn add_stream(&self, name: &str) {
        self.streams.push(self.families.of(name));
    }

    /// Position of a stream in the configuration.
    #[must_use]
    pub fn position(&self, stream: &str) -> Option<usize> {
        self.streams().position(|s| *s.name == *stream)
    }

    /// Metrics of all streams, by position in the configuration.
    pub fn streams(&self) -> impl Iterator<Item = &StreamMetrics> {
        self.streams.iter().map(|(_, stream)| stream)
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
