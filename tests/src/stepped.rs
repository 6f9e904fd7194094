//! A daemon that can be stopped at a line of its log.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, tee};
use rustix::process::Signal;

use crate::daemon::vidente_binary;
use crate::process::{Process, WAIT};

/// Longest line of a log.
const LINE: usize = 4096;

/// `vidente run` with everything logged, into a pipe that takes one line: a thread that logs a second one
/// waits until the first is read. So the daemon can be killed after one step and before the next.
#[derive(Debug)]
pub struct Stepped {
    process: Process,
    lines: OwnedFd,
    /// A pipe that lines are copied into, so that they can be looked at without being taken.
    copy: (OwnedFd, OwnedFd),
    /// Whether the first line in the pipe was looked at already.
    looked_at: bool,
    log: File,
}

impl Stepped {
    /// Starts `vidente run` with a configuration.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(config: &Path, log: &Path) -> Result<Stepped> {
        // Each write is a packet of its own, and fills a page: the smallest pipe holds one.
        let packets = || pipe_with(PipeFlags::CLOEXEC | PipeFlags::DIRECT);
        let ((lines, output), copy) = (packets()?, packets()?);
        fcntl_setpipe_size(&output, LINE)?;
        let mut command = Command::new(vidente_binary()?);
        command.arg("run").arg("--config").arg(config).env("VIDENTE_LOG", "vidente=debug");
        let process = Process::spawn_into("vidente", &command, None, output, log)?;
        let log = File::options().create(true).append(true).open(log)?;
        Ok(Stepped { process, lines, copy, looked_at: false, log })
    }

    /// Lets it run until it has logged a line for each step, in any order, and no further than to the line
    /// after the last.
    ///
    /// # Errors
    /// If it ends, or does not come so far.
    pub fn run_until(&mut self, steps: &[&str]) -> Result<()> {
        let begin = Instant::now();
        let mut left = steps.to_vec();
        let mut line = [0; LINE];
        while !left.is_empty() {
            if std::mem::replace(&mut self.looked_at, true) {
                rustix::io::read(&self.lines, &mut line)?;
            }
            // Training gives way to everything else on the machine.
            let patience =
                Timespec::try_from((3 * WAIT).saturating_sub(begin.elapsed())).context("a wait")?;
            let readable = poll(&mut [PollFd::new(&self.lines, PollFlags::IN)], Some(&patience))?;
            ensure!(readable > 0, "waited in vain for the steps: {left:?}");
            let length = tee(&self.lines, &self.copy.1, LINE, SpliceFlags::empty())?;
            ensure!(length > 0, "vidente ended before the steps: {left:?}");
            let length = rustix::io::read(&self.copy.0, &mut line)?;
            self.log.write_all(&line[..length])?;
            let said = String::from_utf8_lossy(&line[..length]);
            left.retain(|step| !said.contains(step));
        }
        Ok(())
    }

    /// SIGUSR1: asks for a training run of every stream.
    ///
    /// # Errors
    /// If it is gone.
    pub fn ask_to_train(&self) -> Result<()> {
        self.process.signal(Signal::USR1)
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// If it had ended before.
    pub fn kill(&mut self) -> Result<()> {
        self.process.ensure_running()?;
        self.process.end(Signal::KILL).map(drop)
    }
}
