//! Prometheus.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tempfile::TempDir;

use crate::net::{free_port, get};
use crate::process::{Process, WAIT, find_program, wait_until};

/// A Prometheus server.
#[derive(Debug)]
pub struct Prometheus {
    port: u16,
    _process: Process,
    _dir: TempDir,
}

/// What is shipped.
const CONFIG: &str = include_str!("../../deploy/prometheus/prometheus.yml");
const RULES: &str = include_str!("../../deploy/prometheus/vidente.rules.yml");

impl Prometheus {
    /// Starts one with a configuration text and waits until it is ready.
    ///
    /// # Errors
    /// If Prometheus is missing, refuses the configuration or does not come up.
    pub fn start(config: &str) -> Result<Prometheus> {
        Prometheus::with_rules(config, "")
    }

    /// Starts one for the daemon whose HTTP server is on a port, with the configuration and rules that are
    /// shipped, but every second and with alerts that fire at once.
    ///
    /// # Errors
    /// If Prometheus is missing, refuses the configuration or does not come up.
    pub fn shipped(http: u16) -> Result<Prometheus> {
        ensure!(CONFIG.contains("127.0.0.1:9464") && CONFIG.contains(" 15s"), "the shipped configuration");
        let config = CONFIG.replace(":9464", &format!(":{http}")).replace(" 15s", " 1s");
        let hasty = RULES.lines().filter(|line| !line.trim_start().starts_with("for: "));
        Prometheus::with_rules(&config, &hasty.collect::<Vec<_>>().join("\n"))
    }

    fn with_rules(config: &str, rules: &str) -> Result<Prometheus> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("prometheus.yml");
        std::fs::write(&file, config)?;
        std::fs::write(dir.path().join("vidente.rules.yml"), rules)?;
        let port = free_port()?;
        let mut command = Command::new(find_program(&["prometheus"], "prometheus")?);
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let mut process = Process::spawn("prometheus", &command, None, &dir.path().join("prometheus.log"))?;
        wait_until("Prometheus to be ready", WAIT, || {
            process.ensure_running()?;
            Ok(get(&format!("http://127.0.0.1:{port}/-/ready"))?.0 == 200)
        })?;
        Ok(Prometheus { port, _process: process, _dir: dir })
    }

    /// The vector that an instant query answers: labels and value of each series.
    ///
    /// # Errors
    /// If the query is refused.
    pub fn query(&self, promql: &str) -> Result<Vec<(Value, f64)>> {
        let query = utf8_percent_encode(promql, NON_ALPHANUMERIC);
        let data = self.api(&format!("query?query={query}"))?;
        let result = data["result"].as_array().context("no result")?;
        result
            .iter()
            .map(|series| {
                let value = series["value"][1].as_str().context("no value")?;
                Ok((series["metric"].clone(), value.parse()?))
            })
            .collect()
    }

    /// The alerts that fire, with their labels and annotations.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn firing(&self) -> Result<Vec<Value>> {
        let data = self.api("alerts")?;
        let alerts = data["alerts"].as_array().context("no alerts")?;
        Ok(alerts.iter().filter(|alert| alert["state"] == "firing").cloned().collect())
    }

    fn api(&self, path: &str) -> Result<Value> {
        let (status, body) = get(&format!("http://127.0.0.1:{}/api/v1/{path}", self.port))?;
        ensure!(status == 200, "{path}: {status} {body}");
        let mut answer: Value = serde_json::from_str(&body)?;
        Ok(answer["data"].take())
    }
}

/// Runs `promtool` with arguments and standard input.
///
/// # Errors
/// With what it wrote, unless its status is 0.
pub fn promtool(args: &[&str], input: &str, dir: &Path) -> Result<String> {
    let file = dir.join("promtool.in");
    std::fs::write(&file, input)?;
    let out = Command::new(find_program(&["promtool"], "prometheus")?)
        .args(args)
        .stdin(std::fs::File::open(&file)?)
        .output()?;
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    ensure!(out.status.success(), "promtool {args:?}: {}\n{text}", out.status);
    Ok(text)
}
