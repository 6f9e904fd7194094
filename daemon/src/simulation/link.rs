//! Both halves of a simulated connection.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::broker::Broker;
use super::sim::{Sim, lock};
use crate::mqtt::{Client, Event, Failure, Link, Refused, Role};

/// Requests of publishing that may wait.
const ROOM: usize = 4;

/// What was asked of a connection and is not yet written.
#[derive(Default)]
struct Requests {
    waiting: Mutex<VecDeque<Request>>,
    written: Notify,
    gone: AtomicBool,
}

enum Request {
    Ack(u16),
    Subscribe(Vec<String>),
    Publish(String, Vec<u8>),
    Farewell,
}

pub(super) struct SimClient {
    requests: Arc<Requests>,
    news: Arc<Notify>,
}

pub(super) struct SimLink {
    role: Role,
    broker: Broker,
    sim: Sim,
    requests: Arc<Requests>,
    news: Arc<Notify>,
    connection: Option<u64>,
    unsent: Vec<Request>,
}

pub(super) fn open(broker: &Broker, sim: &Sim, role: Role) -> (SimClient, SimLink) {
    let (requests, news) = (Arc::new(Requests::default()), broker.news(role));
    let link = SimLink {
        role,
        broker: broker.clone(),
        sim: sim.clone(),
        requests: requests.clone(),
        news: news.clone(),
        connection: None,
        unsent: Vec::new(),
    };
    (SimClient { requests, news }, link)
}

impl SimLink {
    fn handle(&mut self, connection: u64, request: Request) -> Event {
        match request {
            Request::Ack(packet_id) => self.broker.ack(connection, packet_id),
            Request::Subscribe(filters) => self.broker.subscribe(filters),
            Request::Publish(topic, payload) => self.broker.hear(topic, payload),
            Request::Farewell => return Event::Disconnected,
        }
        Event::Other
    }
}

impl Link for SimLink {
    async fn next(&mut self) -> Result<Event, Failure> {
        self.sim.pause().await;
        let Some(connection) = self.connection else {
            self.connection = self.broker.connect(self.role);
            return match self.connection {
                Some(_) => Ok(Event::Connected { max_packet: None }),
                None => Err(Failure::new("nobody is there", None)),
            };
        };
        loop {
            if !self.broker.stands(self.role, connection) {
                self.connection = None;
                return Err(Failure::new("broken", None));
            }
            let request = lock(&self.requests.waiting).pop_front();
            if let Some(request) = request {
                self.requests.written.notify_one();
                return Ok(self.handle(connection, request));
            }
            if self.role == Role::In
                && let Some(event) = self.broker.deliver(connection)
            {
                return Ok(event);
            }
            self.news.notified().await;
        }
    }

    async fn closed(&mut self) {
        self.sim.pause().await;
        if let Some(connection) = self.connection.take() {
            self.broker.leave(self.role, connection);
        }
    }

    fn reset(&mut self) {
        let asked = std::mem::take(&mut *lock(&self.requests.waiting));
        self.unsent.extend(asked.into_iter().filter(|r| matches!(r, Request::Publish(..))));
    }

    fn forget(&mut self) {
        self.reset();
        self.unsent.clear();
    }

    fn resume(&mut self, topic: &str, payload: &[u8]) {
        let mut waiting = lock(&self.requests.waiting);
        let first = Request::Publish(topic.to_owned(), payload.to_owned());
        let all = std::iter::once(first).chain(self.unsent.drain(..)).chain(waiting.drain(..)).collect();
        *waiting = all;
    }
}

impl Drop for SimLink {
    fn drop(&mut self) {
        self.requests.gone.store(true, Ordering::Relaxed);
        self.requests.written.notify_one();
        if let Some(connection) = self.connection {
            self.broker.leave(self.role, connection);
        }
    }
}

impl SimClient {
    fn ask(&self, request: Request) -> Result<(), Refused> {
        if self.requests.gone.load(Ordering::Relaxed) {
            return Err(Refused);
        }
        lock(&self.requests.waiting).push_back(request);
        self.news.notify_one();
        Ok(())
    }

    async fn ask_with_room(&self, request: Request) -> Result<(), Refused> {
        while lock(&self.requests.waiting).len() >= ROOM && !self.requests.gone.load(Ordering::Relaxed) {
            self.requests.written.notified().await;
        }
        self.ask(request)
    }
}

impl Client for SimClient {
    fn ack(&self, packet_id: u16) -> Result<(), Refused> {
        self.ask(Request::Ack(packet_id))
    }

    fn subscribe(&self, filters: &[String], _qos: u8) -> Result<(), Refused> {
        self.ask(Request::Subscribe(filters.to_vec()))
    }

    fn unsubscribe(&self, filters: &BTreeSet<String>) -> Result<(), Refused> {
        unreachable!("nothing is reloaded here: {filters:?}")
    }

    fn try_disconnect(&self) -> Result<(), Refused> {
        self.ask(Request::Farewell)
    }

    async fn publish(&self, topic: String, payload: Vec<u8>, _retain: bool) -> Result<(), Refused> {
        self.ask_with_room(Request::Publish(topic, payload)).await
    }

    async fn answer(
        &self,
        topic: String,
        payload: Vec<u8>,
        _correlation: Option<Vec<u8>>,
    ) -> Result<(), Refused> {
        self.publish(topic, payload, false).await
    }

    async fn disconnect(&self) -> Result<(), Refused> {
        self.ask_with_room(Request::Farewell).await
    }
}
