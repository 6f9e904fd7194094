//! What time it is, as an input.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::training;

/// The wall clock, which may step.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> i64 + Send + Sync>);

impl Clock {
    /// The machine's.
    #[must_use]
    pub fn system() -> Clock {
        Clock(Arc::new(training::now))
    }

    /// One that shows what `now` gives: microseconds since the Unix epoch.
    #[cfg(test)]
    pub(crate) fn showing(now: impl Fn() -> i64 + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(now))
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub fn now(&self) -> i64 {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

/// A clock that never steps: that of tokio, which stands still and jumps in simulations.
#[must_use]
pub fn steady() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A time as people tell it: to the second, and below one to the millisecond.
pub(crate) fn rounded(time: Duration) -> humantime::FormattedDuration {
    let unit = if time < Duration::from_secs(1) { 1_000_000 } else { 1_000_000_000 };
    let units = (time.as_nanos() + unit / 2) / unit;
    humantime::format_duration(Duration::from_nanos(u64::try_from(units * unit).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_no_nanoseconds() {
        for (nanos, told) in
            [(951, "0s"), (12_345_678, "12ms"), (999_600_000, "1s"), (61_499_000_000, "1m 1s"), (0, "0s")]
        {
            assert_eq!(rounded(Duration::from_nanos(nanos)).to_string(), told);
        }
    }
}
