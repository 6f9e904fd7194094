//! SIGHUP: another configuration without a restart, and without a trace in what it does not touch.

use anyhow::{Context, Result, ensure};
use vidente_tests::{Feed, NotifySocket, Reading, Rig, Settings, Store, Subscriber, WAIT, wait_until};

const SERIES: usize = 4;
/// Readings of a series between two reloads.
const PART: usize = 60;

/// A stream beside `climate`.
const POWER: &str =
    "\n[[stream]]\nname = \"power\"\ntopic = \"meters/{meter}\"\nfields = [\"value\"]\ntime = \"ts\"\n";

/// A reading of a meter.
fn meter(rig: &Rig, position: usize) -> Result<()> {
    let reading = Reading { series: 0, position };
    Feed::message(&rig.broker, "meters/m1", reading.payload().as_bytes(), false)
}

#[test]
fn what_a_reload_does_not_touch_goes_on_as_if_nothing_had_been() -> Result<()> {
    let (rig, calm) = (Rig::new(Store::Sqlite)?, Rig::new(Store::Sqlite)?);
    let (steady, reloaded) = (Settings::named("steady"), Settings::named("reloaded"));
    let subscriptions = Subscriber::new(&rig.broker, "$SYS/broker/subscriptions/count")?;
    let mut daemon = rig.daemon(&reloaded)?;
    Feed::run(&rig.broker, SERIES, 1, 0..PART)?;
    daemon.wait_stored(PART * SERIES)?;

    let added = ["reloaded: anomaly.warm_up; stream \"power\" is new"];
    let more = |text| format!("{text}{POWER}\n[anomaly]\nwarm_up = 50\n");
    rig.reload(&reloaded, &mut daemon, more, &added)?;
    daemon.wait_log(&["subscribed to meters/+"])?;
    for position in 0..20 {
        meter(&rig, position)?;
    }
    Feed::run(&rig.broker, SERIES, 1, PART..2 * PART)?;
    let stored = 2 * PART * SERIES + 20;
    daemon.wait_stored(stored)?;
    let streams = daemon.json("/api/v1/streams")?.to_string();
    ensure!(streams.contains("\"power\""), "{streams}");
    // The test's own, that to requests, and two of the daemon.
    let count = |wanted: &str| {
        let last = subscriptions.messages().pop().map(|m| String::from_utf8_lossy(&m.payload).into_owned());
        last.as_deref() == Some(wanted)
    };
    wait_until("two subscriptions", WAIT, || Ok(count("4")))?;

    let less = |text: String| text.replace(POWER, "");
    rig.reload(&reloaded, &mut daemon, less, &["reloaded: stream \"power\" is gone"])?;
    wait_until("one subscription", WAIT, || Ok(count("3")))?;
    meter(&rig, 20)?;
    Feed::run(&rig.broker, SERIES, 1, 2 * PART..3 * PART)?;
    let metrics = daemon.wait_stored(stored + PART * SERIES)?;
    ensure!(metrics.sum("vidente_series", &["stream=\"power\""]) == 0.0);
    for (path, gone) in [("/api/v1/streams", "power"), ("/api/v1/series", "power/m1/value")] {
        let shown = daemon.json(path)?.to_string();
        ensure!(!shown.contains(gone) && shown.contains("climate"), "{shown}");
    }

    // Back, where it was: its next reading is forecast from those before.
    rig.reload(&reloaded, &mut daemon, |text| text + POWER, &["reloaded: stream \"power\" is back"])?;
    daemon.wait_log(&["subscribed to meters/+"])?;
    meter(&rig, 21)?;
    daemon.wait_stored(stored + PART * SERIES + 1)?;
    daemon.stop()?;
    let database = rig.database(&reloaded)?;
    let power = "(select id from series where key = 'power/m1/value')";
    ensure!(database.int(&format!("select count(*) from readings where series_id = {power}"))? == 21);
    ensure!(database.int(&format!("select count(*) from forecasts where series_id = {power}"))? == 20);

    let mut undisturbed = calm.daemon(&steady)?;
    Feed::run(&calm.broker, SERIES, 1, 0..3 * PART)?;
    undisturbed.wait_stored(3 * PART * SERIES)?;
    undisturbed.stop()?;
    let expected = calm.database(&steady)?.forecasts(0..3 * PART)?;
    let all = database.forecasts(0..3 * PART)?;
    let climate: Vec<_> = all.into_iter().filter(|(key, ..)| key.starts_with("climate/")).collect();
    ensure!(expected.len() == (3 * PART - 1) * SERIES, "{} forecasts", expected.len());
    for forecast in &expected {
        ensure!(climate.contains(forecast), "undisturbed {forecast:?}");
    }
    ensure!(climate.len() == expected.len(), "{} forecasts and not {}", climate.len(), expected.len());
    Ok(())
}

#[test]
fn nothing_is_lost_between_two_topics_and_no_own_output_comes_in() -> Result<()> {
    const READINGS: usize = 20_000;
    let rig = Rig::new(Store::Sqlite)?;
    let settings = Settings::climate();
    let mut daemon = rig.daemon(&settings)?;
    let old = Subscriber::new(&rig.broker, "vidente/forecast/#")?;
    let new = Subscriber::new(&rig.broker, "elsewhere/#")?;
    // As fast as the broker takes them, so that readings and forecasts are on their way at any moment.
    let mut feed = Feed::new(&rig.broker, 1, 1)?;
    let writer = std::thread::spawn(move || feed.publish(0..READINGS).and_then(|()| feed.finish()));
    daemon.wait_stored(READINGS / 10)?;
    let wider = |text: String| {
        let text = text.replace("sensors/{site}/{device}/climate", "sensors/{site}/{rest...}");
        format!("{text}\n[forecast]\ntopic = \"elsewhere/{{series}}\"\n")
    };
    let said = ["reloaded: forecast.topic; stream \"climate\": topic"];
    rig.reload(&settings, &mut daemon, wider, &said)?;
    // Everything, Vidente's own topics among it, of before and now.
    let all = |text: String| text.replace("sensors/{site}/{rest...}", "{all...}");
    rig.reload(&settings, &mut daemon, all, &["reloaded: stream \"climate\": topic"])?;
    writer.join().map_err(|_| anyhow::anyhow!("the feed panicked"))??;
    let metrics = daemon.wait_stored(READINGS)?;
    // The broker may deliver what two of its filters match twice: to one series, or to those of two topics.
    let doubled = metrics.rejected(Some("duplicate"));
    ensure!(metrics.rejected(None) == doubled, "{:?}", metrics.rejections());
    wait_until("forecasts", WAIT, || Ok(old.count() + new.count() >= READINGS))?;
    ensure!(old.count() > 0 && new.count() > 0);
    daemon.stop()?;
    let database = rig.database(&settings)?;
    ensure!(database.int("select count(distinct time) from readings")? == READINGS as i64);
    let in_both = "select count(*) from (select time from readings group by time having count(*) > 1) as t";
    let stored = database.int("select count(*) from readings")?;
    ensure!(stored - READINGS as i64 == database.int(in_both)?, "{stored} stored");
    ensure!(
        database.int("select count(*) from series where key like '%forecast%' or key like '%elsewhere%'")?
            == 0
    );
    Ok(())
}

#[test]
fn a_new_stream_continues_where_the_store_has_it() -> Result<()> {
    let rig = Rig::new(Store::Postgres)?;
    let without = Settings::climate();
    let with = Settings { rest: format!("{}{POWER}", without.rest), ..without.clone() };
    let mut daemon = rig.daemon(&with)?;
    Feed::run(&rig.broker, 2, 1, 0..5)?;
    for position in 0..10 {
        meter(&rig, position)?;
    }
    daemon.wait_stored(20)?;
    daemon.stop()?;
    let mut daemon = rig.daemon(&without)?;
    rig.reload(&without, &mut daemon, |text| text + POWER, &["reloaded: stream \"power\" is new"])?;
    let series = daemon.json("/api/v1/series")?;
    let power = series.as_array().and_then(|all| all.iter().find(|s| s["key"] == "power/m1/value"));
    ensure!(
        power.context("no series")?["forecast"]["steps"].as_array().is_some_and(|s| s.len() == 1),
        "{series}"
    );
    daemon.wait_log(&["subscribed to meters/+"])?;
    meter(&rig, 10)?;
    daemon.wait_stored(1)?;
    daemon.stop()?;
    let database = rig.database(&without)?;
    ensure!(database.int("select count(*) from series")? == 3, "a series twice");
    let power = "(select id from series where key = 'power/m1/value')";
    ensure!(database.int(&format!("select count(*) from forecasts where series_id = {power}"))? == 10);
    Ok(())
}

#[test]
fn thresholds_limits_and_the_level_of_the_log_change() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let settings = Settings::climate();
    let mut daemon = rig.daemon(&settings)?;
    Feed::run(&rig.broker, 2, 1, 0..5)?;
    daemon.wait_stored(10)?;
    ensure!(!daemon.log().contains("DEBUG"));
    let change = |text: String| {
        let text =
            text.replace("time = \"ts\"\n", "time = \"ts\"\nhorizon = 3\nanomaly = { direction = \"up\" }\n");
        format!("{text}\n[limits]\nmax_series = 2\n[log]\nlevel = \"debug\"\n")
    };
    let said = ["reloaded: limits.max_series; log.level; stream \"climate\": horizon, anomaly"];
    rig.reload(&settings, &mut daemon, change, &said)?;
    Feed::run(&rig.broker, 3, 1, 5..10)?;
    let metrics = daemon.wait_stored(20)?;
    daemon.wait_metrics("refused", |m| m.rejected(Some("series_limit")) == 5.0)?;
    ensure!(metrics.rejected(None) == metrics.rejected(Some("series_limit")));
    daemon.wait_log(&["DEBUG", "reading rejected", "series_limit"])?;
    daemon.stop()?;
    let steps = "select count(*) from forecasts where step = 3";
    ensure!(rig.database(&settings)?.int(steps)? == 10, "three steps from the reload on");
    Ok(())
}

#[test]
fn a_reload_is_refused_as_a_whole_and_systemd_hears_why() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let settings = Settings::climate();
    let mut socket = NotifySocket::new(rig.dir())?;
    let mut daemon = rig.launch(&settings, &[("NOTIFY_SOCKET", &socket.path())])?;
    daemon.wait_ready()?;
    socket.wait("readiness", |line| line == "READY=1")?;
    let file = rig.file(&settings);
    let good = std::fs::read_to_string(&file)?;
    for (text, reasons) in [
        (
            good.replace("mqtt://127.0.0.1", "mqtt://127.0.0.2") + POWER,
            ["reload refused", "mqtt.url: restart the daemon to change that"],
        ),
        (good.clone() + POWER + "\n[anomaly]\nwarm_up = -1\n", ["reload refused", "anomaly.warm_up"]),
        (good.clone() + POWER + "colour = \"red\"\n", ["reload refused", "unknown key"]),
        (good.clone() + POWER + POWER, ["reload refused", "names must differ"]),
    ] {
        std::fs::write(&file, text)?;
        daemon.ask_to_reload()?;
        let begun = socket.wait("the begin of a reload", |line| line == "RELOADING=1")?;
        let now = begun.iter().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).context("no time")?;
        ensure!(now.parse::<u64>()? > 0);
        let ended = socket.wait("its end", |line| line == "READY=1")?;
        let status = ended.iter().find(|line| line.starts_with("STATUS=")).context("no status")?;
        for reason in reasons {
            ensure!(status.contains(reason), "{reason}: {status}");
        }
        daemon.wait_log(&reasons)?;
    }
    // The status goes on to say so, beside how it goes.
    socket.wait("a status", |line| line.contains("readings/s") && line.contains("reload refused"))?;
    std::fs::write(&file, good)?;
    daemon.ask_to_reload()?;
    socket.wait("a reload", |line| line == "STATUS=reloaded: nothing has changed")?;
    // Nothing of what was refused came in.
    meter(&rig, 0)?;
    Feed::run(&rig.broker, 1, 1, 0..1)?;
    daemon.wait_stored(1)?;
    ensure!(daemon.metrics()?.received() == 1.0);
    daemon.stop()
}
