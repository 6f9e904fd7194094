//! What `vidente demo` embeds: a broker, and a house of simulated sensors that publish to it.
//!
//! Nothing here knows the daemon. It is fed over MQTT like by any other house.

pub mod broker;
mod fault;
pub mod publisher;
pub mod sensors;
mod world;
