//! How abnormal a reading was, and when to say so.
//!
//! A [`Detector`] turns a series' readings and the forecasts made for them into a score; an
//! [`Episode`] decides which readings to raise, at a rate chosen by the user and within the bounds that the
//! user's feedback sets.

mod detector;
mod episode;
mod lessons;
mod places;
mod tail;

pub use detector::{Assessment, Detector};
pub use episode::{AnomalySettings, Change, Direction, Episode, Tuned};
pub use lessons::Moment;

pub(crate) use lessons::Taught;
