//! Harness of the end-to-end tests and benchmarks: real mosquitto, Postgres, Prometheus and the
//! `vidente` binary, each a process on a free loopback port with its files in a temporary folder.
//!
//! Everything is synchronous and ends with the value that holds it. Waits have deadlines and name
//! what did not come.

mod audit;
mod authority;
mod broker;
mod client;
mod daemon;
mod dashboard;
mod database;
mod feed;
mod forecasts;
mod ledger;
mod load;
mod net;
mod notify;
mod ordeal;
mod plan;
mod process;
mod prometheus;
mod proxy;
mod registry;
mod request;
mod rig;
mod stepped;
mod stuck;
mod tensors;
mod timescaledb;
mod wire;

pub use audit::{Audit, Report};
pub use authority::{Authority, Identity};
pub use broker::{Mosquitto, Persistence};
pub use client::{Collected, Subscriber};
pub use daemon::{Daemon, Metrics, vidente, vidente_binary};
pub use dashboard::{Dashboard, Query, View, promql};
pub use database::{Cluster, Database, Postgres};
pub use feed::{Feed, Reading};
pub use forecasts::StoredForecast;
pub use ledger::{Ledger, Publisher};
pub use load::{Counter, Load};
pub use net::{free_port, get, post};
pub use notify::NotifySocket;
pub use ordeal::{Fault, Ordeal};
pub use plan::Plan;
pub use process::{Process, WAIT, cpu_time, find_program, peak_memory, quiet, wait_until};
pub use prometheus::{Prometheus, promtool};
pub use proxy::{Cut, Line, Proxy};
pub use registry::{Promoted, Registry, Run, distorted};
pub use request::{ask, ask_with_login};
pub use rig::{Proxies, Rig, Settings, Store};
pub use stepped::Stepped;
pub use stuck::Stuck;
pub use tensors::{Dtype, Tensor, Tensors};
pub use wire::Wire;
