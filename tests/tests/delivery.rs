//! Nothing is lost and nothing doubled: every protocol and quality of service, crashes, and servers
//! that go away.

use anyhow::Result;
use vidente_tests::{Database, Feed, Persistence, Rig, Settings, Store, Subscriber};

const SERIES: usize = 4;

#[test]
fn every_protocol_and_quality_of_service_works_on_postgres() -> Result<()> {
    matrix(Store::Postgres)
}

#[test]
fn every_protocol_and_quality_of_service_works_on_sqlite() -> Result<()> {
    matrix(Store::Sqlite)
}

/// mosquitto by default has 20 messages on the way and drops what comes beyond 1,000 more.
#[test]
fn a_burst_does_not_overflow_a_broker_that_nobody_has_tuned() -> Result<()> {
    let rig = Rig::on(Persistence::Default, Store::Postgres)?;
    let settings = Settings::climate();
    let mut daemon = rig.daemon(&settings)?;
    Feed::run(&rig.broker, 20, 1, 0..200)?;
    let metrics = daemon.wait_stored(4_000)?;
    assert_eq!((metrics.received(), metrics.rejected(None)), (4_000.0, 0.0));
    daemon.stop()?;
    assert_complete(&rig.database(&settings)?, 20, 200)
}

fn matrix(store: Store) -> Result<()> {
    let rig = Rig::new(store)?;
    let heard = Subscriber::new(&rig.broker, "vidente/forecast/#")?;
    let mut begin = 0;
    for protocol in ["5", "3.1.1"] {
        for qos in [0, 1] {
            let settings = Settings { protocol, qos, ..Settings::climate() };
            let mut daemon = rig.daemon(&settings)?;
            Feed::run(&rig.broker, SERIES, qos, begin..begin + 50)?;
            let metrics = daemon.wait_stored(50 * SERIES)?;
            begin += 50;
            let what = format!("MQTT {protocol}, QoS {qos}");
            assert_eq!((metrics.received(), metrics.rejected(None)), (200.0, 0.0), "{what}");
            heard.wait_for(begin * SERIES)?;
            daemon.stop()?;
            assert_complete(&rig.database(&settings)?, SERIES, begin)?;
        }
    }
    Ok(())
}

#[test]
fn readings_of_qos_1_are_complete_after_a_kill_on_postgres() -> Result<()> {
    killed_half_way(Store::Postgres)
}

#[test]
fn readings_of_qos_1_are_complete_after_a_kill_on_sqlite() -> Result<()> {
    killed_half_way(Store::Sqlite)
}

fn killed_half_way(store: Store) -> Result<()> {
    const SERIES: usize = 20;
    let rig = Rig::new(store)?;
    let settings = Settings::climate();
    let mut daemon = rig.daemon(&settings)?;
    let mut feed = Feed::new(&rig.broker, SERIES, 1)?;
    feed.publish(0..100)?;
    daemon.wait_metrics("the first stored readings", |m| m.stored() > 0.0)?;
    // At most half of the readings have been published now.
    daemon.kill()?;
    feed.publish(100..150)?;
    let mut daemon = rig.daemon(&settings)?;
    feed.publish(150..200)?;
    feed.finish()?;
    let database = rig.database(&settings)?;
    daemon.wait_metrics("4000 rows", |_| {
        database.int("select count(*) from readings").is_ok_and(|n| n >= 4_000)
    })?;
    assert_complete(&database, SERIES, 200)?;
    daemon.stop()
}

#[test]
fn the_broker_comes_back_and_readings_go_on() -> Result<()> {
    let mut rig = Rig::new(Store::Sqlite)?;
    let settings = Settings::climate();
    let mut daemon = rig.daemon(&settings)?;
    Feed::run(&rig.broker, SERIES, 1, 0..10)?;
    daemon.wait_stored(10 * SERIES)?;
    // This broker keeps nothing on disk, so the session and its subscriptions are gone.
    rig.broker.restart()?;
    daemon.wait_metrics("the connection to stand again", |m| m.sum("vidente_mqtt_connected", &[]) == 1.0)?;
    vidente_tests::wait_until("the daemon to be ready again", vidente_tests::WAIT, || {
        Ok(daemon.get("/ready")?.0 == 200)
    })?;
    Feed::run(&rig.broker, SERIES, 1, 10..20)?;
    daemon.wait_stored(20 * SERIES)?;
    daemon.stop()?;
    assert_complete(&rig.database(&settings)?, SERIES, 20)
}

#[test]
fn forecasts_go_on_while_postgres_is_away_and_nothing_is_lost() -> Result<()> {
    let mut rig = Rig::new(Store::Postgres)?;
    let settings = Settings::climate();
    let heard = Subscriber::new(&rig.broker, "vidente/forecast/#")?;
    let mut daemon = rig.daemon(&settings)?;
    Feed::run(&rig.broker, SERIES, 1, 0..20)?;
    daemon.wait_stored(20 * SERIES)?;
    heard.wait_for(20 * SERIES)?;
    let mut feed = Feed::new(&rig.broker, SERIES, 1)?;
    if let Some(postgres) = &mut rig.postgres {
        postgres.crash()?;
    }
    feed.publish(20..40)?;
    heard.wait_for(40 * SERIES)?;
    daemon.wait_metrics("the store to be seen away", |m| m.sum("vidente_store_up", &[]) == 0.0)?;
    if let Some(postgres) = &mut rig.postgres {
        postgres.start_again()?;
    }
    daemon.wait_metrics("the store to be seen back", |m| m.sum("vidente_store_up", &[]) == 1.0)?;
    feed.publish(40..60)?;
    feed.finish()?;
    let metrics = daemon.wait_stored(60 * SERIES)?;
    assert_eq!((metrics.received(), metrics.rejected(None)), (240.0, 0.0));
    assert_eq!(heard.wait_for(60 * SERIES)?.len(), 240);
    daemon.stop()?;
    assert_complete(&rig.database(&settings)?, SERIES, 60)
}

/// Every reading once, none late, and a forecast from each but the first of a series.
fn assert_complete(database: &Database, series: usize, length: usize) -> Result<()> {
    let per_series: Vec<(i64, i64)> = database.rows(
        "select (select count(*) from readings r where r.series_id = s.id and not r.late), \
                (select count(*) from forecasts f where f.series_id = s.id) from series s",
    )?;
    assert_eq!(per_series, vec![(length as i64, length as i64 - 1); series]);
    Ok(())
}
