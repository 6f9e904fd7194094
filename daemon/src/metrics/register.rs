//! Metrics made and registered in one go.

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, Result,
};

/// A registry to be filled.
pub(super) struct Register(pub(super) Registry);

impl Register {
    fn keep<C: Collector + Clone + 'static>(&self, metric: C) -> Result<C> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
        self.keep(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    pub(super) fn int_gauges(&self, name: &str, help: &str, label: &str) -> Result<IntGaugeVec> {
        self.keep(IntGaugeVec::new(Opts::new(name, help), &[label])?)
    }

    pub(super) fn gauges(&self, name: &str, help: &str, label: &str) -> Result<GaugeVec> {
        self.keep(GaugeVec::new(Opts::new(name, help), &[label])?)
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> Result<IntCounter> {
        self.keep(IntCounter::new(name, help)?)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> Result<Gauge> {
        self.keep(Gauge::new(name, help)?)
    }

    pub(super) fn int_gauge(&self, name: &str, help: &str) -> Result<IntGauge> {
        self.keep(IntGauge::new(name, help)?)
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram> {
        self.keep(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?)
    }

    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        label: &str,
        buckets: &[f64],
    ) -> Result<HistogramVec> {
        self.keep(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), &[label])?)
    }
}
