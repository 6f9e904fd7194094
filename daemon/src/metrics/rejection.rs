//! Why readings are not stored.

/// Why a reading was not stored. The set is closed, so the label stays bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// The payload is not of the configured format.
    Unparseable,
    /// A configured field, or every numeric leaf, is absent.
    MissingField,
    /// The field holds something that is no number.
    NotANumber,
    /// NaN or infinite, or too large for a double.
    NotFinite,
    /// The time field is absent or cannot be read.
    BadTime,
    /// More than an hour in the future.
    Future,
    /// The series already has a reading of that time.
    Duplicate,
    /// `[limits] max_series` is reached.
    SeriesLimit,
    /// The series key would be longer than stores and brokers take.
    KeyTooLong,
    /// A retained copy without a time of its own.
    Retained,
    /// A Sparkplug metric that no birth has named, or whose type none has told.
    NoBirth,
    /// The store is away, the queue is full and the broker does not wait (QoS 0).
    StoreFull,
    /// The database takes writes, but not this row.
    StoreRefused,
}

impl Rejection {
    /// All of them, in the order of the enum.
    pub const ALL: [Rejection; 13] = [
        Rejection::Unparseable,
        Rejection::MissingField,
        Rejection::NotANumber,
        Rejection::NotFinite,
        Rejection::BadTime,
        Rejection::Future,
        Rejection::Duplicate,
        Rejection::SeriesLimit,
        Rejection::KeyTooLong,
        Rejection::Retained,
        Rejection::NoBirth,
        Rejection::StoreFull,
        Rejection::StoreRefused,
    ];

    /// The label's value.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Rejection::Unparseable => "unparseable",
            Rejection::MissingField => "missing_field",
            Rejection::NotANumber => "not_a_number",
            Rejection::NotFinite => "not_finite",
            Rejection::BadTime => "bad_time",
            Rejection::Future => "future",
            Rejection::Duplicate => "duplicate",
            Rejection::SeriesLimit => "series_limit",
            Rejection::KeyTooLong => "key_too_long",
            Rejection::Retained => "retained",
            Rejection::NoBirth => "no_birth",
            Rejection::StoreFull => "store_full",
            Rejection::StoreRefused => "store_refused",
        }
    }
}
