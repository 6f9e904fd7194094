//! SQLite: one connection that writes, a few that read, WAL between them.

use std::collections::{BTreeMap, HashSet};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Row, SqliteConnection, SqlitePool};

use super::error::{advice, said};
use super::promotions::{self, Transaction};
use super::write::{Attempt, NewIds, by_kind, labels, resolve, written};
use super::{SeriesIds, StoreError, Written, feedback, without_nul};
use crate::config;
use crate::record::{
    AnomalyChange, ForecastColumns, NewSeries, ReadingColumns, SeriesHandle, StateRow, WriteBatch,
};

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/sqlite");

/// Most rows in one statement; 13 columns of them stay far below SQLite's 32,766 parameters.
const CHUNK: usize = 256;
/// Rows deleted in one transaction, so that batches get their turn between.
const PRUNE_CHUNK: i64 = 5000;
/// Series looked at for one such transaction.
const PRUNE_SERIES: i64 = 256;

/// Connections to one SQLite file.
#[derive(Debug, Clone)]
pub(super) struct SqliteStore {
    writer: SqlitePool,
    readers: SqlitePool,
    /// See `PgStore`.
    expect_duplicates: Arc<AtomicBool>,
}

impl SqliteStore {
    pub(super) async fn open(config: &config::Store) -> Result<SqliteStore, StoreError> {
        let unusable = |e: sqlx::Error| {
            StoreError::Config(format!("[store] url: {}: {}{}", config.url, said(&e), advice(&e)))
        };
        if config.url.contains(":memory:") || config.url.contains("mode=memory") {
            return Err(StoreError::Config(
                "[store] url: SQLite needs a file: sqlite:///path/to/file.db".into(),
            ));
        }
        let options = SqliteConnectOptions::from_str(&config.url)
            .map_err(unusable)?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // With WAL, anything less than FULL may lose the last commits on power loss.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(20))
            .pragma("cache_size", "-65536")
            // Rows of a batch lie in the pages of many series: rarer checkpoints write a page less often.
            .pragma("wal_autocheckpoint", "8000")
            .disable_statement_logging();
        let dir = options.get_filename().parent().filter(|dir| !dir.as_os_str().is_empty());
        if let Some(dir) = dir.filter(|dir| !dir.is_dir()) {
            return Err(StoreError::Config(format!(
                "[store] url: the directory {} does not exist; make it (mkdir -p), and let this user write to it{}",
                dir.display(),
                if dir.is_relative() { ", or write three slashes for a path from the root" } else { "" }
            )));
        }
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.clone())
            .await
            .map_err(unusable)?;
        let readers = SqlitePoolOptions::new()
            .max_connections(4)
            .test_before_acquire(false)
            .connect_lazy_with(options.pragma("query_only", "on").row_buffer_size(1024));
        Ok(SqliteStore { writer, readers, expect_duplicates: Arc::default() })
    }

    pub(super) fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    pub(super) fn writer(&self) -> &SqlitePool {
        &self.writer
    }

    /// Its version, and whether the schema is that of this one; it must be writable.
    pub(super) async fn version(&self) -> Result<(String, bool), StoreError> {
        let version: String = sqlx::query_scalar("select sqlite_version()").fetch_one(&self.writer).await?;
        self.try_writing().await?;
        let begun: bool =
            sqlx::query_scalar("select count(*) > 0 from sqlite_master where name = '_sqlx_migrations'")
                .fetch_one(&self.writer)
                .await?;
        let applied: Vec<i64> = if begun {
            sqlx::query_scalar("select version from _sqlx_migrations where success order by version")
                .fetch_all(&self.writer)
                .await?
        } else {
            Vec::new()
        };
        let current = MIGRATIONS.iter().map(|m| m.version).eq(applied);
        Ok((format!("SQLite {version}"), current))
    }

    /// Fails if nothing can be written: of a file that it can only read SQLite does not say so before a statement.
    async fn try_writing(&self) -> Result<(), StoreError> {
        let mut tx = self.writer.begin_with("begin immediate").await?;
        sqlx::query("create table vidente_trial (x)").execute(&mut *tx).await?;
        Ok(tx.rollback().await?)
    }

    pub(super) async fn migrate(&self) -> Result<(), StoreError> {
        self.try_writing().await?;
        Ok(MIGRATIONS.run(&self.writer).await?)
    }

    pub(super) async fn write(
        &self,
        batch: &WriteBatch,
        ids: &SeriesIds,
    ) -> Result<(Written, NewIds), StoreError> {
        let mut exact = self.expect_duplicates.load(Ordering::Relaxed);
        loop {
            // Immediate: another process may write too, and a lock taken later could not be waited for.
            let mut tx = self.writer.begin_with("begin immediate").await?;
            match attempt(&mut tx, batch, ids, exact).await? {
                Attempt::Complete(written, new_ids) => {
                    tx.commit().await?;
                    if !batch.readings.series.is_empty() {
                        self.expect_duplicates.store(!written.duplicates.is_empty(), Ordering::Relaxed);
                    }
                    return Ok((written, new_ids));
                }
                Attempt::Duplicates => {
                    tx.rollback().await?;
                    exact = true;
                }
            }
        }
    }

    pub(super) async fn prune(&self, before: i64) -> Result<(), StoreError> {
        let last: Option<i64> =
            sqlx::query_scalar("select max(id) from series").fetch_one(&self.readers).await?;
        let mut from = 0;
        while last.is_some_and(|last| from < last) {
            for sql in [
                "delete from readings where (series_id, time) in (select r.series_id, r.time \
                 from series s cross join readings r where s.id > $1 and s.id <= $2 \
                 and r.series_id = s.id and r.time < $3 limit $4)",
                "delete from forecasts where (series_id, origin, step) in (select f.series_id, f.origin, f.step \
                 from series s cross join forecasts f where s.id > $1 and s.id <= $2 \
                 and f.series_id = s.id and f.origin < $3 limit $4)",
            ] {
                while sqlx::query(sql)
                    .bind(from)
                    .bind(from + PRUNE_SERIES)
                    .bind(before)
                    .bind(PRUNE_CHUNK)
                    .execute(&self.writer)
                    .await?
                    .rows_affected()
                    > 0
                {}
            }
            from += PRUNE_SERIES;
        }
        sqlx::query("delete from anomalies where ended_at < $1").bind(before).execute(&self.writer).await?;
        Ok(())
    }
}

type New = BTreeMap<SeriesHandle, i64>;

async fn attempt(
    tx: &mut SqliteConnection,
    batch: &WriteBatch,
    ids: &SeriesIds,
    exact: bool,
) -> Result<Attempt, StoreError> {
    let mut new_ids = NewIds::new();
    for series in &batch.new_series {
        new_ids.push((series.handle, insert_series(tx, series).await?));
    }
    let new: New = new_ids.iter().copied().collect();
    let Some(mut written) = insert_readings(tx, &batch.readings, ids, &new, exact).await? else {
        return Ok(Attempt::Duplicates);
    };
    insert_forecasts(tx, &batch.forecasts, ids, &new).await?;
    write_anomalies(tx, &batch.anomalies, ids, &new).await?;
    upsert_states(tx, &batch.states, ids, &new).await?;
    let about: Vec<_> = batch.feedback.iter().map(|f| f.series).collect();
    feedback::insert_into_sqlite(tx, &batch.feedback, resolve(&about, ids, &new)?).await?;
    written.models = promotions::apply(Transaction::Sqlite(tx), &batch.models).await?;
    Ok(Attempt::Complete(written, new_ids))
}

async fn insert_series(tx: &mut SqliteConnection, series: &NewSeries) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar(
        "insert into series (key, stream, labels, field) values ($1, $2, $3, $4) \
         on conflict (key) do update set key = excluded.key returning id",
    )
    .bind(without_nul(&series.key).into_owned())
    .bind(without_nul(&series.stream).into_owned())
    .bind(labels(series)?)
    .bind(without_nul(&series.field).into_owned())
    .fetch_one(&mut *tx)
    .await?)
}

/// Ranges that cover `rows`, each of a power of two and at most [`CHUNK`] rows, so that few
/// different statements serve batches of any size and stay prepared.
fn chunks(rows: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let left = rows.checked_sub(at).filter(|&left| left > 0)?;
        let size = (1 << left.ilog2()).min(CHUNK);
        at += size;
        Some(at - size..at)
    })
}

/// An insert of several rows. Bound values, not `json_each`: those come back bit for bit, and
/// this is faster too.
fn insert(table: &str, columns: &str, rows: usize, tail: &str) -> String {
    let row = vec!["?"; columns.split(',').count()].join(",");
    format!("insert into {table} ({columns}) values {}({row}) {tail}", format!("({row}),").repeat(rows - 1))
}

/// Nothing if there were duplicates and `exact` was not asked for.
async fn insert_readings(
    tx: &mut SqliteConnection,
    readings: &ReadingColumns,
    ids: &SeriesIds,
    new: &New,
    exact: bool,
) -> Result<Option<Written>, StoreError> {
    let tail =
        if exact { "on conflict do nothing returning series_id, time" } else { "on conflict do nothing" };
    let series = resolve(&readings.series, ids, new)?;
    let rows: Vec<_> = series
        .iter()
        .zip(&readings.time)
        .zip(readings.value.iter().zip(&readings.late))
        .map(|((&id, &time), (&value, &late))| (id, time, value, late))
        .collect();
    let mut stored = 0;
    let mut inserted = HashSet::new();
    for range in chunks(rows.len()) {
        let sql = insert("readings", "series_id, time, value, late", range.len(), tail);
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for &(id, time, value, late) in rows.get(range).unwrap_or_default() {
            query = query.bind(id).bind(time).bind(value).bind(late);
        }
        if exact {
            for row in query.fetch_all(&mut *tx).await? {
                inserted.insert((row.try_get(0)?, row.try_get(1)?));
            }
        } else {
            stored += query.execute(&mut *tx).await?.rows_affected();
        }
    }
    if exact {
        return Ok(Some(written(readings, &series, inserted)));
    }
    let all_new = stored == rows.len() as u64;
    Ok(all_new.then(|| Written { stored, ..Written::default() }))
}

async fn insert_forecasts(
    tx: &mut SqliteConnection,
    forecasts: &ForecastColumns,
    ids: &SeriesIds,
    new: &New,
) -> Result<(), StoreError> {
    const COLUMNS: &str = "series_id, time, step, origin, model_id, mean, q05, q10, q25, q50, q75, q90, q95";
    let series = resolve(&forecasts.series, ids, new)?;
    let rows: Vec<_> = series
        .iter()
        .zip(&forecasts.time)
        .zip(forecasts.step.iter().zip(&forecasts.origin))
        .zip(forecasts.model.iter().zip(&forecasts.mean))
        .map(|(((&id, &time), (&step, &origin)), (&model, &mean))| (id, time, step, origin, model, mean))
        .collect();
    for range in chunks(rows.len()) {
        let sql = insert("forecasts", COLUMNS, range.len(), "on conflict do nothing");
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for (row, &(id, time, step, origin, model, mean)) in
            range.clone().zip(rows.get(range).unwrap_or_default())
        {
            query = query.bind(id).bind(time).bind(step).bind(origin).bind(model).bind(mean);
            for column in &forecasts.quantiles {
                query = query.bind(column.get(row).copied());
            }
        }
        query.execute(&mut *tx).await?;
    }
    Ok(())
}

async fn write_anomalies(
    tx: &mut SqliteConnection,
    changes: &[AnomalyChange],
    ids: &SeriesIds,
    new: &New,
) -> Result<(), StoreError> {
    let (began, ended) = by_kind(changes);
    let series = resolve(&began.iter().map(|a| a.series).collect::<Vec<_>>(), ids, new)?;
    for (id, anomaly) in series.into_iter().zip(began) {
        sqlx::query(
            "insert into anomalies (series_id, time, kind, value, score, q05, q95) \
             values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing",
        )
        .bind(id)
        .bind(anomaly.time)
        .bind(anomaly.kind.as_str())
        .bind(anomaly.value)
        .bind(anomaly.broken.map(|b| b.score))
        .bind(anomaly.broken.map(|b| b.q05))
        .bind(anomaly.broken.map(|b| b.q95))
        .execute(&mut *tx)
        .await?;
    }
    let series = resolve(&ended.iter().map(|a| a.series).collect::<Vec<_>>(), ids, new)?;
    for (id, anomaly) in series.into_iter().zip(ended) {
        sqlx::query("update anomalies set ended_at = $3 where series_id = $1 and time = $2 and kind = $4")
            .bind(id)
            .bind(anomaly.time)
            .bind(anomaly.ended_at)
            .bind(anomaly.kind.as_str())
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}

async fn upsert_states(
    tx: &mut SqliteConnection,
    states: &[StateRow],
    ids: &SeriesIds,
    new: &New,
) -> Result<(), StoreError> {
    const TAIL: &str = "on conflict (series_id) do update \
         set time = excluded.time, model_id = excluded.model_id, state = excluded.state";
    let series = resolve(&states.iter().map(|s| s.series).collect::<Vec<_>>(), ids, new)?;
    let rows: Vec<_> = series.into_iter().zip(states).collect();
    for range in chunks(rows.len()) {
        let sql = insert("series_state", "series_id, time, model_id, state", range.len(), TAIL);
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for (id, row) in rows.get(range).unwrap_or_default() {
            query = query.bind(*id).bind(row.time).bind(row.model).bind(row.state.clone());
        }
        query.execute(&mut *tx).await?;
    }
    Ok(())
}
