//! This machine: disk, clock.

use std::path::{Path, PathBuf};
use std::{fs, io};

use indicatif::BinaryBytes;

use super::Findings;
use crate::config::{Config, locate};
use crate::spool::{self, Holder};

/// Whether this user may make files in a folder.
pub(super) fn writable(dir: &Path) -> io::Result<()> {
    tempfile::tempfile_in(if dir.as_os_str().is_empty() { Path::new(".") } else { dir }).map(drop)
}

/// The spool's folder, and who uses it; none if that cannot be told.
pub(super) fn spool(config: &Config, findings: &mut Findings) -> Option<Holder> {
    const PART: &str = "spool";
    const NAME_ONE: &str = "name a folder in spool.dir that this user may write to";
    let limit = config.spool.max_bytes;
    if limit == 0 {
        let fix = "raise spool.max_bytes if the broker cannot hold an outage";
        findings.warn(PART, "there is none: what the store does not take waits at the broker", fix);
        return None;
    }
    let dir = config.spool_dir();
    // One that is missing is made at the start.
    let Some(there) = dir.ancestors().find(|dir| dir.exists()) else {
        findings.fail(PART, format!("{} cannot be made", dir.display()), NAME_ONE);
        return None;
    };
    if let Err(error) = writable(there) {
        let found = format!("{} cannot be written to: {error}", there.display());
        match config.spool.dir {
            Some(_) => findings.fail(PART, found, NAME_ONE),
            // Without a name the daemon does without one.
            None => findings.warn(PART, found, NAME_ONE),
        }
        return None;
    }
    match rustix::fs::statvfs(there) {
        Err(error) => findings.warn(PART, format!("{}: {error}", there.display()), "look at the disk"),
        Ok(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            let used = spool::used(&dir);
            let (needed, shown) = (limit.saturating_sub(used), dir.display());
            let (bytes, used) = (BinaryBytes(free), BinaryBytes(used));
            if free < needed {
                findings.warn(
                    PART,
                    format!("{shown}: {bytes} are free, spool.max_bytes wants {} more", BinaryBytes(needed)),
                    "free some space, or lower spool.max_bytes",
                );
            } else {
                findings.ok(PART, format!("{shown}: {bytes} are free, {used} used"));
            }
        }
    }
    match spool::holder(&dir) {
        Ok(holder) => Some(holder),
        Err(error) => {
            let found = format!("{}: whether a daemon uses it cannot be told: {error}", dir.display());
            findings.warn(PART, found, "run this as the daemon's user");
            None
        }
    }
}

/// Whether a process was started with a configuration file, by its command line; none where that cannot be told.
pub(super) fn runs(pid: Option<u32>, file: &Path) -> Option<bool> {
    let process = Path::new("/proc").join(pid?.to_string());
    let line = fs::read_to_string(process.join("cmdline")).ok()?;
    let mut words = line.split('\0').skip_while(|word| !word.starts_with("--config"));
    let named = match words.next() {
        Some(word) => word.strip_prefix("--config=").or_else(|| words.next()).map(PathBuf::from)?,
        None => locate(None).ok()?,
    };
    let begun = fs::read_link(process.join("cwd")).unwrap_or_default();
    let named = fs::canonicalize(begun.join(named)).ok()?;
    Some(named == fs::canonicalize(file).ok()?)
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
