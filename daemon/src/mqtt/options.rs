//! `[mqtt]` as `rumqttc`'s options, for both protocol versions.

use anyhow::{Context, Result, anyhow};
use rumqttc::{NetworkOptions, QoS, TlsConfiguration, Transport, v5};
use url::Url;

use crate::config::Mqtt;
use crate::secret::Secret;
use crate::tls;
use crate::topic::STATUS_TOPIC;

/// Body of [`STATUS_TOPIC`] while the daemon can publish.
pub(super) const ONLINE: &[u8] = b"online";
/// Body of [`STATUS_TOPIC`] otherwise.
pub(super) const OFFLINE: &[u8] = b"offline";

/// The largest packet that MQTT can express, which is also what the library is told to take.
///
/// A packet beyond the library's limit ends the connection, and the broker sends it again on the
/// next, for ever. And a limit told to mosquitto 2.0 makes it drop what is larger without freeing its
/// place in flight, so that 20 such messages end delivery. So the inlet drops what is beyond ours.
const MQTT_MAX_PACKET: u32 = 268_435_455;
/// How long the broker keeps what arrives while the daemon is away (MQTT 5; 3.1.1 has no limit).
const SESSION_EXPIRY_SECONDS: u32 = 7 * 24 * 3600;

/// Which connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Readings in: persistent session, acknowledged by hand.
    In,
    /// Forecasts out: clean session, last will.
    Out,
    /// Requests in, answers and announcements out: clean session.
    Control,
    /// Of a command that ends by itself: clean session.
    Tool,
}

/// What both protocol versions are given.
struct Common {
    host: String,
    port: u16,
    client_id: String,
    login: Option<(String, String)>,
    transport: Transport,
    network: NetworkOptions,
}

fn common(mqtt: &Mqtt, role: Role) -> Result<Common> {
    let url = Url::parse(&mqtt.url).context("mqtt.url is no URL")?;
    let host = url.host_str().context("mqtt.url names no host")?.to_owned();
    let tls = url.scheme() == "mqtts";
    let transport = if tls {
        Transport::tls_with_config(TlsConfiguration::from(tls::client(mqtt.tls_files())?))
    } else {
        Transport::tcp()
    };
    let password = match &mqtt.password_file {
        Some(file) => Secret::read(file).map_err(|e| anyhow!("mqtt.password_file: {e}"))?.expose().to_owned(),
        None => String::new(),
    };
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    Ok(Common {
        host,
        port: url.port().unwrap_or(if tls { 8883 } else { 1883 }),
        client_id: match role {
            Role::In | Role::Tool => mqtt.client_id.clone(),
            Role::Out => format!("{}-out", mqtt.client_id),
            Role::Control => format!("{}-control", mqtt.client_id),
        },
        login: mqtt.username.clone().map(|user| (user, password)),
        transport,
        network,
    })
}

/// Messages of QoS 1 that the broker may send ahead of our acks, which come after a commit. mosquitto
/// takes this over its own limit of 20, at which a burst fills its queue of 1,000 and loses the rest.
const RECEIVE_MAXIMUM: u16 = 10_000;

/// Options for MQTT 3.1.1, and the TCP options, which this version keeps elsewhere.
pub(super) fn v4(mqtt: &Mqtt, role: Role) -> Result<(rumqttc::MqttOptions, NetworkOptions)> {
    let common = common(mqtt, role)?;
    let mut options = rumqttc::MqttOptions::new(common.client_id, common.host, common.port);
    options.set_transport(common.transport).set_keep_alive(mqtt.keep_alive);
    options.set_max_packet_size(MQTT_MAX_PACKET as usize, MQTT_MAX_PACKET as usize);
    if let Some((user, password)) = common.login {
        options.set_credentials(user, password);
    }
    match role {
        Role::In => {
            options.set_clean_session(false).set_manual_acks(true);
        }
        Role::Out => {
            let will = rumqttc::LastWill::new(STATUS_TOPIC, OFFLINE, QoS::AtLeastOnce, true);
            options.set_clean_session(true).set_last_will(will);
        }
        Role::Control | Role::Tool => {
            options.set_clean_session(true);
        }
    }
    Ok((options, common.network))
}

/// Options for MQTT 5.
pub(super) fn v5(mqtt: &Mqtt, role: Role) -> Result<v5::MqttOptions> {
    let common = common(mqtt, role)?;
    let mut options = v5::MqttOptions::new(common.client_id, common.host, common.port);
    options
        .set_transport(common.transport)
        .set_keep_alive(mqtt.keep_alive)
        .set_network_options(common.network);
    options.set_max_packet_size(Some(MQTT_MAX_PACKET));
    if let Some((user, password)) = common.login {
        options.set_credentials(user, password);
    }
    match role {
        Role::In => {
            options
                .set_clean_start(false)
                .set_session_expiry_interval(Some(SESSION_EXPIRY_SECONDS))
                .set_receive_maximum(Some(RECEIVE_MAXIMUM))
                .set_manual_acks(true);
        }
        Role::Out => {
            let will = v5::mqttbytes::v5::LastWill::new(
                STATUS_TOPIC,
                OFFLINE,
                v5::mqttbytes::QoS::AtLeastOnce,
                true,
                None,
            );
            options.set_clean_start(true).set_last_will(will);
        }
        Role::Control | Role::Tool => {
            options.set_clean_start(true);
        }
    }
    Ok(options)
}
