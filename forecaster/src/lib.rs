//! Streaming forecasts for sensor series: pure and synchronous, no clock, no I/O.

pub mod engine;
pub mod reading;

pub use reading::{LEVEL_NAMES, LEVELS, MEDIAN, Reading, SECOND, Step, Timestamp};

/// Hidden state of one series' recurrent network.
#[derive(Debug, Clone)]
pub struct HiddenState;
