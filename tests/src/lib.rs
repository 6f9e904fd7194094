//! Harness of the end-to-end tests and benchmarks: real mosquitto, Postgres, Prometheus and the
//! `vidente` binary, each a process on a free loopback port with its files in a temporary folder.
//!
//! Everything is synchronous and ends with the value that holds it. Waits have deadlines and name
//! what did not come.

mod broker;
mod client;
mod daemon;
mod database;
mod feed;
mod load;
mod net;
mod process;
mod prometheus;
mod rig;

pub use broker::{Mosquitto, Persistence};
pub use client::{Collected, Subscriber};
pub use daemon::{Daemon, Metrics, vidente, vidente_binary};
pub use database::{Database, Postgres};
pub use feed::{Feed, Reading};
pub use load::{Counter, Load};
pub use net::{free_port, get};
pub use process::{Process, WAIT, cpu_time, find_program, quiet, wait_until};
pub use prometheus::{Prometheus, promtool};
pub use rig::{Rig, Settings, Store};
