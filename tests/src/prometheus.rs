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

impl Prometheus {
    /// Starts one with a configuration text and waits until it is ready.
    ///
    /// # Errors
    /// If Prometheus is missing, refuses the configuration or does not come up.
    pub fn start(config: &str) -> Result<Prometheus> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("prometheus.yml");
        std::fs::write(&file, config)?;
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
        let (status, body) = get(&format!("http://127.0.0.1:{}/api/v1/query?query={query}", self.port))?;
        ensure!(status == 200, "{promql}: {status} {body}");
        let answer: Value = serde_json::from_str(&body)?;
        let result = answer["data"]["result"].as_array().with_context(|| body.clone())?;
        result
            .iter()
            .map(|series| {
                let value = series["value"][1].as_str().with_context(|| body.clone())?;
                Ok((series["metric"].clone(), value.parse()?))
            })
            .collect()
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
