//! The broker is away, hangs, refuses, or has forgotten everything: the daemon keeps trying, at a pace, and
//! takes up its work when it is let.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use vidente_tests::{
    Cut, Daemon, Feed, Line, Mosquitto, Persistence, Proxies, Proxy, Rig, Settings, Store, Subscriber, WAIT,
    wait_until,
};

const SERIES: usize = 4;
const PROTOCOLS: [&str; 2] = ["5", "3.1.1"];

/// A daemon that reaches the broker by way of a proxy and soon notices when it hangs.
fn by_way_of(proxy: &Proxy, protocol: &'static str) -> Settings {
    Settings {
        protocol,
        mqtt: "keep_alive = \"5s\"".to_owned(),
        proxies: Proxies { broker: Some(proxy.port()), store: None },
        ..Settings::climate()
    }
}

/// The same with large forecasts.
fn far_ahead(settings: Settings) -> Settings {
    let rest = settings.rest.replace("time = \"ts\"\n", "time = \"ts\"\ninterval = \"60s\"\nhorizon = 100\n");
    Settings { rest, ..settings }
}

/// Most of these tests wait most of the time, so both protocol versions do it at once.
fn with_both(test: impl Fn(&'static str) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let test = &test;
        let threads = PROTOCOLS.map(|protocol| scope.spawn(move || test(protocol)));
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("see above"))?)
    })
}

fn wait_ready(daemon: &Daemon) -> Result<()> {
    wait_until("the daemon to be ready again", WAIT, || Ok(daemon.get("/ready")?.0 == 200))
}

/// Positions of the forecasts heard, in order.
fn origins(heard: &Subscriber) -> Result<Vec<String>> {
    let origin = |body: serde_json::Value| Some(body["origin"].as_str()?.to_owned());
    heard.messages().iter().map(|m| origin(m.json()?).context("no origin")).collect()
}

#[test]
fn forecasts_of_an_outage_are_dropped_oldest_first_and_counted() -> Result<()> {
    // What the daemon holds of them: 65,536 steps.
    const HELD: usize = 655;
    with_both(|protocol| {
        let rig = Rig::new(Store::Sqlite)?;
        let proxy = Proxy::only(rig.broker.port(), "vidente-out")?;
        let settings = far_ahead(by_way_of(&proxy, protocol));
        let heard = Subscriber::new(&rig.broker, "vidente/forecast/#")?;
        let mut daemon = rig.daemon(&settings)?;
        Feed::run(&rig.broker, 1, 1, 0..10)?;
        heard.wait_for(10)?;
        // Only the connection that forecasts go out on; readings come in.
        proxy.set(Line::Refusing);
        proxy.cut(Cut::Reset);
        wait_until("the outage to be noticed", WAIT, || Ok(daemon.log().contains("outgoing connection to")))?;
        Feed::run(&rig.broker, 1, 1, 10..1_000)?;
        let metrics = daemon.wait_stored(1_000)?;
        let dropped = metrics.sum("vidente_forecasts_dropped_total", &[]);
        assert_eq!((metrics.published(), dropped), (10.0, (990 - HELD) as f64), "MQTT {protocol}");
        proxy.set(Line::Open);
        heard.wait_for(10 + HELD)?;
        Feed::run(&rig.broker, 1, 1, 1_000..1_001)?;
        heard.wait_for(10 + HELD + 1)?;
        let expected = (0..10).chain(1_000 - HELD..1_001);
        let times = expected.map(|position| {
            let seconds = vidente_tests::Reading { series: 0, position }.time();
            Ok(jiff::Timestamp::from_second(i64::try_from(seconds)?)?.to_string())
        });
        assert_eq!(origins(&heard)?, times.collect::<Result<Vec<_>>>()?, "MQTT {protocol}");
        let metrics = daemon.metrics()?;
        let dropped = metrics.sum("vidente_forecasts_dropped_total", &[]);
        assert_eq!(metrics.received(), metrics.published() + dropped);
        daemon.stop()
    })
}

#[test]
fn a_connection_that_hangs_is_given_up() -> Result<()> {
    with_both(|protocol| {
        let rig = Rig::new(Store::Sqlite)?;
        let proxy = Proxy::start(rig.broker.port())?;
        let mut daemon = rig.daemon(&by_way_of(&proxy, protocol))?;
        // What control goes over is not waited for at the start.
        wait_until("all connections", WAIT, || Ok(proxy.connections() == 3))?;
        proxy.freeze();
        // Nothing is said about it on any connection.
        wait_until("three new connections", WAIT, || Ok(proxy.connections() >= 6))?;
        wait_ready(&daemon)?;
        Feed::run(&rig.broker, SERIES, 1, 0..10)?;
        daemon.wait_stored(10 * SERIES)?;
        daemon.stop()
    })
}

/// When much is to be sent, a peer that takes nothing is met in the middle of a packet.
#[test]
fn a_connection_that_hangs_in_the_middle_of_a_packet_is_given_up() -> Result<()> {
    with_both(|protocol| {
        let rig = Rig::new(Store::Sqlite)?;
        let proxy = Proxy::only(rig.broker.port(), "vidente-out")?;
        let settings = far_ahead(by_way_of(&proxy, protocol));
        let mut daemon = rig.daemon(&settings)?;
        let before = proxy.connections();
        proxy.freeze();
        // Some 25 kB each: more than all buffers on the way hold.
        Feed::run(&rig.broker, SERIES, 1, 0..400)?;
        daemon.wait_stored(400 * SERIES)?;
        wait_until("a new connection", WAIT, || Ok(proxy.connections() > before))?;
        let heard = Subscriber::new(&rig.broker, "vidente/forecast/#")?;
        Feed::run(&rig.broker, SERIES, 1, 400..410)?;
        wait_until("the newest forecast", WAIT, || {
            let last = heard.messages().pop().context("none came")?;
            Ok(last.json()?["origin"] == "2026-01-01T06:49:00Z")
        })?;
        daemon.stop()
    })
}

/// The inlet holds what it has no room for, and goes on telling the broker that it is there.
#[test]
fn the_connection_is_kept_alive_while_the_store_hangs_and_memory_is_full() -> Result<()> {
    with_both(|protocol| {
        let rig = Rig::new(Store::Postgres)?;
        let postgres = rig.postgres.as_ref().context("no Postgres")?;
        let (proxy, store) = (Proxy::start(rig.broker.port())?, Proxy::start(postgres.port())?);
        let mut settings = far_ahead(by_way_of(&proxy, protocol));
        settings.proxies.store = Some(store.port());
        let mut daemon = rig.daemon(&settings)?;
        store.set(Line::Hole);
        let mut feed = Feed::new(&rig.broker, SERIES, 1)?;
        // A row for each step: some 2,000 readings fill what waits for the store.
        feed.publish(0..800)?;
        let queue = |m: &vidente_tests::Metrics| m.sum("vidente_store_queue_readings", &[]);
        daemon.wait_metrics("a full memory", |m| queue(m) >= (800 * SERIES) as f64)?;
        feed.publish(800..1_000)?;
        // Longer than mosquitto waits for a sign of life: half as long again as the keep-alive, and as it looks
        // now and then only, up to 5 s more.
        std::thread::sleep(Duration::from_secs(15));
        assert_eq!(proxy.connections(), 3, "MQTT {protocol}: {}", daemon.log());
        store.set(Line::Open);
        feed.finish()?;
        let metrics = daemon.wait_stored(1_000 * SERIES)?;
        // Nothing came twice, since no connection was lost.
        assert_eq!((metrics.received(), metrics.rejected(None)), ((1_000 * SERIES) as f64, 0.0));
        assert_eq!(proxy.connections(), 3);
        daemon.stop()
    })
}

#[test]
fn a_broker_that_died_and_forgot_everything_is_subscribed_to_again() -> Result<()> {
    with_both(|protocol| {
        let mut rig = Rig::new(Store::Sqlite)?;
        let settings = Settings { protocol, ..Settings::climate() };
        let mut daemon = rig.daemon(&settings)?;
        for round in 0..3 {
            Feed::run(&rig.broker, SERIES, 1, 10 * round..10 * (round + 1))?;
            daemon.wait_stored(10 * (round + 1) * SERIES)?;
            rig.broker.kill()?;
            wait_until("the death to be noticed", WAIT, || Ok(daemon.get("/ready")?.0 != 200))?;
            rig.broker.start_again()?;
            wait_ready(&daemon)?;
        }
        daemon.stop()
    })
}

#[test]
fn a_subscription_that_is_lost_is_made_again() -> Result<()> {
    with_both(|protocol| {
        let rig = Rig::new(Store::Sqlite)?;
        let proxy = Proxy::start(rig.broker.port())?;
        proxy.set(Line::Deaf);
        let settings = by_way_of(&proxy, protocol);
        let mut daemon = rig.launch(&settings, &[])?;
        wait_until("the connections", WAIT, || Ok(daemon.log().contains("incoming connection to")))?;
        assert_eq!(daemon.get("/ready")?.0, 503);
        proxy.set(Line::Open);
        daemon.wait_ready()?;
        Feed::run(&rig.broker, SERIES, 1, 0..10)?;
        daemon.wait_stored(10 * SERIES)?;
        daemon.stop()
    })
}

#[test]
fn a_retained_message_beyond_the_limit_is_in_nobodys_way() -> Result<()> {
    with_both(|protocol| {
        let rig = Rig::new(Store::Sqlite)?;
        let settings =
            Settings { protocol, mqtt: "max_packet_bytes = 1024".to_owned(), ..Settings::climate() };
        Feed::message(&rig.broker, &Feed::topic(9), &[b'x'; 200_000], true)?;
        // It comes with every subscription.
        for run in 0..2 {
            let mut daemon = rig.daemon(&settings)?;
            Feed::message(&rig.broker, &Feed::topic(9), &[b'y'; 100_000], false)?;
            Feed::run(&rig.broker, SERIES, 1, 10 * run..10 * (run + 1))?;
            let metrics = daemon.wait_metrics("everything", |m| {
                m.stored() >= (10 * SERIES) as f64 && m.rejected(None) >= 2.0
            })?;
            assert_eq!(metrics.received(), (10 * SERIES + 2) as f64);
            daemon.stop()?;
        }
        Ok(())
    })
}

#[test]
fn two_daemons_under_one_client_id_do_not_run_wild() -> Result<()> {
    with_both(|protocol| {
        let rig = Rig::new(Store::Sqlite)?;
        let proxy = Proxy::start(rig.broker.port())?;
        let settings = by_way_of(&proxy, protocol);
        let mut first = rig.daemon(&settings)?;
        // Its own store, the same id; and a file of its own to log into.
        let second = Settings { name: "second".to_owned(), ..settings.clone() };
        let environment = [("VIDENTE__MQTT__CLIENT_ID", "vidente")];
        let mut other = rig.launch(&second, &environment)?;
        wait_until("the fight to begin", WAIT, || Ok(proxy.connections() >= 8))?;
        let before = proxy.connections();
        std::thread::sleep(Duration::from_secs(10));
        // Two daemons with two connections each: a busy loop would make thousands.
        let made = proxy.connections() - before;
        assert!(made < 60, "MQTT {protocol}: {made} connections in 10 s");
        assert!(first.log().contains("another client uses the same mqtt.client_id"), "{}", first.log());
        other.stop()?;
        wait_ready(&first)?;
        // What the other one took for itself is in its own store.
        let before = first.metrics()?.stored() as usize;
        Feed::run(&rig.broker, SERIES, 1, 0..10)?;
        first.wait_stored(before + 10 * SERIES)?;
        first.stop()
    })
}

#[test]
fn a_broker_that_refuses_is_tried_again_and_again() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let closed = Mosquitto::start_with(Persistence::Memory, "allow_anonymous false")?;
    with_both(|protocol| {
        let proxy = Proxy::start(closed.port())?;
        let settings = Settings { name: format!("v{protocol}"), ..by_way_of(&proxy, protocol) };
        let mut daemon = rig.launch(&settings, &[])?;
        // The waits grow to 5 s: so many tries show that they do not go on growing.
        wait_until("tries", WAIT, || Ok(proxy.connections() >= 16))?;
        assert!(daemon.log().contains("check mqtt.username and mqtt.password_file"), "{}", daemon.log());
        assert_eq!(daemon.get("/ready")?.0, 503);
        assert_eq!(daemon.metrics()?.sum("vidente_mqtt_connected", &[]), 0.0);
        proxy.redirect(rig.broker.port());
        daemon.wait_ready()?;
        Feed::run(&rig.broker, SERIES, 1, 0..10)?;
        daemon.wait_stored(10 * SERIES)?;
        daemon.stop()
    })
}
