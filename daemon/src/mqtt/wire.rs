//! A connection as inlet, outlet and control see it: events on one half, requests on the other.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;

use crate::tls::Distrust;

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// A new connection stands; what was asked on the one before is void.
    Connected {
        /// The largest packet the broker takes, if it said so.
        max_packet: Option<usize>,
    },
    /// A message.
    Publish(Incoming),
    /// The answer to a subscription, one entry a filter.
    Subscribed(Vec<Result<(), String>>),
    /// One filter that was given up is no longer subscribed to.
    Unsubscribed,
    /// The farewell, and all requested before it, are written.
    Disconnected,
    /// Nothing of interest.
    Other,
}

/// A message from the broker.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) retained: bool,
    /// None at quality of service 0.
    pub(crate) packet_id: Option<u16>,
    /// Where an answer is wanted.
    pub(crate) reply: Option<Box<ReplyTo>>,
}

/// What MQTT 5 says of the answer to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReplyTo {
    /// Response topic.
    pub(crate) topic: String,
    /// Correlation data, to be sent back as it came.
    pub(crate) correlation: Option<Vec<u8>>,
}

/// Why a connection failed, and what helps.
#[derive(Debug)]
pub(crate) struct Failure {
    reason: String,
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(reason: impl fmt::Display, hint: Option<&str>) -> Failure {
        Failure { reason: reason.to_string(), hint: hint.map(str::to_owned) }
    }

    /// Where TLS is at fault, that is what helps.
    pub(super) fn of(
        reason: impl fmt::Display,
        error: &(dyn Error + 'static),
        hint: Option<&str>,
    ) -> Failure {
        let distrust = Distrust::of(error).map(|distrust| format!("[mqtt] {distrust}"));
        Failure::new(reason, distrust.as_deref().or(hint))
    }

    pub(super) fn hangs() -> Failure {
        Failure::new("the broker takes and sends nothing any more", None)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.hint {
            Some(hint) => write!(f, "{}; {hint}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

/// A request found no room, or the polled half is gone.
#[derive(Debug)]
pub(crate) struct Refused;

/// The half that is polled.
pub(crate) trait Link: Send + 'static {
    /// The next event; after a failure, [`Link::reset`] and then another try to connect.
    ///
    /// Must be called again at once, else keep-alive stalls, and not be dropped half way, else what
    /// is being written may be lost.
    fn next(&mut self) -> impl Future<Output = Result<Event, Failure>> + Send;

    /// After the farewell, waits for the broker to close, which it does once it has read all: a
    /// successor that connects before would take the session over and void what is unread.
    fn closed(&mut self) -> impl Future<Output = ()> + Send;

    /// Forgets what was requested of the connection that failed, except messages to publish.
    fn reset(&mut self);

    /// Forgets these, too.
    fn forget(&mut self);

    /// On a new connection, sends a retained message, and then what the last one left unsent, ahead
    /// of all that waits.
    fn resume(&mut self, topic: &str, payload: &[u8]);
}

/// The half that requests are made on.
pub(crate) trait Client: Send + Sync + 'static {
    /// Acknowledges a packet. Does not wait.
    fn ack(&self, packet_id: u16) -> Result<(), Refused>;

    /// Asks for all filters in one packet. Does not wait.
    fn subscribe(&self, filters: &[String], qos: u8) -> Result<(), Refused>;

    /// Asks for no more of what matches these filters. Does not wait.
    fn unsubscribe(&self, filters: &BTreeSet<String>) -> Result<(), Refused>;

    /// Says farewell after all that was requested. Does not wait.
    fn try_disconnect(&self) -> Result<(), Refused>;

    /// Publishes at quality of service 0, waiting for room.
    fn publish(
        &self,
        topic: String,
        payload: Vec<u8>,
        retain: bool,
    ) -> impl Future<Output = Result<(), Refused>> + Send;

    /// The same for an answer, with its correlation data where the protocol has such.
    fn answer(
        &self,
        topic: String,
        payload: Vec<u8>,
        correlation: Option<Vec<u8>>,
    ) -> impl Future<Output = Result<(), Refused>> + Send;

    /// Says farewell after all that was requested, waiting for room.
    fn disconnect(&self) -> impl Future<Output = Result<(), Refused>> + Send;
}
