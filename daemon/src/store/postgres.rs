//! Postgres: one connection for batches, a small pool for everything else.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgBindIterExt, PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool, Row};
use tokio::sync::Mutex;

use super::micros::Micros;
use super::options;
use super::partitions::{self, Partitions, Table};
use super::promotions::{self, Transaction};
use super::write::{Attempt, NewIds, by_kind, labels, resolve, written};
use super::{SeriesIds, StoreError, Trouble, Written, feedback, without_nul};
use crate::config;
use crate::record::{AnomalyChange, ForecastColumns, NewSeries, ReadingColumns, StateRow, WriteBatch};

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/postgres");

/// Connections to one Postgres database.
#[derive(Clone)]
pub(super) struct PgStore {
    pool: PgPool,
    options: Arc<PgConnectOptions>,
    /// Batches have a connection of their own, outside the pool: it is dropped at the first error
    /// that is not about data, so one that hangs is never waited for twice.
    writer: Arc<Mutex<Option<PgConnection>>>,
    partitions: Arc<Partitions>,
    /// Whether new tables may be hypertables.
    timescaledb: bool,
    /// Whether the batch before held duplicates: a redelivery brings them by the thousand, and each
    /// batch would be written twice to find out which.
    expect_duplicates: Arc<AtomicBool>,
}

impl fmt::Debug for PgStore {
    /// Without the options, which hold the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgStore").field("partitions", &self.partitions).finish_non_exhaustive()
    }
}

impl PgStore {
    pub(super) fn open(config: &config::Store) -> Result<PgStore, StoreError> {
        let options = options::postgres(config)?;
        let pool = PgPoolOptions::new()
            .max_connections(5)
            .acquire_timeout(Duration::from_secs(5))
            .connect_lazy_with(options.clone());
        Ok(PgStore {
            pool,
            options: Arc::new(options),
            writer: Arc::default(),
            partitions: Arc::default(),
            timescaledb: config.timescaledb,
            expect_duplicates: Arc::default(),
        })
    }

    pub(super) fn pool(&self) -> &PgPool {
        &self.pool
    }

    pub(super) async fn migrate(&self) -> Result<(), StoreError> {
        // The pool would only say that it timed out, not why.
        let mut conn = self.connect().await?;
        // Even where nothing is to be done the library needs the right to make tables.
        if up_to_date(&mut conn).await? {
            return Ok(());
        }
        drop(conn);
        // If it fails it leaves its lock with the connection, which must end then: one of the other pool
        // would keep everybody else from migrating.
        let wanted = if self.timescaledb { "on" } else { "off" };
        let alone = PgPoolOptions::new()
            .max_connections(1)
            .after_connect(move |conn, _| {
                Box::pin(async move {
                    // For the migration that makes the tables what they are.
                    let set = "select set_config('vidente.timescaledb', $1, false)";
                    sqlx::query(set).bind(wanted).execute(conn).await.map(drop)
                })
            })
            .connect_with((*self.options).clone())
            .await?;
        let migrated = MIGRATIONS.run(&alone).await;
        alone.close().await;
        migrated?;
        let kept = partitions::described(&mut self.connect().await?).await?;
        tracing::info!("the schema is up to date; readings and forecasts are in {kept}");
        Ok(())
    }

    pub(super) async fn connect(&self) -> Result<PgConnection, StoreError> {
        let mut conn =
            tokio::time::timeout(Duration::from_secs(5), self.options.connect()).await.map_err(|_| {
                StoreError::Unavailable(Trouble::Timeout, "no answer from the database within 5 s".into())
            })??;
        // A writer cut off by the network must not go on holding its row locks.
        sqlx::raw_sql("set idle_in_transaction_session_timeout = '30s'").execute(&mut conn).await?;
        Ok(conn)
    }

    pub(super) async fn write(
        &self,
        batch: &WriteBatch,
        ids: &SeriesIds,
    ) -> Result<(Written, NewIds), StoreError> {
        let mut slot = self.writer.lock().await;
        // Taken out, so that a write that is cancelled half way drops its connection.
        let mut conn = match slot.take() {
            Some(conn) => conn,
            None => self.connect().await?,
        };
        let mut result = self.write_on(&mut conn, batch, ids).await;
        if result.as_ref().is_err_and(StoreError::is_refused) {
            // Perhaps a partition that was known is gone.
            self.partitions.forget();
            result = self.write_on(&mut conn, batch, ids).await;
        }
        if !matches!(result, Err(StoreError::Unavailable(..))) {
            *slot = Some(conn);
        }
        result
    }

    async fn write_on(
        &self,
        conn: &mut PgConnection,
        batch: &WriteBatch,
        ids: &SeriesIds,
    ) -> Result<(Written, NewIds), StoreError> {
        self.partitions.ensure(conn, Table::Readings, &batch.readings.time).await?;
        self.partitions.ensure(conn, Table::Forecasts, &batch.forecasts.origin).await?;
        let mut exact = self.expect_duplicates.load(Ordering::Relaxed);
        loop {
            let mut tx = conn.begin().await?;
            match attempt(&mut tx, batch, ids, exact).await {
                Ok(Attempt::Complete(written, new_ids)) => {
                    tx.commit().await?;
                    if !batch.readings.series.is_empty() {
                        self.expect_duplicates.store(!written.duplicates.is_empty(), Ordering::Relaxed);
                    }
                    return Ok((written, new_ids));
                }
                Ok(Attempt::Duplicates) => {
                    tx.rollback().await?;
                    exact = true;
                }
                Err(error) => {
                    if !matches!(error, StoreError::Unavailable(..)) {
                        tx.rollback().await?;
                    }
                    return Err(error);
                }
            }
        }
    }

    pub(super) async fn make_ahead(&self, now: i64) -> Result<(), StoreError> {
        let mut conn = self.pool.acquire().await?;
        self.partitions.make_ahead(&mut conn, now).await
    }

    pub(super) async fn prune(&self, before: i64) -> Result<(), StoreError> {
        let mut conn = self.pool.acquire().await?;
        self.partitions.drop_before(&mut conn, before).await?;
        sqlx::query("delete from anomalies where ended_at < $1")
            .bind(Micros::bound(before))
            .execute(&mut *conn)
            .await?;
        Ok(())
    }
}

/// Whether every migration of this version, and no other, has been applied.
pub(super) async fn up_to_date(conn: &mut PgConnection) -> Result<bool, StoreError> {
    let begun: bool = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null")
        .fetch_one(&mut *conn)
        .await?;
    if !begun {
        return Ok(false);
    }
    let applied: Vec<(i64, Vec<u8>, bool)> =
        sqlx::query_as("select version, checksum, success from _sqlx_migrations order by version")
            .fetch_all(&mut *conn)
            .await?;
    // Here, since the library would ask for rights first.
    if let Some((unknown, ..)) = applied.iter().find(|(version, ..)| !MIGRATIONS.version_exists(*version)) {
        return Err(MigrateError::VersionMissing(*unknown).into());
    }
    Ok(MIGRATIONS
        .iter()
        .map(|m| (m.version, &*m.checksum, true))
        .eq(applied.iter().map(|(version, checksum, success)| (*version, checksum.as_slice(), *success))))
}

async fn attempt(
    tx: &mut PgConnection,
    batch: &WriteBatch,
    ids: &SeriesIds,
    exact: bool,
) -> Result<Attempt, StoreError> {
    let new_ids = insert_series(tx, &batch.new_series).await?;
    let new: BTreeMap<_, _> = new_ids.iter().copied().collect();
    let Some(mut written) = insert_readings(tx, &batch.readings, ids, &new, exact).await? else {
        return Ok(Attempt::Duplicates);
    };
    insert_forecasts(tx, &batch.forecasts, ids, &new).await?;
    write_anomalies(tx, &batch.anomalies, ids, &new).await?;
    upsert_states(tx, &batch.states, ids, &new).await?;
    let about: Vec<_> = batch.feedback.iter().map(|f| f.series).collect();
    feedback::insert_into_postgres(tx, &batch.feedback, resolve(&about, ids, &new)?).await?;
    written.models = promotions::apply(Transaction::Postgres(tx), &batch.models).await?;
    Ok(Attempt::Complete(written, new_ids))
}

type New = BTreeMap<crate::record::SeriesHandle, i64>;

async fn insert_series(tx: &mut PgConnection, series: &[NewSeries]) -> Result<NewIds, StoreError> {
    if series.is_empty() {
        return Ok(Vec::new());
    }
    let labels = series.iter().map(labels).collect::<Result<Vec<_>, _>>()?;
    // In the order of keys, so that daemons inserting the same series do not deadlock.
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "insert into series (key, stream, labels, field) \
         select distinct on (key) key, stream, labels::jsonb, field \
         from unnest($1::text[], $2::text[], $3::text[], $4::text[]) as n (key, stream, labels, field) \
         order by key \
         on conflict (key) do update set key = excluded.key returning key, id",
    )
    .bind(series.iter().map(|s| without_nul(&s.key)).bind_iter())
    .bind(series.iter().map(|s| without_nul(&s.stream)).bind_iter())
    .bind(labels)
    .bind(series.iter().map(|s| without_nul(&s.field)).bind_iter())
    .fetch_all(&mut *tx)
    .await?;
    let by_key: BTreeMap<&str, i64> = rows.iter().map(|(key, id)| (key.as_str(), *id)).collect();
    Ok(series.iter().filter_map(|s| Some((s.handle, *by_key.get(&*without_nul(&s.key))?))).collect())
}

/// Nothing if there were duplicates and `exact` was not asked for.
async fn insert_readings(
    tx: &mut PgConnection,
    readings: &ReadingColumns,
    ids: &SeriesIds,
    new: &New,
    exact: bool,
) -> Result<Option<Written>, StoreError> {
    if readings.series.is_empty() {
        return Ok(Some(Written::default()));
    }
    const INSERT: &str = "insert into readings (series_id, time, value, late) \
         select * from unnest($1::bigint[], $2::timestamptz[], $3::double precision[], $4::boolean[]) \
         on conflict do nothing";
    const INSERT_RETURNING: &str = "insert into readings (series_id, time, value, late) \
         select * from unnest($1::bigint[], $2::timestamptz[], $3::double precision[], $4::boolean[]) \
         on conflict do nothing returning series_id, time";
    let series = resolve(&readings.series, ids, new)?;
    let query = sqlx::query(if exact { INSERT_RETURNING } else { INSERT })
        .bind(&series)
        .bind(readings.time.iter().copied().map(Micros).bind_iter())
        .bind(&readings.value)
        .bind(&readings.late);
    if exact {
        let mut inserted = HashSet::with_capacity(series.len());
        for row in query.fetch_all(&mut *tx).await? {
            inserted.insert((row.try_get(0)?, row.try_get::<Micros, _>(1)?.0));
        }
        return Ok(Some(written(readings, &series, inserted)));
    }
    let stored = query.execute(&mut *tx).await?.rows_affected();
    let all_new = stored == readings.series.len() as u64;
    Ok(all_new.then(|| Written { stored, ..Written::default() }))
}

async fn insert_forecasts(
    tx: &mut PgConnection,
    forecasts: &ForecastColumns,
    ids: &SeriesIds,
    new: &New,
) -> Result<(), StoreError> {
    if forecasts.series.is_empty() {
        return Ok(());
    }
    let [q05, q10, q25, q50, q75, q90, q95] = &forecasts.quantiles;
    sqlx::query(
        "insert into forecasts \
         (series_id, time, step, origin, mean, q05, q10, q25, q50, q75, q90, q95, model_id) \
         select * from unnest($1::bigint[], $2::timestamptz[], $3::smallint[], $4::timestamptz[], \
         $5::double precision[], $6::double precision[], $7::double precision[], $8::double precision[], \
         $9::double precision[], $10::double precision[], $11::double precision[], $12::double precision[], \
         $13::bigint[]) on conflict do nothing",
    )
    .bind(resolve(&forecasts.series, ids, new)?)
    .bind(forecasts.time.iter().copied().map(Micros).bind_iter())
    .bind(&forecasts.step)
    .bind(forecasts.origin.iter().copied().map(Micros).bind_iter())
    .bind(&forecasts.mean)
    .bind(q05)
    .bind(q10)
    .bind(q25)
    .bind(q50)
    .bind(q75)
    .bind(q90)
    .bind(q95)
    .bind(&forecasts.model)
    .execute(&mut *tx)
    .await?;
    Ok(())
}

async fn write_anomalies(
    tx: &mut PgConnection,
    changes: &[AnomalyChange],
    ids: &SeriesIds,
    new: &New,
) -> Result<(), StoreError> {
    let (began, ended) = by_kind(changes);
    if !began.is_empty() {
        let handles: Vec<_> = began.iter().map(|a| a.series).collect();
        sqlx::query(
            "insert into anomalies (series_id, time, kind, value, score, q05, q95) \
             select * from unnest($1::bigint[], $2::timestamptz[], $3::text[], $4::double precision[], \
             $5::double precision[], $6::double precision[], $7::double precision[]) on conflict do nothing",
        )
        .bind(resolve(&handles, ids, new)?)
        .bind(began.iter().map(|a| Micros(a.time)).bind_iter())
        .bind(began.iter().map(|a| a.kind.as_str()).bind_iter())
        .bind(began.iter().map(|a| a.value).bind_iter())
        .bind(began.iter().map(|a| a.broken.map(|b| b.score)).bind_iter())
        .bind(began.iter().map(|a| a.broken.map(|b| b.q05)).bind_iter())
        .bind(began.iter().map(|a| a.broken.map(|b| b.q95)).bind_iter())
        .execute(&mut *tx)
        .await?;
    }
    if !ended.is_empty() {
        let handles: Vec<_> = ended.iter().map(|a| a.series).collect();
        sqlx::query(
            "update anomalies a set ended_at = e.ended_at \
             from unnest($1::bigint[], $2::timestamptz[], $3::timestamptz[], $4::text[]) \
             as e (series_id, time, ended_at, kind) \
             where a.series_id = e.series_id and a.time = e.time and a.kind = e.kind",
        )
        .bind(resolve(&handles, ids, new)?)
        .bind(ended.iter().map(|a| Micros(a.time)).bind_iter())
        .bind(ended.iter().map(|a| Micros(a.ended_at)).bind_iter())
        .bind(ended.iter().map(|a| a.kind.as_str()).bind_iter())
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

async fn upsert_states(
    tx: &mut PgConnection,
    states: &[StateRow],
    ids: &SeriesIds,
    new: &New,
) -> Result<(), StoreError> {
    if states.is_empty() {
        return Ok(());
    }
    let handles: Vec<_> = states.iter().map(|s| s.series).collect();
    sqlx::query(
        "insert into series_state (series_id, time, model_id, state) \
         select * from unnest($1::bigint[], $2::timestamptz[], $3::bigint[], $4::bytea[]) \
         on conflict (series_id) do update \
         set time = excluded.time, model_id = excluded.model_id, state = excluded.state",
    )
    .bind(resolve(&handles, ids, new)?)
    .bind(states.iter().map(|s| Micros(s.time)).bind_iter())
    .bind(states.iter().map(|s| s.model).bind_iter())
    .bind(states.iter().map(|s| s.state.as_slice()).bind_iter())
    .execute(&mut *tx)
    .await?;
    Ok(())
}
