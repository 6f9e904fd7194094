//! A connection that looks at what the broker grants, and ends.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet, PubAckReason, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event};
use tokio::time::{Instant, timeout, timeout_at};

use super::TcpLink;
use super::options::{self, Role};
use super::wire::{self, Client, Link};
use crate::config::{Mqtt, Protocol};

/// How long the broker may take for all of it.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the broker may take to say what it is, once it has answered all else.
const NAME_PATIENCE: Duration = Duration::from_secs(1);
/// How long is listened for messages once that is done, unless enough has come before.
pub(crate) const LISTENS: Duration = Duration::from_secs(3);
/// Where mosquitto says what it is.
const NAME: &str = "$SYS/broker/version";

/// What a broker grants.
#[derive(Debug, Default)]
pub(crate) struct Granted {
    /// Filters that it refuses, and why.
    pub(crate) refused: Vec<(String, String)>,
    /// Why it does not let us publish; none if it does, or over MQTT 3.1.1, where it does not say.
    pub(crate) unpublished: Option<String>,
    /// The highest quality of service, if it is limited.
    pub(crate) max_qos: Option<u8>,
    /// Whether it keeps retained messages.
    pub(crate) retains: bool,
    /// The largest packet it takes, if it says so.
    pub(crate) max_packet: Option<usize>,
    /// What it calls itself; mosquitto does.
    pub(crate) name: Option<String>,
    /// Whether messages were listened for; not if the broker ends the connection.
    pub(crate) listened: bool,
}

/// Told the topic of each message; says whether enough has come.
pub(crate) type Hear<'h> = &'h mut (dyn FnMut(&str) -> bool + Send);

/// Connects beside the daemon, under a client id of its own, tries subscriptions and a publication, and listens
/// for a moment.
///
/// # Errors
/// If there is no connection, or no answer in time.
pub(crate) async fn probe(mqtt: &Mqtt, filters: &[String], topic: &str, hear: Hear<'_>) -> Result<Granted> {
    let mqtt = Mqtt { client_id: format!("{}-doctor", mqtt.client_id), ..mqtt.clone() };
    match mqtt.protocol {
        Protocol::V5 => look(&mqtt, filters, topic, hear).await,
        Protocol::V311 => look_v311(&mqtt, filters, hear).await,
    }
}

fn late() -> Result<Granted> {
    bail!("no answer within {} s", PATIENCE.as_secs())
}

async fn look(mqtt: &Mqtt, filters: &[String], topic: &str, hear: Hear<'_>) -> Result<Granted> {
    let (client, mut events) = AsyncClient::new(options::v5(mqtt, Role::Tool)?, 16);
    let mut granted = Granted { retains: true, ..Granted::default() };
    let (mut subscribed, mut published, mut enough) = (false, false, false);
    let mut answered = None;
    let mut until = Instant::now() + PATIENCE;
    loop {
        let Ok(event) = timeout_at(until, events.poll()).await else {
            if subscribed && published {
                break;
            }
            return late();
        };
        let event = match event {
            Ok(event) => event,
            // mosquitto 2.0 does so over a publication that it denies, with or without an answer before.
            Err(error) if subscribed => {
                if !published {
                    granted.unpublished =
                        Some(format!("and ends the connection: {}", super::link::failure_v5(&error)));
                }
                return Ok(granted);
            }
            Err(error) => bail!("{}", super::link::failure_v5(&error)),
        };
        match event {
            Event::Incoming(Packet::ConnAck(ack)) => {
                if let Some(properties) = ack.properties {
                    granted.max_qos = properties.max_qos;
                    granted.retains = properties.retain_available != Some(0);
                    granted.max_packet = properties.max_packet_size.map(|size| size as usize);
                }
                let qos = if mqtt.qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
                let all = filters.iter().map(|filter| Filter::new(filter, qos));
                let name = std::iter::once(Filter::new(NAME, QoS::AtMostOnce));
                client.try_subscribe_many(all.chain(name)).context("subscribing")?;
            }
            Event::Incoming(Packet::SubAck(ack)) => {
                subscribed = true;
                for (filter, code) in filters.iter().zip(ack.return_codes) {
                    if !matches!(code, SubscribeReasonCode::Success(_)) {
                        granted.refused.push((filter.clone(), format!("{code:?}")));
                    }
                }
                // Only now: a broker that ends the connection over it can take the answer above with it.
                // A higher quality than the broker's would end the connection; at 0 it does not answer.
                published = granted.max_qos == Some(0);
                let qos = if published { QoS::AtMostOnce } else { QoS::AtLeastOnce };
                client.try_publish(topic, qos, false, "doctor").context("publishing")?;
            }
            Event::Incoming(Packet::PubAck(ack)) => {
                published = true;
                if !matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers) {
                    granted.unpublished = Some(format!("{:?}", ack.reason));
                }
            }
            Event::Incoming(Packet::Publish(message)) if message.topic == NAME => {
                granted.name = Some(String::from_utf8_lossy(&message.payload).into_owned());
            }
            Event::Incoming(Packet::Publish(message)) => {
                enough = enough || hear(&String::from_utf8_lossy(&message.topic));
            }
            _ => {}
        }
        if subscribed && published {
            if enough && granted.name.is_some() {
                break;
            }
            let answered = *answered.get_or_insert_with(Instant::now);
            until = answered + if enough { NAME_PATIENCE } else { LISTENS };
        }
    }
    granted.listened = true;
    // The session is clean: nothing stays.
    let _ = client.try_disconnect();
    let _ = timeout(NAME_PATIENCE, async { while events.poll().await.is_ok() {} }).await;
    Ok(granted)
}

async fn look_v311(mqtt: &Mqtt, filters: &[String], hear: Hear<'_>) -> Result<Granted> {
    let (client, mut link) = TcpLink::open(mqtt, Role::Tool)?;
    let mut granted: Option<Granted> = None;
    let mut enough = false;
    let mut until = Instant::now() + PATIENCE;
    loop {
        let Ok(event) = timeout_at(until, link.next()).await else { return granted.map_or_else(late, Ok) };
        let event = match event {
            Ok(event) => event,
            Err(failure) => {
                // All that was asked may have been answered before.
                let unheard = |granted| Granted { listened: false, ..granted };
                return granted.map(unheard).ok_or_else(|| anyhow!("{failure}"));
            }
        };
        match event {
            wire::Event::Connected { .. } => {
                client.subscribe(filters, mqtt.qos).map_err(|_| anyhow!("cannot subscribe"))?;
            }
            wire::Event::Subscribed(answers) => {
                let answers = filters.iter().zip(answers);
                let refused = answers.filter_map(|(filter, answer)| Some((filter.clone(), answer.err()?)));
                let (refused, retains, listened) = (refused.collect(), true, true);
                granted = Some(Granted { refused, retains, listened, ..Granted::default() });
                until = Instant::now() + LISTENS;
            }
            wire::Event::Publish(message) => enough = enough || hear(&message.topic),
            _ => {}
        }
        if enough && let Some(granted) = granted.take() {
            return Ok(granted);
        }
    }
}
