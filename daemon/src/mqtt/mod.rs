//! The connections to the broker: readings come in over one, forecasts go out over another, and a third,
//! for which neither waits, takes requests. And one for commands that publish and end.
//!
//! The only module, besides the demo's sensors, that knows `rumqttc`. What it must not be trusted
//! with is handled in `link`: packet ids of connections that are gone, requests that outlive them,
//! packets beyond the size limit, and endless retries.

mod backoff;
mod control;
mod inlet;
mod link;
mod options;
mod outlet;
mod probe;
mod publisher;
mod subscriptions;
mod wire;

pub use publisher::Publisher;

pub(crate) use control::{Hear, Post, run_control};
pub(crate) use inlet::{Intake, run_inlet};
pub(crate) use link::{TcpClient, TcpLink};
pub(crate) use options::Role;
pub(crate) use outlet::run_outlet;
pub(crate) use probe::{LISTENS, probe};
pub(crate) use wire::{Client, Incoming, Link, ReplyTo};
#[cfg(test)]
pub(crate) use wire::{Event, Failure, Refused};

#[cfg(test)]
mod tests;
