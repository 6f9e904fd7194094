//! The two connections to the broker: readings come in over one, forecasts go out over the other. And
//! a third for commands that publish and end.
//!
//! The only module, besides the demo's sensors, that knows `rumqttc`. What it must not be trusted
//! with is handled in `link`: packet ids of connections that are gone, requests that outlive them,
//! packets beyond the size limit, and endless retries.

mod backoff;
mod inlet;
mod link;
mod options;
mod outlet;
mod publisher;
mod tls;

pub use inlet::{Intake, run_inlet};
pub use outlet::run_outlet;
pub use publisher::Publisher;

pub(crate) use tls::client_config as tls_config;

#[cfg(test)]
mod tests;
