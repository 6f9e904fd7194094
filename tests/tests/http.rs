//! HTTP from a running daemon: TLS and token, and clients that want to bring it down.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Result, ensure};
use vidente_tests::{Authority, Daemon, Feed, Rig, Settings, Store, Subscriber, WAIT, Wire, wait_until};

#[test]
fn the_token_travels_over_tls_and_opens_the_data_and_nothing_else_does() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let authority = Authority::new(rig.dir(), "ca")?;
    let server = authority.server("server", &["localhost"])?;
    let token = rig.dir().join("token");
    std::fs::write(&token, "0123456789abcdef0123456789abcdef\n")?;
    let settings = Settings::climate();
    let (config, port) = rig.configure(&settings)?;
    let text = std::fs::read_to_string(&config)?.replace(
        "[http]\n",
        &format!(
            "[http]\ncert_file = \"{}\"\nkey_file = \"{}\"\ntoken_file = \"{}\"\n",
            server.certificate.display(),
            server.key.display(),
            token.display()
        ),
    );
    std::fs::write(&config, text)?;
    let mut daemon = Daemon::launch(&config, port, &rig.dir().join("log"), &[])?;
    daemon.wait_log(&["INFO", &format!("https://127.0.0.1:{port}/")])?;
    let get = |path: &str, headers: &str| Wire::tls(port, authority.certificate())?.get(path, headers);
    wait_until("vidente to be ready", WAIT, || Ok(get("/ready", "")?.0 == 200))?;
    Feed::run(&rig.broker, 1, 1, 0..5)?;

    let bearer = "authorization: Bearer 0123456789abcdef0123456789abcdef\r\n";
    wait_until("the series", WAIT, || {
        Ok(get("/api/v1/series", bearer)?.1.contains("climate/hall/dev0/value"))
    })?;
    // What a browser does: the page comes without a token, asks for it, and sends it with what it fetches.
    let (status, page) = get("/", "")?;
    assert!(status == 200 && page.contains("id=\"login\"") && !page.contains("climate"), "{page}");
    assert_eq!(get("/assets/page.js", "")?.0, 200);
    for path in ["/api/v1/series", "/api/v1/streams", "/api/v1/series/climate/hall/dev0/value", "/metrics"] {
        let (status, answer) = get(path, "")?;
        assert!(status == 401 && !answer.contains("climate"), "{path}: {answer}");
        assert_eq!(get(path, "authorization: Bearer 0123456789abcdef0123456789abcdeF\r\n")?.0, 401, "{path}");
        assert_eq!(get(path, bearer)?.0, 200, "{path}");
    }
    // In clear text there is nothing.
    assert!(Wire::tcp(port)?.get("/live", "").map(|(status, _)| status != 200).unwrap_or(true));
    daemon.stop()
}

/// Hundreds hold half a request open, others ask for everything without end, and one reads nothing of a large
/// answer: readings are stored and forecast all the same, and probes are answered.
#[test]
fn slow_and_greedy_clients_delay_neither_forecasts_nor_probes() -> Result<()> {
    const SLOW: usize = 500;
    const COUNT: usize = 20;
    const POSITIONS: usize = 100;
    let rig = Rig::new(Store::Sqlite)?;
    let (config, port) = rig.configure(&Settings::climate())?;
    let mut daemon = Daemon::start(&config, port, &rig.dir().join("log"))?;
    let subscriber = Subscriber::new(&rig.broker, "vidente/forecast/#")?;
    let mut slow = Vec::new();
    for _ in 0..SLOW {
        let mut wire = Wire::tcp(port)?;
        // Those before may have been closed by now, to make way.
        let _ = wire.send("GET /live HTTP/1.1\r\nhost: localhost\r\nx-slow: ");
        slow.push(wire);
    }
    let mut unread = Wire::tcp(port)?;
    unread.send(&"GET /assets/plotly.js HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(20))?;
    assert_eq!(daemon.get("/ready")?.0, 200);

    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| -> Result<()> {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    for path in
                        ["/api/v1/series", "/api/v1/series/climate/hall/dev0/value?history=10000", "/metrics"]
                    {
                        let answer = Wire::tcp(port).and_then(|wire| wire.get(path, ""));
                        answered.fetch_add(usize::from(answer.is_ok()), Ordering::Relaxed);
                    }
                }
            });
        }
        let work = (|| {
            Feed::run(&rig.broker, COUNT, 1, 0..POSITIONS)?;
            daemon.wait_stored(COUNT * POSITIONS)?;
            subscriber.wait_for(COUNT * POSITIONS)?;
            for path in ["/ready", "/live", "/"] {
                ensure!(daemon.get(path)?.0 == 200, "{path}");
            }
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        work
    })?;
    assert!(answered.load(Ordering::Relaxed) > 0);
    let files = std::fs::read_dir(format!("/proc/{}/fd", daemon.id()))?.count();
    assert!(files < 300, "{files} open files");
    assert_eq!(daemon.metrics()?.sum("vidente_forecasts_dropped_total", &[]), 0.0);
    drop(slow);
    daemon.stop()
}

#[test]
fn requests_that_are_too_large_are_refused() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let (config, port) = rig.configure(&Settings::climate())?;
    let mut daemon = Daemon::start(&config, port, &rig.dir().join("log"))?;
    let get = |path: &str, headers: &str| Ok::<_, anyhow::Error>(Wire::tcp(port)?.get(path, headers)?.0);
    assert_eq!(get(&format!("/{}", "x".repeat(20_000)), "")?, 414);
    assert_eq!(get("/live", &format!("x: {}\r\n", "x".repeat(40_000)))?, 431);
    assert_eq!(get("/live", &"x: y\r\n".repeat(200))?, 431);
    assert_eq!(get("/live", "content-length: 1000000\r\n")?, 413);
    assert_eq!(get("/live", "transfer-encoding: chunked\r\n")?, 411);
    assert_eq!(get("/live", "")?, 200);
    // A name that points here, in a browser that somebody else has sent.
    let mut wire = Wire::tcp(port)?;
    wire.send("GET /api/v1/series HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n")?;
    assert_eq!(wire.answer()?.0, 421);
    daemon.stop()
}
