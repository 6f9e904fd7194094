//! What time it is, as an input.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

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
