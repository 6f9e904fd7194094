//! Prometheus scrapes the daemon with the configuration that is shipped.

use anyhow::Result;
use vidente_tests::{Feed, Prometheus, Rig, Settings, Store, WAIT, wait_until};

#[test]
fn prometheus_scrapes_the_daemon() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let settings = Settings::climate();
    let (config, http) = rig.configure(&settings)?;
    let mut daemon = vidente_tests::Daemon::start(&config, http, &rig.dir().join("log"))?;
    let shipped = include_str!("../../deploy/prometheus/prometheus.yml");
    assert!(shipped.contains("127.0.0.1:9464") && shipped.contains("15s"));
    let prometheus = Prometheus::start(&shipped.replace(":9464", &format!(":{http}")).replace("15s", "1s"))?;
    Feed::run(&rig.broker, 2, 1, 0..10)?;
    daemon.wait_stored(20)?;
    wait_until("the readings to be seen by Prometheus", WAIT, || {
        let up = prometheus.query("up{job=\"vidente\"}")?;
        let received = prometheus.query("sum(vidente_readings_received_total{stream=\"climate\"})")?;
        Ok(up.iter().any(|(_, v)| *v == 1.0) && received.iter().any(|(_, v)| *v == 20.0))
    })?;
    daemon.stop()
}
