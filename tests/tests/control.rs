//! Requests over MQTT: what is answered, what is refused, and where no answer goes.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use vidente_tests::{
    Daemon, Feed, Mosquitto, Persistence, Reading, Rig, Settings, Store, Subscriber, WAIT, ask,
    ask_with_login, find_program, wait_until,
};

const SERIES: &str = "climate/hall/dev1/value";

fn code(answer: &Value) -> Result<&str> {
    ensure!(answer["error"].is_string(), "{answer}");
    answer["code"].as_str().context("no code")
}

/// Starts a daemon and waits until it listens to requests, which is no part of being ready.
fn listening(rig: &Rig, settings: &Settings) -> Result<Daemon> {
    let mut daemon = rig.daemon(settings)?;
    daemon.wait_log(&["listening to vidente/request/#"])?;
    Ok(daemon)
}

fn requests(daemon: &Daemon, labels: &[&str]) -> Result<f64> {
    Ok(daemon.metrics()?.sum("vidente_requests_total", labels))
}

#[test]
fn requests_are_answered_on_postgres() -> Result<()> {
    answered(Store::Postgres, "5")
}

#[test]
fn requests_are_answered_on_sqlite_over_mqtt_3() -> Result<()> {
    answered(Store::Sqlite, "3.1.1")
}

fn answered(store: Store, protocol: &'static str) -> Result<()> {
    let rig = Rig::new(store)?;
    let mut daemon = listening(&rig, &Settings { protocol, ..Settings::climate() })?;
    let ask = |kind: &str, body: &Value| ask(&rig.broker, protocol, kind, body);
    assert_eq!(code(&ask("forecast", &json!({ "series": SERIES }))?)?, "unknown_series");
    Feed::run(&rig.broker, 3, 1, 0..40)?;
    daemon.wait_stored(120)?;

    // The forecast is the message of the newest reading.
    let kept = Subscriber::new(&rig.broker, &format!("vidente/forecast/{SERIES}"))?;
    let message = kept.wait_for(1)?[0].json()?;
    assert_eq!(message["origin"], "2026-01-01T00:39:00Z");
    assert_eq!(ask("forecast", &json!({ "series": SERIES }))?, message);

    // The history is what HTTP gives, and a part of it.
    let mut all = daemon.json(&format!("/api/v1/series/{SERIES}?history=10"))?;
    let experts = all.as_object_mut().and_then(|all| all.remove("experts"));
    assert!(experts.is_some_and(|experts| experts.is_array()), "of which it tells besides");
    assert_eq!(ask("history", &json!({ "series": SERIES, "limit": 10 }))?, all);
    let span = json!({"series": SERIES, "from": "2026-01-01T00:10:00Z", "to": "2026-01-01T01:12:00+01:00"});
    let part = ask("history", &span)?;
    let times = |rows: &str, name: &str| -> Vec<String> {
        let rows = part[rows].as_array().into_iter().flatten();
        rows.filter_map(|row| row[name].as_str().map(str::to_owned)).collect()
    };
    let expected = ["2026-01-01T00:10:00Z", "2026-01-01T00:11:00Z", "2026-01-01T00:12:00Z"];
    assert_eq!(times("readings", "time"), expected);
    assert_eq!(times("forecasts", "origin"), expected);

    // Series, in pages.
    let list = ask("series", &json!({ "stream": "climate", "offset": 1, "limit": 1 }))?;
    let last = json!({"time": "2026-01-01T00:39:00Z", "value": message["reading"]["value"],
                      "score": message["reading"]["score"], "anomaly": false});
    let labels = json!({"site": "hall", "device": "dev1"});
    let item = json!({"key": SERIES, "stream": "climate", "labels": labels, "last": last});
    assert_eq!(list, json!({"total": 3, "offset": 1, "series": [item]}));
    assert_eq!(ask("series", &json!({ "search": "DEV2" }))?["total"], 1);
    assert_eq!(ask("series", &json!({ "stream": "other" }))?, json!({"total": 0, "offset": 0, "series": []}));

    for (kind, body, refusal) in [
        ("history", json!({ "series": "climate/hall/dev9/value" }), "unknown_series"),
        ("history", json!({ "series": SERIES, "from": "yesterday" }), "bad_request"),
        ("forecast", json!({}), "bad_request"),
        ("feedback", json!({ "series": SERIES, "anomaly": false }), "nothing_remembered"),
        (
            "feedback",
            json!({ "series": SERIES, "time": "2026-01-01T00:20:00Z", "anomaly": true }),
            "nothing_remembered",
        ),
        ("restart", json!({}), "unknown_request"),
    ] {
        assert_eq!(code(&ask(kind, &body)?)?, refusal, "{kind} {body}");
    }
    assert_eq!(requests(&daemon, &["outcome=\"answered\""])?, 6.0);
    assert_eq!(requests(&daemon, &["request=\"unknown\"", "outcome=\"unknown_request\""])?, 1.0);
    let metrics = daemon.metrics()?;
    assert_eq!((metrics.received(), metrics.rejected(None)), (120.0, 0.0), "a request is no reading");
    daemon.stop()
}

/// Publishes requests, each a line, that ask for their answers on a topic.
fn flood(broker: &Mosquitto, kind: &str, topic: &str, bodies: &[String]) -> Result<()> {
    let mut child = Command::new(find_program(&["mosquitto_pub"], "mosquitto-clients")?)
        .args(["-h", "127.0.0.1", "-p", &broker.port().to_string(), "-V", "mqttv5", "-q", "1", "-l"])
        .args(["-t", &format!("vidente/request/{kind}"), "-D", "publish", "response-topic", topic])
        .stdin(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("no input")?.write_all((bodies.join("\n") + "\n").as_bytes())?;
    ensure!(child.wait()?.success(), "mosquitto_pub failed");
    Ok(())
}

/// Where a stream takes everything in, requests are not, and neither are answers; none goes where it would be.
#[test]
fn no_answer_is_taken_for_a_reading_a_forecast_or_a_request() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let settings = Settings {
        rest: "[[stream]]\nname = \"all\"\ntopic = \"{all...}\"\n[training]\nevery = \"off\"\n".to_owned(),
        ..Settings::climate()
    };
    let mut daemon = listening(&rig, &settings)?;
    let heard = Subscriber::new(&rig.broker, "#")?;
    Feed::message(&rig.broker, "in/a", b"{\"v\": 1}", false)?;
    Feed::message(&rig.broker, "in/a", b"{\"v\": 2}", false)?;
    daemon.wait_stored(2)?;
    let forbidden = [
        "in/b",
        "vidente/request/series",
        "vidente/request/forecast",
        "vidente/forecast/all/in/a/v",
        "vidente/anomaly/all/in/a/v",
        "vidente/problem/all/in/a/v",
        "vidente/status",
        "vidente/response/",
        "$SYS/broker/uptime",
    ];
    let body = json!({ "series": "all/in/a/v" }).to_string();
    for topic in forbidden {
        flood(&rig.broker, "forecast", topic, std::slice::from_ref(&body))?;
        let said = json!({ "series": "all/in/a/v", "response_topic": topic }).to_string();
        Feed::message(&rig.broker, "vidente/request/forecast", said.as_bytes(), false)?;
    }
    // Nowhere; as one that the broker keeps; and on topics that no message can have.
    Feed::message(&rig.broker, "vidente/request/forecast", body.as_bytes(), false)?;
    Feed::message(&rig.broker, "vidente/request/forecast", body.as_bytes(), true)?;
    for topic in ["a/+", "a/#", "", "a\u{0}b"] {
        let said = json!({ "series": "all/in/a/v", "response_topic": topic }).to_string();
        Feed::message(&rig.broker, "vidente/request/forecast", said.as_bytes(), false)?;
    }
    let forbidden = (2 * forbidden.len() + 4) as f64;
    daemon.wait_metrics("the refusals", |m| {
        let outcome = |label: &str| m.sum("vidente_requests_total", &[&format!("outcome=\"{label}\"")]);
        outcome("forbidden_response_topic") == forbidden && outcome("no_response_topic") == 2.0
    })?;
    let before = heard.count();
    let answer = ask(&rig.broker, "5", "forecast", &json!({ "series": "all/in/a/v" }))?;
    assert_eq!(answer["reading"]["value"], 2.0);
    let after = &heard.messages()[before..];
    assert!(after.iter().all(|m| m.topic.starts_with("vidente/re")), "{after:?}");
    let metrics = daemon.metrics()?;
    assert_eq!((metrics.received(), metrics.rejected(None)), (2.0, 0.0));
    daemon.stop()
}

/// What a reload changes counts for requests from then on.
#[test]
fn a_reload_counts_for_requests_too() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let settings = Settings::climate();
    let mut daemon = listening(&rig, &settings)?;
    Feed::run(&rig.broker, 2, 1, 0..3)?;
    daemon.wait_stored(6)?;
    let list = || ask(&rig.broker, "5", "series", &json!({}));
    assert_eq!(list()?["total"], 2);

    let other = "[[stream]]\nname = \"other\"\ntopic = \"in/{device}\"\n";
    let replaced = |text: String| text.replace("[[stream]]", &format!("{other}[[stream]]"));
    rig.reload(&settings, &mut daemon, replaced, &["reloaded: stream \"other\" is new"])?;
    daemon.wait_log(&["subscribed to in/+"])?;
    // A topic that would have been fine before.
    let said = json!({ "series": SERIES, "response_topic": "in/answer" }).to_string();
    Feed::message(&rig.broker, "vidente/request/forecast", said.as_bytes(), false)?;
    daemon.wait_metrics("the refusal", |m| {
        m.sum("vidente_requests_total", &["outcome=\"forbidden_response_topic\""]) == 1.0
    })?;
    Feed::message(&rig.broker, "in/a", b"1", false)?;
    daemon.wait_stored(7)?;
    assert_eq!(list()?["total"], 3);

    let alone = |text: String| match text.split_once(other) {
        Some((before, _)) => format!("{before}{other}"),
        None => text,
    };
    rig.reload(&settings, &mut daemon, alone, &["stream \"climate\" is gone"])?;
    let listed = list()?;
    assert_eq!((&listed["total"], &listed["series"][0]["stream"]), (&json!(1), &json!("other")));
    for (kind, body) in [
        ("forecast", json!({ "series": SERIES })),
        ("feedback", json!({ "series": SERIES, "anomaly": false })),
    ] {
        assert_eq!(code(&ask(&rig.broker, "5", kind, &body)?)?, "unknown_series", "{kind}");
    }
    // What is stored of it is still told.
    let history = ask(&rig.broker, "5", "history", &json!({ "series": SERIES }))?;
    assert_eq!(history["readings"].as_array().map(Vec::len), Some(3));
    daemon.stop()
}

/// A flood of requests is answered as far as they are taken, refused beyond that, counted, and delays no reading.
#[test]
fn what_is_too_much_or_too_large_is_refused_and_counted() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let settings = Settings { mqtt: "max_packet_bytes = 20000".to_owned(), ..Settings::climate() };
    let mut daemon = listening(&rig, &settings)?;
    Feed::run(&rig.broker, 2, 1, 0..200)?;
    daemon.wait_stored(400)?;
    let answers = Subscriber::new(&rig.broker, "answers")?;
    let body = json!({ "series": SERIES, "limit": 20 }).to_string();
    flood(&rig.broker, "history", "answers", &vec![body; 3000])?;
    Feed::run(&rig.broker, 2, 1, 200..210)?;
    daemon.wait_stored(420)?;
    let counted = |m: &vidente_tests::Metrics| m.sum("vidente_requests_total", &["request=\"history\""]);
    let metrics = daemon.wait_metrics("all requests", |m| counted(m) >= 3000.0)?;
    assert_eq!(counted(&metrics), 3000.0);
    let outcome = |label: &str| metrics.sum("vidente_requests_total", &[&format!("outcome=\"{label}\"")]);
    assert_eq!(outcome("answered") + outcome("busy"), 3000.0);
    assert!(outcome("answered") >= 64.0 && outcome("busy") > 0.0, "{:?}", metrics.0);
    wait_until("the answers", WAIT, || {
        let full =
            answers.messages().iter().filter(|m| m.json().is_ok_and(|j| j["readings"].is_array())).count();
        Ok(full as f64 == outcome("answered"))
    })?;

    let large = json!({ "series": "x".repeat(70_000) }).to_string();
    assert_eq!(code(&ask_with_login(&rig.broker, "5", "forecast", &large, None)?)?, "too_large");
    let much = ask(&rig.broker, "5", "history", &json!({ "series": SERIES, "limit": 200 }))?;
    assert_eq!(code(&much)?, "too_large");
    let broken = ask_with_login(&rig.broker, "5", "forecast", "{", None)?;
    assert_eq!(code(&broken)?, "bad_request");
    assert!(ask(&rig.broker, "5", "forecast", &json!({ "series": SERIES }))?["steps"].is_array());
    daemon.stop()
}

/// The broker takes less than the daemon is allowed to send, and keeps a request that it hands over at each start.
#[test]
fn what_the_broker_does_not_take_is_too_large_and_what_it_keeps_is_not_answered() -> Result<()> {
    let mut rig = Rig::new(Store::Sqlite)?;
    rig.broker = Mosquitto::start_with(Persistence::Memory, "max_packet_size 4000")?;
    let settings = Settings::climate();
    let mut daemon = listening(&rig, &settings)?;
    Feed::run(&rig.broker, 2, 1, 0..200)?;
    daemon.wait_stored(400)?;
    let history = |limit: u64| ask(&rig.broker, "5", "history", &json!({ "series": SERIES, "limit": limit }));
    assert_eq!(code(&history(200)?)?, "too_large");
    assert!(history(2)?["readings"].is_array());
    assert_eq!(requests(&daemon, &["outcome=\"too_large\""])?, 1.0);
    assert!(!daemon.log().contains("is dropped"), "{}", daemon.log());

    let answers = Subscriber::new(&rig.broker, "answers")?;
    let kept = json!({ "series": SERIES, "response_topic": "answers" }).to_string();
    Feed::message(&rig.broker, "vidente/request/forecast", kept.as_bytes(), true)?;
    // As it comes it is a request like any other.
    answers.wait_for(1)?;
    daemon.stop()?;
    let mut daemon = listening(&rig, &settings)?;
    daemon.wait_metrics("the kept request", |m| {
        m.sum("vidente_requests_total", &["outcome=\"retained\""]) == 1.0
    })?;
    assert!(history(2)?["readings"].is_array());
    assert_eq!((answers.count(), requests(&daemon, &[])?), (1, 2.0));
    daemon.stop()
}

#[test]
fn a_broker_that_comes_back_is_listened_to_again() -> Result<()> {
    let mut rig = Rig::new(Store::Sqlite)?;
    let mut daemon = listening(&rig, &Settings::climate())?;
    Feed::run(&rig.broker, 2, 1, 0..3)?;
    daemon.wait_stored(6)?;
    rig.broker.restart()?;
    daemon.wait_log(&["control connection", "is back"])?;
    wait_until("an answer", WAIT, || {
        Ok(ask(&rig.broker, "5", "forecast", &json!({ "series": SERIES }))?["reading"].is_object())
    })?;
    daemon.stop()
}

#[test]
fn without_control_nobody_listens() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let settings = Settings { mqtt: "control = false".to_owned(), ..Settings::climate() };
    let mut daemon = rig.daemon(&settings)?;
    let body = json!({ "series": Reading { series: 0, position: 0 }.value() }).to_string();
    Feed::message(&rig.broker, "vidente/request/forecast", body.as_bytes(), false)?;
    Feed::run(&rig.broker, 1, 1, 0..2)?;
    daemon.wait_stored(2)?;
    assert_eq!(requests(&daemon, &[])?, 0.0);
    assert!(!daemon.log().contains("control connection"), "{}", daemon.log());
    daemon.stop()
}
