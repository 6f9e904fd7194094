//! The harness itself: each server starts on its own, and answers.

use anyhow::Result;
use vidente_tests::{Database, Feed, Mosquitto, Persistence, Postgres, Prometheus, Reading, Subscriber};

#[test]
fn mosquitto_keeps_a_retained_message_across_a_restart() -> Result<()> {
    let mut broker = Mosquitto::start(Persistence::Disk)?;
    Feed::message(&broker, "a/b", b"kept", true)?;
    broker.restart()?;
    let subscriber = Subscriber::new(&broker, "#")?;
    let heard = subscriber.wait_for(1)?;
    assert_eq!(heard[0].payload, b"kept");
    assert!(heard[0].retained);
    Ok(())
}

#[test]
fn publishers_deliver_every_reading_in_the_order_of_its_series() -> Result<()> {
    let broker = Mosquitto::start(Persistence::Memory)?;
    let subscriber = Subscriber::new(&broker, "sensors/#")?;
    Feed::run(&broker, 3, 1, 0..2_000)?;
    let heard = subscriber.wait_for(6_000)?;
    for series in 0..3 {
        let topic = Feed::topic(series);
        let payloads = heard.iter().filter(|m| m.topic == topic).map(|m| m.payload.clone());
        let sent = (0..2_000).map(|position| Reading { series, position }.payload().into_bytes());
        assert!(payloads.eq(sent), "series {series}");
    }
    Ok(())
}

#[test]
fn postgres_keeps_what_it_committed_across_a_crash() -> Result<()> {
    let mut postgres = Postgres::start()?;
    let database = Database::connect(&postgres.url())?;
    database.execute("create table t (x bigint); insert into t values (1), (2)")?;
    postgres.crash()?;
    assert!(Database::connect(&postgres.url()).is_err());
    postgres.start_again()?;
    assert_eq!(Database::connect(&postgres.url())?.int("select count(*) from t")?, 2);
    Ok(())
}

#[test]
fn prometheus_answers_queries() -> Result<()> {
    let prometheus = Prometheus::start("global: {}\n")?;
    let answer = prometheus.query("label_replace(vector(7), \"a\", \"b\", \"\", \"\")")?;
    assert_eq!(answer.len(), 1);
    assert_eq!((answer[0].0["a"].as_str(), answer[0].1), (Some("b"), 7.0));
    Ok(())
}
