//! A broker, a store and a place for configurations: what most tests begin with.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use tempfile::TempDir;

use crate::broker::{Mosquitto, Persistence};
use crate::daemon::{Daemon, vidente};
use crate::database::{Database, Postgres};
use crate::net::free_port;

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
    /// The rest of the configuration: streams and further sections.
    pub rest: String,
}

impl Settings {
    /// The stream that [`crate::Feed`] publishes: interval learned, model trained on demand only.
    #[must_use]
    pub fn climate() -> Settings {
        Settings {
            name: "vidente".to_owned(),
            protocol: "5",
            qos: 1,
            rest: "[[stream]]\nname = \"climate\"\ntopic = \"sensors/{site}/{device}/climate\"\n\
                   fields = [\"value\"]\ntime = \"ts\"\n\n[training]\nevery = \"off\"\n"
                .to_owned(),
        }
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
        let Settings { name, protocol, qos, rest } = settings;
        let text = format!(
            "[mqtt]\nurl = \"{}\"\nclient_id = \"{name}\"\nprotocol = \"{protocol}\"\nqos = {qos}\n\n\
             [store]\nurl = \"{}\"\n\n[http]\nlisten = \"127.0.0.1:{http}\"\n\n{rest}",
            self.broker.url(),
            self.store_url(name),
        );
        let path = self.dir.path().join(format!("{name}.toml"));
        std::fs::write(&path, text)?;
        Ok((path, http))
    }

    /// Starts a daemon and waits until it is ready.
    ///
    /// # Errors
    /// If it does not get ready.
    pub fn daemon(&self, settings: &Settings) -> Result<Daemon> {
        let (config, http) = self.configure(settings)?;
        Daemon::start(&config, http, &self.dir.path().join(format!("{}.log", settings.name)))
    }

    /// Opens the store of a daemon.
    ///
    /// # Errors
    /// If it cannot connect.
    pub fn database(&self, settings: &Settings) -> Result<Database> {
        Database::connect(&self.store_url(&settings.name))
    }

    /// Runs `vidente train`, which must succeed.
    ///
    /// # Errors
    /// With its output if it does not.
    pub fn train(&self, settings: &Settings) -> Result<()> {
        let (config, _) = self.configure(settings)?;
        let out = vidente(&["train", "--config", &config.display().to_string()])?;
        ensure!(
            out.status.success(),
            "vidente train: {}\n{}{}",
            out.status,
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
        Ok(())
    }
}
