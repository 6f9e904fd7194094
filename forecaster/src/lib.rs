//! Streaming forecasts for sensor series: pure and synchronous, no clock, no I/O. Everything here
//! is a function of its inputs and a seed.

mod aggregate;
pub mod anomaly;
pub mod backtest;
mod bptt;
pub mod cell;
mod conformal;
mod differences;
pub mod engine;
mod experts;
mod faults;
pub mod features;
mod interval;
pub mod judge;
pub mod kernel;
mod ladder;
mod local;
mod mixer;
pub mod model;
pub mod reading;
mod rebuilt;
mod rls;
mod scale;
mod seasonal;
pub mod series;
mod spread;
mod stored;
pub mod train;
pub mod trees;
pub mod weights;

pub use anomaly::{AnomalySettings, Direction, Moment, Tuned};
pub use engine::{
    Drift, Engine, Heard, Installed, Journal, Problem, SeriesHandle, Silence, StreamSpec, Tally, Verdict,
};
pub use kernel::HiddenState;
pub use model::Model;
pub use reading::{LEVEL_NAMES, LEVELS, MEDIAN, Reading, SECOND, Step, Timestamp};
pub use rebuilt::{Rebuilt, rebuild};
pub use series::Room;
