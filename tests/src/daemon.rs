//! The `vidente` binary.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::net::{get, post};
use crate::process::{Process, WAIT, wait_until};

/// The binary under test: `VIDENTE_BIN`, or the one beside the test executable's folder.
///
/// # Errors
/// If it has not been built.
pub fn vidente_binary() -> Result<PathBuf> {
    let path = match std::env::var_os("VIDENTE_BIN") {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe()?
            .parent()
            .and_then(Path::parent)
            .context("the test executable has no folder")?
            .join("vidente"),
    };
    ensure!(
        path.is_file(),
        "{} is missing; run tests/run, or cargo build --release --workspace",
        path.display()
    );
    Ok(path)
}

/// Runs a command of the binary to its end.
///
/// # Errors
/// If it cannot be started.
pub fn vidente(args: &[&str]) -> Result<Output> {
    Ok(Command::new(vidente_binary()?).args(args).output()?)
}

/// A scrape of `/metrics`: value by name with labels, as Prometheus writes them.
#[derive(Debug, Clone, Default)]
pub struct Metrics(pub BTreeMap<String, f64>);

impl Metrics {
    fn parse(text: &str) -> Metrics {
        let pairs = text.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.rsplit_once(' '));
        Metrics(pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
    }

    /// The sum over all series of a metric whose labels hold each of `labels`, written `key="value"`.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let matches = |key: &str| {
            let (metric, rest) = key.split_once('{').unwrap_or((key, ""));
            metric == name && labels.iter().all(|l| rest.contains(l))
        };
        self.0.iter().filter(|(key, _)| matches(key)).map(|(_, value)| value).sum()
    }

    /// Readings received.
    #[must_use]
    pub fn received(&self) -> f64 {
        self.sum("vidente_readings_received_total", &[])
    }

    /// Readings stored.
    #[must_use]
    pub fn stored(&self) -> f64 {
        self.sum("vidente_readings_stored_total", &[])
    }

    /// Readings rejected for a reason, or for any.
    #[must_use]
    pub fn rejected(&self, reason: Option<&str>) -> f64 {
        let label = reason.map(|r| format!("reason=\"{r}\""));
        let labels: Vec<&str> = label.as_deref().into_iter().collect();
        self.sum("vidente_readings_rejected_total", &labels)
    }

    /// Readings rejected, by reason.
    #[must_use]
    pub fn rejections(&self) -> BTreeMap<String, f64> {
        let mut reasons = BTreeMap::new();
        for (key, count) in &self.0 {
            let Some(labels) = key.strip_prefix("vidente_readings_rejected_total{") else { continue };
            let reason = labels.split("reason=\"").nth(1).and_then(|rest| rest.split('"').next());
            *reasons.entry(reason.unwrap_or_default().to_owned()).or_default() += count;
        }
        reasons
    }

    /// What was counted since another scrape of the same process.
    #[must_use]
    pub fn since(&self, before: &Metrics) -> Metrics {
        let counted =
            |(key, value): (&String, &f64)| (key.clone(), value - before.0.get(key).unwrap_or(&0.0));
        Metrics(self.0.iter().map(counted).collect())
    }

    /// Adds counts.
    pub fn add(&mut self, more: &Metrics) {
        for (key, count) in &more.0 {
            *self.0.entry(key.clone()).or_default() += count;
        }
    }

    /// The smallest bucket bound of a histogram that holds at least a share of its observations; none
    /// if only the last, unbounded one does.
    #[must_use]
    pub fn quantile(&self, histogram: &str, share: f64) -> Option<f64> {
        let enough = share * self.sum(&format!("{histogram}_count"), &[]);
        let prefix = format!("{histogram}_bucket{{le=\"");
        let buckets = self.0.iter().filter_map(|(key, count)| {
            let bound: f64 = key.strip_prefix(&prefix)?.split('"').next()?.parse().ok()?;
            (*count >= enough && bound.is_finite()).then_some(bound)
        });
        buckets.min_by(f64::total_cmp)
    }

    /// The same, between the bounds of the bucket as if its observations were spread evenly in it.
    #[must_use]
    pub fn interpolated(&self, histogram: &str, share: f64) -> Option<f64> {
        let enough = share * self.sum(&format!("{histogram}_count"), &[]);
        let prefix = format!("{histogram}_bucket{{le=\"");
        let mut buckets: Vec<(f64, f64)> = self
            .0
            .iter()
            .filter_map(|(key, count)| {
                Some((key.strip_prefix(&prefix)?.split('"').next()?.parse().ok()?, *count))
            })
            .filter(|(bound, _): &(f64, f64)| bound.is_finite())
            .collect();
        buckets.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let at = buckets.iter().position(|(_, count)| *count >= enough)?;
        let (low, before) =
            at.checked_sub(1).and_then(|below| buckets.get(below)).copied().unwrap_or_default();
        let (high, count) = *buckets.get(at)?;
        Some(low + (high - low) * (enough - before) / (count - before).max(1.0))
    }

    /// Forecasts published.
    #[must_use]
    pub fn published(&self) -> f64 {
        self.sum("vidente_forecasts_published_total", &[])
    }
}

/// A running `vidente run`.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    base: String,
    /// Length of its log before this run.
    begin: usize,
}

impl Daemon {
    /// Starts `vidente run` with a configuration and waits until it is ready.
    ///
    /// # Errors
    /// If it ends or does not get ready.
    pub fn start(config: &Path, http_port: u16, log: &Path) -> Result<Daemon> {
        let mut daemon = Daemon::launch(config, http_port, log, &[])?;
        daemon.wait_ready()?;
        Ok(daemon)
    }

    /// Starts `vidente run` with a configuration and variables in its environment, and waits for nothing.
    ///
    /// # Errors
    /// If it does not start.
    pub fn launch(config: &Path, http_port: u16, log: &Path, environment: &[(&str, &str)]) -> Result<Daemon> {
        let mut command = Command::new(vidente_binary()?);
        command.arg("run").arg("--config").arg(config).envs(environment.iter().copied());
        let begin = std::fs::metadata(log).map_or(0, |m| m.len() as usize);
        Ok(Daemon {
            process: Process::spawn("vidente", &command, None, log)?,
            base: format!("http://127.0.0.1:{http_port}"),
            begin,
        })
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// If it ends or does not get ready.
    pub fn wait_ready(&mut self) -> Result<()> {
        wait_until("vidente to be ready", WAIT, || {
            self.process.ensure_running()?;
            Ok(self.get("/ready")?.0 == 200)
        })
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        self.process.ensure_running().is_ok()
    }

    /// Waits until a line of its log holds all of some texts.
    ///
    /// # Errors
    /// If none does in time, or it ends.
    pub fn wait_log(&mut self, texts: &[&str]) -> Result<()> {
        wait_until(&format!("{texts:?} in the log"), WAIT, || {
            self.process.ensure_running()?;
            Ok(self.log().lines().any(|line| texts.iter().all(|text| line.contains(text))))
        })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// SIGHUP: asks for the configuration to be read again.
    ///
    /// # Errors
    /// If the daemon is gone.
    pub fn ask_to_reload(&self) -> Result<()> {
        self.process.signal(Signal::HUP)
    }

    /// GETs a path.
    ///
    /// # Errors
    /// If no answer comes.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        get(&format!("{}{path}", self.base))
    }

    /// POSTs to a path, with a bearer token if one is given; the status and the body.
    ///
    /// # Errors
    /// If no answer comes.
    pub fn post(&self, path: &str, token: Option<&str>) -> Result<(u16, String)> {
        post(&format!("{}{path}", self.base), token)
    }

    /// SIGUSR1: asks for a training run of every stream.
    ///
    /// # Errors
    /// If the daemon is gone.
    pub fn ask_to_train(&self) -> Result<()> {
        self.process.signal(Signal::USR1)
    }

    /// GETs a path that answers JSON with status 200.
    ///
    /// # Errors
    /// If it does not.
    pub fn json(&self, path: &str) -> Result<Value> {
        let (status, body) = self.get(path)?;
        ensure!(status == 200, "{path}: {status} {body}");
        serde_json::from_str(&body).with_context(|| format!("{path}: {body}"))
    }

    /// Scrapes `/metrics`.
    ///
    /// # Errors
    /// If no answer comes.
    pub fn metrics(&self) -> Result<Metrics> {
        let (status, body) = self.get("/metrics")?;
        ensure!(status == 200, "/metrics: {status}");
        Ok(Metrics::parse(&body))
    }

    /// Waits until the metrics fulfil a condition, and returns them.
    ///
    /// # Errors
    /// With the last scrape if they do not in time, or if the daemon ends.
    pub fn wait_metrics(
        &mut self,
        what: &str,
        mut condition: impl FnMut(&Metrics) -> bool,
    ) -> Result<Metrics> {
        let mut last = Metrics::default();
        wait_until(what, WAIT, || {
            self.process.ensure_running()?;
            last = self.metrics()?;
            Ok(condition(&last))
        })
        .with_context(|| format!("last scrape: {:#?}", last.0))?;
        Ok(last)
    }

    /// Waits until so many readings of this run are stored, and returns the metrics.
    ///
    /// # Errors
    /// If they are not in time.
    pub fn wait_stored(&mut self, count: usize) -> Result<Metrics> {
        self.wait_metrics(&format!("{count} stored readings"), |m| m.stored() >= count as f64)
    }

    /// SIGTERM; the daemon must end with status 0.
    ///
    /// # Errors
    /// If it does not.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.process.end(Signal::TERM)?;
        ensure!(status.code() == Some(0), "vidente ended with {status} on SIGTERM");
        Ok(())
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// If it had ended before.
    pub fn kill(&mut self) -> Result<()> {
        self.process.ensure_running()?;
        self.process.end(Signal::KILL).map(drop)
    }

    /// Waits for its end by itself.
    ///
    /// # Errors
    /// If it goes on.
    pub fn wait(&mut self, deadline: Duration) -> Result<std::process::ExitStatus> {
        self.process.wait(deadline)
    }

    /// What it logged, and what runs before it logged into the same file.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Whether it has got as far as to say that it is ready.
    #[must_use]
    pub fn was_ready(&self) -> bool {
        self.log().get(self.begin..).is_some_and(|log| log.contains(": ready"))
    }
}
