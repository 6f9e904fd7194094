//! One connection through rumqttc over either protocol version, with one set of events.

use std::collections::{BTreeSet, VecDeque};
use std::error::Error;
use std::time::Duration;

use anyhow::Result;
use rumqttc::{QoS, v5};
use tokio::time;
use tracing::warn;

use super::options::{self, Role};
use super::wire::{Client, Event, Failure, Incoming, Link, Refused, ReplyTo};
use crate::config::{Mqtt, Protocol};

/// Requests that may wait in the library. No more packets than there are packet ids can await their
/// acknowledgement, so the incoming connection's never fills, and acknowledging never waits.
const IN_REQUESTS: usize = u16::MAX as usize + 64;
/// What waits here is not dropped any more when it gets old, hence few.
const OUT_REQUESTS: usize = 256;

/// How much longer than the keep-alive a connection may take for anything: to be made, or to write a packet.
/// Over MQTT 5 the library waits for ever for a broker that hangs to read.
const HANG: Duration = Duration::from_secs(10);

/// How long the broker may take to close the connection after the farewell.
const LINGER: Duration = Duration::from_secs(2);

/// The half that is polled.
pub(crate) struct TcpLink {
    events: Loop,
    /// What came before the failure that follows it.
    left: VecDeque<Event>,
    failure: Option<Failure>,
    unsent: Unsent,
}

enum Loop {
    V4(Box<rumqttc::EventLoop>),
    V5(Box<v5::EventLoop>),
}

/// Messages handed to a connection that broke before they were written.
enum Unsent {
    V4(Vec<rumqttc::Request>),
    V5(Vec<v5::Request>),
}

/// The half that requests are made on.
#[derive(Clone)]
pub(crate) enum TcpClient {
    V4(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

const LOGIN: &str = "check mqtt.username and mqtt.password_file, and that the broker knows them";
const CLIENT_ID: &str = "check mqtt.client_id: the broker refuses it, or another client uses it";
const VERSION: &str = "the broker does not speak this MQTT version; set mqtt.protocol to the other";

impl TcpLink {
    /// Both halves of a connection, which is made when first polled.
    ///
    /// # Errors
    /// If a file named in the configuration cannot be used.
    pub(crate) fn open(mqtt: &Mqtt, role: Role) -> Result<(TcpClient, TcpLink)> {
        let requests = if role == Role::In { IN_REQUESTS } else { OUT_REQUESTS };
        let (client, events, unsent) = match mqtt.protocol {
            Protocol::V311 => {
                let (options, network) = options::v4(mqtt, role)?;
                let (client, mut events) = rumqttc::AsyncClient::new(options, requests);
                events.set_network_options(network);
                (TcpClient::V4(client), Loop::V4(Box::new(events)), Unsent::V4(Vec::new()))
            }
            Protocol::V5 => {
                let (client, events) = v5::AsyncClient::new(options::v5(mqtt, role)?, requests);
                (TcpClient::V5(client), Loop::V5(Box::new(events)), Unsent::V5(Vec::new()))
            }
        };
        Ok((client, TcpLink { events, left: VecDeque::new(), failure: None, unsent }))
    }
}

impl Link for TcpLink {
    async fn next(&mut self) -> Result<Event, Failure> {
        if let Some(event) = self.left.pop_front() {
            return Ok(event);
        }
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        // The library keeps what it has read of a connection that fails and would deliver it after
        // the next connection's begin, as if its packet ids were that one's.
        let failure = match &mut self.events {
            Loop::V4(events) => {
                match time::timeout(events.mqtt_options.keep_alive() + HANG, events.poll()).await {
                    Ok(Ok(event)) => return Ok(from_v4(event)),
                    Ok(Err(e)) => {
                        self.left.extend(events.state.events.drain(..).map(from_v4));
                        failure_v4(&e)
                    }
                    Err(_) => Failure::hangs(),
                }
            }
            // The broker may have set another keep-alive.
            Loop::V5(events) => {
                match time::timeout(events.options.keep_alive() + HANG, events.poll()).await {
                    Ok(Ok(event)) => return Ok(from_v5(event)),
                    Ok(Err(e)) => {
                        self.left.extend(events.state.events.drain(..).map(from_v5));
                        failure_v5(&e)
                    }
                    Err(_) => Failure::hangs(),
                }
            }
        };
        match self.left.pop_front() {
            Some(event) => {
                self.failure = Some(failure);
                Ok(event)
            }
            None => Err(failure),
        }
    }

    async fn closed(&mut self) {
        let closed = async { while self.next().await.is_ok() {} };
        if time::timeout(LINGER, closed).await.is_err() {
            warn!("the broker did not close the connection; the last acknowledgements may be lost");
        }
    }

    fn reset(&mut self) {
        // The library does that when the failure shows, but keeps what is requested after, such as
        // acknowledgements that would be for other packets on the next connection.
        match (&mut self.events, &mut self.unsent) {
            (Loop::V4(events), Unsent::V4(unsent)) => {
                events.clean();
                unsent.extend(events.pending.drain(..).filter(|r| matches!(r, rumqttc::Request::Publish(_))));
            }
            (Loop::V5(events), Unsent::V5(unsent)) => {
                events.clean();
                unsent.extend(events.pending.drain(..).filter(|r| matches!(r, v5::Request::Publish(_))));
            }
            _ => {}
        }
    }

    fn forget(&mut self) {
        self.reset();
        match &mut self.unsent {
            Unsent::V4(unsent) => unsent.clear(),
            Unsent::V5(unsent) => unsent.clear(),
        }
    }

    fn resume(&mut self, topic: &str, payload: &[u8]) {
        match (&mut self.events, &mut self.unsent) {
            (Loop::V4(events), Unsent::V4(unsent)) => {
                let mut first = rumqttc::Publish::new(topic, QoS::AtMostOnce, payload);
                first.retain = true;
                events.pending.push_back(rumqttc::Request::Publish(first));
                events.pending.extend(unsent.drain(..));
            }
            (Loop::V5(events), Unsent::V5(unsent)) => {
                let mut first = v5::mqttbytes::v5::Publish::new(
                    topic,
                    v5::mqttbytes::QoS::AtMostOnce,
                    payload.to_vec(),
                    None,
                );
                first.retain = true;
                events.pending.push_back(v5::Request::Publish(first));
                events.pending.extend(unsent.drain(..));
            }
            _ => {}
        }
    }
}

impl Client for TcpClient {
    fn ack(&self, packet_id: u16) -> Result<(), Refused> {
        match self {
            TcpClient::V4(client) => {
                let mut publish = rumqttc::Publish::new("", QoS::AtLeastOnce, Vec::new());
                publish.pkid = packet_id;
                client.try_ack(&publish).map_err(|_| Refused)
            }
            TcpClient::V5(client) => {
                let mut publish =
                    v5::mqttbytes::v5::Publish::new("", v5::mqttbytes::QoS::AtLeastOnce, Vec::new(), None);
                publish.pkid = packet_id;
                client.try_ack(&publish).map_err(|_| Refused)
            }
        }
    }

    fn subscribe(&self, filters: &[String], qos: u8) -> Result<(), Refused> {
        match self {
            TcpClient::V4(client) => {
                let qos = if qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
                let filters = filters.iter().map(|f| rumqttc::SubscribeFilter::new(f.clone(), qos));
                client.try_subscribe_many(filters).map_err(|_| Refused)
            }
            TcpClient::V5(client) => {
                use v5::mqttbytes::{QoS, v5::Filter};
                let qos = if qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
                client.try_subscribe_many(filters.iter().map(|f| Filter::new(f, qos))).map_err(|_| Refused)
            }
        }
    }

    fn unsubscribe(&self, filters: &BTreeSet<String>) -> Result<(), Refused> {
        filters.iter().try_for_each(|filter| match self {
            TcpClient::V4(client) => client.try_unsubscribe(filter).map_err(|_| Refused),
            TcpClient::V5(client) => client.try_unsubscribe(filter).map_err(|_| Refused),
        })
    }

    // Never at a higher quality of service: a message the library sets aside because its packet id is
    // taken blocks the connection for ever when the session is lost (rumqtt #1056).
    async fn publish(&self, topic: String, payload: Vec<u8>, retain: bool) -> Result<(), Refused> {
        match self {
            TcpClient::V4(client) => {
                client.publish(topic, QoS::AtMostOnce, retain, payload).await.map_err(|_| Refused)
            }
            TcpClient::V5(client) => client
                .publish(topic, v5::mqttbytes::QoS::AtMostOnce, retain, payload)
                .await
                .map_err(|_| Refused),
        }
    }

    async fn answer(
        &self,
        topic: String,
        payload: Vec<u8>,
        correlation: Option<Vec<u8>>,
    ) -> Result<(), Refused> {
        match (self, correlation) {
            (TcpClient::V5(client), Some(correlation)) => {
                let properties = v5::mqttbytes::v5::PublishProperties {
                    correlation_data: Some(correlation.into()),
                    ..Default::default()
                };
                let qos = v5::mqttbytes::QoS::AtMostOnce;
                client
                    .publish_with_properties(topic, qos, false, payload, properties)
                    .await
                    .map_err(|_| Refused)
            }
            _ => self.publish(topic, payload, false).await,
        }
    }

    fn try_disconnect(&self) -> Result<(), Refused> {
        match self {
            TcpClient::V4(client) => client.try_disconnect().map_err(|_| Refused),
            TcpClient::V5(client) => client.try_disconnect().map_err(|_| Refused),
        }
    }

    async fn disconnect(&self) -> Result<(), Refused> {
        match self {
            TcpClient::V4(client) => client.disconnect().await.map_err(|_| Refused),
            TcpClient::V5(client) => client.disconnect().await.map_err(|_| Refused),
        }
    }
}

fn from_v4(event: rumqttc::Event) -> Event {
    use rumqttc::{Event as E, Outgoing, Packet as P, SubscribeReasonCode};
    match event {
        E::Incoming(P::ConnAck(_)) => Event::Connected { max_packet: None },
        E::Incoming(P::Publish(p)) => Event::Publish(Incoming {
            topic: p.topic,
            payload: p.payload.into(),
            retained: p.retain,
            packet_id: (p.qos != QoS::AtMostOnce).then_some(p.pkid),
            reply: None,
        }),
        E::Incoming(P::SubAck(ack)) => Event::Subscribed(
            ack.return_codes
                .into_iter()
                .map(|code| match code {
                    SubscribeReasonCode::Success(_) => Ok(()),
                    SubscribeReasonCode::Failure => Err("refused without a reason".to_owned()),
                })
                .collect(),
        ),
        E::Incoming(P::UnsubAck(_)) => Event::Unsubscribed,
        E::Outgoing(Outgoing::Disconnect) => Event::Disconnected,
        _ => Event::Other,
    }
}

fn from_v5(event: v5::Event) -> Event {
    use v5::Event as E;
    use v5::mqttbytes::v5::{Packet as P, SubscribeReasonCode};
    match event {
        E::Incoming(P::ConnAck(ack)) => Event::Connected {
            max_packet: ack.properties.and_then(|p| p.max_packet_size).map(|size| size as usize),
        },
        E::Incoming(P::Publish(p)) => Event::Publish(Incoming {
            // The broker has checked that it is UTF-8.
            topic: String::from_utf8_lossy(&p.topic).into_owned(),
            payload: p.payload.into(),
            retained: p.retain,
            packet_id: (p.qos != v5::mqttbytes::QoS::AtMostOnce).then_some(p.pkid),
            reply: p.properties.and_then(|p| {
                let correlation = p.correlation_data.map(Vec::from);
                Some(Box::new(ReplyTo { topic: p.response_topic?, correlation }))
            }),
        }),
        E::Incoming(P::SubAck(ack)) => Event::Subscribed(
            ack.return_codes
                .into_iter()
                .map(|code| match code {
                    SubscribeReasonCode::Success(_) => Ok(()),
                    other => Err(format!("{other:?}")),
                })
                .collect(),
        ),
        E::Incoming(P::UnsubAck(_)) => Event::Unsubscribed,
        E::Outgoing(rumqttc::Outgoing::Disconnect) => Event::Disconnected,
        _ => Event::Other,
    }
}

fn failure_v4(error: &rumqttc::ConnectionError) -> Failure {
    use rumqttc::{ConnectReturnCode as C, ConnectionError as E};
    let hint = match error {
        E::ConnectionRefused(C::BadUserNamePassword | C::NotAuthorized) => Some(LOGIN),
        E::ConnectionRefused(C::BadClientId) => Some(CLIENT_ID),
        E::ConnectionRefused(C::RefusedProtocolVersion) => Some(VERSION),
        _ => None,
    };
    Failure::of(error, error, hint)
}

pub(super) fn failure_v5(error: &v5::ConnectionError) -> Failure {
    use v5::mqttbytes::v5::{ConnectReturnCode as C, DisconnectReasonCode as D};
    use v5::{ConnectionError as E, StateError as S};
    let hint = match error {
        E::ConnectionRefused(C::BadUserNamePassword | C::NotAuthorized) => Some(LOGIN),
        E::ConnectionRefused(C::BadClientId | C::ClientIdentifierNotValid) => Some(CLIENT_ID),
        E::ConnectionRefused(C::RefusedProtocolVersion | C::UnsupportedProtocolVersion) => Some(VERSION),
        E::MqttState(S::ServerDisconnect { reason_code: D::SessionTakenOver, .. }) => Some(CLIENT_ID),
        _ => None,
    };
    // The library does not name this one as its source.
    let source: &(dyn Error + 'static) = match error {
        E::MqttState(S::Deserialization(inner)) => inner,
        _ => error,
    };
    Failure::of(error, source, hint)
}
