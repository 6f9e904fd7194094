//! The `vidente` binary.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::net::get;
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
}

impl Daemon {
    /// Starts `vidente run` with a configuration and waits until it is ready.
    ///
    /// # Errors
    /// If it ends or does not get ready.
    pub fn start(config: &Path, http_port: u16, log: &Path) -> Result<Daemon> {
        let mut command = Command::new(vidente_binary()?);
        command.arg("run").arg("--config").arg(config);
        let mut daemon = Daemon {
            process: Process::spawn("vidente", &command, None, log)?,
            base: format!("http://127.0.0.1:{http_port}"),
        };
        wait_until("vidente to be ready", WAIT, || {
            daemon.process.ensure_running()?;
            Ok(get(&format!("{}/ready", daemon.base))?.0 == 200)
        })?;
        Ok(daemon)
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// GETs a path.
    ///
    /// # Errors
    /// If no answer comes.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        get(&format!("{}{path}", self.base))
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

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }
}
