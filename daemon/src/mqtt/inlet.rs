//! The incoming connection: readings in, acknowledgements out once they are durable.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;

use anyhow::{Result, bail};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time;
use tracing::{error, warn};

use super::backoff::Outages;
use super::subscriptions::Subscriptions;
use super::wire::{Client, Event, Incoming, Link};
use crate::clock::{self, Clock};
use crate::config;
use crate::message::{AckToken, Message, Packet};
use crate::metrics::Metrics;
use crate::ready::Ready;
use crate::recorder::Backlog;
use crate::retry::sleep_until;

/// Packets held while there is no room for what must be stored, in number and bytes. Meanwhile the connection
/// is served and kept alive: over MQTT 5 the broker sends no more ahead of our acks, see `options`.
const HOLD: (usize, usize) = (10_000, 16 << 20);

/// Bodies up to this size are not weighed: the inbox is bounded in number.
const SMALL: usize = 4096;
/// Bytes of larger bodies that may be under way to the engine.
const UNDER_WAY: u32 = 32 << 20;

/// Where readings go, and whether there is room for what must be stored.
#[derive(Debug)]
pub(crate) struct Intake {
    /// To the engine.
    pub(crate) engine: mpsc::Sender<Message>,
    /// What may be acknowledged of them.
    pub(crate) acks: mpsc::UnboundedReceiver<AckToken>,
    /// What waits for the store.
    pub(crate) backlog: Arc<Backlog>,
    /// When they arrive.
    pub(crate) clock: Clock,
}

/// Runs the incoming connection until `stop` is true and `acks` is closed and written.
///
/// Each packet goes to `tx`. When `tx` is full this waits, and with it the broker, through TCP. When what
/// waits for the store is at its bound, packets to be acknowledged are held here; when that is full, too,
/// nothing more is read, and should the broker lose patience, it delivers all again. On `stop`, `tx` is
/// dropped, so that what reads it ends, and packets that still come are left to the broker. When
/// then `acks` closes, the last acknowledgements are written, and the connection ends; the broker
/// keeps the session.
///
/// # Errors
/// If the engine is closed from the other end.
pub(crate) async fn run_inlet<C: Client, L: Link>(
    (client, mut link): (C, L),
    config: config::Mqtt,
    mut filters: watch::Receiver<Vec<String>>,
    Intake { engine: tx, mut acks, backlog, clock }: Intake,
    ready: Arc<Ready>,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let mut inlet = Inlet {
        client,
        subscriptions: Subscriptions::new(filters.borrow_and_update().clone(), config.qos),
        tx: Some(tx),
        ready,
        metrics,
        backlog,
        clock,
        generation: 0,
        connected: false,
        held: Held::default(),
        under_way: Arc::new(Semaphore::new(UNDER_WAY as usize)),
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
                let resubscribe = inlet.subscriptions.again();
                // Simulations are to be repeatable, hence a fixed order: the event last, for it comes again
                // and again, and the acks are no more than the events before them.
                tokio::select! {
                    biased;
                    // Also when the other end is gone, since then nobody can say stop.
                    _ = stop.wait_for(|stop| *stop), if inlet.tx.is_some() => {
                        inlet.tx = None;
                        // Not acknowledged, so the broker keeps them.
                        inlet.held = Held::default();
                    }
                    () = inlet.room(), if !inlet.held.packets.is_empty() => inlet.release()?,
                    count = acks.recv_many(&mut tokens, 1024), if acks_open => {
                        if count == 0 {
                            acks_open = false;
                            if !inlet.finish() {
                                return Ok(());
                            }
                        }
                        tokens.drain(..).for_each(|token| inlet.ack(token));
                    }
                    // Without anybody to change them they stay.
                    Ok(()) = filters.changed() => {
                        let filters = filters.borrow_and_update().clone();
                        inlet.change(filters);
                    }
                    () = sleep_until(resubscribe), if resubscribe.is_some() => inlet.subscribe(),
                    event = &mut next, if !inlet.held.is_full() => break event,
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

/// Packets that wait for room.
#[derive(Default)]
struct Held {
    packets: VecDeque<Packet>,
    bytes: usize,
}

impl Held {
    fn is_full(&self) -> bool {
        self.packets.len() >= HOLD.0 || self.bytes >= HOLD.1
    }

    fn push(&mut self, packet: Packet) {
        self.bytes += packet.topic.len() + packet.payload.len();
        self.packets.push_back(packet);
    }

    fn pop(&mut self) -> Option<Packet> {
        let packet = self.packets.pop_front()?;
        self.bytes -= packet.topic.len() + packet.payload.len();
        Some(packet)
    }
}

struct Inlet<C> {
    client: C,
    config: config::Mqtt,
    subscriptions: Subscriptions,
    /// None once stopping.
    tx: Option<mpsc::Sender<Message>>,
    ready: Arc<Ready>,
    metrics: Arc<Metrics>,
    backlog: Arc<Backlog>,
    clock: Clock,
    /// Counts connections; packet ids are meaningless beyond theirs.
    generation: u64,
    connected: bool,
    held: Held,
    under_way: Arc<Semaphore>,
    outages: Outages,
}

impl<C: Client> Inlet<C> {
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
            Event::Unsubscribed => self.subscriptions.left(),
            Event::Disconnected | Event::Other => {}
        }
        Ok(())
    }

    fn subscribe(&mut self) {
        if self.tx.is_some() && self.connected {
            self.subscriptions.ask(&self.client);
        } else {
            self.subscriptions.forget();
        }
    }

    /// Other topics are wanted from here on.
    fn change(&mut self, filters: Vec<String>) {
        let asked = self.tx.is_some() && self.connected;
        if let Some(granted) = self.subscriptions.change(filters, asked.then_some(&self.client)) {
            self.ready.set_subscribed(granted);
        }
    }

    fn subscribed(&mut self, answers: &[Result<(), String>]) {
        if let Some(granted) = self.subscriptions.answered(answers, &self.client) {
            self.ready.set_subscribed(granted);
        }
    }

    async fn forward(&mut self, mut incoming: Incoming, stop: &mut watch::Receiver<bool>) -> Result<()> {
        let Some(tx) = &self.tx else { return Ok(()) };
        if incoming.payload.len() > self.config.max_packet_bytes {
            warn!(
                "a message of {} bytes on {} is over mqtt.max_packet_bytes and taken for unparseable",
                incoming.payload.len(),
                incoming.topic
            );
            incoming.payload = Vec::new();
        }
        let share = match incoming.payload.len() {
            ..=SMALL => None,
            length => {
                // Those that are held leave room for one more at any time.
                let length = u32::try_from(length).unwrap_or(u32::MAX).min(UNDER_WAY - HOLD.1 as u32);
                tokio::select! {
                    biased;
                    share = self.under_way.clone().acquire_many_owned(length) => share.ok(),
                    // Not acknowledged, so the broker keeps it.
                    _ = stop.wait_for(|stop| *stop) => return Ok(()),
                }
            }
        };
        let packet = Packet {
            topic: incoming.topic,
            payload: incoming.payload,
            retained: incoming.retained,
            ack: incoming.packet_id.map(|packet_id| AckToken { generation: self.generation, packet_id }),
            arrived: clock::steady(),
            arrived_at: self.clock.now(),
            share,
        };
        // The order among those that are acknowledged is kept.
        if packet.ack.is_some() && !(self.held.packets.is_empty() && self.backlog.lets_in()) {
            self.held.push(packet);
            return Ok(());
        }
        match tx.try_send(Message::Packet(packet)) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(message)) => tokio::select! {
                biased;
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

    /// Waits until there is room for a packet held, with the store and with the engine.
    async fn room(&self) {
        self.backlog.room().await;
        if let Some(tx) = &self.tx {
            // A permit that is let go leaves its place free; an error is for the next one to tell.
            let _ = tx.reserve().await;
        }
    }

    /// Lets one of the packets held go on.
    fn release(&mut self) -> Result<()> {
        let Some(tx) = &self.tx else { return Ok(()) };
        match tx.try_reserve() {
            Ok(place) => {
                if let Some(packet) = self.held.pop() {
                    place.send(Message::Packet(packet));
                }
            }
            // Someone else has taken it meanwhile.
            Err(mpsc::error::TrySendError::Full(())) => {}
            Err(mpsc::error::TrySendError::Closed(())) => bail!("nobody takes the readings any more"),
        }
        Ok(())
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
        self.subscriptions.forget();
        self.ready.set_subscribed(false);
        self.metrics.mqtt_connected.set(0);
    }
}
