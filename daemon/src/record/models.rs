//! Changes of a stream's champion, written together with the states that belong to them.

/// Why a model becomes champion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A training run found it better.
    Training,
    /// Somebody asked for it.
    Command,
}

impl Cause {
    /// As in `promotions.cause`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Cause::Training => "training",
            Cause::Command => "command",
        }
    }
}

/// A model becomes its stream's champion; the champion before retires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promotion {
    /// The model.
    pub model: i64,
    /// The champion it was judged against, `Some(None)` if there was none. If another one is champion
    /// by now, the promotion is left out. `None`: whatever the champion is.
    pub expected: Option<Option<i64>>,
    /// Why.
    pub cause: Cause,
    /// Microseconds since the Unix epoch.
    pub at: i64,
    /// Whether it has yet to prove itself.
    pub probation: bool,
}

/// A champion gives way to the one before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollback {
    /// The stream.
    pub stream: String,
    /// The champion that goes. If another one is champion by now, the rollback is left out, so that
    /// a write that is repeated does not go back twice.
    pub expected: i64,
    /// Why, for `models.reason`.
    pub reason: String,
    /// Microseconds since the Unix epoch.
    pub at: i64,
}

/// What happens to a stream's champion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelChange {
    /// Another model takes over.
    Promote(Promotion),
    /// The one before takes over again.
    Rollback(Rollback),
}
