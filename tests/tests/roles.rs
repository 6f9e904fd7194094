//! The roles that are shipped: the daemon works with the rights it is given, and has no others.

use std::path::Path;

use anyhow::Result;
use vidente_tests::{
    Cluster, Daemon, Database, Feed, Mosquitto, Persistence, Postgres, WAIT, free_port, vidente, wait_until,
};

const ROLES: &str = include_str!("../../deploy/postgres/roles.sql");
const GRAFANA: &str = include_str!("../../deploy/grafana/read-only.sql");

/// What the daemon's role must not be able to do; PARTITION holds January's readings.
const FORBIDDEN: [&str; 28] = [
    "drop table series",
    "drop table PARTITION",
    "truncate readings",
    "delete from readings",
    "delete from PARTITION",
    "update readings set value = 0",
    "update forecasts set mean = 0",
    "update series set stream = 'other'",
    "delete from series",
    "delete from models",
    "delete from training_runs",
    "alter table series add column x text",
    "alter table readings detach partition PARTITION",
    "update _sqlx_migrations set checksum = ''",
    "create table more (x text)",
    "create temporary table more (x text)",
    "create schema other",
    "create role other",
    "create database other",
    "select * from pg_authid",
    "select pg_read_file('/etc/passwd')",
    "copy readings to program 'id'",
    "set role vidente_owner",
    "select vidente_drop_partition('series', 'series')",
    "select vidente_drop_partition('readings', 'series')",
    "select vidente_drop_partition('readings', 'readings_2026_01; drop table series')",
    "select vidente_add_partition('readings', 'readings', null, now())",
    "select vidente_drop_chunks('series', now())",
];

const CLUSTER: Cluster<'_> = Cluster { superuser: "postgres", settings: "", hba: None, files: &[] };

fn config(
    dir: &Path,
    name: &str,
    user: &str,
    postgres: &Postgres,
    broker: &Mosquitto,
) -> Result<(String, u16)> {
    let http = free_port()?;
    let file = dir.join(format!("{name}.toml"));
    let text = format!(
        "[mqtt]\nurl = \"{}\"\n[store]\nurl = \"postgres://{user}@127.0.0.1:{}/vidente\"\nretention = \"90d\"\n\
         [spool]\ndir = \"{}\"\n[http]\nlisten = \"127.0.0.1:{http}\"\n[model]\nhidden = 4\n\
         [training]\nevery = \"off\"\nmin_readings = 200\nwindow = \"3650d\"\n\
         [[stream]]\nname = \"climate\"\ntopic = \"sensors/{{site}}/{{device}}/climate\"\nfields = [\"value\"]\n\
         time = \"ts\"\n",
        broker.url(),
        postgres.port(),
        dir.join(format!("{name}.spool")).display()
    );
    std::fs::write(&file, text)?;
    Ok((file.display().to_string(), http))
}

#[test]
fn the_daemon_runs_with_the_shipped_role_which_can_do_nothing_else() -> Result<()> {
    run(&Postgres::start_with(CLUSTER)?, "readings_2026_01")
}

#[test]
fn so_it_does_on_hypertables() -> Result<()> {
    match Postgres::timescaledb(CLUSTER)? {
        Some(postgres) => run(&postgres, "_timescaledb_internal._hyper_1_1_chunk"),
        None => Ok(()),
    }
}

fn run(postgres: &Postgres, partition: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let broker = Mosquitto::start(Persistence::Memory)?;
    postgres
        .admin("postgres")?
        .execute("create role vidente_owner login; alter database vidente owner to vidente_owner")?;
    let (as_owner, _) = config(dir.path(), "owner", "vidente_owner", postgres, &broker)?;
    let (as_daemon, http) = config(dir.path(), "daemon", "vidente", postgres, &broker)?;
    let admin = postgres.admin("vidente")?;
    let log = dir.path().join("log");
    // Readings of months that are over come first, and must not be dropped meanwhile.
    let dropping = std::fs::read_to_string(&as_daemon)?;
    std::fs::write(&as_daemon, dropping.replace("retention = \"90d\"\n", ""))?;

    // Before the owner has made the tables the daemon waits, and says for whom.
    admin.execute("create role vidente login")?;
    let mut daemon = Daemon::launch(Path::new(&as_daemon), http, &log, &[])?;
    daemon.wait_log(&["the store is away", "permission denied", "vidente migrate"])?;
    let out = vidente(&["migrate", "--config", &as_owner])?;
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    // Twice, as after a new version.
    admin.execute(ROLES)?;
    admin.execute(ROLES)?;
    daemon.wait_ready()?;

    // Readings, forecasts, partitions, checkpoints, a training run and its model.
    Feed::run(&broker, 2, 1, 0..300)?;
    daemon.wait_stored(600)?;
    daemon.ask_to_train()?;
    let finished = "select count(*) from training_runs where finished_at is not null and status <> 'failed'";
    wait_until("a training run", 3 * WAIT, || Ok(admin.int(finished)? == 1))?;
    assert_eq!(admin.int("select count(*) from models")?, 1);
    assert!(admin.int("select count(*) from forecasts")? > 0);
    let owned =
        "select count(*) from pg_class c join pg_roles r on r.oid = c.relowner where r.rolname = 'vidente'";
    assert_eq!(admin.int(owned)?, 0);
    assert_eq!(daemon.get("/api/v1/series/climate/hall/dev0/value")?.0, 200);
    daemon.stop()?;
    assert_eq!(admin.int("select count(*) from series_state")?, 2, "checkpoints");
    assert!(!daemon.log().contains("cannot"), "{}", daemon.log());

    let role = Database::connect(&format!("postgres://vidente@127.0.0.1:{}/vidente", postgres.port()))?;
    for forbidden in FORBIDDEN {
        let refused = role
            .execute(&forbidden.replace("PARTITION", partition))
            .err()
            .map(|e| format!("{e:#}"))
            .unwrap_or_default();
        let denied = [
            "permission denied",
            "must be owner",
            "must be superuser",
            "is no partition of",
            "has no chunks",
        ];
        assert!(denied.iter().any(|d| refused.contains(d)), "{forbidden}: {refused:?}");
    }
    // Grafana's role goes with it.
    admin.execute(GRAFANA)?;

    // Retention drops the months that are over, at the next start.
    assert!(admin.int("select count(*) from readings")? == 600);
    std::fs::write(&as_daemon, dropping)?;
    let mut daemon = Daemon::start(Path::new(&as_daemon), http, &log)?;
    if partition.starts_with("_timescaledb") {
        let chunks = "select count(*) from timescaledb_information.chunks";
        wait_until("the chunks to be dropped", WAIT, || Ok(admin.int(chunks)? == 0))?;
        return daemon.stop();
    }
    let partitions =
        "select count(*) from pg_inherits where inhparent in ('readings'::regclass, 'forecasts'::regclass)";
    let old = format!("{partitions} and inhrelid::regclass::text like '%2026_01'");
    wait_until("the partitions to be dropped", WAIT, || Ok(admin.int(&old)? == 0))?;
    // What is left are this month's and the next's, made ahead.
    assert_eq!(admin.int(partitions)?, 4);
    let next = "select count(*) from pg_class where relname in \
                (to_char(now() at time zone 'UTC' + interval '1 month', '\"readings_\"YYYY_MM'), \
                 to_char(now() at time zone 'UTC' + interval '1 month', '\"forecasts_\"YYYY_MM'))";
    assert_eq!(admin.int(next)?, 2);
    daemon.stop()
}
