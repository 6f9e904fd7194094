//! Anomalies: messages, rows and the metric, for values and for series that fall silent.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use vidente_tests::{Feed, Rig, Settings, Store, Subscriber, WAIT, wait_until};

const BEGIN: u64 = 1_767_225_600;

fn settings() -> Settings {
    Settings {
        rest: "[[stream]]\nname = \"s\"\ntopic = \"in/{device}\"\nfields = [\"v\"]\ntime = \"ts\"\n\
               [training]\nevery = \"off\"\n[anomaly]\nsilence_after = 3\nwarm_up = 50\n"
            .to_owned(),
        ..Settings::climate()
    }
}

/// A reading of a device so many seconds after 2026-01-01.
fn publish(rig: &Rig, device: &str, second: usize, value: f64) -> Result<()> {
    let payload = format!("{{\"v\":{value},\"ts\":{}}}", BEGIN + second as u64);
    Feed::message(&rig.broker, &format!("in/{device}"), payload.as_bytes(), false)
}

fn bodies(heard: &Subscriber) -> Result<Vec<(String, Value)>> {
    heard.messages().iter().map(|m| Ok((m.topic.clone(), m.json()?))).collect()
}

#[test]
fn a_series_that_stops_is_reported_on_postgres() -> Result<()> {
    silence(Store::Postgres)
}

#[test]
fn a_series_that_stops_is_reported_on_sqlite() -> Result<()> {
    silence(Store::Sqlite)
}

fn silence(store: Store) -> Result<()> {
    let rig = Rig::new(store)?;
    let settings = settings();
    let heard = Subscriber::new(&rig.broker, "vidente/anomaly/#")?;
    let mut daemon = rig.daemon(&settings)?;
    // A steady series of one value, which goes on, and one that stops after a quarter of a minute.
    let mut second = 0;
    for _ in 0..15 {
        publish(&rig, "steady", second, 7.0)?;
        publish(&rig, "stops", second, 7.5)?;
        second += 1;
    }
    let mut go_on = |rig: &Rig| -> Result<()> {
        publish(rig, "steady", second, 7.0)?;
        second += 1;
        Ok(())
    };
    let stopped = Instant::now();
    wait_until("the message", WAIT, || {
        go_on(&rig)?;
        Ok(heard.count() > 0)
    })?;
    assert!(stopped.elapsed() > Duration::from_secs(2), "{:?}", stopped.elapsed());
    let (topic, mut began) = bodies(&heard)?.remove(0);
    assert_eq!(topic, "vidente/anomaly/s/stops/v");
    let lasted = began["lasted"].as_f64().context("lasted")?;
    assert!((3.0..10.0).contains(&lasted), "{began}");
    began["lasted"] = Value::Null;
    let last = json!({"time": "2026-01-01T00:00:14Z", "value": 7.5});
    assert_eq!(
        began,
        json!({"series": "s/stops/v", "kind": "silence", "state": "began", "since": "2026-01-01T00:00:15Z",
               "ended_at": null, "lasted": null, "reading": last, "every": 1.0})
    );
    daemon.wait_metrics("the count", |m| m.sum("vidente_anomalies_total", &["stream=\"s\""]) == 1.0)?;
    let row = json!([{"time": "2026-01-01T00:00:15Z", "ended_at": null, "kind": "silence", "value": 7.5,
                      "score": null, "q05": null, "q95": null}]);
    wait_until("the row", WAIT, || Ok(daemon.json("/api/v1/series/s/stops/v")?["anomalies"] == row))?;

    // It is told once, and a restart neither tells it again nor forgets it.
    daemon.stop()?;
    let mut daemon = rig.daemon(&settings)?;
    let restarted = Instant::now();
    while restarted.elapsed() < Duration::from_secs(5) {
        go_on(&rig)?;
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(heard.count(), 1, "{:?}", bodies(&heard)?);
    publish(&rig, "stops", 75, 7.5)?;
    heard.wait_for(2)?;
    assert_eq!(
        bodies(&heard)?[1].1,
        json!({"series": "s/stops/v", "kind": "silence", "state": "ended", "since": "2026-01-01T00:00:15Z",
               "ended_at": "2026-01-01T00:01:15Z", "lasted": 60.0,
               "reading": {"time": "2026-01-01T00:01:15Z", "value": 7.5}, "every": null})
    );
    daemon.stop()?;
    let database = rig.database(&settings)?;
    let ended =
        "select count(*) from anomalies where kind = 'silence' and ended_at is not null and score is null";
    assert_eq!((database.int(ended)?, database.int("select count(*) from anomalies")?), (1, 1));
    Ok(())
}

#[test]
fn a_broker_that_goes_away_makes_no_series_silent() -> Result<()> {
    let mut rig = Rig::new(Store::Sqlite)?;
    let settings = settings();
    let mut daemon = rig.daemon(&settings)?;
    (0..15).try_for_each(|second| publish(&rig, "a", second, 1.0))?;
    daemon.wait_stored(15)?;
    rig.broker.restart()?;
    daemon.wait_metrics("the broker's return", |m| m.sum("vidente_mqtt_connected", &[]) == 1.0)?;
    let heard = Subscriber::new(&rig.broker, "vidente/anomaly/#")?;
    let returned = Instant::now();
    heard.wait_for(1)?;
    // Counted from the return, not from the last reading.
    assert!(returned.elapsed() > Duration::from_millis(1500), "{:?}", returned.elapsed());
    daemon.stop()
}

#[test]
fn an_abnormal_value_is_reported_with_what_was_expected_and_how_long_it_lasted() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let settings = settings();
    let heard = Subscriber::new(&rig.broker, "vidente/anomaly/#")?;
    let mut daemon = rig.daemon(&settings)?;
    let usual = |n: usize| 20.0 + ((n * 7919) % 101) as f64 / 50.0;
    for n in 0..150 {
        publish(&rig, "a", 60 * n, if (120..122).contains(&n) { 500.0 } else { usual(n) })?;
    }
    daemon.wait_stored(150)?;
    let [began, ended]: [Value; 2] = heard
        .wait_for(2)?
        .iter()
        .map(|m| m.json())
        .collect::<Result<Vec<_>>>()?
        .try_into()
        .map_err(|all| anyhow::anyhow!("more than two: {all:?}"))?;
    for message in [&began, &ended] {
        assert_eq!((&message["series"], &message["kind"]), (&json!("s/a/v"), &json!("value")));
        assert_eq!(message["since"], "2026-01-01T02:00:00Z");
        let [q05, expected, q95] = ["/interval/q05", "/expected", "/interval/q95"]
            .map(|place| message.pointer(place).and_then(Value::as_f64).unwrap_or(f64::NAN));
        assert!(q05 <= expected && expected <= q95, "{message}");
    }
    assert_eq!((&began["state"], &began["lasted"]), (&json!("began"), &Value::Null));
    assert_eq!(began["reading"], json!({"time": "2026-01-01T02:00:00Z", "value": 500.0}));
    assert!(began["score"].as_f64().is_some_and(|s| (0.5..=1.0).contains(&s)), "{began}");
    assert!(began.pointer("/interval/q95").and_then(Value::as_f64).is_some_and(|q| q < 500.0), "{began}");
    assert_eq!(ended["state"], "ended");
    let lasted = ended["lasted"].as_f64().context("lasted")?;
    assert!((60.0..600.0).contains(&lasted), "{ended}");
    assert!(ended["ended_at"].is_string());
    daemon.stop()?;
    let database = rig.database(&settings)?;
    let rows = "select count(*) from anomalies where kind = 'value' and value = 500 and score >= 0.5 \
                and q95 < 500 and ended_at > time";
    assert_eq!(database.int(rows)?, 1);
    Ok(())
}
