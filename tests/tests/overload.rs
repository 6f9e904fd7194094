//! More than there is room for: topics without end, a flood of retained messages, and messages that make a
//! thousand times their size in rows while nothing is stored. Memory stays within what the README says.

use std::time::Duration;

use anyhow::{Result, ensure};
use vidente_tests::{Feed, Load, Reading, Rig, Settings, Store, peak_memory, wait_until};

/// README, "Delivery": beside series, training and the largest message.
const MEMORY: u64 = 256 << 20;
const TOPICS: usize = 1_000_000;
const SERIES: usize = 1_000;
/// Messages handed to the broker at a time.
const CHUNK: usize = 50_000;
/// As long as a million messages may take on a busy machine.
const LONG: Duration = Duration::from_secs(600);

fn within_memory(id: u32) -> Result<()> {
    let peak = peak_memory(id)?;
    println!("peak memory {} MB", peak / 1_000_000);
    ensure!(peak < MEMORY, "{} MB", peak / 1_000_000);
    Ok(())
}

fn limited() -> Settings {
    let climate = Settings::climate();
    Settings { rest: format!("{}\n[limits]\nmax_series = {SERIES}\n", climate.rest), ..climate }
}

/// SQL, a path and HTML in the levels that become labels and key.
fn hostile(number: usize) -> String {
    format!("sensors/'); drop table readings;--/..%2f..%2f<img src=x onerror=alert({number})>/climate")
}

#[test]
fn a_million_topics_are_bounded_by_max_series() -> Result<()> {
    let rig = Rig::new(Store::Postgres)?;
    let settings = Settings { qos: 0, ..limited() };
    let mut daemon = rig.daemon(&settings)?;
    let payload = Reading { series: 0, position: 0 }.payload();
    for chunk in 0..TOPICS / CHUNK {
        let mut load = Load::default();
        (0..CHUNK).try_for_each(|n| load.push(&hostile(chunk * CHUNK + n), &payload))?;
        load.hand_over(&rig.broker)?;
        wait_until("the chunk to arrive", LONG, || {
            Ok(daemon.metrics()?.received() >= ((chunk + 1) * CHUNK) as f64)
        })?;
    }
    let metrics = daemon.wait_stored(SERIES)?;
    assert_eq!(metrics.received(), TOPICS as f64);
    assert_eq!(metrics.rejected(Some("series_limit")), (TOPICS - SERIES) as f64);
    assert_eq!(daemon.json("/api/v1/series")?.as_array().map(Vec::len), Some(SERIES));
    within_memory(daemon.id())?;
    // What was planted in the names is data: the first series goes on, under its own name.
    Feed::message(&rig.broker, &hostile(0), Reading { series: 0, position: 1 }.payload().as_bytes(), false)?;
    daemon.wait_stored(SERIES + 1)?;
    daemon.stop()?;
    let database = rig.database(&settings)?;
    assert_eq!(database.int("select count(*) from readings")?, SERIES as i64 + 1);
    let own = format!(
        "select count(*) from series where labels->>'device' = '..%2f..%2f{}'",
        "<img src=x onerror=alert(0)>"
    );
    assert_eq!(database.int(&own)?, 1);
    Ok(())
}

#[test]
fn a_flood_of_retained_messages_is_met_at_every_start() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let settings = limited();
    let mut load = Load::default();
    let payload = Reading { series: 0, position: 0 }.payload();
    (0..CHUNK).try_for_each(|n| load.push_retained(&Feed::topic(n), &payload))?;
    load.hand_over(&rig.broker)?;
    for start in 0..2 {
        let mut daemon = rig.daemon(&settings)?;
        let metrics = daemon.wait_metrics("the flood", |m| m.received() >= CHUNK as f64)?;
        assert_eq!(metrics.rejected(Some("series_limit")), (CHUNK - SERIES) as f64, "start {start}");
        // A copy of before is a duplicate and moves nothing.
        daemon.wait_metrics("all to be settled", |m| m.stored() + m.rejected(None) == m.received())?;
        let duplicates = if start == 0 { 0 } else { SERIES };
        assert_eq!(daemon.metrics()?.rejected(Some("duplicate")), duplicates as f64);
        within_memory(daemon.id())?;
        daemon.stop()?;
    }
    Ok(())
}

/// A message of 3 kB makes 200 readings with eight forecasts each: 170 kB of rows.
#[test]
fn messages_that_make_many_rows_wait_at_the_broker() -> Result<()> {
    const LEAVES: usize = 200;
    const MESSAGES: usize = 1_000;
    let mut rig = Rig::new(Store::Postgres)?;
    let settings = Settings {
        spool: "max_bytes = 0".to_owned(),
        rest: "[[stream]]\nname = \"wide\"\ntopic = \"sensors/{site}/{device}/climate\"\ntime = \"ts\"\n\
               interval = \"60s\"\nhorizon = 8\n[training]\nevery = \"off\"\n"
            .to_owned(),
        ..Settings::climate()
    };
    let mut daemon = rig.daemon(&settings)?;
    if let Some(postgres) = &mut rig.postgres {
        postgres.kill()?;
    }
    let mut feed = Feed::new(&rig.broker, 1, 1)?;
    feed.publish_with(0..MESSAGES, |reading| {
        let leaves: Vec<String> = (0..LEAVES)
            .map(|leaf| format!("\"f{leaf}\":{:.2}", Reading { series: leaf, ..reading }.value()))
            .collect();
        format!("{{{},\"ts\":{}}}", leaves.join(","), reading.time())
    })?;
    feed.finish()?;
    let mut waiting = 0.0;
    wait_until("memory to be full", LONG, || {
        std::thread::sleep(Duration::from_secs(2));
        let now = daemon.metrics()?.sum("vidente_store_queue_readings", &[]);
        Ok(now > 0.0 && std::mem::replace(&mut waiting, now) == now)
    })?;
    assert!(waiting < (MESSAGES * LEAVES / 2) as f64, "{waiting} readings wait in memory");
    within_memory(daemon.id())?;
    if let Some(postgres) = &mut rig.postgres {
        postgres.start_again()?;
    }
    wait_until("all to be stored", LONG, || Ok(daemon.metrics()?.stored() >= (MESSAGES * LEAVES) as f64))?;
    within_memory(daemon.id())?;
    daemon.stop()?;
    let database = rig.database(&settings)?;
    assert_eq!(database.int("select count(*) from readings")?, (MESSAGES * LEAVES) as i64);
    let without = "select count(*) from readings r where not exists (select 1 from forecasts f where \
                   f.series_id = r.series_id and f.origin = r.time and f.step = 8)";
    // Of a first reading nothing is known but itself.
    assert_eq!(database.int(without)?, LEAVES as i64);
    Ok(())
}

/// Lines in a message of half a megabyte, which make 37 MB of rows.
const LINES: usize = 30_000;

/// Readings with twelve forecasts each.
fn lines() -> Settings {
    Settings {
        rest: "[[stream]]\nname = \"lines\"\ntopic = \"sensors/{site}/{device}/climate\"\npayload = \"influx\"\n\
               precision = \"s\"\ninterval = \"60s\"\nhorizon = 12\n[training]\nevery = \"off\"\n"
            .to_owned(),
        ..Settings::climate()
    }
}

/// Publishes a message of many readings.
fn publish_lines(rig: &Rig, message: usize) -> Result<()> {
    let mut lines = String::new();
    for n in 0..LINES {
        let reading = Reading { series: 0, position: message * LINES + n };
        lines += &format!("m f={n} {}\n", reading.time() - 60_000_000);
    }
    Feed::message(&rig.broker, &Feed::topic(0), lines.as_bytes(), false)
}

#[test]
fn one_message_of_many_readings_is_taken_in_parts() -> Result<()> {
    let rig = Rig::new(Store::Postgres)?;
    let settings = lines();
    let mut daemon = rig.daemon(&settings)?;
    (0..4).try_for_each(|message| publish_lines(&rig, message))?;
    wait_until("all to be stored", LONG, || Ok(daemon.metrics()?.stored() >= (4 * LINES) as f64))?;
    within_memory(daemon.id())?;
    daemon.stop()?;
    let database = rig.database(&settings)?;
    assert_eq!(database.int("select count(*) from readings")?, 4 * LINES as i64);
    assert_eq!(database.int("select count(distinct origin) from forecasts")?, 4 * LINES as i64 - 1);
    Ok(())
}

/// At QoS 0 the broker does not wait: with the store away all is forecast from, little is stored.
#[test]
fn messages_of_many_readings_that_find_no_room_take_no_memory() -> Result<()> {
    const MESSAGES: usize = 12;
    let mut rig = Rig::new(Store::Postgres)?;
    let settings = Settings { qos: 0, spool: "max_bytes = 0".to_owned(), ..lines() };
    let mut daemon = rig.daemon(&settings)?;
    if let Some(postgres) = &mut rig.postgres {
        postgres.kill()?;
    }
    for message in 0..MESSAGES {
        publish_lines(&rig, message)?;
    }
    let all = (MESSAGES * LINES) as f64;
    let metrics = daemon.wait_metrics("all to be settled", |m| {
        let waiting = m.sum("vidente_store_queue_readings", &[]);
        m.received() == all && waiting + m.rejected(Some("store_full")) == all
    })?;
    assert!(metrics.rejected(Some("store_full")) > all / 2.0, "{metrics:?}");
    within_memory(daemon.id())?;
    daemon.kill()
}
