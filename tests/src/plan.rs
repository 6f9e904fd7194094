//! What a publisher publishes.

use crate::feed::Reading;

/// What is published.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Series, all of them at every position.
    pub series: usize,
    /// Position of the first readings.
    pub begin: usize,
    /// Readings a second; after an outage it catches up as fast as the broker takes them.
    pub rate: f64,
    /// After every so many readings one message that is no reading; never if zero.
    pub garbage_every: u64,
    /// Whether times are left out, for streams that take the time of arrival.
    pub timeless: bool,
    /// Whether confirmations are remembered, so that [`crate::Publisher::broker_lost_all_since`] can take them
    /// back.
    pub remember: bool,
}

impl Plan {
    /// Readings with times, and one message in a hundred that is none.
    #[must_use]
    pub fn new(series: usize, rate: f64) -> Plan {
        Plan { series, begin: 0, rate, garbage_every: 100, timeless: false, remember: false }
    }

    /// The reading of a place in the ledger.
    #[must_use]
    pub fn reading(&self, place: u64) -> Reading {
        let place = place as usize;
        Reading { series: place % self.series, position: self.begin + place / self.series }
    }

    pub(crate) fn payload(&self, reading: Reading) -> String {
        if self.timeless { format!("{{\"value\":{:.4}}}", reading.value()) } else { reading.payload() }
    }

    /// Whether a place has a message that is no reading after its reading.
    pub(crate) fn has_garbage(&self, place: u64) -> bool {
        self.garbage_every > 0 && place % self.garbage_every == self.garbage_every - 1
    }
}
