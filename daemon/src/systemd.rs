//! What systemd is told over `NOTIFY_SOCKET`: when the daemon is ready, that the engine makes progress, how
//! it goes in one line, that it reloads, and that it stops. Without systemd nobody is told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::pulse::Pulse;
use crate::ready::Ready;
use crate::supervise::until_stopped;

/// Time between two looks at whether the daemon is ready.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Time between two looks at how it goes, where the watchdog does not ask for more.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// What a restore under way asks for, each time: longer than between two status lines.
const MORE_TIME: Duration = Duration::from_secs(30);

/// Tells systemd how the daemon is. Clones share what they know.
#[derive(Debug, Clone)]
pub(crate) struct Systemd {
    ready: Arc<Ready>,
    metrics: Arc<Metrics>,
    pulse: Arc<Pulse>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Whether READY=1 was sent.
    started: AtomicBool,
    /// How the last reload went.
    reload: Mutex<Option<String>>,
}

impl Systemd {
    pub(crate) fn new(ready: Arc<Ready>, metrics: Arc<Metrics>, pulse: Arc<Pulse>) -> Systemd {
        Systemd { ready, metrics, pulse, shared: Arc::default() }
    }

    /// Reports until the daemon stops.
    ///
    /// # Errors
    /// Never: the daemon goes on without anybody to watch over it.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        until_stopped(&mut stop, self.report(sd_notify::watchdog_enabled())).await;
        Ok(())
    }

    async fn report(&self, limit: Option<Duration>) {
        let mut status = Status::new(&self.metrics);
        let mut told = Instant::now();
        while !self.ready.missing().is_empty() {
            self.tell_status(&mut status);
            if self.ready.restoring() && told.elapsed() >= STATUS_EVERY {
                told = Instant::now();
                let more = u32::try_from(MORE_TIME.as_micros()).unwrap_or(u32::MAX);
                tell(&[NotifyState::ExtendTimeoutUsec(more)]);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        tracing::info!("ready");
        self.shared.started.store(true, Ordering::Release);
        tell(&[NotifyState::Ready]);
        self.tell_status(&mut status);
        let mut watchdog = Watchdog::default();
        let mut told = Instant::now();
        loop {
            if limit.is_some() && watchdog.is_alive(self.pulse.beats()) {
                tell(&[NotifyState::Watchdog]);
            }
            if told.elapsed() >= STATUS_EVERY {
                told = Instant::now();
                self.tell_status(&mut status);
            }
            // Twice the engine may be found to have done nothing since the last look before it is too late.
            tokio::time::sleep(limit.map_or(STATUS_EVERY, |limit| (limit / 3).min(STATUS_EVERY))).await;
        }
    }

    fn tell_status(&self, status: &mut Status) {
        let reload = self.shared.reload.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(line) = status.line(&self.ready.missing(), &self.metrics, reload.as_deref()) {
            tell(&[NotifyState::Status(&line)]);
        }
    }

    /// The configuration is about to be read again.
    pub(crate) fn reloading(&self) {
        if self.shared.started.load(Ordering::Acquire)
            && let Ok(now) = NotifyState::monotonic_usec_now()
        {
            tell(&[NotifyState::Reloading, now]);
        }
    }

    /// It was taken over, or refused. A daemon that is not yet ready does not become so by this.
    pub(crate) fn reloaded(&self, outcome: &str) {
        let outcome = one_line(outcome);
        let status = NotifyState::Status(&outcome);
        if self.shared.started.load(Ordering::Acquire) {
            tell(&[NotifyState::Ready, status]);
        } else {
            tell(&[status]);
        }
        *self.shared.reload.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    }
}

/// The daemon stops.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("systemd cannot be told: {error}");
    }
}

/// A status is one line.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

/// The engine is stuck if it has done nothing between two looks. A full inbox is no matter: the engine is at
/// work then.
#[derive(Debug, Default)]
struct Watchdog {
    beats: u64,
}

impl Watchdog {
    fn is_alive(&mut self, beats: u64) -> bool {
        std::mem::replace(&mut self.beats, beats) != beats
    }
}

/// How it goes, in one line.
struct Status {
    at: Instant,
    received: u64,
    forecasts: u64,
    seconds: f64,
    said: String,
}

impl Status {
    fn new(metrics: &Metrics) -> Status {
        let mut status =
            Status { at: Instant::now(), received: 0, forecasts: 0, seconds: 0.0, said: String::new() };
        status.count(metrics, Instant::now());
        status
    }

    /// The line, if it differs from the one before.
    fn line(&mut self, missing: &[&str], metrics: &Metrics, reload: Option<&str>) -> Option<String> {
        let mut parts = Vec::new();
        if missing.is_empty() || self.received > 0 {
            parts.push(self.count(metrics, Instant::now()));
        }
        if !missing.is_empty() {
            parts.push(format!("not ready, missing: {}", missing.join(", ")));
        }
        parts.extend(troubles(metrics));
        parts.extend(reload.map(str::to_owned));
        let line = parts.join("; ");
        (line != self.said).then(|| self.said.clone_from(&line)).map(|()| line)
    }

    /// What was done since this was last asked.
    fn count(&mut self, metrics: &Metrics, now: Instant) -> String {
        let received: u64 = metrics.streams().map(|s| s.received.get()).sum();
        let series: i64 = metrics.streams().map(|s| s.series.get()).sum();
        let (forecasts, seconds) = (metrics.latency.get_sample_count(), metrics.latency.get_sample_sum());
        let rate = (received - self.received) as f64 / (now - self.at).as_secs_f64().max(1e-3);
        let mut line = format!("{rate:.1} readings/s, {series} series");
        if forecasts > self.forecasts {
            let mean = (seconds - self.seconds) / (forecasts - self.forecasts) as f64;
            line += &format!(", forecasts after {:.2} ms", 1e3 * mean);
        }
        (self.at, self.received, self.forecasts, self.seconds) = (now, received, forecasts, seconds);
        line
    }
}

/// What waits, and what is the matter.
fn troubles(metrics: &Metrics) -> Vec<String> {
    let mut troubles = Vec::new();
    let waiting = metrics.store_queue.get() + metrics.spool_readings.get();
    if waiting > 0 {
        troubles.push(format!("{waiting} readings wait for the store"));
    }
    if let Some(trouble) = metrics.trouble() {
        troubles.push(format!("the store is in trouble: {}", trouble.label()));
    }
    if metrics.mqtt_connected.get() == 0 {
        troubles.push("no connection to the broker".to_owned());
    }
    troubles
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn only_an_engine_that_moves_is_alive() {
        let (pulse, mut watchdog) = (Pulse::default(), Watchdog::default());
        assert!(!watchdog.is_alive(pulse.beats()), "nothing has been done yet");
        pulse.beat();
        assert!(watchdog.is_alive(pulse.beats()));
        assert!(!watchdog.is_alive(pulse.beats()), "stuck since the last look");
        pulse.beat();
        pulse.beat();
        assert!(watchdog.is_alive(pulse.beats()));
    }

    #[test]
    fn a_status_says_rate_lag_and_trouble_and_is_told_when_it_changes() {
        let metrics = Metrics::new(["a", "b"]).unwrap();
        let mut status = Status::new(&metrics);
        let missing = ["restored", "subscribed"];
        let line = status.line(&missing, &metrics, None).unwrap();
        assert_eq!(line, "not ready, missing: restored, subscribed; no connection to the broker");
        assert_eq!(status.line(&missing, &metrics, None), None, "nothing has changed");

        metrics.mqtt_connected.set(1);
        metrics.stream(0).received.inc_by(30);
        metrics.stream(1).received.inc_by(20);
        metrics.stream(1).series.set(7);
        metrics.latency.observe(0.001);
        metrics.latency.observe(0.003);
        let at = status.at;
        assert_eq!(
            status.count(&metrics, at + Duration::from_secs(4)),
            "12.5 readings/s, 7 series, forecasts after 2.00 ms"
        );
        assert_eq!(status.count(&metrics, at + Duration::from_secs(5)), "0.0 readings/s, 7 series");

        metrics.store_queue.set(3);
        metrics.spool_readings.set(4);
        metrics.set_trouble(Some(crate::store::Trouble::Unreachable));
        let line = status.line(&[], &metrics, Some("reload refused: x")).unwrap();
        let end = "7 series; 7 readings wait for the store; the store is in trouble: unreachable; reload refused: x";
        assert!(line.ends_with(end), "{line}");
    }

    #[test]
    fn a_status_is_one_line() {
        assert_eq!(one_line("v.toml: a\nv.toml: b\n"), "v.toml: a; v.toml: b");
    }
}
