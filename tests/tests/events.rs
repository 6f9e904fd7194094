//! Server-sent events and the overview, from a running daemon.

use anyhow::{Context, Result};
use serde_json::Value;
use vidente_tests::{Daemon, Feed, Reading, Rig, Settings, Store, Subscriber, WAIT, Wire, wait_until};

const KEY: &str = "climate/hall/dev0/value";

fn listen(port: u16, parameters: &str) -> Result<Wire> {
    let mut wire = Wire::tcp(port)?;
    wire.send(&format!("GET /api/v1/events?{parameters} HTTP/1.1\r\nhost: localhost\r\n\r\n"))?;
    Ok(wire)
}

/// The JSON of the last event of a kind.
fn last(text: &str, kind: &str) -> Result<Value> {
    let (_, event) = text.rsplit_once(&format!("event: {kind}\ndata: ")).with_context(|| text.to_owned())?;
    Ok(serde_json::from_str(event.lines().next().unwrap_or_default())?)
}

#[test]
fn what_is_published_is_told_and_a_stop_ends_it() -> Result<()> {
    const COUNT: usize = 12;
    let rig = Rig::new(Store::Sqlite)?;
    let (config, port) = rig.configure(&Settings::climate())?;
    let mut daemon = Daemon::start(&config, port, &rig.dir().join("log"))?;
    let published = Subscriber::new(&rig.broker, "vidente/forecast/#")?;
    Feed::run(&rig.broker, COUNT, 1, 0..30)?;
    daemon.wait_stored(COUNT * 30)?;

    let mut one = listen(port, &format!("series={KEY}"))?;
    let begin = last(&one.until("}\n\n")?, "forecast")?;
    assert_eq!(begin["series"], KEY);
    let newest = Reading { series: 0, position: 29 };
    let close = |event: &Value, of: Reading| {
        event["reading"]["value"].as_f64().is_some_and(|v| (v - of.value()).abs() < 1e-3)
    };
    assert!(close(&begin, newest), "{begin}");
    let mut all = listen(port, "search=dev1%20hall&sort=key&limit=2")?;
    let overview = last(&all.until("}\n\n")?, "overview")?;
    assert_eq!((&overview["total"], &overview["matching"]), (&COUNT.into(), &3.into()));
    assert_eq!(overview["series"][1]["key"], "climate/hall/dev10/value");

    Feed::run(&rig.broker, COUNT, 1, 30..31)?;
    let told = one.until("}\n\n")?;
    let told = last(&told, "forecast")?;
    assert!(close(&told, Reading { series: 0, position: 30 }), "{told}");
    published.wait_for(COUNT * 31)?;
    let same = published
        .messages()
        .into_iter()
        .any(|m| serde_json::from_slice::<Value>(&m.payload).ok().as_ref() == Some(&told));
    assert!(same, "it is what was published");
    assert!(all.until("dev10")?.contains("event: overview"));

    // Nobody has asked for all of it, and the newest is there all the same.
    wait_until("the overview", WAIT, || {
        let (status, body) = daemon.get("/api/v1/overview?sort=key&limit=1")?;
        let body: Value = serde_json::from_str(&body)?;
        Ok(status == 200 && body["series"][0]["last"]["time"] == told["origin"])
    })?;
    let (_, page) = daemon.get(&format!("/api/v1/series/{KEY}?history=5"))?;
    let page: Value = serde_json::from_str(&page)?;
    let weights = page["experts"].as_array().context("experts")?.iter().map(|e| e["weight"].as_f64());
    assert!((weights.flatten().sum::<f64>() - 1.0).abs() < 1e-3, "{page}");
    assert_eq!(page["models"], Value::Array(Vec::new()));

    // Both still listen.
    daemon.stop()?;
    assert!(!daemon.log().contains("cut off"), "{}", daemon.log());
    one.until("0\r\n\r\n")?;
    Ok(())
}
