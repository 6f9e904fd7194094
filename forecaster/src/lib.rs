//! Streaming forecasts for sensor series: pure and synchronous, no clock, no I/O. Everything here
//! is a function of its inputs and a seed.

mod aggregate;
pub mod anomaly;
pub mod backtest;
pub mod cell;
mod conformal;
mod differences;
pub mod engine;
mod experts;
pub mod features;
mod interval;
pub mod kernel;
mod ladder;
mod local;
mod mixer;
pub mod model;
pub mod reading;
mod rls;
mod scale;
mod seasonal;
pub mod series;
mod spread;
mod stored;
pub mod train;
pub mod trees;
pub mod weights;

pub use anomaly::{AnomalySettings, Direction};
pub use engine::{Engine, Heard, Installed, SeriesHandle, Silence, StreamSpec, Verdict};
pub use kernel::HiddenState;
pub use model::Model;
pub use reading::{LEVEL_NAMES, LEVELS, MEDIAN, Reading, SECOND, Step, Timestamp};
pub use series::{Rebuilt, rebuild};
