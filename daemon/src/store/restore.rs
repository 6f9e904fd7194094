//! What is read back: at start to continue each series, and for training.

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use sqlx::types::Json;

use super::micros::Micros;
use super::{Inner, Store, StoreError, reading};
use crate::record::AnomalyKind;

/// A row of `series`.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesRow {
    /// The database's id.
    pub id: i64,
    /// `<stream>/<captured levels>/<field>`.
    pub key: String,
    /// Name of its stream.
    pub stream: String,
    /// Captured topic levels by name.
    pub labels: BTreeMap<String, String>,
    /// Field of the payload it comes from.
    pub field: String,
}

/// A row of `series_state`.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredState {
    /// The database's id of the series.
    pub series_id: i64,
    /// Time of the last reading in the state.
    pub time: i64,
    /// Model whose hidden state it holds; none while naive.
    pub model: Option<i64>,
    /// The encoded state.
    pub state: Vec<u8>,
}

/// A row of `readings` that was fed to the model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StoredReading {
    /// The database's id of the series.
    pub series_id: i64,
    /// Microseconds since the Unix epoch.
    pub time: i64,
    /// Value.
    pub value: f64,
}

/// Makes Postgres walk the series in order and, for each, the index of its readings: rows then
/// come as they are read, without a sort of everything before the first.
const ONE_SERIES_AT_A_TIME: &str = "set local enable_sort = off; set local enable_hashjoin = off; \
     set local enable_mergejoin = off; set local enable_seqscan = off; set local enable_bitmapscan = off; \
     set local enable_material = off; set local max_parallel_workers_per_gather = 0; set local jit = off";

/// The inner `order by` keeps the planner from turning the loop inside out.
const PG_AFTER_STATES: &str = "select s.id, r.time, r.value from series s \
     left join series_state st on st.series_id = s.id \
     cross join lateral (select time, value from readings where series_id = s.id \
     and time > coalesce(st.time, '-infinity') and not late order by time) r \
     where s.stream = $1 order by s.id, r.time";
const PG_HISTORY: &str = "select s.id, r.time, r.value from series s \
     cross join lateral (select time, value from readings where series_id = s.id \
     and time >= $2 and not late order by time) r \
     where s.stream = $1 order by s.id, r.time";

const LITE_AFTER_STATES: &str = "select s.id, r.time, r.value from series s \
     left join series_state st on st.series_id = s.id \
     cross join readings r on r.series_id = s.id and r.time > coalesce(st.time, -9223372036854775808) \
     where s.stream = $1 and not r.late order by s.id, r.time";
const LITE_HISTORY: &str = "select s.id, r.time, r.value from series s \
     cross join readings r on r.series_id = s.id and r.time >= $2 \
     where s.stream = $1 and not r.late order by s.id, r.time";

/// Runs a statement of one of the four above, row by row.
macro_rules! stream {
    ($conn:expr, $query:expr, $each:ident) => {{
        let mut rows = $query.fetch($conn);
        while let Some((series_id, Micros(time), value)) = rows.try_next().await? {
            $each(StoredReading { series_id, time, value });
        }
    }};
}

impl Store {
    /// All series in the order they were made.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn series(&self) -> Result<Vec<SeriesRow>, StoreError> {
        type Columns = (i64, String, String, Json<BTreeMap<String, String>>, String);
        const SERIES: &str = "select id, key, stream, labels, field from series order by id";
        let rows: Vec<Columns> = reading!(self, pool => sqlx::query_as(SERIES).fetch_all(pool).await?);
        Ok(rows
            .into_iter()
            .map(|(id, key, stream, labels, field)| SeriesRow { id, key, stream, labels: labels.0, field })
            .collect())
    }

    /// The checkpoints of a stream's series, by series id.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn states(&self, stream: &str) -> Result<Vec<StoredState>, StoreError> {
        type Columns = (i64, Micros, Option<i64>, Vec<u8>);
        const STATES: &str = "select st.series_id, st.time, st.model_id, st.state from series_state st \
             join series s on s.id = st.series_id where s.stream = $1 order by st.series_id";
        let rows: Vec<Columns> =
            reading!(self, pool => sqlx::query_as(STATES).bind(stream).fetch_all(pool).await?);
        Ok(rows
            .into_iter()
            .map(|(series_id, time, model, state)| StoredState { series_id, time: time.0, model, state })
            .collect())
    }

    /// Silences of a stream's series that had not ended: series id and when each began.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn open_silences(&self, stream: &str) -> Result<Vec<(i64, i64)>, StoreError> {
        const OPEN: &str = "select a.series_id, max(a.time) from anomalies a join series s on s.id = a.series_id \
             where a.ended_at is null and a.kind = $2 and s.stream = $1 group by a.series_id";
        let rows: Vec<(i64, Micros)> = reading!(self, pool => {
            sqlx::query_as(OPEN).bind(stream).bind(AnomalyKind::Silence.as_str()).fetch_all(pool).await?
        });
        Ok(rows.into_iter().map(|(series, since)| (series, since.0)).collect())
    }

    /// Deletes checkpoints.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn delete_states(&self, series: &[i64]) -> Result<(), StoreError> {
        const DELETE: &str = "delete from series_state where series_id = $1";
        for id in series {
            match &self.inner {
                Inner::Postgres(pg) => sqlx::query(DELETE).bind(id).execute(pg.pool()).await?.rows_affected(),
                Inner::Sqlite(lite) => {
                    sqlx::query(DELETE).bind(id).execute(lite.writer()).await?.rows_affected()
                }
            };
        }
        Ok(())
    }

    /// Gives each reading that is newer than its series' checkpoint (all, where there is none) and
    /// was fed to the model, by series id and time, as it comes from the database.
    ///
    /// # Errors
    /// If the database goes away; `each` may have been called before.
    pub async fn readings_after_states(
        &self,
        stream: &str,
        mut each: impl FnMut(StoredReading) + Send,
    ) -> Result<(), StoreError> {
        match &self.inner {
            Inner::Postgres(pg) => {
                let mut tx = pg.pool().begin().await?;
                sqlx::raw_sql(ONE_SERIES_AT_A_TIME).execute(&mut *tx).await?;
                stream!(&mut *tx, sqlx::query_as(PG_AFTER_STATES).bind(stream), each);
            }
            Inner::Sqlite(lite) => {
                stream!(lite.readers(), sqlx::query_as(LITE_AFTER_STATES).bind(stream), each);
            }
        }
        Ok(())
    }

    /// Gives each of a stream's readings from `since` on that was fed to the model, by series id
    /// and time, as it comes from the database.
    ///
    /// # Errors
    /// If the database goes away; `each` may have been called before.
    pub async fn history(
        &self,
        stream: &str,
        since: i64,
        mut each: impl FnMut(StoredReading) + Send,
    ) -> Result<(), StoreError> {
        match &self.inner {
            Inner::Postgres(pg) => {
                let mut tx = pg.pool().begin().await?;
                sqlx::raw_sql(ONE_SERIES_AT_A_TIME).execute(&mut *tx).await?;
                stream!(&mut *tx, sqlx::query_as(PG_HISTORY).bind(stream).bind(Micros::bound(since)), each);
            }
            Inner::Sqlite(lite) => {
                stream!(
                    lite.readers(),
                    sqlx::query_as(LITE_HISTORY).bind(stream).bind(Micros::bound(since)),
                    each
                );
            }
        }
        Ok(())
    }

    /// Time of a stream's newest reading.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn newest(&self, stream: &str) -> Result<Option<i64>, StoreError> {
        const PG: &str = "select max(r.time) from series s cross join lateral \
             (select time from readings where series_id = s.id order by time desc limit 1) r where s.stream = $1";
        const LITE: &str = "select max((select max(time) from readings where series_id = s.id)) from series s where s.stream = $1";
        let newest: Option<Micros> = match &self.inner {
            Inner::Postgres(pg) => sqlx::query_scalar(PG).bind(stream).fetch_one(pg.pool()).await?,
            Inner::Sqlite(lite) => sqlx::query_scalar(LITE).bind(stream).fetch_one(lite.readers()).await?,
        };
        Ok(newest.map(|time| time.0))
    }

    /// How many readings [`Store::history`] would give.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn reading_count(&self, stream: &str, since: i64) -> Result<u64, StoreError> {
        const COUNT: &str = "select count(*) from series s join readings r on r.series_id = s.id \
             where s.stream = $1 and r.time >= $2 and not r.late";
        let count: i64 = reading!(self, pool => {
            sqlx::query_scalar(COUNT).bind(stream).bind(Micros::bound(since)).fetch_one(pool).await?
        });
        Ok(count.unsigned_abs())
    }
}
