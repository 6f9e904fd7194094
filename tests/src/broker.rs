//! mosquitto.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::net::free_port;
use crate::process::{Process, WAIT, find_program, wait_until};

/// Whether the broker keeps sessions and queues across a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// In memory only.
    Memory,
    /// In its database file, written once a minute.
    Disk,
    /// In its database file, written after so many changes: messages queued, kept and handed over.
    Saving(u32),
    /// In memory, and with the queue limits that mosquitto has by default.
    Default,
}

/// A mosquitto, with unlimited queues as `deploy/mosquitto/vidente.conf` sets them unless said otherwise.
#[derive(Debug)]
pub struct Mosquitto {
    port: u16,
    config: PathBuf,
    log: PathBuf,
    process: Process,
    dir: TempDir,
}

impl Mosquitto {
    /// Starts a broker and waits until it takes connections.
    ///
    /// # Errors
    /// If mosquitto is missing or does not come up.
    pub fn start(persistence: Persistence) -> Result<Mosquitto> {
        Mosquitto::start_with(persistence, "")
    }

    /// The same with further lines in its configuration.
    ///
    /// # Errors
    /// If mosquitto is missing or does not come up.
    pub fn start_with(persistence: Persistence, more: &str) -> Result<Mosquitto> {
        let dir = tempfile::tempdir()?;
        let port = free_port()?;
        let config = dir.path().join("mosquitto.conf");
        let mut text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nlog_dest stdout\n\
             log_type error\nlog_type warning\nlog_type notice\n"
        );
        if persistence != Persistence::Default {
            text += include_str!("../../deploy/mosquitto/vidente.conf");
        }
        // The last of a repeated key counts.
        text += &match persistence {
            Persistence::Memory => "\npersistence false\n".to_owned(),
            Persistence::Saving(changes) => {
                format!("\nautosave_on_changes true\nautosave_interval {changes}\n")
            }
            Persistence::Disk | Persistence::Default => "\n".to_owned(),
        };
        text += &format!("persistence_location {}/\n{more}\n", dir.path().display());
        std::fs::write(&config, text)?;
        let log = dir.path().join("mosquitto.log");
        let process = launch(&config, &log, port)?;
        Ok(Mosquitto { port, config, log, process, dir })
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Ends it cleanly and starts it again on the same port.
    ///
    /// # Errors
    /// If it does not come up again.
    pub fn restart(&mut self) -> Result<()> {
        self.process.end(Signal::TERM)?;
        self.start_again()
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// If it does not end.
    pub fn kill(&mut self) -> Result<()> {
        self.process.end(Signal::KILL).map(drop)
    }

    /// Starts it again after [`Mosquitto::kill`].
    ///
    /// # Errors
    /// If it does not come up again.
    pub fn start_again(&mut self) -> Result<()> {
        self.process = launch(&self.config, &self.log, self.port)?;
        Ok(())
    }

    /// Stops it where it stands, or lets it go on.
    ///
    /// # Errors
    /// If it is gone.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        self.process.signal(if frozen { Signal::STOP } else { Signal::CONT })
    }

    /// A time until which all that it confirmed is in its database. It confirms from memory, and while it
    /// writes its database it does nothing else: what it confirmed before that was written is in there,
    /// what it confirmed later is lost if it is killed now.
    ///
    /// # Errors
    /// If it has not written it yet.
    pub fn saved(&self) -> Result<SystemTime> {
        // The file system's clock is coarse.
        Ok(self.written()? - Duration::from_millis(20))
    }

    fn written(&self) -> Result<SystemTime> {
        // Renamed into place when it is complete.
        Ok(std::fs::metadata(self.dir.path().join("mosquitto.db"))?.modified()?)
    }

    /// Has it write its database, and waits until it has.
    ///
    /// # Errors
    /// If it does not.
    pub fn save(&self) -> Result<()> {
        let before = self.written().ok();
        self.process.signal(Signal::USR1)?;
        wait_until("mosquitto to save", WAIT, || Ok(Some(self.written()?) != before))
    }
}

fn launch(config: &Path, log: &Path, port: u16) -> Result<Process> {
    let mut command = Command::new(find_program(&["mosquitto", "/usr/sbin/mosquitto"], "mosquitto")?);
    command.arg("-c").arg(config);
    let mut process = Process::spawn("mosquitto", &command, None, log)?;
    wait_until("mosquitto to listen", WAIT, || {
        process.ensure_running()?;
        Ok(TcpStream::connect(("127.0.0.1", port)).is_ok())
    })?;
    Ok(process)
}
