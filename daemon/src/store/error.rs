//! The one error of the store, and which errors are about the data rather than the database.

use sqlx::postgres::PgDatabaseError;
use thiserror::Error;

/// What went wrong. The text never holds a password: URLs are left out of it.
#[derive(Debug, Error)]
pub enum StoreError {
    /// `[store]` cannot be used as it is; trying again does not help.
    #[error("{0}")]
    Config(String),
    /// The database is away, busy, full or not migrated: the same write may succeed later.
    #[error("{0}")]
    Unavailable(String),
    /// The database works and refuses these rows: the same write never succeeds.
    #[error("the database refuses the data: {0}")]
    Refused(String),
}

impl StoreError {
    /// Whether the rows are to blame, so that the same write would fail for ever.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self, StoreError::Refused(_))
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let text = error.to_string();
        let refused = match &error {
            sqlx::Error::Encode(_) | sqlx::Error::InvalidArgument(_) => true,
            sqlx::Error::Database(e) => {
                let code = e.code().unwrap_or_default();
                if e.try_downcast_ref::<PgDatabaseError>().is_some() {
                    // Data exception, integrity violation, program limit exceeded.
                    ["21", "22", "23", "54"].iter().any(|class| code.starts_with(class))
                } else {
                    // SQLITE_TOOBIG, SQLITE_CONSTRAINT, SQLITE_MISMATCH: the low byte of the code.
                    code.parse::<i32>().is_ok_and(|code| matches!(code & 0xff, 18..=20))
                }
            }
            _ => false,
        };
        if refused { StoreError::Refused(text) } else { StoreError::Unavailable(text) }
    }
}

impl From<sqlx::migrate::MigrateError> for StoreError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        StoreError::Unavailable(format!("migration failed: {error}"))
    }
}
