//! Home Assistant finds every series by itself, and what it is told stays true. What a real one makes of it is seen by
//! `tests/homeassistant/run`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use vidente_tests::{Daemon, Feed, Mosquitto, Rig, Settings, Store, Subscriber, WAIT, wait_until};

const BEGIN: u64 = 1_767_225_600;
const DEVICES: &str = "homeassistant/device/+/config";

fn settings(more: &str) -> Settings {
    Settings {
        rest: format!(
            "[[stream]]\nname = \"s\"\ntopic = \"in/{{device}}/{{unit}}\"\nfields = [\"v\"]\ntime = \"ts\"\nhorizon = 3\n\
             [training]\nevery = \"off\"\n[anomaly]\nsilence_after = 3\n[homeassistant]\ndiscovery = true\n{more}"
        ),
        ..Settings::climate()
    }
}

fn publish(rig: &Rig, device: &str, seconds: std::ops::Range<u64>) -> Result<()> {
    seconds.into_iter().try_for_each(|second| {
        let payload = format!("{{\"v\":{}.5,\"ts\":{}}}", second % 7, BEGIN + second);
        Feed::message(&rig.broker, &format!("in/{device}/°C"), payload.as_bytes(), false)
    })
}

/// What the broker keeps of a filter, by topic, once it fulfils a condition.
fn kept(
    broker: &Mosquitto,
    filter: &str,
    condition: impl Fn(&BTreeMap<String, Value>) -> bool,
) -> Result<BTreeMap<String, Value>> {
    let mut last = BTreeMap::new();
    wait_until(&format!("what is kept of {filter}"), WAIT, || {
        // A new subscription each time, as after Home Assistant's start.
        let heard = Subscriber::new(broker, filter)?;
        std::thread::sleep(std::time::Duration::from_millis(200));
        last = heard.messages().iter().map(|m| Ok((m.topic.clone(), m.json()?))).collect::<Result<_>>()?;
        Ok(condition(&last))
    })
    .with_context(|| format!("kept: {last:#?}"))?;
    Ok(last)
}

/// Announcements that are kept, by the names of the devices.
fn devices(broker: &Mosquitto, count: usize) -> Result<BTreeMap<String, (String, Value)>> {
    let kept = kept(broker, DEVICES, |kept| kept.len() == count)?;
    let name = |config: &Value| config["device"]["name"].as_str().map(str::to_owned);
    kept.into_iter().map(|(topic, config)| Ok((name(&config).context("no name")?, (topic, config)))).collect()
}

fn problem(broker: &Mosquitto, key: &str, is: bool) -> Result<Value> {
    let topic = format!("vidente/problem/{key}");
    let kept = kept(broker, &topic, |kept| kept.get(&topic).is_some_and(|p| p["problem"] == is))?;
    Ok(kept[&topic].clone())
}

#[test]
fn series_are_announced_with_templates_that_fit_their_messages() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let mut daemon = rig.daemon(&settings(""))?;
    publish(&rig, "a", 0..1)?;
    daemon.wait_stored(1)?;
    // After one reading a series cannot be silent.
    let state = problem(&rig.broker, "s/a/°C/v", false)?;
    assert_eq!(state, json!({"problem": false, "value_since": null, "silence_since": null}));
    publish(&rig, "a", 1..12)?;
    publish(&rig, "b", 0..2)?;
    daemon.wait_stored(14)?;
    let devices = devices(&rig.broker, 3)?;

    let (topic, hub) = &devices["Vidente"];
    let id = hub.pointer("/device/identifiers/0").and_then(Value::as_str).context("id")?;
    assert_eq!(topic, &format!("homeassistant/device/{id}/config"));
    let status = &hub["components"]["status"];
    assert_eq!(
        (&status["platform"], &status["device_class"]),
        (&json!("binary_sensor"), &json!("connectivity"))
    );
    assert_eq!((&status["state_topic"], &status["payload_on"]), (&json!("vidente/status"), &json!("online")));

    let (topic, config) = &devices["s/a/°C/v"];
    assert_eq!(
        topic,
        &format!(
            "homeassistant/device/{}/config",
            config["device"]["identifiers"][0].as_str().context("id")?
        )
    );
    assert_eq!(config["device"]["via_device"], *id);
    assert_eq!(config["availability_topic"], "vidente/status");
    assert!(config["origin"]["name"].is_string(), "Home Assistant asks for it");
    let (forecast, anomaly) = (&config["components"]["forecast"], &config["components"]["anomaly"]);
    assert_eq!((&forecast["platform"], &forecast["unit_of_measurement"]), (&json!("sensor"), &json!("°C")));
    assert_eq!(
        (&anomaly["platform"], &anomaly["device_class"]),
        (&json!("binary_sensor"), &json!("problem"))
    );
    assert_ne!(forecast["unique_id"], anomaly["unique_id"]);

    // What the templates take is there.
    assert_eq!(forecast["state_topic"], "vidente/forecast/s/a/°C/v");
    let body = Subscriber::new(&rig.broker, "vidente/forecast/s/a/#")?.wait_for(1)?[0].json()?;
    assert!(forecast["value_template"].as_str().is_some_and(|t| t.contains("value_json.steps[0].q50")));
    let step = &body["steps"][0];
    let names = ["time", "mean", "q05", "q10", "q25", "q50", "q75", "q90", "q95"];
    assert!(names.iter().all(|name| !step[*name].is_null()), "{body}");
    assert_eq!(anomaly["state_topic"], "vidente/problem/s/a/°C/v");

    // The series stops: it is a problem, also for whoever subscribes later.
    let silent = problem(&rig.broker, "s/a/°C/v", true)?;
    assert_eq!(silent["silence_since"], "2026-01-01T00:00:12Z");

    // It is over with the next reading.
    publish(&rig, "a", 60..61)?;
    problem(&rig.broker, "s/a/°C/v", false)?;
    daemon.stop()
}

#[test]
fn an_abnormal_value_is_a_problem_while_it_lasts() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let mut daemon = rig.daemon(&settings(""))?;
    publish(&rig, "a", 0..150)?;
    daemon.wait_stored(150)?;
    devices(&rig.broker, 2)?;
    let heard = Subscriber::new(&rig.broker, "vidente/problem/#")?;
    let wild = format!("{{\"v\":900,\"ts\":{}}}", BEGIN + 150);
    Feed::message(&rig.broker, "in/a/°C", wild.as_bytes(), false)?;
    publish(&rig, "a", 151..160)?;
    let since = |since: &str| format!("2026-01-01T00:02:{since}Z");
    wait_until("its end", WAIT, || {
        let states: Vec<Value> = heard.messages().iter().map(|m| m.json()).collect::<Result<_>>()?;
        let began = states.iter().position(|state| state["value_since"] == since("30"));
        Ok(began.is_some_and(|began| states[began..].iter().any(|state| state["value_since"].is_null())))
    })?;
    daemon.stop()
}

fn announced(heard: &Subscriber) -> BTreeSet<String> {
    heard
        .messages()
        .iter()
        .filter(|m| !m.retained && !m.payload.is_empty())
        .map(|m| m.topic.clone())
        .collect()
}

#[test]
fn a_restart_sends_nothing_twice_and_a_birth_everything() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let mut daemon = rig.daemon(&settings(""))?;
    publish(&rig, "a", 0..2)?;
    publish(&rig, "b", 0..2)?;
    daemon.wait_stored(4)?;
    devices(&rig.broker, 3)?;
    daemon.stop()?;

    let heard = Subscriber::new(&rig.broker, DEVICES)?;
    let mut daemon = rig.daemon(&settings(""))?;
    daemon.wait_log(&["announcing to Home Assistant", "series=2"])?;
    publish(&rig, "c", 0..2)?;
    let all = devices(&rig.broker, 4)?;
    wait_until("the new one", WAIT, || Ok(!announced(&heard).is_empty()))?;
    assert_eq!(announced(&heard), [all["s/c/°C/v"].0.clone()].into());

    // Of a kept birth, and of a death, nothing comes.
    Feed::message(&rig.broker, "homeassistant/status", b"offline", false)?;
    Feed::message(&rig.broker, "homeassistant/status", b"online", false)?;
    wait_until("all of them", WAIT, || Ok(announced(&heard).len() == 4))?;
    let topics: BTreeSet<String> = all.into_values().map(|(topic, _)| topic).collect();
    assert_eq!(announced(&heard), topics);
    daemon.stop()
}

#[test]
fn a_broker_that_forgot_everything_is_told_again() -> Result<()> {
    let mut rig = Rig::new(Store::Sqlite)?;
    let mut daemon = rig.daemon(&settings(""))?;
    publish(&rig, "a", 0..2)?;
    daemon.wait_stored(2)?;
    devices(&rig.broker, 2)?;
    rig.broker.restart()?;
    devices(&rig.broker, 2)?;
    problem(&rig.broker, "s/a/°C/v", false)?;
    daemon.stop()
}

fn none_kept(broker: &Mosquitto, filter: &str) -> Result<()> {
    kept(broker, filter, BTreeMap::is_empty).map(drop)
}

#[test]
fn what_is_no_more_is_taken_away() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let more =
        "expire_after = \"1m\"\n[[stream]]\nname = \"t\"\ntopic = \"other/{device}\"\nfields = [\"v\"]\n";
    let mut daemon = rig.daemon(&settings(more))?;
    publish(&rig, "a", 0..2)?;
    Feed::message(&rig.broker, "other/x", b"{\"v\":1}", false)?;
    Feed::message(&rig.broker, "other/x", b"{\"v\":2}", false)?;
    daemon.wait_stored(4)?;
    // Readings of long ago are no reason to let a series expire as long as they come.
    devices(&rig.broker, 3)?;
    problem(&rig.broker, "t/x/v", false)?;
    daemon.stop()?;

    // The one has expired by now, and the stream of the other is no more. What others announce stays.
    Feed::message(
        &rig.broker,
        "homeassistant/device/other/config",
        b"{\"device\":{\"name\":\"other\"}}",
        true,
    )?;
    let mut daemon = rig.daemon(&settings("expire_after = \"1m\"\n"))?;
    let left = devices(&rig.broker, 2)?;
    assert_eq!(left.keys().collect::<Vec<_>>(), ["Vidente", "other"]);
    none_kept(&rig.broker, "vidente/problem/t/#")?;

    // It is back.
    publish(&rig, "a", 70..72)?;
    assert!(devices(&rig.broker, 3)?.contains_key("s/a/°C/v"));
    problem(&rig.broker, "s/a/°C/v", false)?;
    daemon.stop()
}

#[test]
fn a_reload_takes_away_brings_back_and_tells_of_other_topics() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let other = "[[stream]]\nname = \"t\"\ntopic = \"other/{device}\"\nfields = [\"v\"]\n";
    let settings = settings(other);
    let mut daemon = rig.daemon(&settings)?;
    publish(&rig, "a", 0..2)?;
    Feed::message(&rig.broker, "other/x", b"{\"v\":1}", false)?;
    daemon.wait_stored(3)?;
    devices(&rig.broker, 3)?;
    problem(&rig.broker, "t/x/v", false)?;

    let without = |text: String| text.replace(other, "");
    rig.reload(&settings, &mut daemon, without, &["reloaded: stream \"t\" is gone"])?;
    let left = devices(&rig.broker, 2)?;
    assert_eq!(left.keys().collect::<Vec<_>>(), ["Vidente", "s/a/°C/v"]);
    none_kept(&rig.broker, "vidente/problem/t/#")?;
    problem(&rig.broker, "s/a/°C/v", false)?;

    let heard = Subscriber::new(&rig.broker, DEVICES)?;
    let moved = |text: String| format!("{text}{other}[forecast]\ntopic = \"moved/{{series}}\"\n");
    rig.reload(&settings, &mut daemon, moved, &["reloaded: forecast.topic; stream \"t\" is back"])?;
    let back = devices(&rig.broker, 3)?;
    problem(&rig.broker, "t/x/v", false)?;
    wait_until("the other topic", WAIT, || Ok(announced(&heard).len() == 2))?;
    let now = devices(&rig.broker, 3)?;
    for (name, topic) in [("s/a/°C/v", "moved/s/a/°C/v"), ("t/x/v", "moved/t/x/v")] {
        assert_eq!(now[name].1["components"]["forecast"]["state_topic"], topic);
        assert_eq!(now[name].0, back[name].0, "the device is the same");
    }

    // Expiry can be switched on; of the section's other keys that is said which need a restart.
    let on = |text: String| text.replace("discovery = true", "discovery = true\nexpire_after = \"1m\"");
    rig.reload(&settings, &mut daemon, on, &["reloaded: homeassistant.expire_after"])?;
    // Switched off, it takes everything away; to begin anew it has to be started anew.
    let off = |text: String| text.replace("discovery = true", "discovery = false");
    rig.reload(&settings, &mut daemon, off, &["reloaded:", "homeassistant.discovery"])?;
    devices(&rig.broker, 0)?;
    none_kept(&rig.broker, "vidente/problem/#")?;
    publish(&rig, "a", 2..4)?;
    Feed::message(&rig.broker, "homeassistant/status", b"online", false)?;
    let refused = ["reload refused", "homeassistant.discovery: restart the daemon to change that"];
    let on = |text: String| text.replace("discovery = false", "discovery = true");
    rig.reload(&settings, &mut daemon, on, &refused)?;
    daemon.wait_stored(5)?;
    devices(&rig.broker, 0)?;
    daemon.stop()?;
    let mut daemon = rig.daemon(&settings)?;
    devices(&rig.broker, 3)?;
    daemon.stop()
}

fn hostile(daemon: &mut Daemon, rig: &Rig) -> Result<BTreeMap<String, (String, Value)>> {
    let names = [
        "a b",
        "a_b",
        "a-b",
        "ä",
        "ö",
        "{{ 7 * 7 }}",
        "{% set x = 1 %}",
        "\"quoted\\",
        "50%",
        "🌡",
        "$x",
        ".",
        "A B",
    ];
    for name in names {
        publish(rig, name, 0..1)?;
    }
    publish(rig, &"long".repeat(100), 0..1)?;
    publish(rig, &("long".repeat(100) + "er"), 0..1)?;
    daemon.wait_stored(names.len() + 2)?;
    devices(&rig.broker, names.len() + 3)
}

#[test]
fn names_of_all_kinds_make_valid_ids_and_topics() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let mut daemon = rig.daemon(&settings(""))?;
    let devices = hostile(&mut daemon, &rig)?;
    let mut ids = BTreeSet::new();
    for (topic, config) in devices.values() {
        let id = topic.split('/').nth(2).context("no id")?;
        let fit = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        assert!(id.chars().all(fit) && id.len() <= 100, "{id}");
        for component in config["components"].as_object().into_iter().flat_map(|c| c.values()) {
            assert!(
                ids.insert(component["unique_id"].as_str().context("unique_id")?.to_owned()),
                "{component}"
            );
        }
    }
    assert_eq!(ids.len(), 2 * (devices.len() - 1) + 1);
    daemon.stop()
}

/// Home Assistant publishes states below the prefix of its discovery.
#[test]
fn states_below_the_prefix_are_readings_all_the_same() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let settings = Settings {
        rest: "[[stream]]\nname = \"house\"\ntopic = \"homeassistant/{domain}/{entity}/state\"\n\
               payload = \"homeassistant\"\n[training]\nevery = \"off\"\n[homeassistant]\ndiscovery = true\n"
            .to_owned(),
        ..Settings::climate()
    };
    let mut daemon = rig.daemon(&settings)?;
    daemon.wait_log(&["listening to vidente/request/#"])?;
    Feed::message(&rig.broker, "homeassistant/sensor/hall/state", b"21.5", false)?;
    daemon.wait_stored(1)?;
    assert!(devices(&rig.broker, 2)?.contains_key("house/sensor/hall/value"));
    // An answer there would be taken for an announcement.
    let said = json!({ "response_topic": "homeassistant/sensor/forged/config" }).to_string();
    Feed::message(&rig.broker, "vidente/request/series", said.as_bytes(), false)?;
    daemon.wait_metrics("the refusal", |m| {
        m.sum("vidente_requests_total", &["outcome=\"forbidden_response_topic\""]) == 1.0
    })?;
    daemon.stop()
}

#[test]
fn announcements_are_no_readings() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let settings = Settings {
        rest: "[[stream]]\nname = \"all\"\ntopic = \"{all...}\"\n[training]\nevery = \"off\"\n\
               [homeassistant]\ndiscovery = true\nprefix = \"home/discovery\"\n"
            .to_owned(),
        ..Settings::climate()
    };
    let mut daemon = rig.daemon(&settings)?;
    Feed::message(&rig.broker, "in/a", b"{\"v\":1}", false)?;
    daemon.wait_stored(1)?;
    kept(&rig.broker, "home/discovery/device/+/config", |kept| kept.len() == 2)?;
    Feed::message(&rig.broker, "home/discovery/status", b"online", false)?;
    Feed::message(&rig.broker, "in/a", b"{\"v\":2}", false)?;
    let metrics = daemon.wait_stored(2)?;
    assert_eq!((metrics.received(), metrics.rejected(None)), (2.0, 0.0));
    daemon.stop()
}
