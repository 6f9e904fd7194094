//! Where readings, forecasts, anomalies, states and models are kept: Postgres or SQLite, the same
//! tables and the same behaviour. The only module that knows sqlx.

mod error;
mod feedback;
mod health;
mod micros;
mod models;
mod options;
mod page;
mod partitions;
mod past;
mod postgres;
mod promotions;
mod restore;
mod runs;
mod sqlite;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod write;

use std::borrow::Cow;

pub use error::{StoreError, Trouble};
pub use feedback::StoredFeedback;
pub use health::Health;
pub use models::{ModelRow, NewModel, Origin, SavedModel};
pub use page::{PageAnomaly, PageForecast, PageModel, PageReading, SeriesPage};
pub(crate) use past::Past;
pub use promotions::{Changed, ModelName, ProbationRow, PromotionRow, RolledBack};
pub use restore::{SeriesRow, StoredReading, StoredState};
pub use runs::{NewRun, RunOutcome, RunRow, RunWindow, Trigger};
pub use write::{SeriesIds, Written};

pub(crate) use options::{postgres_url_problem, unverified_host};

use crate::config;
use crate::record::WriteBatch;
use crate::recorder::Rows;

/// A handle on the database; clones share its connections.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Inner,
}

#[derive(Debug, Clone)]
enum Inner {
    Postgres(postgres::PgStore),
    Sqlite(sqlite::SqliteStore),
}

/// The same statements for both databases: `$pool` is bound to the pool to read from.
macro_rules! reading {
    ($store:expr, $pool:ident => $body:expr) => {
        match &$store.inner {
            $crate::store::Inner::Postgres(pg) => {
                let $pool = pg.pool();
                $body
            }
            $crate::store::Inner::Sqlite(lite) => {
                let $pool = lite.readers();
                $body
            }
        }
    };
}

/// The same statements for both databases: `$pool` is bound to the pool to write through.
macro_rules! writing {
    ($store:expr, $pool:ident => $body:expr) => {
        match &$store.inner {
            $crate::store::Inner::Postgres(pg) => {
                let $pool = pg.pool();
                $body
            }
            $crate::store::Inner::Sqlite(lite) => {
                let $pool = lite.writer();
                $body
            }
        }
    };
}
use {reading, writing};

impl Store {
    /// Prepares connections to the database that `[store]` names. Postgres need not be up: the
    /// first statement connects. A SQLite file is created if missing.
    ///
    /// # Errors
    /// If the URL, the password file or the SQLite file cannot be used.
    pub async fn open(config: &config::Store) -> Result<Store, StoreError> {
        let scheme = config.url.split(':').next().unwrap_or_default();
        let inner = match scheme {
            "postgres" | "postgresql" => Inner::Postgres(postgres::PgStore::open(config)?),
            "sqlite" => Inner::Sqlite(sqlite::SqliteStore::open(config).await?),
            // Not the URL itself: it may hold a password.
            other => {
                return Err(StoreError::Config(format!(
                    "[store] url: unknown database \"{other}\"; write postgres://user@host/database or \
                     sqlite:///path/to/file.db"
                )));
            }
        };
        Ok(Store { inner })
    }

    /// Brings the schema up to date.
    ///
    /// # Errors
    /// If the database is away or a migration fails.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        match &self.inner {
            Inner::Postgres(pg) => pg.migrate().await,
            Inner::Sqlite(lite) => lite.migrate().await,
        }
    }

    /// Makes room for what comes: in Postgres the partitions of the month of `now` and of the next.
    ///
    /// # Errors
    /// If the database is away or too busy; a partition that is missing then is made with its first row.
    pub async fn make_ahead(&self, now: i64) -> Result<(), StoreError> {
        match &self.inner {
            Inner::Postgres(pg) => pg.make_ahead(now).await,
            Inner::Sqlite(_) => Ok(()),
        }
    }

    /// Removes readings and forecasts older than `before`, and anomalies that ended before it. In
    /// Postgres whole months go, so some rows stay up to a month longer.
    ///
    /// # Errors
    /// If the database is away or too busy; what was removed stays removed.
    pub async fn prune(&self, before: i64) -> Result<(), StoreError> {
        match &self.inner {
            Inner::Postgres(pg) => pg.prune(before).await,
            Inner::Sqlite(lite) => lite.prune(before).await,
        }
    }
}

impl Rows for Store {
    async fn ping(&self) -> Result<(), StoreError> {
        reading!(self, pool => sqlx::query("select 1").execute(pool).await.map(drop).map_err(StoreError::from))
    }

    async fn write(&self, batch: &WriteBatch, ids: &mut SeriesIds) -> Result<Written, StoreError> {
        let (written, new_ids) = match &self.inner {
            Inner::Postgres(pg) => pg.write(batch, ids).await?,
            Inner::Sqlite(lite) => lite.write(batch, ids).await?,
        };
        for (handle, id) in new_ids {
            ids.insert(handle, id);
        }
        Ok(written)
    }
}

/// Postgres text cannot hold NUL; both databases get the same replacement.
fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}
