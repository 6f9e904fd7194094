//! The incoming connection: readings in, acknowledgements out once they are durable.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::sync::{mpsc, watch};
use tokio::time;
use tracing::{error, info, warn};

use super::backoff::Outages;
use super::link::{Client, Event, Incoming, Link};
use super::options::Role;
use crate::config;
use crate::message::{AckToken, Message, Packet};
use crate::metrics::Metrics;
use crate::ready::Ready;
use crate::recorder::Backlog;
use crate::training;

/// How long after a refused subscription it is tried again; someone may have changed the rights.
const RESUBSCRIBE: Duration = Duration::from_secs(30);

/// Where readings go, and whether there is room for what must be stored.
#[derive(Debug)]
pub struct Intake {
    /// To the engine.
    pub engine: mpsc::Sender<Message>,
    /// What waits for the store.
    pub backlog: Arc<Backlog>,
}

/// Runs the incoming connection until `stop` is true and `acks` is closed and written.
///
/// Each packet goes to `tx`. When `tx` is full this waits, and with it the broker, through TCP;
/// quality of service 1 bounds what the broker sends unacknowledged anyway. On `stop`, `tx` is
/// dropped, so that what reads it ends, and packets that still come are left to the broker. When
/// then `acks` closes, the last acknowledgements are written, and the connection ends; the broker
/// keeps the session.
///
/// # Errors
/// If a file named in the configuration cannot be used, or if the engine is closed from the other end.
pub async fn run_inlet(
    config: config::Mqtt,
    filters: Vec<String>,
    Intake { engine: tx, backlog }: Intake,
    mut acks: mpsc::UnboundedReceiver<AckToken>,
    ready: Arc<Ready>,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let (client, mut link) = Link::open(&config, Role::In)?;
    let mut inlet = Inlet {
        client,
        filters: filters.into_iter().collect::<BTreeSet<_>>().into_iter().collect(),
        tx: Some(tx),
        ready,
        metrics,
        backlog,
        generation: 0,
        connected: false,
        resubscribe: None,
        outages: Outages::new("incoming", &config.url),
        config,
    };
    let mut tokens = Vec::new();
    let mut acks_open = true;
    let mut delay = None;
    loop {
        let event = {
            // Never dropped before it is done: see `Link::next`.
            let mut next = pin!(async {
                if let Some(delay) = delay.take() {
                    time::sleep(delay).await;
                }
                link.next().await
            });
            loop {
                let resubscribe = inlet.resubscribe;
                tokio::select! {
                    event = &mut next => break event,
                    count = acks.recv_many(&mut tokens, 1024), if acks_open => {
                        if count == 0 {
                            acks_open = false;
                            if !inlet.finish() {
                                return Ok(());
                            }
                        }
                        tokens.drain(..).for_each(|token| inlet.ack(token));
                    }
                    // Also when the other end is gone, since then nobody can say stop.
                    _ = stop.wait_for(|stop| *stop), if inlet.tx.is_some() => inlet.tx = None,
                    () = wait_until(resubscribe), if resubscribe.is_some() => inlet.subscribe(),
                }
            }
        };
        match event {
            Ok(Event::Disconnected) => {
                link.closed().await;
                break;
            }
            Ok(event) => inlet.handle(event, &mut stop).await?,
            Err(failure) => {
                inlet.disconnected();
                link.reset();
                if !acks_open {
                    break;
                }
                delay = Some(inlet.outages.failed(&failure));
            }
        }
    }
    inlet.disconnected();
    Ok(())
}

async fn wait_until(at: Option<time::Instant>) {
    if let Some(at) = at {
        time::sleep_until(at).await;
    }
}

struct Inlet {
    client: Client,
    config: config::Mqtt,
    filters: Vec<String>,
    /// None once stopping.
    tx: Option<mpsc::Sender<Message>>,
    ready: Arc<Ready>,
    metrics: Arc<Metrics>,
    backlog: Arc<Backlog>,
    /// Counts connections; packet ids are meaningless beyond theirs.
    generation: u64,
    connected: bool,
    resubscribe: Option<time::Instant>,
    outages: Outages,
}

impl Inlet {
    async fn handle(&mut self, event: Event, stop: &mut watch::Receiver<bool>) -> Result<()> {
        match event {
            Event::Connected { .. } => {
                self.generation += 1;
                self.connected = true;
                self.outages.connected();
                self.metrics.mqtt_connected.set(1);
                // Whatever the broker says of the session: a request of before may have been lost.
                self.subscribe();
            }
            Event::Publish(incoming) => self.forward(incoming, stop).await?,
            Event::Subscribed(answers) => self.subscribed(&answers),
            Event::Disconnected | Event::Other => {}
        }
        Ok(())
    }

    fn subscribe(&mut self) {
        self.resubscribe = None;
        if self.tx.is_none() || !self.connected {
            return;
        }
        if self.client.subscribe(&self.filters, self.config.qos).is_err() {
            error!("cannot subscribe now, trying again");
            self.resubscribe = Some(time::Instant::now() + RESUBSCRIBE);
        }
    }

    fn subscribed(&mut self, answers: &[Result<(), String>]) {
        let refused: Vec<_> =
            self.filters.iter().zip(answers).filter_map(|(f, a)| Some((f, a.as_ref().err()?))).collect();
        for (filter, reason) in &refused {
            error!(
                "the broker refuses the subscription to {filter} ({reason}); let the user of mqtt.username \
                 read it, for instance in the broker's ACL file; trying again in {RESUBSCRIBE:?}"
            );
        }
        if refused.is_empty() {
            info!("subscribed to {}", self.filters.join(", "));
        } else {
            self.resubscribe = Some(time::Instant::now() + RESUBSCRIBE);
        }
        self.ready.set_subscribed(refused.is_empty());
    }

    async fn forward(&self, mut incoming: Incoming, stop: &mut watch::Receiver<bool>) -> Result<()> {
        let Some(tx) = &self.tx else { return Ok(()) };
        if incoming.payload.len() > self.config.max_packet_bytes {
            warn!(
                "a message of {} bytes on {} is over mqtt.max_packet_bytes and taken for unparseable",
                incoming.payload.len(),
                incoming.topic
            );
            incoming.payload = Vec::new();
        }
        let message = Message::Packet(Packet {
            topic: incoming.topic,
            payload: incoming.payload,
            retained: incoming.retained,
            ack: incoming.packet_id.map(|packet_id| AckToken { generation: self.generation, packet_id }),
            arrived: Instant::now(),
            arrived_at: training::now(),
        });
        if incoming.packet_id.is_some() && !self.backlog.has_room() {
            // The store is away and memory is full: the broker keeps what is not acknowledged. Should
            // it lose patience meanwhile, it delivers all of that again.
            tokio::select! {
                () = self.backlog.room() => {}
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            }
        }
        match tx.try_send(message) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(message)) => tokio::select! {
                sent = tx.send(message) => match sent {
                    Ok(()) => Ok(()),
                    Err(_) => bail!("nobody takes the readings any more"),
                },
                // Not acknowledged, so the broker keeps it.
                _ = stop.wait_for(|stop| *stop) => Ok(()),
            },
            Err(mpsc::error::TrySendError::Closed(_)) => bail!("nobody takes the readings any more"),
        }
    }

    fn ack(&self, token: AckToken) {
        if self.connected && token.generation == self.generation && self.client.ack(token.packet_id).is_err()
        {
            error!("packet {} could not be acknowledged; the broker will deliver it again", token.packet_id);
        }
    }

    /// Nothing more will be acknowledged: says farewell. False if there is nobody to say it to.
    fn finish(&self) -> bool {
        self.connected && self.client.try_disconnect().is_ok()
    }

    fn disconnected(&mut self) {
        self.connected = false;
        self.resubscribe = None;
        self.ready.set_subscribed(false);
        self.metrics.mqtt_connected.set(0);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// mosquitto's ACL file never refuses a subscription, other brokers do.
    #[tokio::test]
    async fn a_refused_subscription_is_not_ready_and_is_tried_again() {
        let config = config::Mqtt::default();
        let (client, _link) = Link::open(&config, Role::In).unwrap();
        let mut inlet = Inlet {
            client,
            filters: vec!["a".into(), "b".into()],
            tx: Some(mpsc::channel(1).0),
            ready: Arc::default(),
            metrics: Metrics::new(["s"]).unwrap(),
            backlog: Backlog::new(1, prometheus::IntGauge::new("queue", "test").unwrap()),
            generation: 1,
            connected: true,
            resubscribe: None,
            outages: Outages::new("incoming", &config.url),
            config,
        };
        inlet.subscribed(&[Ok(()), Ok(())]);
        assert!(!inlet.ready.missing().contains(&"subscribed"));
        assert!(inlet.resubscribe.is_none());
        inlet.subscribed(&[Ok(()), Err("NotAuthorized".into())]);
        assert!(inlet.ready.missing().contains(&"subscribed"));
        assert!(inlet.resubscribe.is_some());
        inlet.subscribe();
        assert!(inlet.resubscribe.is_none());
    }
}
