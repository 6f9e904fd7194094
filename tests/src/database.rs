//! A throw-away Postgres cluster, and queries on either kind of store.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use sqlx::postgres::{PgPool, PgPoolOptions, PgRow};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteRow};
use sqlx::{AssertSqlSafe, FromRow};
use tempfile::TempDir;

use crate::net::free_port;
use crate::process::{Process, WAIT, find_program, wait_until};

/// How long a connection or a lock may take to get.
const PATIENCE: Duration = Duration::from_secs(5);

/// Postgres on a free port, with a socket, in a temporary folder.
#[derive(Debug)]
pub struct Postgres {
    port: u16,
    dir: TempDir,
    user: Option<(u32, u32)>,
    process: Process,
}

impl Postgres {
    /// Makes a cluster and starts it.
    ///
    /// # Errors
    /// If Postgres is missing or does not come up.
    pub fn start() -> Result<Postgres> {
        let dir = tempfile::tempdir()?;
        let user = unprivileged_user()?;
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(dir.path(), Some(uid), Some(gid))?;
        }
        let mut initdb = Command::new(program("initdb")?);
        initdb.args(["-A", "trust", "-U", "vidente", "-E", "UTF8", "--locale=C", "--no-sync", "-D"]);
        initdb.arg(dir.path().join("data"));
        let log = dir.path().join("initdb.log");
        let status = Process::spawn("initdb", &initdb, user, &log)?.wait(WAIT)?;
        ensure!(status.success(), "initdb: {status}");
        let port = free_port()?;
        let process = launch(dir.path(), port, user)?;
        let postgres = Postgres { port, dir, user, process };
        Database::connect(&postgres.url_of("postgres"))?.execute("create database vidente")?;
        Ok(postgres)
    }

    /// Connection URL of the database `vidente`, over TCP.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("vidente")
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://vidente@127.0.0.1:{}/{database}", self.port)
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

    /// Starts again after [`Postgres::crash`].
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start_again(&mut self) -> Result<()> {
        self.process = launch(self.dir.path(), self.port, self.user)?;
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Killed outright it would leave its backends and a shared memory segment behind.
        let _ = self.process.end(Signal::QUIT);
    }
}

fn launch(dir: &Path, port: u16, user: Option<(u32, u32)>) -> Result<Process> {
    let mut command = Command::new(program("postgres")?);
    command.arg("-D").arg(dir.join("data")).arg("-k").arg(dir).args(["-p", &port.to_string()]);
    command.args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]);
    let mut process = Process::spawn("postgres", &command, user, &dir.join("postgres.log"))?;
    let url = format!("postgres://vidente@127.0.0.1:{port}/postgres");
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
fn program(name: &str) -> Result<PathBuf> {
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
