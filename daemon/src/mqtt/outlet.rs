//! The outgoing connection: forecasts, anomalies and the daemon's status.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time;
use tracing::warn;

use super::backoff::Outages;
use super::options::{OFFLINE, ONLINE};
use super::wire::{Client, Event, Link, Refused};
use crate::config;
use crate::metrics::Metrics;
use crate::outqueue::{Kind, OutQueue, Outgoing};
use crate::topic::STATUS_TOPIC;

/// Messages taken from the queue at a time.
const BATCH: usize = 256;
/// Fixed header, topic length and properties of a PUBLISH at quality of service 0.
const PUBLISH_OVERHEAD: usize = 8;

/// Runs the outgoing connection until `queue` is closed and what it holds is published.
///
/// While there is no connection messages stay in the queue, which drops its oldest. A closed queue
/// is drained for no longer than `drain`, and not at all without a connection; what is left then is
/// dropped and counted.
pub(crate) async fn run_outlet<C: Client, L: Link>(
    (client, link): (C, L),
    config: config::Mqtt,
    queue: Arc<OutQueue>,
    metrics: Arc<Metrics>,
    drain: Duration,
) {
    // The largest packet that may be sent; none while there is no connection.
    let (up, limit) = watch::channel(None);
    let mut feeder = Feeder { client, queue: &queue, metrics: &metrics, limit, warned: false };
    let outages = Outages::new("outgoing", &config.url);
    // In one task, so that a message handed over wakes no other thread.
    let work = async {
        tokio::join!(drive(link, up, outages, &queue, config.max_packet_bytes), feeder.run());
    };
    let deadline = async {
        queue.closed().await;
        time::sleep(drain).await;
    };
    tokio::select! {
        biased;
        () = work => {}
        () = deadline => warn!("the broker does not take what is left to publish within {drain:?}"),
    }
    let dropped = queue.discard();
    if dropped > 0 {
        warn!("{dropped} messages were not published before the end");
    }
}

/// Polls the connection and keeps it up.
async fn drive(
    mut link: impl Link,
    up: watch::Sender<Option<usize>>,
    mut outages: Outages,
    queue: &OutQueue,
    max_packet_bytes: usize,
) {
    loop {
        let event = if up.borrow().is_some() {
            link.next().await
        } else {
            // Nothing is being written, so nothing is lost if this ends half way.
            tokio::select! {
                biased;
                event = link.next() => event,
                () = queue.closed() => return,
            }
        };
        match event {
            Ok(Event::Connected { max_packet }) => {
                outages.connected();
                link.resume(STATUS_TOPIC, ONLINE);
                up.send_replace(Some(max_packet.unwrap_or(max_packet_bytes).min(max_packet_bytes)));
            }
            Ok(Event::Disconnected) => return link.closed().await,
            Ok(_) => {}
            Err(failure) => {
                up.send_replace(None);
                link.reset();
                let delay = outages.failed(&failure);
                tokio::select! {
                    biased;
                    () = time::sleep(delay) => {}
                    () = queue.closed() => return,
                }
            }
        }
    }
}

/// Hands the queue's messages to the connection.
struct Feeder<'a, C> {
    client: C,
    queue: &'a OutQueue,
    metrics: &'a Metrics,
    limit: watch::Receiver<Option<usize>>,
    warned: bool,
}

impl<C: Client> Feeder<'_, C> {
    async fn run(&mut self) {
        // Refused means that the polling half has ended, because of the closed queue.
        let _ = self.feed().await;
    }

    async fn feed(&mut self) -> Result<(), Refused> {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let limit = tokio::select! {
                biased;
                limit = self.limit.wait_for(Option::is_some) => limit.map_err(|_| Refused)?.unwrap_or_default(),
                () = self.queue.closed() => return Err(Refused),
            };
            let more = tokio::select! {
                biased;
                _ = self.limit.wait_for(Option::is_none) => continue,
                more = self.queue.take(BATCH, &mut batch) => more,
            };
            if !more {
                break;
            }
            for message in batch.drain(..) {
                self.publish(message, limit).await?;
            }
        }
        self.client.publish(STATUS_TOPIC.to_owned(), OFFLINE.to_vec(), true).await?;
        self.client.disconnect().await
    }

    async fn publish(&mut self, message: Outgoing, limit: usize) -> Result<(), Refused> {
        // Either would end the connection, and the library does not check the first.
        if message.topic.len() > usize::from(u16::MAX)
            || message.topic.len() + message.payload.len() + PUBLISH_OVERHEAD > limit
        {
            self.queue.count_dropped(&message);
            if !std::mem::replace(&mut self.warned, true) {
                warn!(
                    "a message of {} bytes is dropped, and so will be others: the limit of \
                     mqtt.max_packet_bytes and the broker is {limit}; raise it or lower horizon",
                    message.topic.len() + message.payload.len(),
                );
            }
            return Ok(());
        }
        self.client.publish(message.topic, message.payload, message.retain).await?;
        if message.kind == Kind::Forecast {
            self.metrics.stream(message.stream).published.inc();
            if let Some(arrived) = message.arrived {
                self.metrics.latency.observe(arrived.elapsed().as_secs_f64());
            }
        }
        Ok(())
    }
}
