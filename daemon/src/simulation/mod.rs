//! Deterministic simulation: the daemon's own wiring, from the broker to the store and back, over a
//! simulated broker, store and clock, driven by random sequences of what may happen. `invariants` says
//! what must hold.
//!
//! A case is a seed and a list of operations; the same case gives the same trace. `VIDENTE_SIMULATIONS`
//! is the number of random cases (500), `VIDENTE_SIMULATION_SEED` what they begin with (1),
//! `VIDENTE_SIMULATION_TRACE=1` prints the trace of a case that fails.
#![allow(clippy::unwrap_used, clippy::panic, reason = "it fails by panicking")]

mod broker;
mod case;
mod fixed;
mod invariants;
mod link;
mod machine;
mod random;
mod replay;
mod run;
mod sensors;
mod sim;
mod spool;
mod store;
mod tables;
