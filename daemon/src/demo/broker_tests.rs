#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::Ipv4Addr;

use rumqttc::{Client, Event, MqttOptions, Packet, QoS};

use super::*;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A port that is free at this moment.
fn unused_port() -> u16 {
    TcpListener::bind((LOOPBACK, 0)).unwrap().local_addr().unwrap().port()
}

fn options(id: &str, broker: RunningBroker) -> MqttOptions {
    let mut options = MqttOptions::new(id, broker.address.ip().to_string(), broker.port());
    options.set_max_packet_size(2 << 20, 2 << 20);
    options
}

/// Subscribes and returns what arrives, until `count` messages have.
fn collect(broker: RunningBroker, filter: &str, count: usize) -> JoinHandle<Vec<(String, Vec<u8>)>> {
    let (client, mut connection) = Client::new(options("collector", broker), 100);
    client.subscribe(filter, QoS::AtLeastOnce).unwrap();
    let mut events = move || connection.recv().unwrap().unwrap();
    while !matches!(events(), Event::Incoming(Packet::SubAck(_))) {}
    std::thread::spawn(move || {
        let mut messages = Vec::new();
        while messages.len() < count {
            if let Event::Incoming(Packet::Publish(p)) = events() {
                messages.push((p.topic, p.payload.to_vec()));
            }
        }
        drop(client);
        messages
    })
}

#[test]
fn takes_the_preferred_port_and_another_one_if_that_is_taken() {
    let preferred = unused_port();
    let first = start(preferred, LOOPBACK).unwrap();
    assert_eq!(first.port(), preferred);
    let second = start(preferred, LOOPBACK).unwrap();
    assert_ne!(second.port(), preferred);
    for broker in [first, second] {
        let messages = collect(broker, "a/#", 1);
        let (client, mut connection) = Client::new(options("sender", broker), 10);
        client.publish("a/b", QoS::AtLeastOnce, false, "x").unwrap();
        client.disconnect().unwrap();
        for event in connection.iter() {
            if event.is_err() {
                break;
            }
        }
        assert_eq!(messages.join().unwrap(), [("a/b".to_owned(), b"x".to_vec())]);
    }
}

#[test]
fn an_address_that_is_not_ours_is_an_error() {
    let error = start(unused_port(), IpAddr::from([192, 0, 2, 1])).unwrap_err();
    assert!(error.to_string().contains("192.0.2.1"), "{error:#}");
}

#[test]
fn a_burst_arrives_whole_in_order_and_large_payloads_pass() {
    const COUNT: usize = 20_000;
    let broker = start(unused_port(), LOOPBACK).unwrap();
    let messages = collect(broker, "burst/#", COUNT + 1);
    let (client, mut connection) = Client::new(options("sender", broker), 1000);
    let driver = std::thread::spawn(move || {
        for event in connection.iter() {
            if event.is_err() {
                break;
            }
        }
    });
    for n in 0..COUNT {
        client.publish("burst/n", QoS::AtLeastOnce, false, n.to_string()).unwrap();
    }
    client.publish("burst/large", QoS::AtLeastOnce, false, vec![7; 900_000]).unwrap();
    let messages = messages.join().unwrap();
    for (n, (topic, payload)) in messages.iter().take(COUNT).enumerate() {
        assert_eq!((topic.as_str(), payload.as_slice()), ("burst/n", n.to_string().as_bytes()));
    }
    assert_eq!(messages.last().unwrap().1.len(), 900_000);
    client.disconnect().unwrap();
    driver.join().unwrap();
}
