//! A store of each schema that there has ever been, with rows in it, is taken over: everything is still there, and
//! the daemon goes on where the one before left off.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use vidente_tests::{Database, Feed, Reading, Registry, Rig, Settings, Store, WAIT, wait_until};

/// Readings that the old daemon left behind.
const OLD: usize = 50;

#[test]
fn every_schema_of_sqlite_is_taken_over() -> Result<()> {
    take_over(Store::Sqlite)
}

#[test]
fn every_schema_of_postgres_is_taken_over() -> Result<()> {
    take_over(Store::Postgres)
}

fn take_over(store: Store) -> Result<()> {
    let name = if store == Store::Postgres { "postgres" } else { "sqlite" };
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../migrations").join(name);
    let newest = i64::try_from(std::fs::read_dir(&folder)?.count())?;
    for version in 1..=newest {
        one(&Rig::new(store)?, &folder, version, newest)
            .with_context(|| format!("{name}, schema {version}"))?;
    }
    Ok(())
}

fn one(rig: &Rig, folder: &Path, version: i64, newest: i64) -> Result<()> {
    let settings = Settings::climate();
    let create = if rig.postgres.is_none() { "?mode=rwc" } else { "" };
    let old = Database::connect(&format!("{}{create}", rig.store_url(&settings.name)))?;
    old.migrate_to(folder, version)?;
    fill(&old, version)?;
    let before = contents(&old)?;
    drop(old);

    rig.command(&settings, &["migrate"])?;
    // Again, as a start does.
    rig.command(&settings, &["migrate"])?;
    let database = rig.database(&settings)?;
    assert_eq!(database.int("select count(*) from _sqlx_migrations")?, newest);
    assert_eq!(contents(&database)?, before);
    if version < 3 {
        // Champions of the time before there were promotions.
        let promotions = Registry(&database).promotions()?;
        let models: Vec<_> = promotions.iter().map(|p| (p.model.as_str(), p.before.as_deref())).collect();
        assert_eq!(models, [("climate-1", None), ("climate-2", Some("climate-1"))]);
    }

    let mut daemon = rig.daemon(&settings)?;
    Feed::run(&rig.broker, 2, 1, OLD..OLD + 10)?;
    daemon.wait_stored(20)?;
    let page = daemon.json("/api/v1/series/climate/hall/dev0/value?history=1000")?;
    let counted = |what: &str| page[what].as_array().map_or(0, Vec::len);
    assert_eq!((counted("readings"), counted("anomalies")), (OLD + 10, if version < 2 { 1 } else { 2 }));
    assert_eq!(counted("forecasts"), OLD + 10, "the old series goes on without a gap");
    assert!(rig.command(&settings, &["models", "list"])?.contains("climate-2"));
    daemon.stop()?;
    assert_eq!(database.int("select count(*) from readings")?, i64::try_from(OLD + 20)?);
    assert_eq!(database.int("select count(*) from series_state")?, 2);
    Ok(())
}

#[test]
fn a_new_database_with_timescaledb_has_hypertables() -> Result<()> {
    let Some(rig) = Rig::timescaledb()? else { return Ok(()) };
    let settings = Settings::climate();
    let mut daemon = rig.daemon(&settings)?;
    assert!(
        daemon.log().contains("readings and forecasts are in hypertables of TimescaleDB"),
        "{}",
        daemon.log()
    );
    Feed::run(&rig.broker, 2, 1, 0..300)?;
    daemon.wait_stored(600)?;
    // What is there already is a duplicate, what is older than the newest is late.
    Feed::run(&rig.broker, 2, 1, 250..310)?;
    let late = format!("{{\"value\":1,\"ts\":{}}}", Reading::BEGIN - 40 * 86_400);
    Feed::message(&rig.broker, &Feed::topic(0), late.as_bytes(), false)?;
    let metrics = daemon.wait_stored(621)?;
    assert_eq!((metrics.received(), metrics.rejected(None)), (721.0, 100.0));
    assert_eq!(metrics.rejected(Some("duplicate")), 100.0);
    daemon.kill()?;

    let mut daemon = rig.daemon(&settings)?;
    Feed::run(&rig.broker, 2, 1, 310..350)?;
    daemon.wait_stored(80)?;
    let page = daemon.json("/api/v1/series/climate/hall/dev0/value?history=1000")?;
    let counted = |what: &str| page[what].as_array().map_or(0, Vec::len);
    assert_eq!((counted("readings"), counted("forecasts")), (351, 349), "the series goes on without a gap");
    let database = rig.database(&settings)?;
    let late = "select count(*) from readings where late";
    assert_eq!((database.int("select count(*) from readings")?, database.int(late)?), (701, 1));
    let paired = "select count(*) from forecast_errors where step = 1";
    assert_eq!(database.int(paired)?, 2 * 348, "a forecast from each reading but the first, and its outcome");

    // Retention drops whole chunks, and no other.
    let now = jiff::Timestamp::now().as_second();
    let today = format!("{{\"value\":20,\"ts\":{now}}}");
    Feed::message(&rig.broker, &Feed::topic(0), today.as_bytes(), false)?;
    daemon.wait_stored(81)?;
    daemon.stop()?;
    let chunks = "select count(*) from timescaledb_information.chunks where hypertable_name = 'readings'";
    assert_eq!(database.int(chunks)?, 3);
    let mut daemon = rig.daemon(&Settings { store: "retention = \"90d\"".to_owned(), ..settings.clone() })?;
    wait_until("the chunks to be dropped", WAIT, || Ok(database.int(chunks)? == 1))?;
    assert_eq!(database.int("select count(*) from readings")?, 1);
    daemon.stop()?;
    assert!(rig.command(&settings, &["doctor"])?.contains("hypertables of TimescaleDB"));
    Ok(())
}

#[test]
fn there_are_no_hypertables_where_they_are_not_wanted_or_partitions_were_first() -> Result<()> {
    let Some(rig) = Rig::timescaledb()? else { return Ok(()) };
    let hypertables = "select count(*) from timescaledb_information.hypertables";
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../migrations/postgres");
    // Schema 5 knew nothing of them.
    one(&rig, &folder, 5, 6)?;
    assert_eq!(rig.database(&Settings::climate())?.int(hypertables)?, 0);

    let Some(rig) = Rig::timescaledb()? else { return Ok(()) };
    let settings = Settings::climate();
    rig.command(&Settings { store: "timescaledb = false".to_owned(), ..settings.clone() }, &["migrate"])?;
    // Asked once, when the tables are made.
    rig.command(&settings, &["migrate"])?;
    assert_eq!(rig.database(&settings)?.int(hypertables)?, 0);
    assert!(rig.command(&settings, &["doctor"])?.contains("partitions by month"));
    Ok(())
}

/// What a daemon of that version left behind: a row or more in each table.
fn fill(old: &Database, version: i64) -> Result<()> {
    let postgres = old.is_postgres();
    let at = |position: usize| {
        let time = Reading { series: 0, position }.time();
        if postgres { format!("to_timestamp({time})") } else { format!("{time}000000") }
    };
    let bytes = |hex: &str| if postgres { format!("'\\x{hex}'::bytea") } else { format!("x'{hex}'") };
    if postgres
        && old.int("select count(*) from pg_class where oid = 'readings'::regclass and relkind = 'p'")? == 1
    {
        for parent in ["readings", "forecasts"] {
            let sql = format!("create table {parent}_2026_01 partition of {parent} for values");
            old.execute(&format!("{sql} from ('2026-01-01T00:00:00Z') to ('2026-02-01T00:00:00Z')"))?;
        }
    }
    old.execute(
        "insert into series (key, stream, labels, field) values \
         ('climate/hall/dev0/value', 'climate', '{\"site\": \"hall\", \"device\": \"dev0\"}', 'value')",
    )?;
    let weights = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/models/lstm.safetensors"))?;
    let hex: String = weights.iter().map(|byte| format!("{byte:02x}")).collect();
    for (number, status) in [(1, "retired"), (2, "champion")] {
        old.execute(&format!(
            "insert into models (name, stream, version, cell, created_at, status, metrics, weights) values \
             ('climate-{number}', 'climate', {number}, 'lstm', {}, '{status}', '{{\"loss\": 0.5}}', {})",
            at(number * 10),
            bytes(&hex)
        ))?;
    }
    for position in 0..OLD {
        let (time, value) = (at(position), Reading { series: 0, position }.value());
        old.execute(&format!(
            "insert into readings (series_id, time, value) select id, {time}, {value} from series"
        ))?;
        old.execute(&format!(
            "insert into forecasts (series_id, time, step, origin, mean, q05, q10, q25, q50, q75, q90, q95, model_id) \
             select s.id, {}, 1, {time}, {value}, 1, 2, 3, 4, 5, 6, 7, m.id \
             from series s, models m where m.version = 2",
            at(position + 1)
        ))?;
    }
    old.execute(&format!(
        "insert into anomalies (series_id, time, ended_at, kind, value, score, q05, q95) \
         select id, {}, {}, 'value', 99, 0.9, 1, 2 from series",
        at(20),
        at(22)
    ))?;
    if version >= 2 {
        old.execute(&format!(
            "insert into anomalies (series_id, time, ended_at, kind, value) \
             select id, {}, {}, 'silence', 99 from series",
            at(20),
            at(22)
        ))?;
    }
    old.execute(&format!(
        "insert into training_runs (stream, started_at, finished_at, status, metrics, model_id) \
         select 'climate', {}, {}, 'succeeded', '{{}}', id from models where version = 2",
        at(18),
        at(20)
    ))?;
    // States were encoded in another way then: the series is replayed from its readings.
    old.execute(&format!(
        "insert into series_state (series_id, time, state) select id, {}, {} from series",
        at(OLD - 1),
        bytes("00")
    ))
}

/// All rows, in the columns of the first schema.
fn contents(database: &Database) -> Result<Vec<(String,)>> {
    let text = |columns: &str| {
        let columns = columns.split(", ").map(|column| {
            let bytes = matches!(column, "weights" | "state") && !database.is_postgres();
            let shown = if bytes { format!("hex({column})") } else { format!("cast({column} as text)") };
            format!("coalesce({shown}, '-')")
        });
        columns.collect::<Vec<_>>().join(" || ' ' || ")
    };
    let mut all = Vec::new();
    for (table, columns) in [
        ("series", "id, key, stream, field, created_at"),
        ("models", "id, name, stream, version, cell, created_at, status, metrics, weights"),
        ("readings", "series_id, time, value, late"),
        ("forecasts", "series_id, time, step, origin, mean, q05, q10, q25, q50, q75, q90, q95, model_id"),
        ("anomalies", "series_id, time, ended_at, kind, value, score, q05, q95"),
        ("training_runs", "id, stream, started_at, finished_at, status, error, metrics, model_id"),
        ("series_state", "series_id, time, model_id, state"),
    ] {
        let rows: Vec<(String,)> =
            database.rows(&format!("select '{table} ' || {} from {table} order by 1", text(columns)))?;
        assert!(!rows.is_empty(), "{table}");
        all.extend(rows);
    }
    Ok(all)
}
