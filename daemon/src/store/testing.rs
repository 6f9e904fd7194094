//! Databases for tests: a throw-away Postgres that the tests of one process share, one with TimescaleDB where that is
//! installed, SQLite files.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tempfile::TempDir;

use super::Store;
use crate::config;

/// A Postgres server in a temporary folder, stopped when dropped.
pub(crate) struct Cluster {
    dir: TempDir,
    port: u16,
    owner: Option<(u32, u32)>,
    databases: AtomicU32,
    timescaledb: bool,
}

/// What a server with TimescaleDB is started with.
const PRELOAD: &str = " -c shared_preload_libraries=timescaledb -c timescaledb.telemetry_level=off";

static PLAIN: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
static TIMESCALEDB: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());

impl Cluster {
    /// The server that tests running at the same time share.
    pub(crate) fn shared() -> Arc<Cluster> {
        Cluster::shared_as(&PLAIN, false)
    }

    fn shared_as(server: &Mutex<Weak<Cluster>>, timescaledb: bool) -> Arc<Cluster> {
        let mut shared = server.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let cluster = Arc::new(Cluster::start_with(timescaledb));
            *shared = Arc::downgrade(&cluster);
            cluster
        })
    }

    /// A server of the caller's own.
    pub(crate) fn start() -> Cluster {
        Cluster::start_with(false)
    }

    fn start_with(timescaledb: bool) -> Cluster {
        let dir = tempfile::Builder::new().prefix("vidente-pg-").tempdir().unwrap();
        // Postgres refuses to run as root.
        let id = |flag: &str, user: &[&str]| -> u32 {
            let out = Command::new("id").arg(flag).args(user).output().unwrap();
            String::from_utf8(out.stdout).unwrap().trim().parse().unwrap()
        };
        let owner = (id("-u", &[]) == 0).then(|| (id("-u", &["postgres"]), id("-g", &["postgres"])));
        if let Some((uid, gid)) = owner {
            chown(dir.path(), Some(uid), Some(gid)).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let cluster = Cluster { dir, port, owner, databases: AtomicU32::new(0), timescaledb };
        cluster.run("initdb", &["-A", "trust", "--no-sync", "-U", "vidente", "-E", "UTF8", "-D", "data"]);
        cluster.resume();
        cluster
    }

    pub(crate) fn stop(&self) {
        self.run("pg_ctl", &["-D", "data", "-m", "immediate", "-w", "stop"]);
    }

    pub(crate) fn resume(&self) {
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories={} -c fsync=off{}",
            self.port,
            self.dir.path().display(),
            if self.timescaledb { PRELOAD } else { "" }
        );
        self.run("pg_ctl", &["-D", "data", "-l", "log", "-o", &options, "-w", "start"]);
    }

    /// Configuration of an empty database on this server.
    pub(crate) fn database(&self) -> config::Store {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let port = self.port.to_string();
        self.run("createdb", &["-h", "127.0.0.1", "-p", &port, "-U", "vidente", &name]);
        config::Store {
            url: format!("postgres://vidente@127.0.0.1:{port}/{name}"),
            ..config::Store::default()
        }
    }

    /// Configuration of a new database with the extension in it.
    fn timescaledb(&self) -> config::Store {
        let config = self.database();
        self.run("psql", &["-d", &config.url, "-q", "-c", "create extension timescaledb"]);
        config
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(binary(program));
        // A file, not a pipe: the server inherits it and would hold a pipe open.
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("commands"))
            .unwrap();
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        if let Some((uid, gid)) = self.owner {
            command.uid(uid).gid(gid);
        }
        let status = command.status().unwrap();
        if !status.success() {
            let log = std::fs::read_to_string(self.dir.path().join("commands")).unwrap_or_default();
            panic!("{program} {arguments:?}: {status}\n{log}");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Not `stop`: a test may have stopped it already.
        let mut command = Command::new(binary("pg_ctl"));
        command.args(["-D", "data", "-m", "immediate", "-w", "stop"]).current_dir(self.dir.path());
        if let Some((uid, gid)) = self.owner {
            command.uid(uid).gid(gid);
        }
        let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// Debian keeps the server's programs out of the PATH.
fn binary(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    std::env::split_paths(&path)
        .chain(debian.map(|version| version.path().join("bin")))
        .map(|folder| folder.join(name))
        .find(|file| file.exists())
        .unwrap_or_else(|| panic!("{name} is not installed (package postgresql)"))
}

/// A store, and what must live as long as it.
pub(crate) struct Scratch {
    pub(crate) store: Store,
    pub(crate) config: config::Store,
    _cluster: Option<Arc<Cluster>>,
    _dir: Option<TempDir>,
}

pub(crate) async fn postgres() -> Scratch {
    migrated(empty_postgres().await).await
}

pub(crate) async fn sqlite() -> Scratch {
    migrated(empty_sqlite().await).await
}

async fn migrated(t: Scratch) -> Scratch {
    t.store.migrate().await.unwrap();
    t
}

/// A database without a schema.
pub(crate) async fn empty_postgres() -> Scratch {
    let cluster = Cluster::shared();
    let config = cluster.database();
    let store = Store::open(&config).await.unwrap();
    Scratch { store, config, _cluster: Some(cluster), _dir: None }
}

/// A store with hypertables; none, and a line that says so, where TimescaleDB is not installed.
pub(crate) async fn timescaledb() -> Option<Scratch> {
    let library = binary("postgres").canonicalize().unwrap().with_file_name("../lib/timescaledb.so");
    if !library.exists() {
        // Not by a macro, whose output the test harness keeps to itself.
        let _ =
            writeln!(std::io::stderr(), "skipped: TimescaleDB is not installed: no {}", library.display());
        return None;
    }
    let cluster = Cluster::shared_as(&TIMESCALEDB, true);
    let config = cluster.timescaledb();
    let store = Store::open(&config).await.unwrap();
    let t = migrated(Scratch { store, config, _cluster: Some(cluster), _dir: None }).await;
    let kept = t.store.health().await.unwrap().kept.unwrap();
    assert!(kept.starts_with("hypertables of TimescaleDB 2."), "{kept}");
    Some(t)
}

/// A file without a schema.
pub(crate) async fn empty_sqlite() -> Scratch {
    let dir = tempfile::tempdir().unwrap();
    let config = config::Store {
        url: format!("sqlite://{}", dir.path().join("test.db").display()),
        ..config::Store::default()
    };
    let store = Store::open(&config).await.unwrap();
    Scratch { store, config, _cluster: None, _dir: Some(dir) }
}
