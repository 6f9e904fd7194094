//! What systemd is told, on a real `NOTIFY_SOCKET`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vidente_tests::{
    Daemon, Feed, Line, NotifySocket, Proxies, Proxy, Rig, Settings, Store, Stuck, WAIT, wait_until,
};

/// Starts a daemon that notifies a socket, with a watchdog of that many seconds, if any.
fn launch(rig: &Rig, settings: &Settings, watchdog: Option<u32>) -> Result<(Daemon, NotifySocket)> {
    let socket = NotifySocket::new(rig.dir())?;
    let path = socket.path();
    let limit = watchdog.map(|seconds| (u64::from(seconds) * 1_000_000).to_string());
    let mut environment = vec![("NOTIFY_SOCKET", path.as_str())];
    environment.extend(limit.as_deref().map(|limit| ("WATCHDOG_USEC", limit)));
    Ok((rig.launch(settings, &environment)?, socket))
}

fn count(socket: &mut NotifySocket, line: &str) -> Result<usize> {
    Ok(socket.heard()?.iter().filter(|heard| *heard == line).count())
}

#[test]
fn it_is_ready_only_when_subscribed_says_how_it_goes_and_that_it_stops() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let proxy = Proxy::start(rig.broker.port())?;
    proxy.set(Line::Refusing);
    let proxies = Proxies { broker: Some(proxy.port()), ..Proxies::default() };
    let (mut daemon, mut socket) = launch(&rig, &Settings { proxies, ..Settings::climate() }, None)?;
    // Everything else is there.
    socket.wait("what is missing", |line| {
        line.starts_with("STATUS=") && line.contains("missing: subscribed;") && line.contains("broker")
    })?;
    ensure!(daemon.get("/ready")?.0 == 503);
    ensure!(count(&mut socket, "READY=1")? == 0, "ready without a broker");
    proxy.set(Line::Open);
    socket.wait("readiness", |line| line == "READY=1")?;
    ensure!(daemon.get("/ready")?.0 == 200, "systemd was told before it was true");

    Feed::run(&rig.broker, 3, 1, 0..50)?;
    daemon.wait_stored(150)?;
    let status = socket.wait("rate and lag", |line| {
        line.starts_with("STATUS=") && line.contains("3 series") && line.contains("forecasts after")
    })?;
    let rate: f64 = status
        .concat()
        .trim_start_matches("STATUS=")
        .split(' ')
        .next()
        .context("rate")?
        .parse()
        .with_context(|| format!("{status:?}"))?;
    ensure!(rate > 0.0, "{status:?}");
    ensure!(count(&mut socket, "WATCHDOG=1")? == 0, "nobody has asked for a watchdog");
    daemon.stop()?;
    let heard = socket.heard()?;
    ensure!(heard.iter().filter(|line| *line == "READY=1").count() == 1, "{heard:#?}");
    let stopping = heard.iter().position(|line| line == "STOPPING=1").context("no STOPPING=1")?;
    ensure!(heard.get(stopping + 1..) == Some(&["STATUS=stopping".to_owned()][..]), "{heard:#?}");
    Ok(())
}

#[test]
fn the_watchdog_is_fed_by_the_engine_and_by_nothing_else() -> Result<()> {
    const LIMIT: u32 = 2;
    let rig = Rig::new(Store::Sqlite)?;
    let (mut daemon, mut socket) = launch(&rig, &Settings::climate(), Some(LIMIT))?;
    // Without a single reading, too.
    for _ in 0..3 {
        socket.wait("a sign of life", |line| line == "WATCHDOG=1")?;
    }
    let engine = Stuck::thread(daemon.id(), "engine")?;
    // What it has done before it got stuck may still be told, once.
    let before = count(&mut socket, "WATCHDOG=1")?;
    std::thread::sleep(3 * Duration::from_secs(u64::from(LIMIT)));
    let after = count(&mut socket, "WATCHDOG=1")?;
    ensure!(after <= before + 1, "{} signs of life of an engine that is stuck", after - before);
    // All else is alive: HTTP answers, and what is asked of the engine goes unanswered.
    ensure!(daemon.get("/ready")?.0 == 200);
    drop(engine);
    socket.wait("a sign of life", |line| line == "WATCHDOG=1")?;

    // Far more than the inbox holds, published at once: a full inbox is no reason.
    let before = count(&mut socket, "WATCHDOG=1")?;
    Feed::run(&rig.broker, 20, 1, 0..2000)?;
    daemon.wait_stored(40_000)?;
    wait_until("signs of life under load", WAIT, || Ok(count(&mut socket, "WATCHDOG=1")? > before))?;
    daemon.stop()
}
