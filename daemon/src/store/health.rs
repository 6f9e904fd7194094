//! What `vidente doctor` asks of the database.

use sqlx::{Connection, Row};

use super::{Inner, Store, StoreError};
use crate::training;

/// Rights on tables that the daemon needs, as `deploy/postgres/roles.sql` grants them.
const RIGHTS: &str = "select t.name || ': ' || r.name \
    from (values ('series', 'select, insert'), ('readings', 'select, insert'), ('forecasts', 'select, insert'), \
                 ('anomalies', 'select, insert, update, delete'), \
                 ('series_state', 'select, insert, update, delete'), ('models', 'select, insert, update'), \
                 ('promotions', 'select, insert, update'), ('feedback', 'select, insert'), \
                 ('training_runs', 'select, insert, update')) \
         as t (name, rights), \
         lateral unnest(string_to_array(t.rights, ', ')) as r (name) \
    where not has_table_privilege(t.name, r.name) \
    union all select 'function vidente_add_partition: execute' where not has_function_privilege( \
        'vidente_add_partition(text, text, timestamptz, timestamptz)', 'execute')";

/// How a database is.
#[derive(Debug)]
pub struct Health {
    /// Its kind and version.
    pub version: String,
    /// Whether the schema is that of this version.
    pub current: bool,
    /// What Postgres keeps readings and forecasts in; none where the schema is not current.
    pub kept: Option<String>,
    /// Rights that are missing; not looked at where the schema is not current.
    pub denied: Vec<String>,
    /// Series stored; 0 where the schema is not current.
    pub series: u64,
    /// How far its clock is ahead of this machine's, in microseconds; none if it is the same clock.
    pub ahead: Option<i64>,
}

impl Store {
    /// Looks at the database without changing anything.
    ///
    /// # Errors
    /// If it is away, or of a newer version.
    pub async fn health(&self) -> Result<Health, StoreError> {
        let mut health = match &self.inner {
            Inner::Postgres(pg) => {
                let mut conn = pg.connect().await?;
                let before = training::now();
                let row = sqlx::query(
                    "select current_setting('server_version'), \
                     (extract(epoch from clock_timestamp()) * 1000000)::bigint",
                )
                .fetch_one(&mut conn)
                .await?;
                let (version, now): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
                let ahead = now - before.midpoint(training::now());
                let current = super::postgres::up_to_date(&mut conn).await?;
                let (mut denied, mut kept) = (Vec::new(), None);
                if current {
                    denied = sqlx::query_scalar(RIGHTS).fetch_all(&mut conn).await?;
                    kept = Some(super::partitions::described(&mut conn).await?);
                }
                conn.close().await?;
                let version = format!("Postgres {version}");
                Health { version, current, kept, denied, series: 0, ahead: Some(ahead) }
            }
            Inner::Sqlite(lite) => {
                let (version, current) = lite.version().await?;
                Health { version, current, kept: None, denied: Vec::new(), series: 0, ahead: None }
            }
        };
        if health.current {
            health.series = self.series().await?.len() as u64;
        }
        Ok(health)
    }
}
