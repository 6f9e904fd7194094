#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::{IpAddr, Ipv4Addr};

use rumqttc::Packet;

use super::*;
use crate::demo::broker;

const DAY: i64 = 86_400_000_000;

#[test]
fn starts_hours_of_running_back_within_bounds() {
    let now = 1_800_000_000_000_000;
    assert_eq!(now - start_time(now, 3600.0), 600 * DAY);
    assert_eq!(now - start_time(now, 1.0), 2 * DAY);
    assert_eq!(now - start_time(now, 1e9), 730 * DAY);
}

#[test]
fn readings_wait_for_simulated_time_and_never_pass_now() {
    let began = Instant::now();
    let start = 1_000_000_000;
    let pace = Pace { began, start, speed: 60.0 };
    let long_after = i64::MAX / 2;
    let reading = start + 600_000_000;
    assert_eq!(pace.wait(reading, began, long_after), Duration::from_secs(10));
    let at = began + Duration::from_secs(4);
    assert_eq!(pace.wait(reading, at, long_after), Duration::from_secs(6));
    let at = began + Duration::from_secs(99);
    assert_eq!(pace.wait(reading, at, long_after), Duration::ZERO);
    // Simulated time has caught up with ours: from here on, real time rules.
    assert_eq!(pace.wait(reading, at, reading - 2_000_000), Duration::from_secs(2));
    assert_eq!(pace.wait(reading, at, reading), Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishes_the_simulation_until_told_to_stop() {
    let broker = broker::start(0, IpAddr::V4(Ipv4Addr::LOCALHOST)).unwrap();
    let (client, mut events) =
        AsyncClient::new(MqttOptions::new("listener", broker.address.ip().to_string(), broker.port()), 100);
    client.subscribe("#", QoS::AtLeastOnce).await.unwrap();
    while !matches!(events.poll().await.unwrap(), Event::Incoming(Packet::SubAck(_))) {}

    // Ten simulated hours back at a speed that catches up at once: it then goes on in real time.
    let now = jiff::Timestamp::now().as_microsecond();
    let start = now - 10 * 3600 * 1_000_000;
    let (stop, stopped) = watch::channel(false);
    let simulation = Simulation::new(4, start);
    let publisher = tokio::spawn(publish(broker.address, simulation, start, 1e6, stopped));

    let expected: Vec<_> = Simulation::new(4, start).take_while(|s| s.time <= now).collect();
    assert!(expected.len() > 1000);
    for sample in &expected {
        let message = loop {
            if let Event::Incoming(Packet::Publish(p)) = events.poll().await.unwrap() {
                break p;
            }
        };
        assert_eq!((message.topic.as_str(), &message.payload[..]), (sample.topic, sample.payload.as_bytes()));
        assert!(sample.time <= jiff::Timestamp::now().as_microsecond());
    }
    stop.send(true).unwrap();
    let published = publisher.await.unwrap().unwrap();
    // Every one expected, and those that came due in real time while the test ran.
    let due =
        Simulation::new(4, start).take_while(|s| s.time <= jiff::Timestamp::now().as_microsecond()).count();
    assert!((expected.len()..=due).contains(&(published as usize)), "{published}");
}

#[tokio::test]
async fn a_speed_that_is_no_speed_is_refused() {
    let address = (IpAddr::V4(Ipv4Addr::LOCALHOST), 1).into();
    for speed in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let (_stop, stopped) = watch::channel(false);
        publish(address, Simulation::new(1, 0), 0, speed, stopped).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_broker_that_is_away_does_not_delay_the_stop_for_long() {
    let port = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let (stop, stopped) = watch::channel(false);
    let address = (IpAddr::V4(Ipv4Addr::LOCALHOST), port).into();
    let publisher = tokio::spawn(publish(address, Simulation::new(1, 0), 0, 1e9, stopped));
    tokio::task::yield_now().await;
    stop.send(true).unwrap();
    publisher.await.unwrap().unwrap();
}
