//! A broker, a store and a place for configurations: what most tests begin with.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use tempfile::TempDir;

use crate::broker::{Mosquitto, Persistence};
use crate::daemon::{Daemon, vidente};
use crate::database::{Cluster, Database, Postgres};
use crate::feed::Feed;
use crate::net::free_port;
use crate::stepped::Stepped;

/// Kinds of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// A cluster of its own.
    Postgres,
    /// A file in the rig's folder.
    Sqlite,
}

/// What differs between daemons on one rig.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the daemon's file, client id and, for SQLite, database.
    pub name: String,
    /// MQTT version.
    pub protocol: &'static str,
    /// Quality of service of the subscription.
    pub qos: u8,
    /// Further keys of `[spool]`.
    pub spool: String,
    /// Further keys of `[store]`.
    pub store: String,
    /// Further keys of `[mqtt]`.
    pub mqtt: String,
    /// Ports of proxies to broker and store, where there are any.
    pub proxies: Proxies,
    /// The rest of the configuration: streams and further sections.
    pub rest: String,
}

/// Ports to reach the servers at, instead of their own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Proxies {
    /// Of the broker.
    pub broker: Option<u16>,
    /// Of Postgres.
    pub store: Option<u16>,
}

impl Settings {
    /// The stream that [`crate::Feed`] publishes: interval learned, model trained on demand only.
    #[must_use]
    pub fn climate() -> Settings {
        Settings {
            name: "vidente".to_owned(),
            protocol: "5",
            qos: 1,
            spool: String::new(),
            store: String::new(),
            mqtt: String::new(),
            proxies: Proxies::default(),
            rest: "[[stream]]\nname = \"climate\"\ntopic = \"sensors/{site}/{device}/climate\"\n\
                   fields = [\"value\"]\ntime = \"ts\"\n\n[training]\nevery = \"off\"\n"
                .to_owned(),
        }
    }

    /// The same stream, with a name, a store and topics of its own.
    #[must_use]
    pub fn named(name: &str) -> Settings {
        let climate = Settings::climate();
        let rest = format!("{}\n[forecast]\ntopic = \"vidente/{name}/{{series}}\"\n", climate.rest);
        Settings { name: name.to_owned(), rest, ..climate }
    }

    /// The same stream and a small network, with further sections.
    #[must_use]
    pub fn learning(sections: &str) -> Settings {
        let climate = Settings::climate();
        let stream = climate.rest.split("[training]").next().unwrap_or_default();
        Settings { rest: format!("{stream}[model]\nhidden = 4\n\n{sections}"), ..climate }
    }
}

/// Broker and store. Fields end in the order in which they stand.
#[derive(Debug)]
pub struct Rig {
    /// The broker.
    pub broker: Mosquitto,
    /// The database server, if the store is one.
    pub postgres: Option<Postgres>,
    dir: TempDir,
}

impl Rig {
    /// Starts broker and store.
    ///
    /// # Errors
    /// If one does not come up.
    pub fn new(store: Store) -> Result<Rig> {
        Rig::on(Persistence::Memory, store)
    }

    /// Starts a certain broker, and a store.
    ///
    /// # Errors
    /// If one does not come up.
    pub fn on(broker: Persistence, store: Store) -> Result<Rig> {
        let postgres = match store {
            Store::Postgres => Some(Postgres::start()?),
            Store::Sqlite => None,
        };
        Ok(Rig { broker: Mosquitto::start(broker)?, postgres, dir: tempfile::tempdir()? })
    }

    /// Starts a broker, and Postgres with TimescaleDB in the store's database; none where that is not installed, which
    /// is said.
    ///
    /// # Errors
    /// If one does not come up.
    pub fn timescaledb() -> Result<Option<Rig>> {
        let Some(postgres) = Postgres::timescaledb(Cluster::default())? else { return Ok(None) };
        let broker = Mosquitto::start(Persistence::Memory)?;
        Ok(Some(Rig { broker, postgres: Some(postgres), dir: tempfile::tempdir()? }))
    }

    /// The folder for the test's own files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// URL of the store of a daemon.
    #[must_use]
    pub fn store_url(&self, name: &str) -> String {
        match &self.postgres {
            Some(postgres) => postgres.url(),
            None => format!("sqlite://{}", self.dir.path().join(format!("{name}.db")).display()),
        }
    }

    /// Writes a configuration and returns its path and the port of its HTTP server.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn configure(&self, settings: &Settings) -> Result<(PathBuf, u16)> {
        let http = free_port()?;
        let Settings { name, protocol, qos, mqtt, spool, store: keys, proxies, rest } = settings;
        let broker = proxies.broker.unwrap_or(self.broker.port());
        let store = match (&self.postgres, proxies.store) {
            (Some(postgres), Some(port)) => postgres.url_at(port),
            _ => self.store_url(name),
        };
        let text = format!(
            "[mqtt]\nurl = \"mqtt://127.0.0.1:{broker}\"\nclient_id = \"{name}\"\nprotocol = \"{protocol}\"\n\
             qos = {qos}\n{mqtt}\n\n[store]\nurl = \"{store}\"\n{keys}\n\n[spool]\ndir = \"{}\"\n{spool}\n\n\
             [http]\nlisten = \"127.0.0.1:{http}\"\n\n{rest}",
            self.dir.path().join(format!("{name}.spool")).display(),
        );
        let path = self.file(settings);
        std::fs::write(&path, text)?;
        Ok((path, http))
    }

    /// The configuration of a daemon.
    #[must_use]
    pub fn file(&self, settings: &Settings) -> PathBuf {
        self.dir.path().join(format!("{}.toml", settings.name))
    }

    /// Changes a daemon's configuration, has it read, and waits for what the log says to that.
    ///
    /// # Errors
    /// If the log does not say it in time.
    pub fn reload(
        &self,
        settings: &Settings,
        daemon: &mut Daemon,
        change: impl FnOnce(String) -> String,
        said: &[&str],
    ) -> Result<()> {
        let file = self.file(settings);
        std::fs::write(&file, change(std::fs::read_to_string(&file)?))?;
        daemon.ask_to_reload()?;
        daemon.wait_log(said)
    }

    /// Starts a daemon and waits until it is ready.
    ///
    /// # Errors
    /// If it does not get ready.
    pub fn daemon(&self, settings: &Settings) -> Result<Daemon> {
        let mut daemon = self.launch(settings, &[])?;
        daemon.wait_ready()?;
        Ok(daemon)
    }

    /// Starts a daemon with variables in its environment, and waits for nothing.
    ///
    /// # Errors
    /// If it does not start.
    pub fn launch(&self, settings: &Settings, environment: &[(&str, &str)]) -> Result<Daemon> {
        let (config, http) = self.configure(settings)?;
        let log = self.dir.path().join(format!("{}.log", settings.name));
        Daemon::launch(&config, http, &log, environment)
    }

    /// Starts a daemon that goes no further than its log is read.
    ///
    /// # Errors
    /// If it does not start.
    pub fn stepped(&self, settings: &Settings) -> Result<Stepped> {
        let (config, _) = self.configure(settings)?;
        Stepped::start(&config, &self.dir.path().join(format!("{}.log", settings.name)))
    }

    /// Opens the store of a daemon.
    ///
    /// # Errors
    /// If it cannot connect.
    pub fn database(&self, settings: &Settings) -> Result<Database> {
        Database::connect(&self.store_url(&settings.name))
    }

    /// Has a daemon take in readings of some series up to a position, trains a model on them, and copies its
    /// SQLite store to others.
    ///
    /// # Errors
    /// If something of that fails.
    pub fn trained(&self, settings: &Settings, series: usize, until: usize, copies: &[&str]) -> Result<()> {
        let mut daemon = self.daemon(settings)?;
        Feed::run(&self.broker, series, 1, 0..until)?;
        daemon.wait_stored(until * series)?;
        daemon.stop()?;
        self.train(settings)?;
        let database = self.database(settings)?;
        copies.iter().try_for_each(|copy| {
            database.execute(&format!("vacuum into '{}'", copy.trim_start_matches("sqlite://")))
        })
    }

    /// Runs `vidente train`, which must succeed.
    ///
    /// # Errors
    /// With its output if it does not.
    pub fn train(&self, settings: &Settings) -> Result<()> {
        self.command(settings, &["train"]).map(drop)
    }

    /// Runs a command with the configuration of a daemon, which must succeed; its standard output.
    ///
    /// # Errors
    /// With its output if it does not.
    pub fn command(&self, settings: &Settings, args: &[&str]) -> Result<String> {
        let (config, _) = self.configure(settings)?;
        let out = vidente(&[args, &["--config", &config.display().to_string()]].concat())?;
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        ensure!(
            out.status.success(),
            "vidente {args:?}: {}\n{said}{}",
            out.status,
            String::from_utf8_lossy(&out.stderr)
        );
        Ok(said)
    }

    /// Imports a model of stream `climate`.
    ///
    /// # Errors
    /// If it is refused.
    pub fn import(&self, settings: &Settings, weights: &[u8]) -> Result<String> {
        let file = self.dir.path().join("import.safetensors");
        std::fs::write(&file, weights)?;
        let file = file.display().to_string();
        self.command(settings, &["models", "import", &file, "--stream", "climate"])
    }
}
