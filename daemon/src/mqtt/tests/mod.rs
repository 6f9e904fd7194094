//! Against a real mosquitto, over both protocol versions.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod broker;
mod inlet;
mod outlet;

use crate::config::{Mqtt, Protocol};
use broker::Broker;

const PROTOCOLS: [Protocol; 2] = [Protocol::V5, Protocol::V311];

fn config(broker: &Broker, protocol: Protocol) -> Mqtt {
    Mqtt { url: format!("mqtt://127.0.0.1:{}", broker.port), protocol, ..Mqtt::default() }
}
