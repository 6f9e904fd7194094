//! What sensors get wrong: each kind is counted by its reason, and nothing stops.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use vidente_tests::{Feed, Metrics, Rig, Settings, Store, Subscriber};

fn settings(rest: &str) -> Settings {
    Settings { rest: format!("{rest}\n[training]\nevery = \"off\"\n"), ..Settings::climate() }
}

fn assert_balanced(metrics: &Metrics) {
    assert_eq!(metrics.received(), metrics.stored() + metrics.rejected(None), "{:#?}", metrics.0);
}

#[test]
fn bad_readings_are_counted_by_reason_on_postgres() -> Result<()> {
    bad_readings(Store::Postgres)
}

#[test]
fn bad_readings_are_counted_by_reason_on_sqlite() -> Result<()> {
    bad_readings(Store::Sqlite)
}

fn bad_readings(store: Store) -> Result<()> {
    let rig = Rig::new(store)?;
    let settings = settings(
        "[[stream]]\nname = \"s\"\ntopic = \"in/{device}\"\nfields = [\"v\"]\ntime = \"ts\"\n\
         [limits]\nmax_series = 2\n",
    );
    let heard = Subscriber::new(&rig.broker, "vidente/forecast/#")?;
    let mut daemon = rig.daemon(&settings)?;
    let publish = |topic: &str, payload: &str| Feed::message(&rig.broker, topic, payload.as_bytes(), false);
    let at = |second: u64, value: &str| format!("{{\"v\":{value},\"ts\":{}}}", 1_767_225_600 + second);

    for minute in 0..5 {
        publish("in/a", &at(60 * minute, "1.5"))?;
    }
    publish("in/b", &at(0, "1.5"))?;
    // A double of the newest reading and one of an older: the first value stays.
    publish("in/a", &at(240, "7.5"))?;
    publish("in/a", &at(120, "7.5"))?;
    // Late.
    publish("in/a", &at(90, "2.5"))?;
    // Two hours ahead of now.
    let ahead = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 7_200;
    publish("in/a", &format!("{{\"v\":1,\"ts\":{ahead}}}"))?;
    for garbage in ["hello", "{\"v\":1", "\u{0}\u{1}", "{\"v\":NaN,\"ts\":1767226000}"] {
        publish("in/a", garbage)?;
    }
    publish("in/a", "{\"w\":1,\"ts\":1767226000}")?;
    publish("in/a", &at(400, "\"warm\""))?;
    publish("in/a", &at(400, "\"NaN\""))?;
    publish("in/a", &at(400, "\"inf\""))?;
    publish("in/a", &at(400, "1e999"))?;
    publish("in/a", "{\"v\":1}")?;
    publish("in/a", "{\"v\":1,\"ts\":\"yesterday\"}")?;
    publish("in/c", &at(0, "1"))?;
    publish("in/d", &at(0, "1"))?;
    // And on it goes.
    publish("in/a", &at(300, "3.5"))?;

    let metrics = daemon.wait_metrics("all 24 messages", |m| m.received() >= 24.0 && m.stored() >= 8.0)?;
    assert_eq!(metrics.received(), 24.0);
    assert_balanced(&metrics);
    assert_eq!(metrics.rejected(Some("duplicate")), 2.0);
    assert_eq!(metrics.sum("vidente_readings_late_total", &[]), 1.0);
    assert_eq!(metrics.rejected(Some("future")), 1.0);
    assert_eq!(metrics.rejected(Some("missing_field")), 1.0);
    assert_eq!(metrics.rejected(Some("bad_time")), 2.0);
    assert_eq!(metrics.rejected(Some("series_limit")), 2.0);
    // Four that are no JSON; NaN, infinity and an overflow may count as the one or the other.
    let unreadable: f64 = ["unparseable", "not_a_number", "not_finite"]
        .iter()
        .map(|reason| metrics.rejected(Some(reason)))
        .sum();
    assert_eq!(unreadable, 8.0);
    assert!(metrics.rejected(Some("unparseable")) >= 4.0);
    assert!(metrics.rejected(Some("not_finite")) >= 1.0);
    daemon.stop()?;

    let database = rig.database(&settings)?;
    assert_eq!(database.int("select count(*) from readings")?, 8);
    assert_eq!(database.int("select count(*) from readings where late and value = 2.5")?, 1);
    assert_eq!(database.int("select count(*) from readings where value = 7.5")?, 0);
    assert_eq!(database.int("select count(*) from series")?, 2);
    // Six readings of a and one of b were fed to the model; all were answered.
    assert_eq!(heard.wait_for(7)?.len(), 7);
    Ok(())
}

#[test]
fn a_retained_copy_is_no_new_arrival() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let settings = settings("[[stream]]\nname = \"s\"\ntopic = \"in/{device}\"\npayload = \"number\"\n");
    Feed::message(&rig.broker, "in/a", b"41", true)?;
    let mut daemon = rig.daemon(&settings)?;
    Feed::message(&rig.broker, "in/a", b"42", false)?;
    let metrics = daemon.wait_metrics("copy and reading", |m| m.received() >= 2.0 && m.stored() >= 1.0)?;
    assert_eq!(metrics.rejected(Some("retained")), 1.0);
    assert_balanced(&metrics);
    daemon.stop()?;
    assert_eq!(rig.database(&settings)?.float("select value from readings")?, 42.0);
    Ok(())
}

#[test]
fn own_output_is_never_ingested() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let settings = settings("[[stream]]\nname = \"all\"\ntopic = \"{all...}\"\ntime = \"ts\"\n");
    let own = Subscriber::new(&rig.broker, "vidente/#")?;
    let mut daemon = rig.daemon(&settings)?;
    Feed::run(&rig.broker, 2, 1, 0..50)?;
    daemon.wait_stored(100)?;
    // The status and a hundred forecasts have passed through the broker, under the pattern.
    own.wait_for(101)?;
    Feed::run(&rig.broker, 2, 1, 50..51)?;
    let metrics = daemon.wait_stored(102)?;
    assert_eq!((metrics.received(), metrics.rejected(None)), (102.0, 0.0));
    daemon.stop()?;
    // Nor after a restart, when the retained forecasts are delivered once more.
    let mut daemon = rig.daemon(&settings)?;
    Feed::run(&rig.broker, 2, 1, 51..52)?;
    let metrics = daemon.wait_stored(2)?;
    assert_eq!((metrics.received(), metrics.rejected(None)), (2.0, 0.0));
    daemon.stop()?;
    assert_eq!(rig.database(&settings)?.int("select count(*) from series")?, 2);
    Ok(())
}

#[test]
fn payloads_times_and_captures_are_read_as_documented() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let settings = settings(
        "[[stream]]\nname = \"every\"\ntopic = \"every/{site}\"\ntime = \"Time\"\n\
         [[stream]]\nname = \"path\"\ntopic = \"path/{rest...}\"\nfields = [\"a.b\", \"/c/d\"]\ntime = \"t\"\n\
         [[stream]]\nname = \"bare\"\ntopic = \"bare/{x}/value\"\npayload = \"number\"\n",
    );
    let mut daemon = rig.daemon(&settings)?;
    let publish = |topic: &str, payload: &str| Feed::message(&rig.broker, topic, payload.as_bytes(), false);
    // Every numeric leaf, booleans as 0 and 1; the time itself is none.
    publish(
        "every/hall",
        "{\"Time\":\"2026-01-01T00:00:00Z\",\"n\":{\"x\":1.25},\"on\":true,\"name\":\"h\"}",
    )?;
    // Seconds, milliseconds, microseconds and nanoseconds of one minute after the other.
    publish("path/p/q", "{\"a\":{\"b\":1},\"c\":{\"d\":10},\"t\":1767225600}")?;
    publish("path/p/q", "{\"a\":{\"b\":2},\"c\":{\"d\":20},\"t\":1767225660000}")?;
    publish("path/p/q", "{\"a\":{\"b\":3},\"c\":{\"d\":30},\"t\":1767225720000000}")?;
    publish("path/p/q", "{\"a\":{\"b\":4},\"c\":{\"d\":40},\"t\":1767225780000000000}")?;
    publish("bare/one", "5")?;
    publish("bare/one/value", "5.5")?;
    let metrics = daemon.wait_stored(11)?;
    assert_eq!((metrics.received(), metrics.rejected(None)), (11.0, 0.0));
    let listed = daemon.json("/api/v1/series")?;
    let keys: Vec<&str> = listed.as_array().into_iter().flatten().filter_map(|s| s["key"].as_str()).collect();
    assert_eq!(keys, ["bare/one/value", "every/hall/n.x", "every/hall/on", "path/p/q/a.b", "path/p/q/c.d"]);
    let path = daemon.json("/api/v1/series/path/p/q/a.b")?;
    let times: Vec<&str> =
        path["readings"].as_array().into_iter().flatten().filter_map(|r| r["time"].as_str()).collect();
    assert_eq!(
        times,
        ["2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z", "2026-01-01T00:03:00Z"]
    );
    daemon.stop()
}
