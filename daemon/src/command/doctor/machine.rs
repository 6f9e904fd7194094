//! This machine: disk, port, clock.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Findings;
use crate::config::Config;

/// How long whoever has the port may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whether this user may make files in a folder.
pub(super) fn writable(dir: &Path) -> io::Result<()> {
    tempfile::tempfile_in(if dir.as_os_str().is_empty() { Path::new(".") } else { dir }).map(drop)
}

/// The spool's folder.
pub(super) fn spool(config: &Config, findings: &mut Findings) {
    const PART: &str = "spool";
    const NAME_ONE: &str = "name a folder in spool.dir that this user may write to";
    let limit = config.spool.max_bytes;
    if limit == 0 {
        let fix = "raise spool.max_bytes if the broker cannot hold an outage";
        return findings.warn(PART, "there is none: what the store does not take waits at the broker", fix);
    }
    let dir = config.spool_dir();
    // One that is missing is made at the start.
    let Some(there) = dir.ancestors().find(|dir| dir.exists()) else {
        return findings.fail(PART, format!("{} cannot be made", dir.display()), NAME_ONE);
    };
    if let Err(error) = writable(there) {
        let found = format!("{} cannot be written to: {error}", there.display());
        return match config.spool.dir {
            Some(_) => findings.fail(PART, found, NAME_ONE),
            // Without a name the daemon does without one.
            None => findings.warn(PART, found, NAME_ONE),
        };
    }
    match rustix::fs::statvfs(there) {
        Err(error) => findings.warn(PART, format!("{}: {error}", there.display()), "look at the disk"),
        Ok(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            let used: u64 = std::fs::read_dir(&dir)
                .map(|files| files.flatten().filter_map(|f| Some(f.metadata().ok()?.len())).sum())
                .unwrap_or_default();
            let (needed, shown) = (limit.saturating_sub(used), dir.display());
            if free < needed {
                findings.warn(
                    PART,
                    format!(
                        "{shown}: {} MiB are free, spool.max_bytes wants {} MiB more",
                        free >> 20,
                        needed >> 20
                    ),
                    "free some space, or lower spool.max_bytes",
                );
            } else {
                findings.ok(PART, format!("{shown}: {} MiB are free, {} MiB used", free >> 20, used >> 20));
            }
        }
    }
}

/// The port of HTTP: free, or in the hands of a daemon.
pub(super) async fn http(config: &Config, findings: &mut Findings) {
    const PART: &str = "http";
    let listen = &config.http.listen;
    match TcpListener::bind(listen).await {
        Ok(_) => findings.ok(PART, format!("{listen} is free; no daemon runs there")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            if config.http.cert_file.is_some() {
                findings.ok(PART, format!("{listen} is taken, by the daemon if one runs"));
            } else if tokio::time::timeout(PATIENCE, is_vidente(listen))
                .await
                .is_ok_and(|is| is.unwrap_or(false))
            {
                findings.ok(PART, format!("{listen} is served by a running Vidente"));
            } else {
                findings.fail(
                    PART,
                    format!("{listen} is taken by another program, or by a Vidente that hangs"),
                    "choose another port in http.listen, or end what has it",
                );
            }
        }
        Err(error) => findings.fail(
            PART,
            format!("{listen}: {error}"),
            "name an address of this machine in http.listen, with a port that this user may take",
        ),
    }
}

async fn is_vidente(listen: &str) -> io::Result<bool> {
    let mut stream = TcpStream::connect(listen).await?;
    stream.write_all(b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).contains("\"live\":true"))
}

/// Whether somebody keeps the clock.
pub(super) fn clock(findings: &mut Findings) {
    const PART: &str = "clock";
    let asked = std::process::Command::new("timedatectl")
        .args(["show", "--property", "NTPSynchronized", "--value"])
        .output();
    match asked.ok().filter(|out| out.status.success()).map(|out| out.stdout) {
        Some(said) if said.starts_with(b"yes") => findings.ok(PART, "synchronised"),
        Some(_) => findings.warn(
            PART,
            "this machine's clock is not synchronised: readings may seem to come from the future",
            "turn on chrony or systemd-timesyncd",
        ),
        None => findings.ok(PART, "whether it is synchronised cannot be told without systemd"),
    }
}
