//! The forms of the log: lines for people, objects for machines, fields for the journal.

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use vidente_tests::{Feed, Process, Rig, Settings, Store, WAIT, vidente_binary};

/// A daemon that refuses a reading and tells of it.
fn log(format: &str) -> Result<String> {
    let rig = Rig::new(Store::Sqlite)?;
    let settings = Settings::climate();
    let rest = format!("{}\n[log]\nlevel = \"debug\"\nformat = \"{format}\"\n", settings.rest);
    let mut daemon = rig.daemon(&Settings { rest, ..settings })?;
    Feed::message(&rig.broker, &Feed::topic(0), b"{\"value\": \"warm\", \"ts\": 1767225600}", false)?;
    daemon.wait_log(&["reading rejected"])?;
    daemon.stop()?;
    Ok(daemon.log())
}

#[test]
fn json_is_an_object_a_line_with_the_fields_beside_the_message() -> Result<()> {
    let log = log("json")?;
    let lines =
        log.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>().context(log.clone())?;
    for line in &lines {
        for field in ["timestamp", "level", "target", "message"] {
            ensure!(line[field].is_string(), "no {field}: {line}");
        }
    }
    let refused = lines.iter().find(|line| line["message"] == "reading rejected").context("not told")?;
    ensure!(refused["reason"] == "not_a_number" && refused["topic"] == *Feed::topic(0), "{refused}");
    ensure!(refused["field"] == "value" && refused["level"] == "DEBUG", "{refused}");
    ensure!(refused["payload"].as_str().is_some_and(|text| text.contains("warm")), "{refused}");
    Ok(())
}

#[test]
fn text_that_no_terminal_shows_has_no_colours() -> Result<()> {
    for format in ["auto", "text"] {
        let log = log(format)?;
        ensure!(!log.contains('\u{1b}'), "{log}");
        let line = log.lines().find(|line| line.contains("reading rejected")).context("not told")?;
        ensure!(line.contains("DEBUG") && line.contains("reason=\"not_a_number\""), "{line}");
    }
    Ok(())
}

/// Runs the daemon where the journal's socket is the test's own, as root of a mount namespace.
#[test]
fn under_systemd_the_journal_gets_fields() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let settings = Settings::climate();
    let (config, _) = rig.configure(&settings)?;
    let journal = rig.dir().join("journal");
    std::fs::create_dir(&journal)?;
    let socket = UnixDatagram::bind(journal.join("socket"))?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    // What systemd connects to the journal, it names in JOURNAL_STREAM.
    let stderr = rig.dir().join("stderr");
    std::fs::write(&stderr, "")?;
    let meta = std::fs::metadata(&stderr)?;
    let begin = "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal && \
                 mount --bind \"$1\" /run/systemd/journal && shift && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--", "sh", "-c", begin, "sh"]).arg(&journal).arg(vidente_binary()?);
    command.args(["run", "--config"]).arg(&config);
    command.env("JOURNAL_STREAM", format!("{}:{}", meta.dev(), meta.ino()));
    let mut process = Process::spawn("vidente", &command, None, &stderr)?;
    let begin = Instant::now();
    let entry = loop {
        process.ensure_running()?;
        let mut bytes = [0; 8192];
        if let Ok(length) = socket.recv(&mut bytes) {
            let entry = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).into_owned();
            // `MESSAGE`, a line break, eight bytes of length, the text; other fields likewise.
            if entry.contains("series restored") {
                break entry;
            }
        }
        if begin.elapsed() > WAIT {
            bail!("the journal got nothing");
        }
    };
    for part in ["MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "vidente", "F_STREAM", "climate", "F_REPLAYED"] {
        ensure!(entry.contains(part), "no {part}: {entry:?}");
    }
    let status = process.end(Signal::TERM)?;
    ensure!(status.code() == Some(0), "{status}");
    ensure!(std::fs::read_to_string(&stderr)?.is_empty(), "said twice: {}", process.log());
    Ok(())
}
