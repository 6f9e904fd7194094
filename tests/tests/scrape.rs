//! Prometheus scrapes the daemon with the configuration and the rules that are shipped.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use vidente_tests::{Feed, Prometheus, Rig, Settings, Store, WAIT, promtool, wait_until};

const RULES: &str = include_str!("../../deploy/prometheus/vidente.rules.yml");
const RULE_TESTS: &str = include_str!("../../deploy/prometheus/vidente.rules.test.yml");

/// The `alert:` lines of the shipped rules.
fn alerts() -> Vec<&'static str> {
    RULES.lines().filter_map(|line| line.trim_start().strip_prefix("- alert: ")).collect()
}

#[test]
fn each_alert_is_tested_firing_and_silent_and_says_what_to_do() -> Result<()> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/prometheus");
    let dir = tempfile::tempdir()?;
    promtool(&["check", "rules", &format!("{folder}/vidente.rules.yml")], "", dir.path())?;
    promtool(&["test", "rules", &format!("{folder}/vidente.rules.test.yml")], "", dir.path())?;
    promtool(&["check", "config", &format!("{folder}/prometheus.yml")], "", dir.path())?;

    let rules = RULES.split("- alert: ").skip(1);
    for rule in rules {
        let name = rule.lines().next().context("an alert without a name")?;
        for key in ["severity: ", "summary: ", "description: "] {
            assert_eq!(rule.matches(key).count(), 1, "{name}: {key}");
        }
        // Each is looked for at a time at which nothing fires, and at one at which something does.
        let looks: Vec<&str> = RULE_TESTS.split("- expr: ").filter(|look| look.contains(name)).collect();
        assert!(looks.iter().any(|look| look.contains("exp_samples")), "{name} never fires in the tests");
        assert!(looks.iter().any(|look| !look.contains("exp_samples")), "{name} always fires in the tests");
    }
    Ok(())
}

#[test]
fn prometheus_scrapes_the_daemon_and_its_alerts_fire_and_end() -> Result<()> {
    let mut rig = Rig::new(Store::Postgres)?;
    let settings = Settings::climate();
    let (config, http) = rig.configure(&settings)?;
    let mut daemon = vidente_tests::Daemon::start(&config, http, &rig.dir().join("log"))?;
    let prometheus = Prometheus::shipped(http)?;
    Feed::run(&rig.broker, 2, 1, 0..10)?;
    Feed::message(&rig.broker, &Feed::topic(0), b"no reading", false)?;
    daemon.wait_stored(20)?;
    wait_until("the readings to be seen by Prometheus", WAIT, || {
        let up = prometheus.query("up{job=\"vidente\"}")?;
        let stored = prometheus.query("vidente_readings_stored_total")?;
        Ok(up.iter().any(|(_, v)| *v == 1.0) && stored.iter().any(|(_, v)| *v == 20.0))
    })?;

    // What it served is named as Prometheus asks, and there is what rules and dashboards are made of.
    let (_, page) = daemon.get("/metrics")?;
    promtool(&["check", "metrics"], &page, rig.dir())?;
    let metrics = daemon.metrics()?;
    let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
    assert_eq!(metrics.sum("vidente_build_info", &[&version]), 1.0);
    assert!(metrics.sum("process_resident_memory_bytes", &[]) > 1e6);
    // From the start, so that the first failure is an increase.
    let failed = "vidente_training_runs_total{outcome=\"failed\",stream=\"climate\"}";
    assert_eq!(metrics.0.get(failed), Some(&0.0));
    let served: BTreeSet<&str> = metrics.0.keys().filter_map(|key| key.split('{').next()).collect();
    for name in RULES.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':') {
        assert!(!name.starts_with("vidente_") || served.contains(name), "no metric {name}");
    }

    let firing = || -> Result<BTreeSet<String>> {
        let alerts = prometheus.firing()?;
        Ok(alerts.iter().filter_map(|a| a["labels"]["alertname"].as_str()).map(str::to_owned).collect())
    };
    // All rules have been evaluated since the readings were seen.
    wait_until("the recording rules", WAIT, || {
        Ok(!prometheus.query("instance:vidente_forecast_latency_seconds:p99_rate5m")?.is_empty())
    })?;
    assert!(firing()?.is_empty(), "{:?}", prometheus.firing()?);
    rig.postgres.as_mut().context("no Postgres")?.crash()?;
    // A write is what finds out.
    Feed::run(&rig.broker, 2, 1, 10..12)?;
    wait_until("the alert", WAIT, || Ok(firing()?.contains("VidenteStoreAway")))?;
    for alert in prometheus.firing()? {
        let name = alert["labels"]["alertname"].as_str().unwrap_or_default();
        assert!(alerts().contains(&name), "{alert}");
        for key in ["summary", "description"] {
            let text = alert["annotations"][key].as_str().unwrap_or_default();
            assert!(!text.is_empty() && !text.contains("{{") && !text.contains("no value"), "{alert}");
        }
    }
    rig.postgres.as_mut().context("no Postgres")?.start_again()?;
    wait_until("the alert to end", WAIT, || Ok(!firing()?.contains("VidenteStoreAway")))?;
    daemon.wait_stored(24)?;
    daemon.stop()?;
    wait_until("the daemon to be missed", WAIT, || Ok(firing()?.contains("VidenteDown")))
}
