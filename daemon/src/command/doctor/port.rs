//! The port of HTTP: free, or in whose hands. Whether a Vidente there is the one of this configuration, the
//! spool tells, which one process uses.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Findings, machine};
use crate::admin::bind_fix;
use crate::config::Config;
use crate::spool::Holder;

const PART: &str = "http";
/// How long whoever has the port may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// What somebody has to know who wants two daemons.
const SECOND: &str =
    "a second daemon needs mqtt.client_id, http.listen and, where it is named, spool.dir of its own";

/// What to do where a daemon was started before the configuration was changed.
const RESTART: &str = "restart it, so that it takes over what was changed";

/// Looks at the port for the configuration of a file; `holder` is who uses the spool, if that is known.
pub(super) async fn look(file: &Path, config: &Config, holder: Option<Holder>, findings: &mut Findings) {
    let listen = &config.http.listen;
    match TcpListener::bind(listen).await {
        Ok(_) => free(file, config, holder, findings),
        Err(error) if error.kind() == ErrorKind::AddrInUse => taken(file, config, holder, findings).await,
        Err(error) => findings.fail(PART, format!("{listen}: {error}"), bind_fix(error.kind())),
    }
}

fn free(file: &Path, config: &Config, holder: Option<Holder>, findings: &mut Findings) {
    let listen = &config.http.listen;
    findings.ok(PART, format!("{listen} is free; no daemon runs there"));
    let Some(Holder::Process(pid)) = holder else { return };
    let found = format!("{} is in use by a Vidente{}", config.spool_dir().display(), number(pid));
    // Which port it has, nobody knows.
    if listen.ends_with(":0") {
        findings.ok("spool", format!("{found}; {SECOND}"));
    } else if machine::runs(pid, file) == Some(true) {
        findings.warn("spool", format!("{found} of this configuration, not on {listen} yet"), RESTART);
    } else {
        findings.fail("spool", format!("{found} that does not listen on {listen}: another daemon's"), SECOND);
    }
}

async fn taken(file: &Path, config: &Config, holder: Option<Holder>, findings: &mut Findings) {
    let listen = &config.http.listen;
    // Over TLS it is not asked: by which name it has a certificate is not known here.
    let pid = match config.http.cert_file {
        Some(_) => None,
        None => match tokio::time::timeout(PATIENCE, ask(listen)).await {
            Ok(Some(alive)) => alive.pid,
            _ => {
                let found = format!("{listen} is taken by another program, or by a Vidente that hangs");
                return findings.fail(PART, found, bind_fix(ErrorKind::AddrInUse));
            }
        },
    };
    match holder {
        Some(Holder::Process(held)) if held == pid || held.is_none() || pid.is_none() => {
            findings.ok(PART, format!("{listen} is served by a running Vidente{}", number(pid.or(held))));
            if machine::runs(pid.or(held), file) == Some(false) {
                let found =
                    "in use by this Vidente, which was started with another file: none starts beside it";
                findings.warn("spool", found, SECOND);
            } else {
                findings.ok("spool", format!("in use by this Vidente at its work; {SECOND}"));
            }
        }
        None => {
            let found =
                format!("{listen} is served by a running Vidente{}, by all that can be told", number(pid));
            findings.ok(PART, found);
        }
        Some(_) => {
            let found = format!("{listen} is taken by a Vidente{}", number(pid));
            if machine::runs(pid, file) == Some(true) {
                findings.warn(
                    PART,
                    format!("{found} of this configuration, not with its spool yet"),
                    RESTART,
                );
            } else {
                let fix = bind_fix(ErrorKind::AddrInUse);
                let found =
                    format!("{found} that is another one: it does not use the spool of this configuration");
                findings.fail(PART, found, fix);
            }
        }
    }
}

fn number(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

/// What a daemon answers at `/live`.
#[derive(Deserialize)]
struct Alive {
    live: bool,
    pid: Option<u32>,
}

/// What answers on the port; none if it is no daemon that lives.
async fn ask(listen: &str) -> Option<Alive> {
    let mut stream = TcpStream::connect(listen).await.ok()?;
    stream.write_all(b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.ok()?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer).await.ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str(body).ok().filter(|alive: &Alive| alive.live)
}
