//! Payloads as each ecosystem publishes them, through a real broker into the store.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use vidente_tests::{Daemon, Database, Feed, Metrics, Rig, Settings, Store, Subscriber};

/// 2026-11-23T10:00:00Z, in seconds.
const T: i64 = 1_795_428_000;

struct Case {
    rig: Rig,
    settings: Settings,
    daemon: Daemon,
}

impl Case {
    fn new(stream: &str) -> Result<Case> {
        let rig = Rig::new(Store::Sqlite)?;
        let rest = format!("[[stream]]\nname = \"s\"\n{stream}\n[training]\nevery = \"off\"\n");
        let settings = Settings { rest, ..Settings::climate() };
        let daemon = rig.daemon(&settings)?;
        Ok(Case { rig, settings, daemon })
    }

    fn publish(&self, topic: &str, payload: impl AsRef<[u8]>) -> Result<()> {
        Feed::message(&self.rig.broker, topic, payload.as_ref(), false)
    }

    /// Waits until so many readings were stored and rejected, and no more were received.
    fn counted(&mut self, stored: u32, rejected: u32) -> Result<Metrics> {
        let (stored, rejected) = (f64::from(stored), f64::from(rejected));
        let metrics = self
            .daemon
            .wait_metrics("all readings", |m| m.received() >= stored + rejected && m.stored() >= stored)?;
        assert_eq!(
            (metrics.stored(), metrics.rejected(None)),
            (stored, rejected),
            "{:?}",
            metrics.rejections()
        );
        assert_eq!(metrics.received(), stored + rejected);
        Ok(metrics)
    }

    fn stop(mut self) -> Result<Kept> {
        self.daemon.stop()?;
        Ok(Kept { database: self.rig.database(&self.settings)?, _rig: self.rig })
    }
}

/// The store after a run.
struct Kept {
    database: Database,
    _rig: Rig,
}

impl Kept {
    /// All readings: key, value, and seconds since [`T`].
    fn readings(&self) -> Result<Vec<(String, f64, i64)>> {
        let time = self.database.micros("r.time");
        let rows: Vec<(String, f64, i64)> = self.database.rows(&format!(
            "select s.key, r.value, {time} from readings r join series s on s.id = r.series_id order by s.key, r.time"
        ))?;
        Ok(rows.into_iter().map(|(key, value, time)| (key, value, time / 1_000_000 - T)).collect())
    }

    /// Labels and field of a series.
    fn series(&self, key: &str) -> Result<(serde_json::Value, String)> {
        let rows: Vec<(String, String)> =
            self.database.rows(&format!("select labels, field from series where key = '{key}'"))?;
        let (labels, field) = rows.into_iter().next().with_context(|| format!("no series {key}"))?;
        Ok((serde_json::from_str(&labels)?, field))
    }
}

fn readings(expected: &[(&str, f64, i64)]) -> Vec<(String, f64, i64)> {
    expected.iter().map(|(key, value, time)| ((*key).to_owned(), *value, *time)).collect()
}

fn hex(text: &str) -> Result<Vec<u8>> {
    (0..text.len())
        .step_by(2)
        .map(|at| Ok(u8::from_str_radix(text.get(at..at + 2).context("odd")?, 16)?))
        .collect()
}

#[test]
fn tasmota() -> Result<()> {
    let mut case =
        Case::new("topic = \"tele/{device}/SENSOR\"\npayload = \"tasmota\"\nzone = \"Europe/Berlin\"\n")?;
    case.publish(
        "tele/plug1/SENSOR",
        r#"{"Time":"2026-11-23T11:00:00","DS18B20":{"Id":"0316A279BDFF","Temperature":20.6},"TempUnit":"C"}"#,
    )?;
    case.publish(
        "tele/plug1/SENSOR",
        r#"{"Time":"2026-11-23T11:05:00","DS18B20":{"Id":"0316A279BDFF","Temperature":20.8},"TempUnit":"C"}"#,
    )?;
    // In summer an hour lies between.
    case.publish(
        "tele/plug2/SENSOR",
        r#"{"Time":"2026-07-01T12:00:00","Switch1":"OFF","ENERGY":{"Power":42,"Today":0.5}}"#,
    )?;
    // A sensor that does not answer; a device that has not asked for the time yet.
    case.publish("tele/plug1/SENSOR", r#"{"Time":"2026-11-23T11:10:00","DS18B20":{"Temperature":null}}"#)?;
    case.publish("tele/plug1/SENSOR", r#"{"Time":"1970-01-01T00:00:09","DS18B20":{"Temperature":20.8}}"#)?;
    let metrics = case.counted(5, 1)?;
    assert_eq!(metrics.rejected(Some("bad_time")), 1.0);
    // The unit is among the labels that the API shows.
    let shown = case.daemon.json("/api/v1/series")?;
    assert_eq!(shown[0]["key"], "s/plug1/DS18B20.Temperature");
    assert_eq!(shown[0]["labels"], serde_json::json!({"device": "plug1", "unit": "C"}));
    assert_eq!(shown[0]["last"]["time"], "2026-11-23T10:05:00Z");
    let kept = case.stop()?;
    let july = 1_782_900_000 - T;
    assert_eq!(
        kept.readings()?,
        readings(&[
            ("s/plug1/DS18B20.Temperature", 20.6, 0),
            ("s/plug1/DS18B20.Temperature", 20.8, 300),
            ("s/plug2/ENERGY.Power", 42.0, july),
            ("s/plug2/ENERGY.Today", 0.5, july),
            ("s/plug2/Switch1", 0.0, july),
        ])
    );
    let (labels, field) = kept.series("s/plug1/DS18B20.Temperature")?;
    assert_eq!(labels, serde_json::json!({"device": "plug1", "unit": "C"}));
    assert_eq!(field, "DS18B20.Temperature");
    Ok(())
}

#[test]
fn zigbee2mqtt() -> Result<()> {
    let mut case = Case::new("topic = \"zigbee2mqtt/{name...}\"\npayload = \"zigbee2mqtt\"\n")?;
    for (topic, payload) in [
        ("bridge/state", r#"{"state":"online"}"#),
        ("bridge/logging", r#"{"level":"info","message":"1"}"#),
        ("living room/window/availability", r#"{"state":"online"}"#),
        ("living room/lamp/set", r#"{"state":"ON","brightness":254}"#),
        ("living room/lamp/get", r#"{"state":""}"#),
        ("hall/remote", r#"{"action":"single","last_seen":"2026-11-23T11:00:00+01:00"}"#),
    ] {
        case.publish(&format!("zigbee2mqtt/{topic}"), payload)?;
    }
    case.publish(
        "zigbee2mqtt/living room/window",
        r#"{"battery":97,"contact":true,"device_temperature":null,"last_seen":"2026-11-23T11:00:00+01:00",
            "update":{"installed_version":16777241,"latest_version":16777241,"state":"idle"}}"#,
    )?;
    // What was kept from before is published again when something else asks: it is no reading twice.
    case.publish(
        "zigbee2mqtt/living room/window",
        r#"{"battery":97,"contact":true,"last_seen":"2026-11-23T11:00:00+01:00"}"#,
    )?;
    case.publish("zigbee2mqtt/living room/lamp", r#"{"state":"ON","last_seen":1795428060000}"#)?;
    case.publish("zigbee2mqtt/living room/lamp", r#"{"state":"ON","#)?;
    let metrics = case.counted(3, 3)?;
    assert_eq!(metrics.rejected(Some("duplicate")), 2.0);
    assert_eq!(metrics.rejected(Some("unparseable")), 1.0);
    let kept = case.stop()?;
    assert_eq!(
        kept.readings()?,
        readings(&[
            ("s/living room/lamp/state", 1.0, 60),
            ("s/living room/window/battery", 97.0, 0),
            ("s/living room/window/contact", 1.0, 0),
        ])
    );
    let labels = kept.series("s/living room/lamp/state")?.0;
    assert_eq!(labels, serde_json::json!({"name": "living room/lamp"}));
    Ok(())
}

#[test]
fn home_assistant() -> Result<()> {
    let mut case =
        Case::new("topic = \"homeassistant/{domain}/{entity}/state\"\npayload = \"homeassistant\"\n")?;
    for (topic, payloads) in [
        ("sensor/outdoor", &["unavailable", "4.5", "unknown", "", "none", "4.75"][..]),
        ("binary_sensor/door", &["on", "off"][..]),
        ("weather/home", &["sunny"][..]),
    ] {
        for payload in payloads {
            case.publish(&format!("homeassistant/{topic}/state"), payload)?;
        }
    }
    let metrics = case.counted(4, 1)?;
    assert_eq!(metrics.rejected(Some("not_a_number")), 1.0);
    let kept = case.stop()?;
    let values: Vec<_> = kept.readings()?.into_iter().map(|(key, value, _)| (key, value)).collect();
    assert_eq!(
        values,
        [
            ("s/binary_sensor/door/value", 1.0),
            ("s/binary_sensor/door/value", 0.0),
            ("s/sensor/outdoor/value", 4.5),
            ("s/sensor/outdoor/value", 4.75),
        ]
        .map(|(key, value)| (key.to_owned(), value))
    );
    Ok(())
}

#[test]
fn influx() -> Result<()> {
    let mut case = Case::new(
        "topic = \"telegraf/{host}/{plugin}\"\npayload = \"influx\"\n[[stream]]\nname = \"ms\"\n\
         topic = \"lines/{site}\"\npayload = \"influx\"\nprecision = \"ms\"\nfields = [\"temp\"]\n",
    )?;
    // As Telegraf's MQTT output batches them.
    case.publish(
        "telegraf/web1/cpu",
        "cpu,cpu=cpu0,host=web1 usage_idle=98.5,usage_user=1.5 1795428000000000000\n\
         cpu,cpu=cpu1,host=web1 usage_idle=97 1795428000000000000\n\
         system,host=web1 uptime=86400i,uptime_format=\"1 day, 0:00\" 1795428010000000000\n",
    )?;
    case.publish(
        "telegraf/web1/cpu",
        "cpu,host=web1,cpu=cpu1 usage_idle=96 1795428010000000000\ncpu oops\n",
    )?;
    case.publish(
        "lines/hall",
        "m,room=a\\ b temp=20.5,hum=40 1795428000250\nm,room=a\\ b hum=41 1795428001250",
    )?;
    let metrics = case.counted(6, 1)?;
    assert_eq!(metrics.rejected(Some("unparseable")), 1.0);
    let kept = case.stop()?;
    assert_eq!(
        kept.readings()?,
        readings(&[
            ("ms/hall/m/room=a b/temp", 20.5, 0),
            ("s/web1/cpu/cpu/cpu=cpu0/host=web1/usage_idle", 98.5, 0),
            ("s/web1/cpu/cpu/cpu=cpu0/host=web1/usage_user", 1.5, 0),
            ("s/web1/cpu/cpu/cpu=cpu1/host=web1/usage_idle", 97.0, 0),
            ("s/web1/cpu/cpu/cpu=cpu1/host=web1/usage_idle", 96.0, 10),
            ("s/web1/cpu/system/host=web1/uptime", 86400.0, 10),
        ])
    );
    let (labels, field) = kept.series("s/web1/cpu/cpu/cpu=cpu1/host=web1/usage_idle")?;
    let expected = serde_json::json!({"host": "web1", "plugin": "cpu", "measurement": "cpu", "cpu": "cpu1"});
    assert_eq!((labels, field.as_str()), (expected, "usage_idle"));
    Ok(())
}

/// What the npm package `sparkplug-payload` 1.0.3 encodes: `bdSeq` 3, `Node Control/Rebirth`, and
/// `Supply/Voltage` (alias 1, Float) 24.5 at [`T`]; number 0.
const NBIRTH: &str = "0880c2e4bea034120b0a05626453657120085803121a0a144e6f646520436f6e74726f6c2f52656269727468\
    200b700012200a0e537570706c792f566f6c7461676510011880c2e4bea0342009650000c4411800";
/// `Speed` (alias 10, Int32, `engUnit` rpm) -1500, `Running` (11) true, `Serial` (12, a text); number 1.
const DBIRTH: &str = "0880c2e4bea034122c0a055370656564100a1880c2e4bea03420034a120a07656e67556e69741207080c42037270\
    6d50a4f4ffff0f12160a0752756e6e696e67100b1880c2e4bea034200b700112180a0653657269616c100c1880c2e4bea034200c7a03\
    6d2d311801";
/// Alias 1: 24.25, a minute later; number 2.
const NDATA: &str = "08e096e8bea0341210100118e096e8bea0342009650000c2411802";
/// Alias 10: -1480, alias 11: false; number 3.
const DDATA: &str = "08e096e8bea0341211100a18e096e8bea034200350b8f4ffff0f120d100b18e096e8bea034200b70001803";
/// Alias 1: 24.75, two minutes later; number 9, so some are missing before it.
const AFTER_A_GAP: &str = "08c0ebebbea0341210100118c0ebebbea0342009650000c6411809";

#[test]
fn sparkplug() -> Result<()> {
    let mut case = Case::new("topic = \"spBv1.0/{group}/{rest...}\"\npayload = \"sparkplug\"\n")?;
    let commands = Subscriber::new(&case.rig.broker, "spBv1.0/+/NCMD/#")?;
    // The node was born before anybody listened.
    case.publish("spBv1.0/plant/NDATA/edge", hex(NDATA)?)?;
    let command = commands.wait_for(1)?.remove(0);
    assert_eq!((command.topic.as_str(), command.retained), ("spBv1.0/plant/NCMD/edge", false));
    let metric = [&b"\x0a\x14Node Control/Rebirth"[..], &[0x20, 11, 0x70, 1]].concat();
    ensure!(command.payload.windows(metric.len()).any(|part| part == metric), "{:?}", command.payload);
    // Which it obeys.
    case.publish("spBv1.0/plant/NBIRTH/edge", hex(NBIRTH)?)?;
    case.publish("spBv1.0/plant/DBIRTH/edge/motor", hex(DBIRTH)?)?;
    case.publish("spBv1.0/plant/NDATA/edge", hex(NDATA)?)?;
    case.publish("spBv1.0/plant/DDATA/edge/motor", hex(DDATA)?)?;
    case.publish("spBv1.0/STATE/scada", r#"{"online":true,"timestamp":1795428000000}"#)?;
    case.publish("spBv1.0/plant/NDATA/edge", hex(AFTER_A_GAP)?)?;
    case.publish("spBv1.0/plant/NDATA/edge", "no protobuf")?;
    let metrics = case.counted(6, 3)?;
    assert_eq!(metrics.rejected(Some("no_birth")), 2.0);
    assert_eq!(metrics.rejected(Some("unparseable")), 1.0);
    // Asked a moment ago, so not again.
    assert_eq!(commands.count(), 1);
    let kept = case.stop()?;
    assert_eq!(
        kept.readings()?,
        readings(&[
            ("s/plant/edge/Supply.Voltage", 24.5, 0),
            ("s/plant/edge/Supply.Voltage", 24.25, 60),
            ("s/plant/edge/motor/Running", 1.0, 0),
            ("s/plant/edge/motor/Running", 0.0, 60),
            ("s/plant/edge/motor/Speed", -1500.0, 0),
            ("s/plant/edge/motor/Speed", -1480.0, 60),
        ])
    );
    let labels = kept.series("s/plant/edge/motor/Speed")?.0;
    let expected = serde_json::json!({"group": "plant", "node": "edge", "device": "motor", "unit": "rpm"});
    assert_eq!(labels, expected);
    Ok(())
}

const CBOR_NUMBER: &str =
    "a3627473c11a6b040ea06b74656d7065726174757265fb403580000000000064646f6f72a2646f70656ef5626964626137";
const CBOR_TEXT: &str = "a3627473c074323032362d31312d32335431303a30313a30305a6b74656d7065726174757265fb4035c000000000\
    0064646f6f72a2646f70656ef4626964626137";

#[test]
fn cbor() -> Result<()> {
    let mut case = Case::new("topic = \"cbor/{device}\"\npayload = \"cbor\"\ntime = \"ts\"\n")?;
    // As Python's cbor2 writes `{"ts": …, "temperature": 21.5, "door": {"open": True, "id": "a7"}}`, with the
    // time as a number and as a text.
    case.publish("cbor/a", hex(CBOR_NUMBER)?)?;
    case.publish("cbor/a", hex(CBOR_TEXT)?)?;
    case.publish("cbor/a", [0xa1, 0x61])?;
    let metrics = case.counted(4, 1)?;
    assert_eq!(metrics.rejected(Some("unparseable")), 1.0);
    let expected = readings(&[
        ("s/a/door.open", 1.0, 0),
        ("s/a/door.open", 0.0, 60),
        ("s/a/temperature", 21.5, 0),
        ("s/a/temperature", 21.75, 60),
    ]);
    assert_eq!(case.stop()?.readings()?, expected);
    Ok(())
}

#[test]
fn compressed() -> Result<()> {
    let mut case = Case::new("topic = \"packed/{device}\"\ntime = \"ts\"\n")?;
    let body = |minute: i64| format!("{{\"v\":{minute}.5,\"ts\":{}}}", T + 60 * minute).into_bytes();
    let gzip = |body: &[u8]| -> Result<Vec<u8>> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(body)?;
        Ok(encoder.finish()?)
    };
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    zlib.write_all(&body(1))?;
    case.publish("packed/a", gzip(&body(0))?)?;
    case.publish("packed/a", zlib.finish()?)?;
    case.publish("packed/a", body(2))?;
    // A hundred megabytes of one reading, a reading cut off, and one that is not what it says.
    let bomb = gzip(format!("{{\"v\":1,{}\"ts\":{T}}}", " ".repeat(100 << 20)).as_bytes())?;
    ensure!(bomb.len() < 1 << 20);
    case.publish("packed/a", bomb)?;
    let whole = gzip(&body(3))?;
    case.publish("packed/a", whole.get(..whole.len() - 4).context("short")?)?;
    case.publish("packed/a", [0x1f, 0x8b, 8, 0, 1, 2, 3])?;
    case.publish("packed/a", body(4))?;
    let metrics = case.counted(4, 3)?;
    assert_eq!(metrics.rejected(Some("unparseable")), 3.0);
    let expected =
        readings(&[("s/a/v", 0.5, 0), ("s/a/v", 1.5, 60), ("s/a/v", 2.5, 120), ("s/a/v", 4.5, 240)]);
    assert_eq!(case.stop()?.readings()?, expected);
    Ok(())
}
