//! What users say of anomalies outlives every way to end, and changes no forecast.

use anyhow::Result;
use serde_json::{Value, json};
use vidente_tests::{Daemon, Feed, Rig, Settings, Store, ask};

const BEGIN: u64 = 1_767_225_600;
/// Positions of two readings far out; in between the place where the first was is forgotten, and new again.
const EVENTS: [usize; 2] = [2000, 6500];
/// Where something is said, where the daemon ends unless that is where it is killed, and the end of all.
const SAID: usize = EVENTS[0] + 10;
const BREAK: usize = SAID + 500;
const END: usize = 6520;

/// How the daemon ends in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Stop,
    Kill,
    /// And its checkpoints are lost, so that all is replayed.
    KillAndForget,
}

#[test]
fn feedback_outlives_a_stop_on_postgres() -> Result<()> {
    outlives(Store::Postgres, End::Stop)
}

#[test]
fn feedback_outlives_a_kill_on_sqlite() -> Result<()> {
    outlives(Store::Sqlite, End::Kill)
}

#[test]
fn feedback_outlives_the_loss_of_all_checkpoints_on_postgres() -> Result<()> {
    outlives(Store::Postgres, End::KillAndForget)
}

#[test]
fn feedback_outlives_the_loss_of_all_checkpoints_on_sqlite() -> Result<()> {
    outlives(Store::Sqlite, End::KillAndForget)
}

fn payload(position: usize) -> String {
    let noise = ((position * 7919 + position * position * 31) % 1009) as f64 / 1009.0;
    let value = if EVENTS.contains(&position) { 200.0 } else { 20.0 + 5.0 * noise };
    format!("{{\"v\":{value},\"ts\":{}}}", BEGIN + 60 * position as u64)
}

/// Three series with the same readings, to a daemon whose first was that at `begin`.
fn publish(rig: &Rig, daemon: &mut Daemon, begin: usize, positions: std::ops::Range<usize>) -> Result<()> {
    let mut feed = Feed::new(&rig.broker, 3, 1)?;
    let count = 3 * (positions.end - begin);
    feed.publish_with(positions, |reading| payload(reading.position))?;
    feed.finish()?;
    daemon.wait_stored(count)?;
    Ok(())
}

fn key(series: usize) -> String {
    format!("s/hall/dev{series}/v")
}

/// It is as if the daemon had not ended in between, to the last bit.
fn outlives(store: Store, end: End) -> Result<()> {
    assert_eq!(bars(store, Some(end))?, bars(store, None)?);
    Ok(())
}

/// The bars of the series at the end.
fn bars(store: Store, end: Option<End>) -> Result<Vec<Value>> {
    let rig = Rig::new(store)?;
    let settings = Settings {
        rest: "[[stream]]\nname = \"s\"\ntopic = \"sensors/{site}/{device}/climate\"\nfields = [\"v\"]\ntime = \"ts\"\n\
               interval = \"60s\"\n[training]\nevery = \"off\"\n[anomaly]\nsilence_after = \"off\"\n"
            .to_owned(),
        ..Settings::climate()
    };
    let mut daemon = rig.daemon(&settings)?;
    daemon.wait_log(&["listening to vidente/request/#"])?;
    publish(&rig, &mut daemon, 0, 0..SAID)?;
    let say = |series: usize, time: Option<&str>, anomaly: bool| -> Result<Value> {
        let mut body = json!({ "series": key(series), "anomaly": anomaly });
        body.as_object_mut().into_iter().zip(time).for_each(|(body, time)| {
            body.insert("time".to_owned(), time.into());
        });
        ask(&rig.broker, "5", "feedback", &body)
    };
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    // The first is no anomaly; of the second nothing is said; of the third one thing and then the other.
    let event = "2026-01-02T09:20:00Z";
    let said = say(0, None, false)?;
    assert_eq!(
        (&said["time"], &said["anomaly"], &said["series"]),
        (&json!(event), &json!(false), &json!(key(0)))
    );
    let evidence = number(&said["evidence"]);
    assert!(number(&said["bar"]["before"]) <= evidence && number(&said["bar"]["after"]) > evidence, "{said}");
    assert!(say(2, Some(event), false)?["bar"]["after"].is_number());
    let said = say(2, Some(event), true)?;
    assert!(number(&said["bar"]["after"]) <= number(&said["evidence"]), "{said}");
    // It is durable once it is answered.
    let database = rig.database(&settings)?;
    assert_eq!(database.int("select count(*) from feedback")?, 3);
    // What was said fades with readings, so that it matters in which place a start says it again.
    let pause = if end == Some(End::Kill) { SAID } else { BREAK };
    publish(&rig, &mut daemon, 0, SAID..pause)?;
    match end {
        None => {}
        Some(End::Stop) => daemon.stop()?,
        Some(End::Kill | End::KillAndForget) => daemon.kill()?,
    }
    if end == Some(End::KillAndForget) {
        database.execute("delete from series_state")?;
    }
    if end.is_some() {
        daemon = rig.daemon(&settings)?;
    }
    publish(&rig, &mut daemon, if end.is_some() { pause } else { 0 }, pause..END)?;
    let began = |series: usize, position: usize| {
        let micros = database.micros("a.time");
        let at = (BEGIN + 60 * position as u64) * 1_000_000;
        database.int(&format!(
            "select count(*) from anomalies a join series s on s.id = a.series_id \
             where s.key = '{}' and a.kind = 'value' and {micros} = {at}",
            key(series)
        ))
    };
    for (series, raised) in [(0, 0), (1, 1), (2, 1)] {
        assert_eq!(began(series, EVENTS[0])?, 1, "{series}");
        assert_eq!(began(series, EVENTS[1])?, raised, "{series}");
    }
    // Nobody's word changes a forecast.
    let differ = "select count(*) from forecasts f join series s on s.id = f.series_id \
                  join series o on o.key <> s.key join forecasts g on g.series_id = o.id and g.origin = f.origin \
                  and g.step = f.step where f.q05 <> g.q05 or f.mean <> g.mean or f.q95 <> g.q95";
    assert_eq!(database.int(differ)?, 0);
    assert_eq!(database.int("select count(*) from forecasts")?, 3 * (END as i64 - 1));
    let bars =
        (0..3).map(|series| Ok(say(series, None, false)?["bar"]["before"].take())).collect::<Result<_>>()?;
    daemon.stop()?;
    Ok(bars)
}
