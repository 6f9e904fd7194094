//! How long each SQL panel of the Grafana dashboards takes on a Postgres with many readings, as shipped and with an
//! index that covers the values, and how much room readings and forecasts take there and in SQLite.
//!
//! `cargo bench -p vidente-tests --bench dashboards [-- READINGS]`, 1,000,000 unless given, of 1,000 series with a
//! forecast each; with `VIDENTE_TEST_TIMESCALEDB=1` on hypertables.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use vidente_tests::{Dashboard, Database, Reading, Rig, Settings, Store, View, quiet};

const SERIES: u64 = 1_000;
/// Rounds of which the median is shown, after one that is not counted.
const ROUNDS: usize = 5;
const COLUMNS: &str = "series_id, time, step, origin, mean, q05, q10, q25, q50, q75, q90, q95, model_id";

fn main() -> Result<()> {
    quiet();
    // Cargo adds --bench.
    let given = std::env::args().skip(1).find(|a| a != "--bench");
    let readings: u64 = given.map_or(Ok(1_000_000), |n| n.parse())?;
    let each = readings / SERIES;
    sqlite(each.min(1_000))?;

    let rig = Rig::new(Store::Postgres)?;
    let settings = Settings::climate();
    rig.command(&settings, &["migrate"])?;
    let database = rig.database(&settings)?;
    let begin = Instant::now();
    postgres(&database, each)?;
    println!(
        "Postgres: {readings} readings of {SERIES} series, filled in {:.0} s",
        begin.elapsed().as_secs_f64()
    );
    for table in ["readings", "forecasts"] {
        let size = |what: &str| -> Result<f64> {
            let sql = format!(
                "select coalesce(sum({what}(inhrelid)), 0)::bigint from pg_inherits where inhparent = '{table}'::regclass"
            );
            Ok(database.int(&sql)? as f64 / readings as f64)
        };
        let (heap, index) = (size("pg_table_size")?, size("pg_indexes_size")?);
        println!("  {table}: {heap:.0} MB a million, indexes {index:.0} MB");
    }

    let end = Reading::BEGIN + each * Reading::INTERVAL;
    let hours = |hours: u64, interval: u64| View {
        from: end.saturating_sub(hours * 3600),
        to: end,
        interval,
        series: "climate/hall/dev7/value",
    };
    let views = [("6 h", hours(6, 15)), ("24 h", hours(24, 60)), ("7 d", hours(168, 600))];
    let shipped = measure(&database, &views)?;
    for (table, column) in [("readings", "value"), ("forecasts", "time, q05, q25, q50, q75, q95")] {
        let key = if table == "readings" { "series_id, time" } else { "series_id, origin, step" };
        database.execute(&format!("create index {table}_covering on {table} ({key}) include ({column})"))?;
        let size = format!(
            "select sum(pg_indexes_size(inhrelid))::bigint from pg_inherits where inhparent = '{table}'::regclass"
        );
        println!(
            "  {table}: all indexes with a covering one {:.0} MB a million",
            database.int(&size)? as f64 / readings as f64
        );
        database.execute(&format!("vacuum analyze {table}"))?;
    }
    let covered = measure(&database, &views)?;
    println!("{:52} {:>16} {:>24}", "panel, ms over 6 h, 24 h, 7 d", "as shipped", "with covering indexes");
    for ((panel, a), (_, b)) in shipped.iter().zip(&covered) {
        let show = |times: &[Duration]| {
            times.iter().map(|t| format!("{:5.0}", t.as_secs_f64() * 1e3)).collect::<Vec<_>>().join(" ")
        };
        println!("{panel:52} {:>16} {:>24}", show(a), show(b));
    }
    Ok(())
}

/// The median time of each query, for each range.
fn measure(database: &Database, views: &[(&str, View<'_>)]) -> Result<Vec<(String, Vec<Duration>)>> {
    let mut all = Vec::new();
    for text in [Dashboard::SERIES, Dashboard::QUALITY] {
        let dashboard = Dashboard::parse(text)?;
        for query in dashboard.queries()?.into_iter().filter(|query| query.sql) {
            let mut medians = Vec::new();
            for (_, view) in views {
                let sql = view.sql(query.text)?;
                database.row_count(&sql)?;
                let mut times = Vec::new();
                for _ in 0..ROUNDS {
                    let begin = Instant::now();
                    database.row_count(&sql)?;
                    times.push(begin.elapsed());
                }
                times.sort_unstable();
                medians.push(*times.get(ROUNDS / 2).context("no rounds")?);
            }
            all.push((format!("{} {}", query.title, query.id), medians));
        }
    }
    Ok(all)
}

/// Rows in the order in which they would have come.
fn postgres(database: &Database, each: u64) -> Result<()> {
    let begin = Reading::BEGIN;
    database.execute(&format!(
        "set synchronous_commit = off; \
         insert into series (key, stream, labels, field) \
         select 'climate/hall/dev' || n || '/value', 'climate', \
         jsonb_build_object('site', 'hall', 'device', 'dev' || n), 'value' from generate_series(1, {SERIES}) n; \
         insert into models (name, stream, version, cell, created_at, status, metrics, weights) \
         values ('climate-1', 'climate', 1, 'lstm', now(), 'champion', '{{}}', ''); \
         select vidente_add_partition(parent, parent || to_char(month, '_YYYY_MM'), month at time zone 'UTC', \
         (month + interval '1 month') at time zone 'UTC') \
         from unnest(array['readings', 'forecasts']) parent, \
         generate_series('2026-01-01'::timestamp, to_timestamp({}) at time zone 'UTC', '1 month') month \
         where (select relkind from pg_class where oid = parent::regclass) = 'p'",
        begin + each * Reading::INTERVAL
    ))?;
    let rows = |table: &str, columns: &str, values: &str| {
        format!(
            "insert into {table} ({columns}) select {values} from generate_series(0, {each} - 1) p, \
             generate_series(1, {SERIES}) s, \
             lateral (select to_timestamp({begin} + p * 60) t, 20 + 5 * sin(p / 100.0) + random() v) r order by p, s"
        )
    };
    database.execute(&rows("readings", "series_id, time, value", "s, t, v"))?;
    let bands = "s, t + interval '1 min', 1, t, v, v - 2, v - 1.5, v - 0.7, v, v + 0.7, v + 1.5, v + 2, 1";
    database.execute(&rows("forecasts", COLUMNS, bands))?;
    database.execute(
        "insert into anomalies (series_id, time, ended_at, kind, value, score, q05, q95) \
         select series_id, time, time + interval '5 min', 'value', value, 0.9, 1, 2 from readings \
         where (extract(epoch from time)::bigint / 60 + series_id) % 500 = 0",
    )?;
    // As autovacuum does.
    database.execute("vacuum analyze")
}

/// How much room a million readings with a forecast each take.
fn sqlite(each: u64) -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let settings = Settings::climate();
    rig.command(&settings, &["migrate"])?;
    let database = rig.database(&settings)?;
    let size = || database.int("select page_count * page_size from pragma_page_count, pragma_page_size");
    let mut before = size()?;
    let bands = "s, t + 60000000, 1, t, v, v - 2, v - 1.5, v - 0.7, v, v + 0.7, v + 1.5, v + 2, 1";
    for (table, columns, values) in
        [("readings", "series_id, time, value", "s, t, v"), ("forecasts", COLUMNS, bands)]
    {
        database.execute(&format!(
            "with recursive p (p) as (select 0 union all select p + 1 from p where p < {each} - 1), \
             s (s) as (select 1 union all select s + 1 from s where s < {SERIES}), \
             r as (select s, ({} + p * 60) * 1000000 as t, 20 + random() / 1e18 as v from p cross join s) \
             insert into {table} ({columns}) select {values} from r",
            Reading::BEGIN
        ))?;
        let after = size()?;
        println!("SQLite, {table}: {:.0} MB a million", (after - before) as f64 / (each * SERIES) as f64);
        before = after;
    }
    Ok(())
}
