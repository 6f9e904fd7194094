//! `vidente demo`: everything embedded, from nothing to forecasts.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::Value;
use vidente_tests::{Process, WAIT, get, vidente_binary, wait_until};

#[test]
fn the_demo_shows_forecasts_and_ends_cleanly() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut command = Command::new(vidente_binary()?);
    command.args(["demo", "--listen", "127.0.0.1:0", "--dir"]).arg(dir.path().join("demo"));
    let begin = Instant::now();
    let mut demo = Process::spawn("demo", &command, None, &dir.path().join("log"))?;
    let mut url = String::new();
    wait_until("the demo's address", WAIT, || {
        demo.ensure_running()?;
        let log = demo.log();
        let found = log.split_whitespace().find(|word| word.starts_with("http://127.0.0.1:"));
        url = found.unwrap_or_default().trim_end_matches('/').to_owned();
        Ok(found.is_some())
    })?;
    assert!(demo.log().contains("mosquitto_sub"), "{}", demo.log());
    wait_until("a forecast of each of a dozen series", WAIT, || {
        demo.ensure_running()?;
        let (status, body) = get(&format!("{url}/api/v1/series"))?;
        let listed: Value = serde_json::from_str(&body).with_context(|| format!("{status}: {body}"))?;
        let listed = listed.as_array().context("no array")?;
        let forecast = |s: &Value| s["forecast"]["steps"].as_array().is_some_and(|steps| !steps.is_empty());
        Ok(listed.len() >= 12 && listed.iter().all(forecast))
    })?;
    println!("first forecasts of all series after {:?}", begin.elapsed());
    let (status, page) = get(&format!("{url}/"))?;
    assert_eq!(status, 200);
    assert!(page.to_lowercase().contains("<html"), "{page}");
    assert_eq!(demo.end(Signal::INT)?.code(), Some(0));
    Ok(())
}
