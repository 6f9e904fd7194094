//! The other end of `NOTIFY_SOCKET`: what systemd would be told.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::WAIT;

/// A socket that a daemon is told to notify, and everything that came.
#[derive(Debug)]
pub struct NotifySocket {
    socket: UnixDatagram,
    path: PathBuf,
    heard: Vec<String>,
}

impl NotifySocket {
    /// Makes the socket in a folder.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(dir: &Path) -> Result<NotifySocket> {
        let path = dir.join("notify.sock");
        Ok(NotifySocket { socket: UnixDatagram::bind(&path)?, path, heard: Vec::new() })
    }

    /// What `NOTIFY_SOCKET` has to be.
    #[must_use]
    pub fn path(&self) -> String {
        self.path.display().to_string()
    }

    /// All lines heard so far, `NAME=value`, in their order.
    ///
    /// # Errors
    /// If the socket breaks.
    pub fn heard(&mut self) -> Result<&[String]> {
        while self.receive(Duration::from_millis(1))?.is_some() {}
        Ok(&self.heard)
    }

    /// Waits for a datagram one of whose lines fulfils a condition; its lines.
    ///
    /// # Errors
    /// With all that came instead, if none does in time.
    pub fn wait(&mut self, what: &str, matches: impl Fn(&str) -> bool) -> Result<Vec<String>> {
        let begin = Instant::now();
        while begin.elapsed() < WAIT {
            if let Some(lines) = self.receive(Duration::from_millis(100))?
                && lines.iter().any(|line| matches(line))
            {
                return Ok(lines);
            }
        }
        bail!("systemd waited in vain for {what}; it was told {:#?}", self.heard)
    }

    fn receive(&mut self, patience: Duration) -> Result<Option<Vec<String>>> {
        self.socket.set_read_timeout(Some(patience))?;
        let mut bytes = [0; 8192];
        let length = match self.socket.recv(&mut bytes) {
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let text = std::str::from_utf8(bytes.get(..length).unwrap_or_default()).context("not UTF-8")?;
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        self.heard.extend(lines.iter().cloned());
        Ok(Some(lines))
    }
}
