#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::message::{Expert, LastForecast, LastReading, SeriesPart, SeriesSnapshot, StreamSnapshot};
use crate::secret::Secret;

mod limits;
mod live;
mod page;

/// Pages of the keys it is given, as `{"key":…,"history":…}`; an error for the key `broken/x`; never an answer for `stuck/x`.
struct Book(Vec<&'static str>, Arc<Mutex<Vec<String>>>);

impl Pages for Book {
    type Page = Value;

    async fn page(&self, key: &str, history: usize) -> anyhow::Result<Option<Value>> {
        self.1.lock().unwrap().push(key.into());
        anyhow::ensure!(key != "broken/x", "password authentication failed");
        if key == "stuck/x" {
            std::future::pending::<()>().await;
        }
        Ok(self.0.contains(&key).then(|| json!({ "key": key, "history": history })))
    }
}

struct Server {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    ready: Arc<Ready>,
    asked: Arc<Mutex<Vec<String>>>,
    demands: Arc<Demands>,
    stop: watch::Sender<bool>,
    served: JoinHandle<std::io::Result<()>>,
    _engine: mpsc::Sender<Message>,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|l| l.split_once(": ").filter(|(n, _)| *n == name)).map(|(_, value)| value)
    }

    fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{}", self.body);
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Server {
    async fn start(token: Option<&str>, engine: mpsc::Sender<Message>) -> Server {
        let weak = engine.downgrade();
        let metrics = Metrics::new(["climate"]).unwrap();
        let ready = Arc::new(Ready::default());
        let asked = Arc::default();
        let demands = Arc::new(Demands::new(["climate", "power"].map(String::from).into_iter()));
        let keys = vec!["climate/berlin/dev1/temperature", "a/50%25 of it/x", "a/b c/ä"];
        let admin = Admin {
            metrics: metrics.clone(),
            ready: ready.clone(),
            engine: weak,
            pages: Book(keys, Arc::clone(&asked)),
            gate: Gate { token: token.map(Secret::from), names: Some(vec!["x".into()]) },
            demands: demands.clone(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let served = tokio::spawn(serve(listener.into_std().unwrap(), None, admin.router(), stopped));
        Server { address, metrics, ready, asked, demands, stop, served, _engine: engine }
    }

    async fn get(&self, path: &str, headers: &str) -> Answer {
        self.ask("GET", path, headers).await
    }

    async fn ask(&self, method: &str, path: &str, headers: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.into(), body: body.into() }
    }
}

/// An engine that knows one series.
fn engine() -> mpsc::Sender<Message> {
    let (sender, mut messages) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Some(Message::Query(query)) = messages.recv().await {
            match query {
                Query::Series(answer) => answer.send(vec![series()]).map_err(|_| ()).unwrap(),
                Query::Handles(_) | Query::Watch(_) => unreachable!(),
                Query::Part { reply, .. } => reply.send(SeriesPart::default()).map_err(|_| ()).unwrap(),
                Query::Listen { reply, .. } => reply.send(false).unwrap(),
                Query::Experts { reply, .. } => {
                    reply.send(Some(vec![Expert { name: "naive", weight: 1.0 }])).map_err(|_| ()).unwrap();
                }
                Query::Streams(answer) => answer
                    .send(vec![StreamSnapshot {
                        stream: "climate".into(),
                        model: "climate-3".into(),
                        series: 1,
                        relative_error: Some(0.77),
                        coverage: None,
                        heard: true,
                    }])
                    .map_err(|_| ())
                    .unwrap(),
            }
        }
    });
    sender
}

fn series() -> SeriesSnapshot {
    SeriesSnapshot {
        key: "climate/berlin/dev1/temperature".into(),
        stream: "climate".into(),
        labels: BTreeMap::from([("site".into(), "berlin".into())]),
        last: Some(LastReading {
            time: "2026-11-23T10:00:00Z".into(),
            value: 21.3,
            score: 0.02,
            anomaly: false,
        }),
        forecast: Some(LastForecast {
            origin: "2026-11-23T10:00:00Z".into(),
            model: "climate-3".into(),
            steps: Vec::new(),
        }),
        relative_error: None,
    }
}

#[tokio::test]
async fn the_api_shows_series_and_streams() {
    let server = Server::start(None, engine()).await;
    let all = server.get("/api/v1/series", "").await;
    assert_eq!((all.status, all.header("cache-control")), (200, Some("no-store")));
    assert_eq!(all.json(), json!([series()]));
    let streams = server.get("/api/v1/streams", "").await.json();
    assert_eq!(streams[0]["relative_error"], 0.77);
    assert_eq!(streams[0]["coverage"], Value::Null);
}

#[tokio::test]
async fn a_method_that_a_path_does_not_take_is_told_which_it_takes() {
    let server = Server::start(None, engine()).await;
    for path in ["/api/v1/series", "/api/v1/overview", "/metrics", "/", "/live"] {
        let answer = server.ask("POST", path, "").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET,HEAD")), "{path}");
        assert!(answer.json()["error"].as_str().unwrap().contains("does not take POST"), "{path}");
    }
    let secret = Server::start(Some("s3cret"), engine()).await;
    assert_eq!(secret.ask("POST", "/api/v1/series", "").await.status, 401);
}

#[tokio::test]
async fn an_overview_takes_a_limit_up_to_its_bound() {
    let server = Server::start(None, engine()).await;
    assert_eq!(server.get("/api/v1/overview?limit=500", "").await.status, 200);
    let refused = server.get("/api/v1/overview?limit=501", "").await;
    assert_eq!(refused.status, 400);
    assert!(refused.json()["error"].as_str().unwrap().contains("500 at most"));
}

#[tokio::test]
async fn a_series_is_found_by_its_key_raw_or_encoded() {
    let server = Server::start(None, engine()).await;
    for (path, key) in [
        ("climate/berlin/dev1/temperature", "climate/berlin/dev1/temperature"),
        ("climate%2Fberlin%2fdev1%2Ftemperature", "climate/berlin/dev1/temperature"),
        ("a/50%2525%20of%20it/x", "a/50%25 of it/x"),
        ("a%2Fb%20c%2F%C3%A4", "a/b c/ä"),
    ] {
        let answer = server.get(&format!("/api/v1/series/{path}"), "").await;
        let experts = json!([{ "name": "naive", "weight": 1.0 }]);
        assert_eq!(answer.json(), json!({ "key": key, "history": 200, "experts": experts }), "{path}");
    }
    // A raw key with a percent sign of its own is asked for to the letter.
    let answer = server.get("/api/v1/series/a/50%25/x", "").await;
    assert_eq!((answer.status, answer.json()), (404, json!({ "error": "no such series" })));
    assert_eq!(
        server.asked.lock().unwrap().iter().rev().take(2).rev().collect::<Vec<_>>(),
        ["a/50%/x", "a/50%25/x"]
    );
}

#[tokio::test]
async fn history_is_capped_and_checked_and_a_store_that_fails_tells_nothing() {
    let server = Server::start(None, engine()).await;
    let page = "/api/v1/series/climate/berlin/dev1/temperature";
    for (given, used) in [("50", 50), ("0", 0), ("10000", 10_000), ("999999999", 10_000)] {
        assert_eq!(server.get(&format!("{page}?history={given}"), "").await.json()["history"], used);
    }
    for wrong in ["-1", "x", ""] {
        let answer = server.get(&format!("{page}?history={wrong}"), "").await;
        assert_eq!(answer.status, 400, "{wrong}");
        assert!(answer.json()["error"].as_str().unwrap().contains("history"));
    }
    let broken = server.get("/api/v1/series/broken/x", "").await;
    assert_eq!((broken.status, broken.json()), (503, json!({ "error": "the store does not answer" })));
}

#[tokio::test]
async fn ready_names_what_is_missing() {
    let server = Server::start(None, engine()).await;
    server.ready.set_migrated();
    server.metrics.store_up.set(1);
    let waiting = server.get("/ready", "").await;
    assert_eq!(waiting.status, 503);
    let spool = json!({"readings": 0, "bytes": 0, "max_bytes": 0, "writable": false});
    let expected = json!({"ready": false, "missing": ["restored", "subscribed"], "store_up": true, "store_trouble": null,
        "spool": spool, "mqtt_connected": false});
    assert_eq!(waiting.json(), expected);
    server.ready.set_restored();
    server.ready.set_subscribed(true);
    server.metrics.mqtt_connected.set(1);
    let ready = server.get("/ready", "").await;
    assert_eq!((ready.status, &ready.json()["ready"]), (200, &json!(true)));
}

#[tokio::test]
async fn live_fails_when_the_engine_is_gone_or_stalled() {
    let server = Server::start(None, engine()).await;
    server.ready.set_restored();
    assert_eq!(server.get("/live", "").await.status, 200);

    let (gone, _) = mpsc::channel(1);
    let server = Server::start(None, gone).await;
    assert_eq!(server.get("/live", "").await.status, 200, "the engine has not started yet");
    server.ready.set_restored();
    assert_eq!(server.get("/live", "").await.status, 503);
    assert_eq!(server.get("/api/v1/series", "").await.status, 503);

    let (stalled, _kept) = mpsc::channel(1);
    let server = Server::start(None, stalled).await;
    server.ready.set_restored();
    assert_eq!(server.get("/live", "").await.status, 503);
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let server = Server::start(None, engine()).await;
    server.metrics.stored.inc_by(7);
    let answer = server.get("/metrics", "").await;
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4"));
    assert!(answer.body.contains("\nvidente_readings_stored_total 7\n"), "{}", answer.body);
}

#[tokio::test]
async fn the_token_guards_everything_but_the_probes() {
    let server = Server::start(Some("s3cret"), engine()).await;
    let paths = [
        "/metrics",
        "/api/v1/series",
        "/api/v1/series/a/b",
        "/api/v1/streams",
        "/api/v1/overview",
        "/api/v1/events?series=a%2Fb",
        "/api/v1/nothing",
        "/x",
    ];
    for path in paths {
        for wrong in [
            "",
            "s3cret",
            "Bearer",
            "Bearer ",
            "Bearer s3cre",
            "Bearer s3crets",
            "Basic s3cret",
            "Bearer S3CRET",
        ] {
            let header = if wrong.is_empty() { String::new() } else { format!("authorization: {wrong}\r\n") };
            let answer = server.get(path, &header).await;
            assert_eq!(answer.status, 401, "{path} {wrong:?}");
            assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer"));
        }
        let sign = if path.contains('?') { '&' } else { '?' };
        let answer = server.get(&format!("{path}{sign}token=s3cret"), "").await;
        assert_eq!(answer.status, 401, "a token in the address would end up in logs");
        let answer = server.get(path, "authorization: bearer s3cret\r\n").await;
        assert_ne!(answer.status, 401, "{path}");
    }
    assert!(server.asked.lock().unwrap().iter().all(|key| key == "a/b"), "refused requests reach the store");
    assert_eq!(server.get("/live", "").await.status, 200);
    assert_eq!(server.get("/ready", "").await.status, 503);
}

#[tokio::test]
async fn every_answer_tells_browsers_what_they_may_do() {
    let server = Server::start(Some("s3cret"), engine()).await;
    for path in ["/", "/live", "/metrics", "/nothing"] {
        let answer = server.get(path, "").await;
        let policy = answer.header("content-security-policy").unwrap();
        for part in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"]
        {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("script-src 'self' "), "no inline scripts: {policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cache-control", if path == "/" { "no-cache" } else { "no-store" }),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
}

#[tokio::test]
async fn training_is_asked_for_by_those_who_hold_the_token() {
    let open = Server::start(None, engine()).await;
    let answer = open.ask("POST", "/api/v1/train", "").await;
    assert_eq!(
        (answer.status, &answer.json()["error"]),
        (403, &json!("set [http] token_file to allow this"))
    );
    let server = Server::start(Some("s3cret"), engine()).await;
    assert_eq!(server.ask("POST", "/api/v1/train", "").await.status, 401);
    let token = "authorization: Bearer s3cret\r\n";
    assert_eq!(server.ask("POST", "/api/v1/train?stream=nowhere", token).await.status, 404);
    assert_eq!(server.ask("POST", "/api/v1/train?streem=power", token).await.status, 400);
    let wrong = server.get("/api/v1/train", token).await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("POST")));
    assert!(!server.demands.take(0) && !server.demands.take(1));
    let one = server.ask("POST", "/api/v1/train?stream=power", token).await;
    assert_eq!((one.status, one.json()), (202, json!({ "queued": ["power"] })));
    assert!(!server.demands.take(0) && server.demands.take(1) && !server.demands.take(1));
    let all = server.ask("POST", "/api/v1/train", token).await;
    assert_eq!(all.json(), json!({ "queued": ["climate", "power"] }));
    assert!(server.demands.take(0) && server.demands.take(1));
}

#[tokio::test]
async fn a_stop_ends_serving_even_with_a_request_in_progress() {
    let server = Server::start(None, engine()).await;
    assert_eq!(server.get("/live", "").await.status, 200);
    let mut unfinished = TcpStream::connect(server.address).await.unwrap();
    unfinished.write_all(b"GET /live HTTP/1.1\r\nhost").await.unwrap();
    server.stop.send(true).unwrap();
    server.served.await.unwrap().unwrap();
    TcpStream::connect(server.address).await.unwrap_err();
}
