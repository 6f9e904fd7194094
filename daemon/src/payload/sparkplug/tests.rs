#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::message::Property;
use super::*;
use crate::payload::Field;

/// 2026-11-23T10:00:00Z in milliseconds.
const T: u64 = 1_795_428_000_000;

fn named(name: &str, alias: Option<u64>, datatype: u32, value: Held) -> Metric {
    Metric {
        name: Some(name.into()),
        alias,
        datatype: Some(datatype),
        value: Some(value),
        ..Metric::default()
    }
}

fn by_alias(alias: u64, value: Held) -> Metric {
    Metric { alias: Some(alias), value: Some(value), ..Metric::default() }
}

fn with_unit(metric: Metric, unit: &str) -> Metric {
    let values = vec![Property { datatype: Some(12), text: Some(unit.into()) }];
    Metric { properties: Some(Properties { keys: vec!["engUnit".into()], values }), ..metric }
}

fn payload(seq: Option<u64>, metrics: &[Metric]) -> Vec<u8> {
    let metrics = metrics.iter().map(Message::encode_to_vec).collect();
    Payload { timestamp: Some(T), metrics, seq, ..Payload::default() }.encode_to_vec()
}

struct Plant {
    host: Host,
    out: Decoded,
    /// Seconds since the beginning.
    now: i64,
}

impl Plant {
    fn new(fields: &[&str]) -> Plant {
        let fields: Vec<String> = fields.iter().map(|f| (*f).to_owned()).collect();
        Plant { host: Host::new(&fields, 1 << 16), out: Decoded::default(), now: 0 }
    }

    /// What a message of group `g` gives: readings, rejections, and whether births are asked for.
    fn hear(&mut self, topic: &str, payload: &[u8]) -> (Vec<(String, f64)>, usize, bool) {
        self.out.clear();
        let at = (T as i64) * 1000 + self.now * 1_000_000;
        self.host.decode(Arrival { topic: &format!("spBv1.0/g/{topic}"), payload, at }, &mut self.out);
        let readings = self.out.readings().map(|r| {
            let Field::Leaf(name) = r.field else { unreachable!("fields are known by name") };
            (name.to_owned(), r.value)
        });
        let readings = readings.collect();
        (readings, self.out.rejections().len(), self.out.take_request().is_some())
    }

    fn birth(&mut self, session: u64) {
        let (readings, rejected, asked) = self.hear(
            "NBIRTH/n",
            &payload(
                Some(0),
                &[
                    named("bdSeq", None, datatype::UINT64, Held::Long(session)),
                    named(REBIRTH, None, datatype::BOOLEAN, Held::Boolean(false)),
                    named("Supply/Voltage", Some(1), 9, Held::Float(23.9)),
                    named("Temp", Some(2), datatype::INT16, Held::Int(-5_i32 as u32)),
                ],
            ),
        );
        assert_eq!(readings, [("Supply.Voltage".to_owned(), 23.9), ("Temp".to_owned(), -5.0)]);
        assert_eq!((rejected, asked), (0, false));
    }
}

fn values(read: (Vec<(String, f64)>, usize, bool)) -> (Vec<f64>, usize, bool) {
    (read.0.into_iter().map(|(_, value)| value).collect(), read.1, read.2)
}

#[test]
fn births_name_and_type_what_data_refer_to() {
    let mut plant = Plant::new(&[]);
    plant.birth(7);
    let motor = [
        with_unit(named("Speed", Some(10), datatype::INT32, Held::Int(0)), "rpm"),
        named("Since", Some(11), 13, Held::Long(T)),
        named("Name", Some(12), 12, Held::Text("m1".into())),
    ];
    assert_eq!(values(plant.hear("DBIRTH/n/m1", &payload(Some(1), &motor))), (vec![0.0], 0, false));
    let data = [by_alias(1, Held::Float(24.1)), by_alias(2, Held::Int(65_535))];
    let read = plant.hear("NDATA/n", &payload(Some(2), &data));
    assert_eq!(read, (vec![("Supply.Voltage".into(), 24.1), ("Temp".into(), -1.0)], 0, false));
    let mut speed = by_alias(10, Held::Int(-1500_i32 as u32));
    speed.timestamp = Some(T + 250);
    let null = Metric { alias: Some(10), is_null: Some(true), ..Metric::default() };
    let data = [speed, by_alias(12, Held::Text("m2".into())), by_alias(11, Held::Long(T)), null];
    let read = plant.hear("DDATA/n/m1", &payload(Some(3), &data));
    assert_eq!(read, (vec![("Speed".into(), -1500.0)], 0, false));
    let reading = plant.out.readings().next().unwrap();
    assert_eq!(reading.time, Some((T as i64 + 250) * 1000));
    assert_eq!(reading.labels().collect::<Vec<_>>(), [("unit", "rpm")]);
    // By name, as the birth described it; aliases of a device are none of the node's.
    let by_name = Metric { name: Some("Temp".into()), value: Some(Held::Int(65_534)), ..Metric::default() };
    assert_eq!(values(plant.hear("NDATA/n", &payload(Some(4), &[by_name]))), (vec![-2.0], 0, false));
    assert_eq!(values(plant.hear("NDATA/n", &payload(Some(5), &[by_alias(10, Held::Int(1))]))).1, 1);
}

#[test]
fn who_has_missed_a_birth_asks_at_intervals() {
    let mut plant = Plant::new(&[]);
    let data =
        |seq| payload(Some(seq), &[by_alias(1, Held::Float(1.0)), named("Own", None, 10, Held::Double(2.0))]);
    assert_eq!(values(plant.hear("NDATA/n", &data(255))), (vec![2.0], 1, true));
    plant.now = 9;
    assert_eq!(values(plant.hear("NDATA/n", &data(0))), (vec![2.0], 1, false), "asked a moment ago");
    assert_eq!(values(plant.hear("NDATA/other", &data(0))), (vec![2.0], 1, true), "another node");
    plant.now = 10;
    assert_eq!(values(plant.hear("NDATA/n", &data(1))), (vec![2.0], 1, true));
    plant.birth(7);
    assert_eq!(values(plant.hear("NDATA/n", &data(1))), (vec![1.0, 2.0], 0, false));
    // A number is missing: the message may have been a birth.
    plant.now = 20;
    assert_eq!(values(plant.hear("NDATA/n", &data(3))), (vec![2.0], 1, true));
    plant.birth(7);
    for seq in 1..600 {
        assert_eq!(values(plant.hear("NDATA/n", &data(seq % 256))), (vec![1.0, 2.0], 0, false));
    }
    let untyped = Metric { name: Some("New".into()), value: Some(Held::Int(1)), ..Metric::default() };
    plant.now = 40;
    let read = plant.hear("NDATA/n", &payload(None, &[untyped, by_alias(2, Held::Int(3))]));
    assert_eq!(values(read), (vec![3.0], 1, true), "nobody has said whether it may be negative");
}

#[test]
fn the_request_is_a_command_to_the_node() {
    let mut plant = Plant::new(&[]);
    let topic = "spBv1.0/g/DDATA/n/d";
    let body = payload(None, &[by_alias(1, Held::Float(1.0))]);
    plant.host.decode(Arrival { topic, payload: &body, at: T as i64 * 1000 }, &mut plant.out);
    let request = plant.out.take_request().unwrap();
    assert_eq!(request.topic, "spBv1.0/g/NCMD/n");
    let sent = Payload::decode(request.payload.as_slice()).unwrap();
    assert_eq!((sent.timestamp, sent.seq, sent.metrics.len()), (Some(T), None, 1));
    let metric = Metric::decode(sent.metrics.first().unwrap().as_slice()).unwrap();
    assert_eq!(metric, named("Node Control/Rebirth", None, 11, Held::Boolean(true)));
    assert_eq!(plant.out.take_request(), None);
}

#[test]
fn deaths_end_what_births_said() {
    let mut plant = Plant::new(&[]);
    plant.birth(7);
    let death = |session| payload(None, &[named("bdSeq", None, datatype::UINT64, Held::Long(session))]);
    let data = |seq| payload(Some(seq), &[by_alias(1, Held::Float(1.0))]);
    // The will of the session before, which the broker sends late.
    assert_eq!(values(plant.hear("NDEATH/n", &death(6))), (vec![], 0, false));
    assert_eq!(values(plant.hear("NDATA/n", &data(1))), (vec![1.0], 0, false));
    let motor = [named("Speed", Some(10), datatype::INT32, Held::Int(0))];
    plant.hear("DBIRTH/n/m", &payload(Some(2), &motor));
    assert_eq!(values(plant.hear("DDEATH/n/m", &payload(Some(3), &[]))), (vec![], 0, false));
    let speed = payload(Some(4), &[by_alias(10, Held::Int(1))]);
    assert_eq!(values(plant.hear("DDATA/n/m", &speed)), (vec![], 1, true));
    assert_eq!(values(plant.hear("NDATA/n", &data(5))), (vec![1.0], 0, false), "the node lives on");
    assert_eq!(values(plant.hear("NDEATH/n", &death(7))), (vec![], 0, false));
    assert_eq!(values(plant.hear("NDATA/n", &data(6))).1, 1);
}

#[test]
fn types_of_every_width() {
    let mut plant = Plant::new(&[]);
    for (datatype, held, value) in [
        (datatype::INT8, Held::Int(0xFFFF_FFFE), -2.0),
        (datatype::INT8, Held::Int(0xFE), -2.0),
        (datatype::INT64, Held::Long(u64::MAX), -1.0),
        (datatype::UINT8, Held::Int(200), 200.0),
        (datatype::UINT64, Held::Long(1 << 60), (1_u64 << 60) as f64),
        (datatype::BOOLEAN, Held::Boolean(true), 1.0),
        (9, Held::Float(21.3), 21.3),
        (10, Held::Double(-0.5), -0.5),
    ] {
        let read = plant.hear("NBIRTH/n", &payload(Some(0), &[named("v", None, datatype, held.clone())]));
        assert_eq!(values(read), (vec![value], 0, false), "{datatype} {held:?}");
    }
    let nan = payload(Some(0), &[named("v", None, 10, Held::Double(f64::NAN))]);
    assert_eq!(values(plant.hear("NBIRTH/n", &nan)), (vec![], 1, false));
    let mut late = named("v", None, 10, Held::Double(1.0));
    late.timestamp = Some(u64::MAX);
    assert_eq!(values(plant.hear("NBIRTH/n", &payload(Some(0), &[late]))), (vec![], 1, false));
}

#[test]
fn compressed_and_broken_payloads() {
    use std::io::Write;
    let mut plant = Plant::new(&["v"]);
    let compressed = |body: &[u8]| {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(body).unwrap();
        let body = Some(encoder.finish().unwrap());
        Payload { uuid: Some(COMPRESSED.into()), seq: Some(0), body, ..Payload::default() }.encode_to_vec()
    };
    let metrics = [named("v", None, 10, Held::Double(1.5)), named("w", None, 10, Held::Double(2.5))];
    let inner = payload(None, &metrics);
    assert_eq!(
        values(plant.hear("NBIRTH/n", &compressed(&inner))),
        (vec![1.5], 0, false),
        "v alone is asked for"
    );
    for broken in [&[0xff; 8][..], &compressed(&vec![0; 1 << 20]), &compressed(b"\xff"), &inner[1..]] {
        let read = plant.hear("NDATA/n", broken);
        assert_eq!(values(read), (vec![], 1, false), "{broken:?}");
        assert_eq!(plant.out.rejections(), [Rejection::Unparseable]);
    }
    let broken_metric =
        Payload { metrics: vec![vec![0xff]], seq: Some(1), ..Payload::default() }.encode_to_vec();
    assert_eq!(values(plant.hear("NDATA/n", &broken_metric)), (vec![], 1, false));
}

#[test]
fn topics_of_readings() {
    let parts = |topic| Topic::parse(topic).map(Topic::parts);
    assert_eq!(parts("spBv1.0/g/NDATA/n"), Some(vec![("group", "g"), ("node", "n")]));
    assert_eq!(parts("spBv1.0/g/DBIRTH/n/d"), Some(vec![("group", "g"), ("node", "n"), ("device", "d")]));
    for topic in [
        "spBv1.0/g/NCMD/n",
        "spBv1.0/g/DCMD/n/d",
        "spBv1.0/STATE/host",
        "spBv1.0/g/NDATA/n/d",
        "spBv1.0/g/DDATA/n",
        "spBv1.0/g/DDATA/n/d/e",
        "spAv1.0/g/NDATA/n",
        "spBv1.0/g",
    ] {
        assert_eq!(parts(topic), None, "{topic}");
    }
    for (filter, expected) in [
        ("spBv1.0/#", true),
        ("spBv1.0/+/#", true),
        ("spBv1.0/plant/#", true),
        ("spBv1.0/+/NDATA/+", false),
        ("spBv1.0/+/NDATA/#", false),
        ("#", false),
        ("spBv1.0", false),
    ] {
        assert_eq!(fits(filter), expected, "{filter}");
    }
}

/// A device of so many metrics whose names have so many bytes.
fn device(metrics: u64, bytes: usize) -> Device {
    let mut device = Device::default();
    (0..metrics).for_each(|m| device.add(&format!("{m:0bytes$}"), Some(m), Described::default()));
    device
}

#[test]
fn what_is_remembered_is_bounded() {
    // 32 MiB of names, 128 bytes for what each stands in, and 256 for the device.
    for (count, bytes) in [(30, 4), (300, 1000)] {
        let mut nodes = Nodes::default();
        (0..10_005).for_each(|n| nodes.born(&format!("g/{n}"), "", device(count, bytes)));
        let remembered = (0..10_005).filter(|n| nodes.device(&format!("g/{n}"), "").is_some()).count();
        let most = (32 << 20) / (count as usize * (bytes + 128) + 256);
        assert_eq!(remembered, most.min(10_000), "{count} names of {bytes} bytes");
        // What is forgotten makes room.
        nodes.forget("g/0", None);
        nodes.born("g/1", "d", device(1, 4));
        assert!(nodes.device("g/1", "d").is_some());
    }
}

#[test]
fn devices_that_say_nothing_are_bounded_too() {
    let mut nodes = Nodes::default();
    let names = || (0..200_000).map(|d| format!("{d:044}"));
    names().for_each(|name| nodes.born("g/n", &name, device(0, 0)));
    assert_eq!(names().filter(|name| nodes.device("g/n", name).is_some()).count(), (32 << 20) / 300);
    let unit = Described { unit: Some("u".repeat(1 << 20).into()), ..Described::default() };
    let mut wordy = device(0, 0);
    wordy.add("m", None, unit);
    nodes.forget("g/n", Some(&names().next().unwrap()));
    nodes.born("g/n", "wordy", wordy);
    assert!(nodes.device("g/n", "wordy").is_none());
}

#[test]
fn nodes_that_say_nothing_make_room_for_those_that_do() {
    let mut nodes = Nodes::default();
    (0..9_999).for_each(|n| nodes.born(&format!("g/{n}"), "", device(1, 4)));
    // Whoever sends data without a birth is remembered, until there is need.
    assert!((0..20_000).all(|n| nodes.may_ask(&format!("junk/{n}"), 0)));
    nodes.born("g/new", "", device(1, 4));
    assert!((0..9_999).all(|n| nodes.device(&format!("g/{n}"), "").is_some()));
    assert!(nodes.device("g/new", "").is_some());
    nodes.born("g/one too many", "", device(1, 4));
    assert!(nodes.device("g/one too many", "").is_none());
    nodes.end("g/7", None);
    nodes.born("g/one too many", "", device(1, 4));
    assert!(nodes.device("g/one too many", "").is_some());
    let long = "n".repeat(2000);
    assert!(!nodes.may_ask(&long, 0));
}

#[test]
fn a_node_that_does_not_answer_is_asked_ever_less_often() {
    let mut nodes = Nodes::default();
    let second = 1_000_000;
    let asked: Vec<i64> = (0..300).filter(|s| nodes.may_ask("g/n", s * second)).collect();
    assert_eq!(asked, [0, 10, 30, 70, 150]);
    assert_eq!((300..40_000).filter(|s| nodes.may_ask("g/n", s * second)).count(), 11);
    nodes.born("g/n", "", device(1, 4));
    let asked: Vec<i64> = (40_000..40_030).filter(|s| nodes.may_ask("g/n", s * second)).collect();
    assert_eq!(asked, [40_000, 40_010]);
}
