//! Monthly partitions in Postgres: made before the first row of a month, dropped whole. Hypertables of TimescaleDB make
//! their chunks themselves; these are dropped whole, too.

use std::collections::HashSet;
use std::sync::{Mutex, OnceLock, PoisonError};

use jiff::civil::date;
use jiff::tz::TimeZone;
use sqlx::PgConnection;

use super::StoreError;
use super::micros::Micros;

/// The partitioned tables, and with them the column each is partitioned by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Table {
    /// By `time`.
    Readings,
    /// By `origin`.
    Forecasts,
}

impl Table {
    fn name(self) -> &'static str {
        match self {
            Table::Readings => "readings",
            Table::Forecasts => "forecasts",
        }
    }
}

/// A calendar month, counted from January 1970. Everything before is one, [`Month::EARLY`], so
/// that sensors whose clocks are far off cannot make partitions by the thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Month(i32);

impl Month {
    const EARLY: Month = Month(-1);

    fn of(time: i64) -> Result<Month, StoreError> {
        if time < 0 {
            return Ok(Month::EARLY);
        }
        let time = jiff::Timestamp::from_microsecond(time)
            .map_err(|_| StoreError::Refused(format!("time {time} is beyond the year 9999")))?;
        let day = TimeZone::UTC.to_datetime(time);
        Ok(Month((i32::from(day.year()) - 1970) * 12 + i32::from(day.month()) - 1))
    }

    /// Midnight of the first day.
    fn start(self) -> Result<i64, StoreError> {
        let beyond = |_| StoreError::Refused("a time beyond the year 9999".into());
        let year = i16::try_from(1970 + self.0.div_euclid(12)).unwrap_or(i16::MAX);
        let month = i8::try_from(self.0.rem_euclid(12) + 1).unwrap_or(1);
        if year > 9999 {
            return Err(StoreError::Refused("a time beyond the year 9999".into()));
        }
        let start = TimeZone::UTC.to_timestamp(date(year, month, 1).at(0, 0, 0, 0)).map_err(beyond)?;
        Ok(start.as_microsecond())
    }

    fn partition(self, table: Table) -> String {
        match self {
            Month::EARLY => format!("{}_early", table.name()),
            Month(n) => {
                format!("{}_{:04}_{:02}", table.name(), 1970 + n.div_euclid(12), n.rem_euclid(12) + 1)
            }
        }
    }

    fn parse(table: Table, partition: &str) -> Option<Month> {
        let rest = partition.strip_prefix(table.name())?.strip_prefix('_')?;
        if rest == "early" {
            return Some(Month::EARLY);
        }
        let (year, month) = rest.split_once('_')?;
        Some(Month((year.parse::<i32>().ok()? - 1970) * 12 + month.parse::<i32>().ok()? - 1))
    }
}

/// Which partitions are known to exist.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    known: Mutex<HashSet<(Table, Month)>>,
    /// Whether there are chunks in their place, once that has been asked: it never changes.
    chunks: OnceLock<bool>,
}

impl Partitions {
    /// Makes what is missing for rows of these times.
    pub(super) async fn ensure(
        &self,
        conn: &mut PgConnection,
        table: Table,
        times: &[i64],
    ) -> Result<(), StoreError> {
        for month in self.missing(table, times)? {
            if !self.chunked(conn).await? {
                create(conn, table, month).await?;
            }
            self.known.lock().unwrap_or_else(PoisonError::into_inner).insert((table, month));
        }
        Ok(())
    }

    /// Makes the partitions of the month of a time and of the one after, so that the first reading of a month
    /// waits for nothing.
    pub(super) async fn make_ahead(&self, conn: &mut PgConnection, now: i64) -> Result<(), StoreError> {
        let next = Month(Month::of(now)?.0 + 1).start()?;
        for table in [Table::Readings, Table::Forecasts] {
            self.ensure(conn, table, &[now, next]).await?;
        }
        Ok(())
    }

    /// Forgets everything: another daemon may have dropped partitions.
    pub(super) fn forget(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn missing(&self, table: Table, times: &[i64]) -> Result<Vec<Month>, StoreError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut missing = Vec::new();
        // Nearly all rows of a batch are of one month, so a comparison settles nearly all of them.
        let mut seen = 0..0;
        for &time in times {
            if seen.contains(&time) {
                continue;
            }
            let month = Month::of(time)?;
            let end = Month(month.0 + 1).start()?;
            let start = if month == Month::EARLY { i64::MIN } else { month.start()? };
            seen = start..end;
            if !known.contains(&(table, month)) && !missing.contains(&month) {
                missing.push(month);
            }
        }
        Ok(missing)
    }

    async fn chunked(&self, conn: &mut PgConnection) -> Result<bool, StoreError> {
        if let Some(chunks) = self.chunks.get() {
            return Ok(*chunks);
        }
        let chunks = chunked(conn).await?;
        Ok(*self.chunks.get_or_init(|| chunks))
    }

    /// Drops the partitions whose every row is older than `before`.
    pub(super) async fn drop_before(&self, conn: &mut PgConnection, before: i64) -> Result<(), StoreError> {
        let chunks = self.chunked(conn).await?;
        for table in [Table::Readings, Table::Forecasts] {
            if chunks {
                let mut dropped = 1;
                while dropped > 0 {
                    dropped = sqlx::query_scalar::<_, i64>("select vidente_drop_chunks($1, $2)")
                        .bind(table.name())
                        .bind(Micros::bound(before))
                        .fetch_one(&mut *conn)
                        .await?;
                }
                continue;
            }
            let names: Vec<String> = sqlx::query_scalar(
                "select c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid \
                 where i.inhparent = $1::regclass",
            )
            .bind(table.name())
            .fetch_all(&mut *conn)
            .await?;
            for name in names {
                let Some(month) = Month::parse(table, &name) else { continue };
                if Month(month.0 + 1).start()? > before {
                    continue;
                }
                sqlx::query("select vidente_drop_partition($1, $2)")
                    .bind(table.name())
                    .bind(&name)
                    .execute(&mut *conn)
                    .await?;
                self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&(table, month));
            }
        }
        Ok(())
    }
}

/// Creates a partition unless it exists.
async fn create(conn: &mut PgConnection, table: Table, month: Month) -> Result<(), StoreError> {
    let first = if month == Month::EARLY { None } else { Some(month.start()?) };
    let after = Month(month.0 + 1).start()?;
    sqlx::query("select vidente_add_partition($1, $2, $3, $4)")
        .bind(table.name())
        .bind(month.partition(table))
        .bind(first.map(Micros))
        .bind(Micros(after))
        .execute(&mut *conn)
        .await?;
    Ok(())
}

/// Whether there are hypertables in the place of partitioned tables.
async fn chunked(conn: &mut PgConnection) -> Result<bool, StoreError> {
    let kind = "select relkind <> 'p' from pg_class where oid = 'readings'::regclass";
    Ok(sqlx::query_scalar(kind).fetch_one(conn).await?)
}

/// What readings and forecasts are kept in, for people.
pub(super) async fn described(conn: &mut PgConnection) -> Result<String, StoreError> {
    let version = "select extversion from pg_extension where extname = 'timescaledb'";
    let version: Option<String> = sqlx::query_scalar(version).fetch_optional(&mut *conn).await?;
    Ok(match (chunked(conn).await?, version) {
        (true, Some(version)) => format!("hypertables of TimescaleDB {version}"),
        (true, None) => "plain tables, since TimescaleDB is gone from the database".to_owned(),
        (false, _) => "partitions by month".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn micros(text: &str) -> i64 {
        text.parse::<jiff::Timestamp>().unwrap().as_microsecond()
    }

    #[test]
    fn months_have_names_that_parse_back_and_edges_that_meet() {
        for (time, name, next) in [
            ("2026-11-23T10:00:00Z", "readings_2026_11", "2026-12-01T00:00:00Z"),
            ("2026-12-31T23:59:59.999999Z", "readings_2026_12", "2027-01-01T00:00:00Z"),
            ("1970-01-01T00:00:00Z", "readings_1970_01", "1970-02-01T00:00:00Z"),
            ("1969-12-31T23:59:59Z", "readings_early", "1970-01-01T00:00:00Z"),
            ("-000300-01-01T00:00:00Z", "readings_early", "1970-01-01T00:00:00Z"),
        ] {
            let month = Month::of(micros(time)).unwrap();
            assert_eq!(month.partition(Table::Readings), name);
            assert_eq!(Month::parse(Table::Readings, name), Some(month));
            assert_eq!(Month(month.0 + 1).start().unwrap(), micros(next), "end of {name}");
        }
        assert!(Month::of(i64::MAX).is_err());
    }

    #[test]
    fn each_missing_month_is_named_once() {
        let times = ["2026-01-31T23:59:59Z", "2026-02-01T00:00:00Z", "2026-01-01T00:00:00Z"].map(micros);
        let partitions = Partitions::default();
        assert_eq!(partitions.missing(Table::Readings, &times).unwrap().len(), 2);
    }
}
