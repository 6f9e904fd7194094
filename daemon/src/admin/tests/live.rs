//! The overview, and events that keep coming.

use std::time::Duration;

use forecaster::{Reading, Timestamp};

use super::*;
use crate::feed::Mailbox;
use crate::message::SeriesRow;

const KEY: &str = "climate/berlin/dev1/temperature";

fn row(n: usize) -> SeriesRow {
    SeriesRow {
        key: format!("climate/site{n:05}/value").into(),
        stream: "climate".into(),
        last: Some(Reading { time: Timestamp(0), value: n as f64 }),
        score: 0.0,
        flagged_since: (n == 2345).then_some(Timestamp(0)),
        silent_since: None,
        next: None,
        relative_error: None,
    }
}

/// An engine that knows so many series and gives them in parts; who listens to a series or to all is handed
/// out. Counts the parts.
fn lively(
    series: usize,
) -> (mpsc::Sender<Message>, mpsc::UnboundedReceiver<Arc<Mailbox>>, Arc<Mutex<usize>>) {
    let (sender, mut messages) = mpsc::channel(8);
    let (listening, listeners) = mpsc::unbounded_channel();
    let parts = Arc::new(Mutex::new(0));
    let counted = parts.clone();
    tokio::spawn(async move {
        while let Some(Message::Query(query)) = messages.recv().await {
            match query {
                Query::Part { from, reply } => {
                    *counted.lock().unwrap() += 1;
                    let rows = (from..series.min(from + 1000)).map(row).collect();
                    drop(reply.send(SeriesPart { rows, total: series }));
                }
                Query::Streams(reply) => drop(reply.send(vec![StreamSnapshot {
                    stream: "climate".into(),
                    model: "naive".into(),
                    series,
                    relative_error: None,
                    coverage: None,
                    heard: true,
                }])),
                Query::Listen { key, mailbox, reply } => {
                    let known = key.is_none_or(|key| key == KEY);
                    if known {
                        listening.send(mailbox).unwrap();
                    }
                    let _ = reply.send(known);
                }
                Query::Series(_) | Query::Handles(_) | Query::Watch(_) | Query::Experts { .. } => {
                    unreachable!()
                }
            }
        }
    });
    (sender, listeners, parts)
}

/// A client that reads events as they come.
struct Listener {
    stream: TcpStream,
    text: String,
}

impl Listener {
    async fn connect(server: &Server, parameters: &str) -> Listener {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let request = format!("GET /api/v1/events?{parameters} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut listener = Listener { stream, text: String::new() };
        listener.until("\r\n\r\n").await;
        listener
    }

    /// What came before `end`, which must come.
    async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.text.find(end) {
                let rest = self.text.split_off(at + end.len());
                return std::mem::replace(&mut self.text, rest);
            }
            let mut bytes = [0; 4096];
            let read = tokio::time::timeout(Duration::from_secs(30), self.stream.read(&mut bytes));
            let count = read.await.unwrap_or_else(|_| panic!("no {end:?} after {:?}", self.text)).unwrap();
            assert!(count > 0, "ended before {end:?}: {:?}", self.text);
            self.text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
    }
}

#[tokio::test]
async fn the_overview_is_made_of_parts_and_shared() {
    let (engine, _listeners, parts) = lively(2500);
    let server = Server::start(None, engine).await;
    let answer = server.get("/api/v1/overview?limit=3", "").await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
    let overview = answer.json();
    assert_eq!((&overview["total"], &overview["matching"]), (&json!(2500), &json!(2500)));
    let keys: Vec<_> = (0..3).map(|n| overview["series"][n]["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["climate/site02345/value", "climate/site00000/value", "climate/site00001/value"]);
    assert_eq!(overview["series"][0]["attention"], "flagged");
    assert_eq!(overview["streams"][0]["flagged"], 1);
    assert_eq!(*parts.lock().unwrap(), 3);
    // Who types asks often.
    for (search, found) in [("7", 637), ("77", 43), ("777", 2), ("777%20SITE", 2), ("nowhere", 0)] {
        let answer = server.get(&format!("/api/v1/overview?search={search}&sort=key"), "").await.json();
        assert_eq!(answer["matching"], found, "{search}");
    }
    let parts = *parts.lock().unwrap();
    assert!(parts < 3 * 6, "asked anew for each letter: {parts}");
}

#[tokio::test]
async fn what_is_asked_wrongly_is_told_how_to_be_asked() {
    let (engine, _listeners, _) = lively(1);
    let server = Server::start(None, engine).await;
    let long = format!("search={}", "x".repeat(257));
    for wrong in ["limit=many", "offset=-1", "sort=colour", "serch=x", &long] {
        let answer = server.get(&format!("/api/v1/overview?{wrong}"), "").await;
        assert_eq!(answer.status, 400, "{wrong}");
        assert!(answer.json()["error"].as_str().unwrap().contains("sort (attention, key or error)"));
        assert_eq!(server.get(&format!("/api/v1/events?{wrong}"), "").await.status, 400, "{wrong}");
    }
    let both = server.get("/api/v1/events?series=a/b/c&limit=1", "").await;
    assert_eq!(both.status, 400);
    let unknown = server.get("/api/v1/events?series=a/b/c", "").await;
    assert_eq!((unknown.status, unknown.json()), (404, json!({ "error": "no such series" })));
    let (gone, _) = mpsc::channel(1);
    let server = Server::start(None, gone).await;
    assert_eq!(server.get("/api/v1/overview", "").await.status, 503);
    assert_eq!(server.get("/api/v1/events", "").await.status, 503);
}

#[tokio::test]
async fn a_series_is_told_as_it_is_published_and_of_much_the_newest() {
    let (engine, mut listeners, _) = lively(0);
    let server = Server::start(None, engine).await;
    let mut listener = Listener::connect(&server, "series=climate%2Fberlin/dev1/temperature").await;
    let mailbox = listeners.recv().await.unwrap();
    mailbox.put_forecast(br#"{"n":0}"#);
    listener.until("event: forecast\ndata: {\"n\":0}\n\n").await;
    for n in 1..=500 {
        mailbox.put_forecast(format!("{{\"n\":{n}}}").as_bytes());
    }
    mailbox.put_anomaly(br#"{"state":"began"}"#);
    mailbox.put_anomaly(br#"{"state":"ended"}"#);
    let told = listener.until("data: {\"n\":500}\n\n").await;
    assert!(told.matches("event: forecast").count() <= 2, "{told}");
    let (began, ended) = (told.find("began").unwrap(), told.find("ended").unwrap());
    assert!(began < ended, "{told}");
    drop(listener);
    // Nobody reads any more: the mailbox goes, and with it what the engine's thread has to do.
    while Arc::strong_count(&mailbox) > 1 {
        mailbox.put_forecast(b"{}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn the_overview_is_told_when_it_changes_and_anomalies_of_all() {
    let (engine, mut listeners, _) = lively(3);
    let server = Server::start(None, engine).await;
    let mut listener = Listener::connect(&server, "search=00001").await;
    let told = listener.until("\n\n").await;
    assert!(told.contains("event: overview\ndata: {") && told.contains("site00001"), "{told}");
    assert!(!told.contains("site00002"), "{told}");
    let mailbox = listeners.recv().await.unwrap();
    mailbox.put_anomaly(br#"{"series":"any"}"#);
    let told = listener.until("event: anomaly\ndata: {\"series\":\"any\"}\n\n").await;
    assert!(!told.contains("overview"), "it has not changed: {told}");
}

#[tokio::test]
async fn so_many_may_listen_and_those_who_leave_make_room() {
    let (engine, mut listeners, _) = lively(0);
    let server = Server::start(None, engine).await;
    let mut all = Vec::new();
    for _ in 0..events::CLIENTS {
        all.push(Listener::connect(&server, &format!("series={KEY}")).await);
    }
    let refused = server.get(&format!("/api/v1/events?series={KEY}"), "").await;
    assert_eq!(refused.status, 503);
    assert!(refused.json()["error"].as_str().unwrap().contains("too many"));
    assert_eq!(server.get("/live", "").await.status, 200, "others are answered");
    all.clear();
    let mut mailboxes = Vec::new();
    while let Ok(mailbox) = listeners.try_recv() {
        mailboxes.push(mailbox);
    }
    while server.get("/api/v1/events?series=no/such/one", "").await.status == 503 {
        mailboxes.iter().for_each(|mailbox| mailbox.put_forecast(b"{}"));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn events_end_when_serving_does() {
    let (engine, _listeners, _) = lively(1);
    let server = Server::start(None, engine).await;
    let mut one = Listener::connect(&server, &format!("series={KEY}")).await;
    let mut all = Listener::connect(&server, "").await;
    server.stop.send(true).unwrap();
    // The last chunk: they were ended, not cut off.
    one.until("0\r\n\r\n").await;
    all.until("0\r\n\r\n").await;
    server.served.await.unwrap().unwrap();
}
