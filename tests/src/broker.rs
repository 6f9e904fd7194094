//! mosquitto.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

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
    /// In its database file.
    Disk,
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
    _dir: TempDir,
}

impl Mosquitto {
    /// Starts a broker and waits until it takes connections.
    ///
    /// # Errors
    /// If mosquitto is missing or does not come up.
    pub fn start(persistence: Persistence) -> Result<Mosquitto> {
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
        if persistence == Persistence::Memory {
            // The last of a repeated key counts.
            text += "\npersistence false\n";
        }
        text += &format!("\npersistence_location {}/\n", dir.path().display());
        std::fs::write(&config, text)?;
        let log = dir.path().join("mosquitto.log");
        let process = launch(&config, &log, port)?;
        Ok(Mosquitto { port, config, log, process, _dir: dir })
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
        self.process = launch(&self.config, &self.log, self.port)?;
        Ok(())
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
