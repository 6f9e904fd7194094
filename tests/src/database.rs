//! A throw-away Postgres cluster, and queries on either kind of store.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgPool, PgPoolOptions, PgRow};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteRow};
use sqlx::{AssertSqlSafe, FromRow};
use tempfile::TempDir;

use crate::net::free_port;
use crate::process::{Process, WAIT, children, find_program, signal, wait_until};

/// How long a connection or a lock may take to get.
const PATIENCE: Duration = Duration::from_secs(5);

/// What differs between clusters.
#[derive(Debug, Clone, Copy)]
pub struct Cluster<'a> {
    /// The superuser, who may do everything over the socket.
    pub superuser: &'a str,
    /// Lines of `postgresql.conf`.
    pub settings: &'a str,
    /// Who else may come in, and how: lines of `pg_hba.conf`; none lets everybody in.
    pub hba: Option<&'a str>,
    /// Files to copy into the data folder, with their names there.
    pub files: &'a [(&'a Path, &'a str)],
}

impl Default for Cluster<'_> {
    fn default() -> Self {
        Cluster { superuser: "vidente", settings: "", hba: None, files: &[] }
    }
}

/// Postgres on a free port, with a socket, in a temporary folder.
#[derive(Debug)]
pub struct Postgres {
    port: u16,
    superuser: String,
    dir: TempDir,
    user: Option<(u32, u32)>,
    process: Process,
}

impl Postgres {
    /// Makes a cluster and starts it, with TimescaleDB if `VIDENTE_TEST_TIMESCALEDB` is set.
    ///
    /// # Errors
    /// If Postgres is missing or does not come up.
    pub fn start() -> Result<Postgres> {
        match std::env::var_os("VIDENTE_TEST_TIMESCALEDB") {
            Some(_) => Postgres::timescaledb(Cluster::default())?.context("no TimescaleDB"),
            None => Postgres::start_with(Cluster::default()),
        }
    }

    /// Makes a certain cluster and starts it.
    ///
    /// # Errors
    /// If Postgres is missing or does not come up.
    pub fn start_with(cluster: Cluster<'_>) -> Result<Postgres> {
        let dir = tempfile::tempdir()?;
        let user = unprivileged_user()?;
        let give = |path: &Path| match user {
            Some((uid, gid)) => std::os::unix::fs::chown(path, Some(uid), Some(gid)),
            None => Ok(()),
        };
        give(dir.path())?;
        let data = dir.path().join("data");
        let mut initdb = Command::new(program("initdb")?);
        initdb.args(["-A", "trust", "-U", cluster.superuser, "-E", "UTF8", "--locale=C", "--no-sync", "-D"]);
        initdb.arg(&data);
        let log = dir.path().join("initdb.log");
        let status = Process::spawn("initdb", &initdb, user, &log)?.wait(WAIT)?;
        ensure!(status.success(), "initdb: {status}");
        for (from, name) in cluster.files {
            let to = data.join(name);
            std::fs::copy(from, &to)?;
            // Postgres takes no key that others may read.
            std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o600))?;
            give(&to)?;
        }
        let mut settings = File::options().append(true).open(data.join("postgresql.conf"))?;
        settings.write_all(cluster.settings.as_bytes())?;
        if let Some(hba) = cluster.hba {
            let socket = format!("local all {} trust\n", cluster.superuser);
            std::fs::write(data.join("pg_hba.conf"), socket + hba)?;
        }
        let port = free_port()?;
        let superuser = cluster.superuser.to_owned();
        let process = launch(dir.path(), port, &superuser, user)?;
        let postgres = Postgres { port, superuser, dir, user, process };
        postgres.admin("postgres")?.execute("create database vidente")?;
        Ok(postgres)
    }

    /// A connection of the superuser's, over the socket.
    ///
    /// # Errors
    /// If it cannot connect.
    pub fn admin(&self, database: &str) -> Result<Database> {
        Database::connect(&socket_url(self.dir.path(), self.port, &self.superuser, database))
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connection URL of the database `vidente`, over TCP.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_at(self.port)
    }

    /// The same by way of another port, a proxy's.
    #[must_use]
    pub fn url_at(&self, port: u16) -> String {
        format!("postgres://{}@127.0.0.1:{port}/vidente", self.superuser)
    }

    /// Process id of the postmaster.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Stops at once, as a crash would: the next start recovers from the log.
    ///
    /// # Errors
    /// If it does not end.
    pub fn crash(&mut self) -> Result<()> {
        self.process.end(Signal::QUIT).map(drop)
    }

    /// SIGKILL to the postmaster and every other process of it.
    ///
    /// # Errors
    /// If it does not end.
    pub fn kill(&mut self) -> Result<()> {
        let backends = children(self.process.id())?;
        let ended = self.process.end(Signal::KILL).map(drop);
        // Many have noticed and ended by themselves.
        backends.iter().for_each(|pid| drop(signal(*pid, Signal::KILL)));
        wait_until("the processes of Postgres to be gone", WAIT, || {
            // One that is dead and not yet waited for has no command line.
            let runs = |pid: &u32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| !c.is_empty());
            Ok(!backends.iter().any(runs))
        })?;
        ended
    }

    /// Stops every process of it where it stands, or lets them go on.
    ///
    /// # Errors
    /// If it is gone.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let how = if frozen { Signal::STOP } else { Signal::CONT };
        // The postmaster first, so that no new process escapes.
        self.process.signal(how)?;
        children(self.process.id())?.iter().for_each(|pid| drop(signal(*pid, how)));
        Ok(())
    }

    /// Has it ask everyone for a password over TCP, which nobody has, or no more.
    ///
    /// # Errors
    /// If its configuration cannot be written, or it is gone.
    pub fn ask_for_passwords(&self, ask: bool) -> Result<()> {
        let how = if ask { "scram-sha-256" } else { "trust" };
        let rules = format!("local all all trust\nhost all all 127.0.0.1/32 {how}\n");
        std::fs::write(self.dir.path().join("data/pg_hba.conf"), rules)?;
        self.process.signal(Signal::HUP)
    }

    /// Starts another server with a copy of what this one, stopped, holds.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn copy(&self) -> Result<Postgres> {
        let dir = tempfile::tempdir()?;
        if let Some((uid, gid)) = self.user {
            std::os::unix::fs::chown(dir.path(), Some(uid), Some(gid))?;
        }
        let status =
            Command::new("cp").arg("-a").arg(self.dir.path().join("data")).arg(dir.path()).status()?;
        ensure!(status.success(), "cp: {status}");
        let port = free_port()?;
        // The file names the process that was killed.
        let _ = std::fs::remove_file(dir.path().join("data/postmaster.pid"));
        let superuser = self.superuser.clone();
        let process = launch(dir.path(), port, &superuser, self.user)?;
        Ok(Postgres { port, superuser, dir, user: self.user, process })
    }

    /// Starts again after [`Postgres::crash`] or [`Postgres::kill`].
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start_again(&mut self) -> Result<()> {
        self.process = launch(self.dir.path(), self.port, &self.superuser, self.user)?;
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Killed outright it would leave its backends and a shared memory segment behind.
        let _ = self.process.end(Signal::QUIT);
    }
}

fn socket_url(dir: &Path, port: u16, user: &str, database: &str) -> String {
    format!("postgres://localhost:{port}/{database}?user={user}&host={}", dir.display())
}

fn launch(dir: &Path, port: u16, superuser: &str, user: Option<(u32, u32)>) -> Result<Process> {
    let mut command = Command::new(program("postgres")?);
    command.arg("-D").arg(dir.join("data")).arg("-k").arg(dir).args(["-p", &port.to_string()]);
    command.args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]);
    let mut process = Process::spawn("postgres", &command, user, &dir.join("postgres.log"))?;
    let url = socket_url(dir, port, superuser, "postgres");
    wait_until("Postgres to take connections", WAIT, || {
        process.ensure_running()?;
        Database::connect(&url).map(|_| true)
    })?;
    Ok(process)
}

/// Postgres refuses to run as root; Debian's package brings a user for it.
fn unprivileged_user() -> Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let id = |what: &str| -> Result<u32> {
        let out = ["postgres", "nobody"]
            .iter()
            .filter_map(|user| Command::new("id").args([what, user]).output().ok())
            .find(|out| out.status.success())
            .context("neither user postgres nor nobody exists")?;
        Ok(String::from_utf8_lossy(&out.stdout).trim().parse()?)
    };
    Ok(Some((id("-u")?, id("-g")?)))
}

/// A server program: in `PATH`, or where Debian puts them, the newest version first.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|e| e.path().join("bin").join(name)).collect())
        .unwrap_or_default();
    versions.sort();
    match versions.pop() {
        Some(path) if path.is_file() => Ok(path),
        _ => find_program(&[name], "postgresql"),
    }
}

/// A connection to a store, blocking.
#[derive(Debug)]
pub struct Database {
    runtime: tokio::runtime::Runtime,
    pool: Pool,
}

#[derive(Debug)]
enum Pool {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

impl Database {
    /// Connects to `postgres://…` or `sqlite://…`.
    ///
    /// # Errors
    /// If it cannot connect.
    pub fn connect(url: &str) -> Result<Database> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let pool = runtime.block_on(async {
            anyhow::Ok(if url.starts_with("sqlite:") {
                let options = SqliteConnectOptions::from_str(url)?.busy_timeout(PATIENCE);
                Pool::Sqlite(SqlitePoolOptions::new().max_connections(1).connect_with(options).await?)
            } else {
                Pool::Postgres(
                    PgPoolOptions::new().max_connections(1).acquire_timeout(PATIENCE).connect(url).await?,
                )
            })
        })?;
        Ok(Database { runtime, pool })
    }

    /// Whether this is Postgres.
    #[must_use]
    pub fn is_postgres(&self) -> bool {
        matches!(self.pool, Pool::Postgres(_))
    }

    /// An expression for a time in microseconds since 1970.
    #[must_use]
    pub fn micros(&self, column: &str) -> String {
        match self.pool {
            Pool::Postgres(_) => format!("(extract(epoch from {column}) * 1000000)::bigint"),
            Pool::Sqlite(_) => column.to_owned(),
        }
    }

    /// Runs statements.
    ///
    /// # Errors
    /// If the store refuses.
    pub fn execute(&self, sql: &str) -> Result<()> {
        let text = AssertSqlSafe(sql.to_owned());
        self.runtime
            .block_on(async {
                match &self.pool {
                    Pool::Postgres(pool) => sqlx::raw_sql(text).execute(pool).await.map(drop),
                    Pool::Sqlite(pool) => sqlx::raw_sql(text).execute(pool).await.map(drop),
                }
            })
            .with_context(|| sql.to_owned())
    }

    /// Applies the migrations of a folder up to a version, as `vidente migrate` of that time did.
    ///
    /// # Errors
    /// If the store refuses.
    pub fn migrate_to(&self, folder: &Path, version: i64) -> Result<()> {
        self.runtime.block_on(async {
            let migrator = Migrator::new(folder).await?;
            match &self.pool {
                Pool::Postgres(pool) => migrator.run_to(version, pool).await?,
                Pool::Sqlite(pool) => migrator.run_to(version, pool).await?,
            }
            Ok(())
        })
    }

    /// All rows of a query, as tuples.
    ///
    /// # Errors
    /// If the store refuses, or a column is of another type.
    pub fn rows<T>(&self, sql: &str) -> Result<Vec<T>>
    where
        T: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
    {
        let text = AssertSqlSafe(sql.to_owned());
        self.runtime
            .block_on(async {
                match &self.pool {
                    Pool::Postgres(pool) => sqlx::query_as(text).fetch_all(pool).await,
                    Pool::Sqlite(pool) => sqlx::query_as(text).fetch_all(pool).await,
                }
            })
            .with_context(|| sql.to_owned())
    }

    /// How many rows a query gives, whatever their columns.
    ///
    /// # Errors
    /// If the store refuses.
    pub fn row_count(&self, sql: &str) -> Result<usize> {
        let text = AssertSqlSafe(sql.to_owned());
        self.runtime
            .block_on(async {
                match &self.pool {
                    Pool::Postgres(pool) => sqlx::query(text).fetch_all(pool).await.map(|r| r.len()),
                    Pool::Sqlite(pool) => sqlx::query(text).fetch_all(pool).await.map(|r| r.len()),
                }
            })
            .with_context(|| sql.to_owned())
    }

    /// The first column of the only row, a whole number.
    ///
    /// # Errors
    /// If there is no row, or it is no such number.
    pub fn int(&self, sql: &str) -> Result<i64> {
        self.rows::<(i64,)>(sql)?.first().map(|r| r.0).with_context(|| format!("no row: {sql}"))
    }

    /// The first column of the only row, a floating-point number.
    ///
    /// # Errors
    /// If there is no row, or it is no such number.
    pub fn float(&self, sql: &str) -> Result<f64> {
        self.rows::<(f64,)>(sql)?.first().map(|r| r.0).with_context(|| format!("no row: {sql}"))
    }
}
