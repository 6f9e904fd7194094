//! Publishing a given number of messages, and knowing that the broker has them.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rumqttc::{AsyncClient, Event, EventLoop, Outgoing, Packet, QoS};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::options::{self, Role};
use crate::config::Mqtt;

/// Messages on the way that the broker has not confirmed.
const IN_FLIGHT: u16 = 100;
/// Longest wait for the connection, and for the broker to confirm what is on the way.
const PATIENCE: Duration = Duration::from_secs(30);

/// How far the connection has come.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    connected: bool,
    /// Messages that the broker has as far as the quality of service can tell.
    done: u64,
}

/// A connection that only publishes. It does not outlive the loss of its broker.
pub struct Publisher {
    client: AsyncClient,
    qos: QoS,
    progress: watch::Receiver<Progress>,
    connection: JoinHandle<Result<()>>,
    sent: u64,
}

impl Publisher {
    /// Connects over MQTT 3.1.1 with a clean session.
    ///
    /// # Errors
    /// If the broker cannot be reached, or refuses.
    pub async fn connect(mqtt: &Mqtt, qos: u8) -> Result<Publisher> {
        let (mut options, network) = options::v4(mqtt, Role::Tool)?;
        options.set_inflight(IN_FLIGHT);
        let qos = match qos {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        };
        // Few requests beyond those in flight: whoever publishes waits for the broker.
        let (client, mut events) = AsyncClient::new(options, 10);
        events.set_network_options(network);
        let (tell, progress) = watch::channel(Progress::default());
        let connection = tokio::spawn(drive(events, tell, qos));
        let mut publisher = Publisher { client, qos, progress, connection, sent: 0 };
        publisher
            .wait_for(|p| p.connected)
            .await
            .with_context(|| format!("no connection to {}", mqtt.url))?;
        Ok(publisher)
    }

    /// Publishes a message, once there is room for it.
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn publish(&mut self, topic: String, payload: Vec<u8>) -> Result<()> {
        tokio::select! {
            sent = self.client.publish(topic, self.qos, false, payload) => {
                if sent.is_ok() {
                    self.sent += 1;
                    return Ok(());
                }
            }
            // The queue stays open when nothing takes from it any more.
            _ = self.progress.wait_for(|_| false) => {}
        }
        self.lost().await
    }

    /// Messages that the broker has.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.progress.borrow().done
    }

    /// Waits until the broker has every message, then says farewell.
    ///
    /// # Errors
    /// If the connection is lost before.
    pub async fn finish(mut self) -> Result<()> {
        let sent = self.sent;
        self.wait_for(|p| p.done >= sent).await?;
        self.client.disconnect().await.context("saying farewell")?;
        tokio::time::timeout(PATIENCE, self.connection).await.context("the connection does not end")??
    }

    async fn wait_for(&mut self, condition: impl FnMut(&Progress) -> bool) -> Result<()> {
        match tokio::time::timeout(PATIENCE, self.progress.wait_for(condition)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(_)) => {}
            Err(_) => bail!("no answer from the broker within {PATIENCE:?}"),
        }
        self.lost().await
    }

    /// Why the connection ended.
    async fn lost(&mut self) -> Result<()> {
        match (&mut self.connection).await {
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) => bail!("the connection has ended"),
            Err(error) => Err(error).context("the connection broke down"),
        }
    }
}

/// Keeps the connection going until it ends from either side.
async fn drive(mut events: EventLoop, tell: watch::Sender<Progress>, qos: QoS) -> Result<()> {
    loop {
        // Its text holds those of its sources.
        let event = events.poll().await.map_err(|error| anyhow!("the connection broke: {error}"))?;
        let done = match (&event, qos) {
            (Event::Incoming(Packet::ConnAck(_)), _) => {
                tell.send_modify(|p| p.connected = true);
                false
            }
            (Event::Outgoing(Outgoing::Disconnect), _) => return Ok(()),
            (Event::Outgoing(Outgoing::Publish(_)), QoS::AtMostOnce)
            | (Event::Incoming(Packet::PubAck(_)), QoS::AtLeastOnce)
            | (Event::Incoming(Packet::PubComp(_)), QoS::ExactlyOnce) => true,
            _ => false,
        };
        if done {
            tell.send_modify(|p| p.done += 1);
        }
    }
}
