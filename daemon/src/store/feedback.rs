//! `feedback`: what users said of anomalies.

use sqlx::postgres::PgBindIterExt;
use sqlx::{PgConnection, SqliteConnection};

use super::micros::Micros;
use super::{Store, StoreError, reading};
use crate::record::FeedbackRow;

/// A row as it is read back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StoredFeedback {
    /// The database's id of the series.
    pub series_id: i64,
    /// Time of the series' newest reading when it was said, microseconds since the Unix epoch.
    pub newest: i64,
    /// Whether it was called an anomaly.
    pub anomaly: bool,
    /// How strong the evidence was.
    pub evidence: f64,
}

impl Store {
    /// What was said of a stream's series since the last reading in each one's checkpoint, or ever, where there is
    /// none; in the order in which it was said.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn feedback_after_states(&self, stream: &str) -> Result<Vec<StoredFeedback>, StoreError> {
        const SAID: &str = "select f.series_id, f.newest, f.anomaly, f.evidence from series s \
             join feedback f on f.series_id = s.id left join series_state st on st.series_id = s.id \
             where s.stream = $1 and (st.time is null or f.newest >= st.time) order by f.series_id, f.newest, f.given_at";
        let rows: Vec<(i64, Micros, bool, f64)> =
            reading!(self, pool => sqlx::query_as(SAID).bind(stream).fetch_all(pool).await?);
        Ok(rows
            .into_iter()
            .map(|(series_id, newest, anomaly, evidence)| StoredFeedback {
                series_id,
                newest: newest.0,
                anomaly,
                evidence,
            })
            .collect())
    }
}

/// Adds rows, each with its series' id; what is there already stays.
pub(super) async fn insert_into_postgres(
    tx: &mut PgConnection,
    rows: &[FeedbackRow],
    ids: Vec<i64>,
) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "insert into feedback (series_id, given_at, time, newest, anomaly, evidence) \
         select * from unnest($1::bigint[], $2::timestamptz[], $3::timestamptz[], $4::timestamptz[], \
         $5::boolean[], $6::double precision[]) on conflict do nothing",
    )
    .bind(ids)
    .bind(rows.iter().map(|f| Micros(f.given_at)).bind_iter())
    .bind(rows.iter().map(|f| Micros(f.time)).bind_iter())
    .bind(rows.iter().map(|f| Micros(f.newest)).bind_iter())
    .bind(rows.iter().map(|f| f.anomaly).bind_iter())
    .bind(rows.iter().map(|f| f.evidence).bind_iter())
    .execute(&mut *tx)
    .await?;
    Ok(())
}

/// The same.
pub(super) async fn insert_into_sqlite(
    tx: &mut SqliteConnection,
    rows: &[FeedbackRow],
    ids: Vec<i64>,
) -> Result<(), StoreError> {
    for (row, id) in rows.iter().zip(ids) {
        sqlx::query(
            "insert into feedback (series_id, given_at, time, newest, anomaly, evidence) \
             values ($1, $2, $3, $4, $5, $6) on conflict do nothing",
        )
        .bind(id)
        .bind(row.given_at)
        .bind(row.time)
        .bind(row.newest)
        .bind(row.anomaly)
        .bind(row.evidence)
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}
