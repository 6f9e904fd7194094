//! A mosquitto of the test's own.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long anything in these tests may take before it counts as never.
pub(super) const NEVER: Duration = Duration::from_secs(20);

pub(super) struct Broker {
    pub(super) port: u16,
    pub(super) dir: TempDir,
    child: Option<Child>,
}

impl Broker {
    pub(super) fn start(extra: &str) -> Broker {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let extra = extra.replace("DIR", dir.path().to_str().unwrap());
        let access = if extra.contains("allow_anonymous") { "" } else { "allow_anonymous true\n" };
        let text = format!("listener {port} 127.0.0.1\n{access}user root\n{extra}\n");
        fs::write(dir.path().join("mosquitto.conf"), text).unwrap();
        let mut broker = Broker { port, dir, child: None };
        broker.up();
        broker
    }

    pub(super) fn up(&mut self) {
        // Debian keeps it where users' PATH does not reach.
        let binary =
            ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"].into_iter().find(|p| Path::new(p).exists());
        let child = Command::new(binary.unwrap_or("mosquitto"))
            .arg("-c")
            .arg(self.dir.path().join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(begun.elapsed() < NEVER, "mosquitto does not come up");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it in order, so that it saves its sessions if it is to keep them.
    pub(super) fn down(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            child.wait().unwrap();
        }
    }

    pub(super) fn publish(&self, topic: &str, payload: &str, options: &[&str]) {
        let status = Command::new("mosquitto_pub")
            .args(["-p", &self.port.to_string(), "-t", topic, "-m", payload])
            .args(options)
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// The first messages on a filter, as `topic payload`.
    pub(super) async fn first(&self, filter: &str, count: usize) -> Vec<String> {
        let mut command = Command::new("mosquitto_sub");
        command.args([
            "-p",
            &self.port.to_string(),
            "-t",
            filter,
            "-v",
            "-W",
            "20",
            "-C",
            &count.to_string(),
        ]);
        let out = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
