//! One thread of a process brought to a halt while the others go on, as a debugger does it.

use anyhow::{Context, Result};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// A thread that stands still until this is dropped. The thread that made it must drop it.
#[derive(Debug)]
pub struct Stuck(Pid);

impl Stuck {
    /// Stops the thread of that name.
    ///
    /// # Errors
    /// If there is none, or it cannot be stopped.
    pub fn thread(process: u32, name: &str) -> Result<Stuck> {
        let mut found = None;
        for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
            let task = task?;
            if std::fs::read_to_string(task.path().join("comm"))?.trim() == name {
                found = task.file_name().to_str().and_then(|id| id.parse().ok());
            }
        }
        let id = Pid::from_raw(found.with_context(|| format!("no thread is named {name}"))?);
        ptrace::seize(id, ptrace::Options::empty()).context("ptrace seize")?;
        ptrace::interrupt(id).context("ptrace interrupt")?;
        waitpid(id, Some(WaitPidFlag::__WALL)).context("waiting for the thread to stop")?;
        Ok(Stuck(id))
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        // Gone with its process, if that was killed meanwhile.
        let _ = ptrace::detach(self.0, None::<Signal>);
    }
}
