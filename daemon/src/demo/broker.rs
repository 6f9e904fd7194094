//! The embedded MQTT broker (rumqttd), for the demo only: it keeps nothing on disk and stops with
//! the process.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};

/// How long the broker may take to listen; it needs some 15 ms.
const START_LIMIT: Duration = Duration::from_secs(5);

/// A broker that listens, until the process ends: rumqttd cannot be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunningBroker {
    /// Where it listens, for MQTT 3.1.1 (the version `mosquitto_sub` speaks by default).
    pub address: SocketAddr,
}

impl RunningBroker {
    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

/// Starts a broker on the preferred port or, if that is taken, a free one, and returns once it
/// accepts connections.
///
/// # Errors
/// If no port of that address can be listened on.
pub fn start(preferred_port: u16, ip: IpAddr) -> anyhow::Result<RunningBroker> {
    let mut last = None;
    // A free port is found by binding it for a moment, so somebody else may take it in between.
    for port in [preferred_port, 0, 0] {
        match free_port(SocketAddr::new(ip, port)).and_then(listen) {
            Ok(address) => return Ok(RunningBroker { address }),
            Err(e) => last = Some(e),
        }
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("no port tried")))
        .with_context(|| format!("cannot start the embedded broker on {ip}"))
}

/// The address itself if it can be listened on, its port filled in if that is 0.
fn free_port(address: SocketAddr) -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind(address)
        .with_context(|| format!("{address} cannot be listened on"))?
        .local_addr()?)
}

fn listen(address: SocketAddr) -> anyhow::Result<SocketAddr> {
    let mut broker = Broker::new(config(address));
    let thread = std::thread::Builder::new().name("broker".into()).spawn(move || {
        if let Err(error) = broker.start() {
            tracing::error!(%error, "the embedded broker ended");
        }
    })?;
    wait_until_listening(address, &thread)?;
    Ok(address)
}

fn wait_until_listening(address: SocketAddr, broker: &JoinHandle<()>) -> anyhow::Result<()> {
    let began = Instant::now();
    // An address of "all interfaces" is reached over loopback.
    let target = match address.ip() {
        ip if !ip.is_unspecified() => address,
        IpAddr::V4(_) => SocketAddr::new(IpAddr::from([127, 0, 0, 1]), address.port()),
        IpAddr::V6(_) => SocketAddr::new(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), address.port()),
    };
    loop {
        // It returns only if it could not listen.
        anyhow::ensure!(!broker.is_finished(), "the broker could not listen on {address}");
        if TcpStream::connect_timeout(&target, Duration::from_millis(200)).is_ok() {
            return Ok(());
        }
        anyhow::ensure!(began.elapsed() < START_LIMIT, "the broker does not answer on {address}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn config(listen: SocketAddr) -> Config {
    let connections = ConnectionSettings {
        connection_timeout_ms: 10_000,
        max_payload_size: 1 << 20,
        max_inflight_count: 1000,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let server = ServerSettings {
        name: "broker-v4".into(),
        listen,
        tls: None,
        next_connection_delay_ms: 1,
        connections,
    };
    Config {
        id: 0,
        router: RouterConfig {
            max_connections: 200,
            max_outgoing_packet_count: 2000,
            // The log of each subscribed filter: 64 MiB are minutes of the demo at full speed, so
            // a slow subscriber loses nothing, and memory stays bounded.
            max_segment_size: 8 << 20,
            max_segment_count: 8,
            ..RouterConfig::default()
        },
        v4: Some(HashMap::from([("1".into(), server)])),
        ..Config::default()
    }
}

#[cfg(test)]
#[path = "broker_tests.rs"]
mod tests;
