//! Child processes that never outlive the test, and waiting for what they do.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a test waits for anything before it fails. Generous: it only bounds failure.
pub const WAIT: Duration = Duration::from_secs(60);

/// Unit of the times in `/proc`, fixed by the kernel's interface.
const USER_HZ: f64 = 100.0;

static QUIET: AtomicBool = AtomicBool::new(false);

/// Keeps processes from printing their logs at their end: benchmarks have no test runner that would
/// hide what is fine.
pub fn quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Polls until the condition holds.
///
/// # Errors
/// With `what`, and the condition's last error, once the deadline has passed.
pub fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    loop {
        let answer = condition();
        if matches!(answer, Ok(true)) {
            return Ok(());
        }
        if begin.elapsed() >= deadline {
            return match answer {
                Err(e) => Err(e.context(format!("waited {deadline:?} in vain for: {what}"))),
                Ok(_) => bail!("waited {deadline:?} in vain for: {what}"),
            };
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The first of the candidates that exists: a name is looked up in `PATH`, a path is taken as it is.
///
/// # Errors
/// If there is none, with the Debian package that brings it.
pub fn find_program(candidates: &[&str], package: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    for candidate in candidates {
        let found = std::env::split_paths(&path).map(|dir| dir.join(candidate)).find(|p| p.is_file());
        // Joining an absolute path onto a folder gives the absolute path.
        if let Some(found) = found {
            return Ok(found);
        }
    }
    bail!("none of {candidates:?} is here; install the package {package} (tests/run does)")
}

/// A running child. Its output goes to a file; dropped, it is killed and the end of the output is
/// printed, which the test runner shows for failed tests only.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command, as another user if one is given, with its output appended to `log`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(name: &str, command: &Command, user: Option<(u32, u32)>, log: &Path) -> Result<Process> {
        let output = File::options().create(true).append(true).open(log)?;
        Process::spawn_into(name, command, user, output.into(), log)
    }

    /// The same with the output going elsewhere; who reads it there writes it to `log`.
    pub(crate) fn spawn_into(
        name: &str,
        command: &Command,
        user: Option<(u32, u32)>,
        output: OwnedFd,
        log: &Path,
    ) -> Result<Process> {
        let mut wrapped = Command::new("setpriv");
        if let Some((uid, gid)) = user {
            wrapped.args(["--reuid", &uid.to_string(), "--regid", &gid.to_string(), "--clear-groups"]);
        }
        // The kernel ends the child even when the test process is killed.
        wrapped.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
        let set = command.get_envs().filter_map(|(key, value)| Some((key, value?)));
        let child = wrapped
            .envs(set)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("{name} did not start"))?;
        Ok(Process { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it wrote so far, of all runs that share the log file.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    /// Fails if it has ended.
    ///
    /// # Errors
    /// With its status.
    pub fn ensure_running(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended early: {status}\n{}", self.name, tail(&self.log()));
        }
        Ok(())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If it is gone already.
    pub fn signal(&self, how: Signal) -> Result<()> {
        signal(self.child.id(), how).with_context(|| format!("signal to {}", self.name))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it does not end in time.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let mut status = None;
        wait_until(&format!("the end of {}", self.name), deadline, || {
            status = self.child.try_wait()?;
            Ok(status.is_some())
        })?;
        status.context("no status")
    }

    /// Sends a signal and waits for the end.
    ///
    /// # Errors
    /// If it does not end in time.
    pub fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        self.signal(signal)?;
        self.wait(WAIT)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already, or ended now: either way there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !QUIET.load(Ordering::Relaxed) {
            println!("--- end of the log of {} ---\n{}", self.name, tail(&self.log()));
        }
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// Sends a signal to a process.
pub(crate) fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("process id")?;
    Ok(kill_process(pid, signal)?)
}

/// The children of a process that still run.
///
/// # Errors
/// If `/proc` cannot be read.
pub(crate) fn children(pid: u32) -> Result<Vec<u32>> {
    let all = std::fs::read_dir("/proc")?.flatten();
    let others = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // A process may end while this looks.
    Ok(others.filter(|other| stat(*other).is_ok_and(|(_, parent)| parent == pid)).collect())
}

/// Processor time used so far, user and system, by a process and its children that still run.
///
/// # Errors
/// If the process is gone.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let (own, _) = stat(pid)?;
    Ok(children(pid)?.into_iter().filter_map(|child| Some(stat(child).ok()?.0)).sum::<Duration>() + own)
}

/// The most memory that a process has held at once, in bytes.
///
/// # Errors
/// If it is gone.
pub fn peak_memory(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// Processor time and parent of a process.
fn stat(pid: u32) -> Result<(Duration, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold spaces. After it come the state, the parent, and as 12th and
    // 13th field utime and stime.
    let (_, rest) = stat.rsplit_once(')').context("stat without a name")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |at: usize| -> Result<u64> { Ok(fields.get(at).context("stat is short")?.parse()?) };
    let ticks = (number(11)? + number(12)?) as f64;
    Ok((Duration::from_secs_f64(ticks / USER_HZ), u32::try_from(number(1)?)?))
}
