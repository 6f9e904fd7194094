//! A broker: one persistent session of quality of service 1 with a window, retained messages, and two
//! connections that may break at any time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::case::How;
use super::invariants;
use super::sensors::Publication;
use super::sim::{Sim, lock};
use super::spool;
use super::store::SimStore;
use crate::mqtt::{Event, Incoming, Role};

/// Clones are the same broker.
#[derive(Clone)]
pub(super) struct Broker {
    state: Arc<Mutex<State>>,
    sim: Sim,
    store: SimStore,
    /// Something happened on the incoming and on the outgoing connection.
    news: [Arc<Notify>; 2],
}

struct State {
    up: bool,
    /// Number of each connection that stands; 0 for none.
    connections: [u64; 2],
    made: u64,
    window: usize,
    refuses: bool,
    session: Option<Session>,
    retained: BTreeMap<String, usize>,
    published: Vec<Published>,
    /// Topic and body of what the daemon published, since it started.
    heard: Vec<(String, Vec<u8>)>,
}

#[derive(Default)]
struct Session {
    filters: Vec<String>,
    answers: VecDeque<Event>,
    queue: VecDeque<Copied>,
    flights: VecDeque<Flight>,
    next_id: u16,
}

/// A message on its way to the session.
#[derive(Clone, Copy)]
struct Copied {
    message: usize,
    retained: bool,
}

struct Flight {
    packet_id: u16,
    copy: Copied,
    /// The connection over which it was last delivered.
    sent_over: u64,
}

/// What became of a message.
#[derive(Debug, Clone)]
pub(super) struct Published {
    pub(super) publication: Publication,
    /// Whether the session took it, to be delivered surely.
    pub(super) taken: bool,
    /// Whether the session was lost with it.
    pub(super) lost: bool,
    pub(super) acked: bool,
    /// Deliveries of any kind.
    pub(super) deliveries: usize,
}

fn matches(filter: &str, topic: &str) -> bool {
    let (filter, topic): (Vec<_>, Vec<_>) = (filter.split('/').collect(), topic.split('/').collect());
    filter.len() == topic.len() && filter.iter().zip(topic).all(|(f, t)| *f == "+" || *f == t)
}

fn side(role: Role) -> usize {
    usize::from(role == Role::Out)
}

impl Broker {
    pub(super) fn new(sim: &Sim, store: &SimStore, window: usize) -> Broker {
        let state = State {
            up: true,
            connections: [0, 0],
            made: 0,
            window,
            refuses: false,
            session: None,
            retained: BTreeMap::new(),
            published: Vec::new(),
            heard: Vec::new(),
        };
        Broker {
            state: Arc::new(Mutex::new(state)),
            sim: sim.clone(),
            store: store.clone(),
            news: Default::default(),
        }
    }

    pub(super) fn news(&self, role: Role) -> Arc<Notify> {
        self.news[side(role)].clone()
    }

    /// A sensor publishes.
    pub(super) fn publish(&self, publication: Publication) {
        let state = &mut *lock(&self.state);
        let (message, how) = (state.published.len(), publication.how);
        if how == How::Retained {
            state.retained.insert(publication.topic.clone(), message);
        }
        let connected = state.connections[0] != 0;
        let session =
            state.session.as_mut().filter(|s| s.filters.iter().any(|f| matches(f, &publication.topic)));
        let session = session.filter(|_| connected || how != How::Perhaps);
        let taken = session.is_some() && how != How::Perhaps;
        if let Some(session) = session {
            session.queue.push_back(Copied { message, retained: false });
        }
        self.sim.note(|| {
            format!(
                "published {message} {} {} {how:?}{}",
                publication.topic,
                String::from_utf8_lossy(&publication.payload),
                if taken { "" } else { ", not taken" }
            )
        });
        state.published.push(Published { publication, taken, lost: false, acked: false, deliveries: 0 });
        self.news[0].notify_one();
    }

    pub(super) fn published(&self) -> Vec<Published> {
        lock(&self.state).published.clone()
    }

    /// The message before the last `back` ones.
    pub(super) fn publication(&self, back: usize) -> Option<Publication> {
        let state = lock(&self.state);
        let at = state.published.len().checked_sub(back + 1)?;
        Some(state.published[at].publication.clone())
    }

    pub(super) fn drop_connection(&self, role: Role) {
        lock(&self.state).connections[side(role)] = 0;
        self.sim.note(|| format!("{role:?} connection breaks"));
        if role == Role::In {
            self.offline();
        }
        self.news[side(role)].notify_one();
    }

    /// Nothing of quality of service 0 waits for a client that is not there.
    fn offline(&self) {
        let state = &mut *lock(&self.state);
        if let Some(session) = &mut state.session {
            session.answers.clear();
            session.queue.retain(|c| state.published[c.message].publication.how != How::Perhaps);
        }
    }

    pub(super) fn go_away(&self) {
        lock(&self.state).up = false;
        self.drop_connection(Role::In);
        self.drop_connection(Role::Out);
    }

    pub(super) fn come_back(&self) {
        lock(&self.state).up = true;
    }

    pub(super) fn forget(&self) {
        let state = &mut *lock(&self.state);
        let Some(session) = state.session.take() else { return };
        self.sim.note(|| "the session is lost".to_owned());
        for copy in session.queue.iter().chain(session.flights.iter().map(|f| &f.copy)) {
            state.published[copy.message].lost = true;
        }
    }

    pub(super) fn refuse(&self, yes: bool) {
        lock(&self.state).refuses = yes;
    }

    /// Whether everything that the session took is acknowledged, over a connection that stands.
    pub(super) fn idle(&self) -> bool {
        let state = lock(&self.state);
        let session = state.session.as_ref().filter(|s| !s.filters.is_empty());
        state.connections[0] != 0 && session.is_some_and(|s| s.queue.is_empty() && s.flights.is_empty())
    }

    /// What the daemon published since this was last called.
    pub(super) fn take_heard(&self) -> Vec<(String, Vec<u8>)> {
        std::mem::take(&mut lock(&self.state).heard)
    }

    // What the two halves of a connection do.

    pub(super) fn connect(&self, role: Role) -> Option<u64> {
        let state = &mut *lock(&self.state);
        if !state.up {
            return None;
        }
        state.made += 1;
        state.connections[side(role)] = state.made;
        if role == Role::In {
            state.session.get_or_insert_default().answers.clear();
        }
        self.sim.note(|| format!("{role:?} connection {} stands", state.made));
        Some(state.made)
    }

    pub(super) fn stands(&self, role: Role, connection: u64) -> bool {
        lock(&self.state).connections[side(role)] == connection
    }

    pub(super) fn subscribe(&self, filters: Vec<String>) {
        let state = &mut *lock(&self.state);
        let refuses = std::mem::take(&mut state.refuses);
        let Some(session) = &mut state.session else { return };
        self.sim.note(|| format!("subscribe {filters:?}{}", if refuses { ", refused" } else { "" }));
        let answer = filters.iter().map(|_| if refuses { Err("refused".to_owned()) } else { Ok(()) });
        session.answers.push_back(Event::Subscribed(answer.collect()));
        if refuses {
            return;
        }
        for (topic, message) in &state.retained {
            if filters.iter().any(|f| matches(f, topic)) {
                session.queue.push_back(Copied { message: *message, retained: true });
            }
        }
        session.filters = filters;
    }

    pub(super) fn ack(&self, connection: u64, packet_id: u16) {
        let state = &mut *lock(&self.state);
        let Some(session) = &mut state.session else { return };
        let place =
            session.flights.iter().position(|f| f.packet_id == packet_id && f.sent_over == connection);
        self.sim.ensure(place.is_some(), invariants::ACKS_OF_THIS_CONNECTION, || {
            format!("packet {packet_id} over connection {connection}")
        });
        let Some(flight) = place.and_then(|place| session.flights.remove(place)) else { return };
        let message = flight.copy.message;
        let published = &mut state.published[message];
        self.sim.note(|| format!("ack of {message} as packet {packet_id}"));
        // A retained copy is no reading where time is the arrival.
        let readings =
            published.publication.readings.iter().filter(|r| r.time.is_some() || !flight.copy.retained);
        for reading in readings {
            let dir = self.sim.config().spool_dir();
            let durable = self.store.with(|t| t.durable(reading) || spool::holds(&dir, t, reading));
            self.sim.ensure(durable, invariants::DURABLE_BEFORE_ACK, || {
                format!("message {message}, {reading:?}")
            });
        }
        published.acked |= !flight.copy.retained;
    }

    /// The next thing for a connection that stands.
    pub(super) fn deliver(&self, connection: u64) -> Option<Event> {
        let state = &mut *lock(&self.state);
        let session = state.session.as_mut()?;
        if let Some(answer) = session.answers.pop_front() {
            return Some(answer);
        }
        // First again, in the same order, what was not acknowledged over the last connection.
        let again = session.flights.iter_mut().find(|f| f.sent_over != connection);
        let (copy, packet_id) = match again {
            Some(flight) => {
                flight.sent_over = connection;
                (flight.copy, Some(flight.packet_id))
            }
            None => {
                let copy = *session.queue.front()?;
                if state.published[copy.message].publication.how == How::Perhaps {
                    session.queue.pop_front();
                    (copy, None)
                } else if session.flights.len() < state.window {
                    session.queue.pop_front();
                    session.next_id = session.next_id % u16::MAX + 1;
                    let packet_id = session.next_id;
                    session.flights.push_back(Flight { packet_id, copy, sent_over: connection });
                    (copy, Some(packet_id))
                } else {
                    return None;
                }
            }
        };
        let published = &mut state.published[copy.message];
        published.deliveries += usize::from(!copy.retained);
        self.sim.note(|| {
            format!(
                "deliver {} as packet {packet_id:?}{}",
                copy.message,
                if copy.retained { ", retained" } else { "" }
            )
        });
        Some(Event::Publish(Incoming {
            topic: published.publication.topic.clone(),
            payload: published.publication.payload.clone(),
            retained: copy.retained,
            packet_id,
            reply: None,
        }))
    }

    pub(super) fn hear(&self, topic: String, payload: Vec<u8>) {
        self.sim.note(|| format!("heard {topic} {}", String::from_utf8_lossy(&payload)));
        lock(&self.state).heard.push((topic, payload));
    }

    /// A client leaves, or its successor takes over what it left.
    pub(super) fn leave(&self, role: Role, connection: u64) {
        if self.stands(role, connection) {
            self.drop_connection(role);
        }
    }
}
