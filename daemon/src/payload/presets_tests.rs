//! Messages as the devices and programs of each ecosystem write them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use ciborium::cbor;

use super::*;

/// 2026-11-23T10:00:00Z in microseconds.
const T: i64 = 1_795_428_000_000_000;

struct Stream {
    decoder: Decoder,
    out: Decoded,
}

/// What a message gave: name, value, time and labels of each reading, and the rejections.
type Outcome = (Vec<(String, f64)>, Vec<Rejection>);

impl Stream {
    fn new(keys: &str) -> Stream {
        let text = format!("[[stream]]\nname = 's'\ntopic = 't/{{x...}}'\n{keys}");
        let config = config::Config::parse(&text).unwrap();
        assert_eq!(config.problems(), [""; 0]);
        Stream { decoder: Decoder::new(config.stream.first().unwrap(), 1 << 20), out: Decoded::default() }
    }

    fn read(&mut self, payload: impl AsRef<[u8]>) -> Outcome {
        self.decoder.decode(Arrival { topic: "t/x", payload: payload.as_ref(), at: T }, &mut self.out);
        let name = |field| match field {
            Field::Configured(i) => self.decoder.fields().get(i).unwrap().clone(),
            Field::Leaf(name) => name.to_owned(),
        };
        let readings = self.out.readings().map(|r| (name(r.field), r.value)).collect();
        (readings, self.out.rejections().to_vec())
    }

    fn times(&self) -> Vec<Option<i64>> {
        self.out.readings().map(|r| r.time).collect()
    }

    fn units(&self) -> Vec<Option<String>> {
        self.out
            .readings()
            .map(|r| r.labels().find(|(n, _)| *n == "unit").map(|(_, u)| u.to_owned()))
            .collect()
    }

    fn topic<'t>(&self, topic: &'t str) -> Naming<'t> {
        let pattern = topic::Pattern::parse("zigbee2mqtt/{name...}").unwrap();
        self.decoder.naming(topic, &pattern.matches(topic).unwrap())
    }
}

fn readings(expected: &[(&str, f64)]) -> Outcome {
    (expected.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(), vec![])
}

#[test]
fn tasmota_sensors() {
    let mut s = Stream::new("payload = 'tasmota'\nzone = 'Europe/Berlin'");
    let read = s.read(
        r#"{"Time":"2026-11-23T11:00:00","Switch1":"ON","DS18B20":{"Id":"0316A279BDFF","Temperature":20.6},
            "BME280":{"Temperature":21.4,"Humidity":48.3,"DewPoint":10.0,"Pressure":1003.7},
            "ENERGY":{"TotalStartTime":"2026-01-01T00:00:00","Total":3.185,"Power":42,"Voltage":230},
            "PressureUnit":"hPa","TempUnit":"C"}"#,
    );
    let expected = [
        ("Switch1", 1.0, None),
        ("DS18B20.Temperature", 20.6, Some("C")),
        ("BME280.Temperature", 21.4, Some("C")),
        ("BME280.Humidity", 48.3, None),
        ("BME280.DewPoint", 10.0, Some("C")),
        ("BME280.Pressure", 1003.7, Some("hPa")),
        ("ENERGY.Total", 3.185, None),
        ("ENERGY.Power", 42.0, None),
        ("ENERGY.Voltage", 230.0, None),
    ];
    assert_eq!(read, readings(&expected.map(|(name, value, _)| (name, value))));
    assert_eq!(s.units(), expected.map(|(_, _, unit)| unit.map(str::to_owned)));
    assert_eq!(s.times(), [Some(T); 9]);
    // Units of one message are none of the next.
    s.read(r#"{"Time":"2026-11-23T11:00:00","AM2301":{"Temperature":20.6}}"#);
    assert_eq!(s.units(), [None]);
}

#[test]
fn tasmota_without_a_value_or_a_clock() {
    let mut s = Stream::new("payload = 'tasmota'\nutc_offset = '-03:30'");
    // A sensor that does not answer, and a device that has none.
    for silent in [
        r#"{"Time":"2026-11-23T06:30:00","AM2301":{"Temperature":null}}"#,
        r#"{"Time":"2026-11-23T06:30:00"}"#,
    ] {
        assert_eq!(s.read(silent), readings(&[]), "{silent}");
    }
    assert_eq!(s.read(r#"{"Time":"2026-11-23T06:30:00","Epoch":1,"A":{"B":2}}"#), readings(&[("A.B", 2.0)]));
    assert_eq!(s.times(), [Some(T)]);
    for time in ["1970-01-01T00:00:12", "now", ""] {
        let read = s.read(format!(r#"{{"Time":"{time}","A":{{"B":2,"C":3}}}}"#));
        assert_eq!(read, (vec![], vec![Rejection::BadTime; 2]), "{time}");
    }
    assert_eq!(s.read("Online"), (vec![], vec![Rejection::Unparseable]));
    let mut s = Stream::new(
        "payload = 'tasmota'\nutc_offset = '+01:00'\nfields = ['SI7021.Temperature', 'DS18B20.Temperature']",
    );
    let read = s.read(r#"{"Time":"2026-11-23T11:00:00","DS18B20":{"Temperature":20.6},"TempUnit":"F"}"#);
    assert_eq!(read, readings(&[("DS18B20.Temperature", 20.6)]));
    assert_eq!((s.times(), s.units()), (vec![Some(T)], vec![Some("F".to_owned())]));
    let read = s.read(r#"{"Time":"2026-11-23T11:00:00","DS18B20":{"Temperature":"warm"}}"#);
    assert_eq!(read, (vec![], vec![Rejection::NotANumber]));
}

#[test]
fn zigbee2mqtt_devices() {
    let mut s = Stream::new("payload = 'zigbee2mqtt'");
    let read = s.read(
        r#"{"battery":97,"humidity":null,"temperature":21.84,"contact":false,"state":"ON","action":"on",
            "color":{"x":0.45,"y":0.41},"update":{"installed_version":3,"state":"idle"},"linkquality":120,
            "last_seen":"2026-11-23T11:00:00+01:00"}"#,
    );
    let expected = [
        ("battery", 97.0),
        ("temperature", 21.84),
        ("contact", 0.0),
        ("state", 1.0),
        ("color.x", 0.45),
        ("color.y", 0.41),
        ("linkquality", 120.0),
    ];
    assert_eq!(read, readings(&expected));
    assert_eq!(s.times(), [Some(T); 7]);
    for (seen, time) in
        [("", None), (r#","last_seen":null"#, None), (r#","last_seen":1795428000000"#, Some(T))]
    {
        assert_eq!(s.read(format!(r#"{{"occupancy":true{seen}}}"#)), readings(&[("occupancy", 1.0)]));
        assert_eq!(s.times(), [time], "{seen}");
    }
    let read = s.read(r#"{"occupancy":true,"last_seen":"a while ago"}"#);
    assert_eq!(read, (vec![], vec![Rejection::BadTime]));
    assert_eq!(s.read(r#"{"action":"single"}"#), readings(&[]), "a press is no reading");

    let mut s = Stream::new("payload = 'zigbee2mqtt'\nfields = ['temperature', 'humidity']");
    assert_eq!(s.read(r#"{"temperature":20,"humidity":null}"#), readings(&[("temperature", 20.0)]));
    assert_eq!(s.read(r#"{"occupancy":true}"#), readings(&[]));
}

#[test]
fn zigbee2mqtt_topics() {
    let s = Stream::new("payload = 'zigbee2mqtt'");
    assert_eq!(s.topic("zigbee2mqtt/living room/lamp"), Naming::Captures);
    for topic in
        ["bridge/state", "bridge/devices", "living room/lamp/availability", "lamp/set", "lamp/get/state"]
    {
        assert_eq!(s.topic(&format!("zigbee2mqtt/{topic}")), Naming::Nothing, "{topic}");
    }
    let s = Stream::new("payload = 'tasmota'\nzone = 'UTC'");
    assert_eq!(s.topic("zigbee2mqtt/plug/SENSOR"), Naming::Captures);
    for topic in ["plug/LWT", "plug/INFO1"] {
        assert_eq!(s.topic(&format!("zigbee2mqtt/{topic}")), Naming::Nothing, "{topic}");
    }
}

#[test]
fn home_assistant_states() {
    let mut s = Stream::new("payload = 'homeassistant'");
    for (state, value) in [("21.3", 21.3), ("on", 1.0), ("closed", 0.0)] {
        assert_eq!(s.read(state), readings(&[("value", value)]), "{state}");
    }
    for silent in ["unavailable", "unknown", "none", ""] {
        assert_eq!(s.read(silent), readings(&[]), "{silent}");
    }
    assert_eq!(s.read("sunny"), (vec![], vec![Rejection::NotANumber]));
}

#[test]
fn json_in_a_zone() {
    let mut s = Stream::new("time = 'ts'\nzone = 'Asia/Kolkata'");
    assert_eq!(s.read(r#"{"ts":"2026-11-23 15:30:00.25","v":1}"#), readings(&[("v", 1.0)]));
    assert_eq!(s.times(), [Some(T + 250_000)]);
}

fn packed(value: &ciborium::Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

#[test]
fn cbor_documents() {
    let mut s = Stream::new("payload = 'cbor'\ntime = 'ts'");
    let document = cbor!({
        "ts" => ciborium::Value::Tag(1, Box::new(1_795_428_000.into())),
        "t" => 21.5,
        "on" => true,
        "name" => "hall",
        "none" => null,
        "raw" => ciborium::Value::Bytes(vec![1, 2]),
        "list" => [1, -2],
        7 => 3,
        "m" => {-1 => 18_446_744_073_709_551_615_u64, "a.b" => 1}
    })
    .unwrap();
    let expected = [
        ("t", 21.5),
        ("on", 1.0),
        ("list.0", 1.0),
        ("list.1", -2.0),
        ("7", 3.0),
        ("m.-1", 18_446_744_073_709_551_615.0),
        ("m.a%2Eb", 1.0),
    ];
    assert_eq!(s.read(packed(&document)), readings(&expected));
    assert_eq!(s.times(), [Some(T); 7]);

    let mut s = Stream::new("payload = 'cbor'\nfields = ['v', 'w']");
    // Examples of RFC 8949: a half float, a decimal fraction, a large integer; an array that says no length.
    for (bytes, value) in [
        ("a2 6176 f93e00 6177 01", 1.5),
        ("a2 6176 c48221196ab3 6177 01", 273.15),
        ("a2 6176 c249010000000000000000 6177 01", 18_446_744_073_709_551_616.0),
        ("bf 6176 3901f3 6177 01 ff", -500.0),
    ] {
        assert_eq!(s.read(hex(bytes)), readings(&[("v", value), ("w", 1.0)]), "{bytes}");
    }
    for (bytes, rejections) in [
        ("a2 6176 f97e00 6177 f6", vec![Rejection::NotFinite, Rejection::MissingField]),
        ("a2 6176 6131 6177 80", vec![Rejection::NotANumber; 2]),
        ("a2 6176 4131 6177 a0", vec![Rejection::NotANumber; 2]),
        ("a1 6176", vec![Rejection::Unparseable]),
        ("a0 00", vec![Rejection::Unparseable]),
        ("", vec![Rejection::Unparseable]),
    ] {
        assert_eq!(s.read(hex(bytes)), (vec![], rejections), "{bytes}");
    }
    for deep in [[0x81], [0xc1]] {
        assert_eq!(s.read(deep.repeat(100_000)), (vec![], vec![Rejection::Unparseable]));
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split(' ').collect();
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(digits.get(at..at + 2).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn compressed_bodies() {
    // `{"v":1.5}` as `gzip` and Python's `zlib.compress` write it.
    let gzip = hex("1f8b0800000000000203ab562a53b232d433ad05009ff620f709000000");
    let zlib = hex("789cab562a53b232d433ad05000cc90281");
    for key in ["", "compression = 'gzip'", "compression = 'zlib'", "compression = 'none'"] {
        let mut s = Stream::new(key);
        for (body, kind) in [(&gzip, "gzip"), (&zlib, "zlib")] {
            let wanted = key.is_empty() || key.contains(kind);
            let expected =
                if wanted { readings(&[("v", 1.5)]) } else { (vec![], vec![Rejection::Unparseable]) };
            assert_eq!(s.read(body), expected, "{key} {kind}");
        }
        let plain = s.read(r#"{"v":1.5}"#);
        assert_eq!(plain.0.len(), usize::from(key.is_empty() || key.contains("none")), "{key}");
    }
    let mut s = Stream::new("payload = 'influx'");
    assert_eq!(s.read("x^,a=1 v=2"), readings(&[("x^/a=1/v", 2.0)]), "it only looks like zlib");
}
