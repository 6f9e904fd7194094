#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

fn decoder(keys: &str) -> Decoder {
    let config =
        config::Config::parse(&format!("[[stream]]\nname = 's'\ntopic = 't/{{x}}'\n{keys}")).unwrap();
    assert!(config.problems().is_empty(), "{:?}", config.problems());
    Decoder::new(config.stream.first().unwrap(), 1 << 20)
}

type Outcome = (Vec<(String, f64)>, Vec<Rejection>, Option<i64>);

fn decode(decoder: &mut Decoder, payload: impl AsRef<[u8]>) -> Outcome {
    // Leftovers of a message before must not show.
    let mut out = Decoded::default();
    for payload in [&br#"{"left":{"over":1,"b":2},"ts":5}"#[..], payload.as_ref()] {
        decoder.decode(Arrival { topic: "t/x", payload, at: 0 }, &mut out);
    }
    let readings = out
        .readings()
        .map(|reading| match reading.field {
            Field::Configured(i) => (decoder.fields().get(i).unwrap().clone(), reading.value),
            Field::Leaf(name) => (name.to_owned(), reading.value),
        })
        .collect();
    (readings, out.rejections().to_vec(), out.time)
}

fn reading(name: &str, value: f64) -> (String, f64) {
    (name.to_owned(), value)
}

#[test]
fn bare_numbers() {
    let mut d = decoder("payload = 'number'");
    for (payload, value) in [
        ("21.3", 21.3),
        (" -4\r\n", -4.0),
        ("1e3", 1e3),
        ("true", 1.0),
        ("false", 0.0),
        ("123456789012345678901", 1.234_567_890_123_456_8e20),
    ] {
        assert_eq!(decode(&mut d, payload), (vec![reading("value", value)], vec![], None), "{payload}");
    }
    for (payload, reason) in [
        ("", Rejection::Unparseable),
        ("21,3", Rejection::Unparseable),
        ("on", Rejection::Unparseable),
        ("21.3 C", Rejection::Unparseable),
        ("nan", Rejection::NotFinite),
        ("-inf", Rejection::NotFinite),
        ("1e999", Rejection::NotFinite),
    ] {
        assert_eq!(decode(&mut d, payload), (vec![], vec![reason], None), "{payload}");
    }
    assert_eq!(decode(&mut d, b"1\xff"), (vec![], vec![Rejection::Unparseable], None));
}

#[test]
fn configured_fields_by_path_and_pointer() {
    let mut d = decoder("fields = ['t', 'a.b.1', '/x.y/c~1d']\ntime = 'meta.ts'");
    assert_eq!(d.fields(), ["t", "a.b.1", "x%2Ey.c%2Fd"]);
    let (readings, rejections, time) = decode(
        &mut d,
        r#"{"meta":{"ts":"2026-11-23T10:00:00Z","no":{}},"x.y":{"c/d":true},"a":{"b":[[7],2.5,{}]},"t":-3,"more":[1]}"#,
    );
    assert_eq!(readings, [reading("t", -3.0), reading("a.b.1", 2.5), reading("x%2Ey.c%2Fd", 1.0)]);
    assert!(rejections.is_empty());
    assert_eq!(time, Some(1_795_428_000_000_000));
}

#[test]
fn each_configured_field_is_accounted_for() {
    use Rejection::{BadTime, MissingField, NotANumber, NotFinite, Unparseable};
    let mut d = decoder("fields = ['a', 'b']");
    for (payload, values, rejections) in [
        (r#"{"a":1}"#, vec![("a", 1.0)], vec![MissingField]),
        (r#"{"a":1,"b":null}"#, vec![("a", 1.0)], vec![MissingField]),
        (r#"{"a":"1","b":2}"#, vec![("b", 2.0)], vec![NotANumber]),
        (r#"{"a":{"a":1},"b":[2]}"#, vec![], vec![NotANumber, NotANumber]),
        (r#"{"a":1e999,"b":2}"#, vec![("b", 2.0)], vec![NotFinite]),
        (r#"{"a":-1e999,"c":"\"1e999","b":2}"#, vec![("b", 2.0)], vec![NotFinite]),
        (r#"{"a":1,"c":1e999,"b":2}"#, vec![("a", 1.0), ("b", 2.0)], vec![]),
        (r#"{"a":1,"a":3,"b":2}"#, vec![("a", 1.0), ("b", 2.0)], vec![]),
        (
            r#"{"a":18446744073709551616,"b":9223372036854775808}"#,
            vec![("a", 18_446_744_073_709_551_616.0), ("b", 9_223_372_036_854_775_808.0)],
            vec![],
        ),
        ("5", vec![], vec![MissingField, MissingField]),
        ("[]", vec![], vec![MissingField, MissingField]),
        (r#"{"a":1,"b":2"#, vec![], vec![Unparseable]),
        (r#"{"a":1,"b":2} x"#, vec![], vec![Unparseable]),
        (r#"{"a":1e999,"b":2"#, vec![], vec![Unparseable]),
        ("", vec![], vec![Unparseable]),
    ] {
        let values: Vec<_> = values.into_iter().map(|(n, v)| reading(n, v)).collect();
        assert_eq!(decode(&mut d, payload), (values, rejections, None), "{payload}");
    }
    assert_eq!(decode(&mut d, b"{\"a\":1,\"b\":2,\"c\":\"\xff\"}").1, [Unparseable]);
    let mut d = decoder("fields = ['a', 'b']\ntime = 'ts'");
    for ts in [
        "",
        r#","ts":null"#,
        r#","ts":"noon""#,
        r#","ts":true"#,
        r#","ts":{}"#,
        r#","ts":1e30"#,
        r#","ts":1e999"#,
    ] {
        assert_eq!(
            decode(&mut d, format!(r#"{{"a":1,"b":"x"{ts}}}"#)),
            (vec![], vec![NotANumber, BadTime], None),
            "{ts}"
        );
    }
}

#[test]
fn time_by_magnitude_and_in_strings() {
    let mut d = decoder("fields = ['a']\ntime = 'ts'");
    for ts in [
        "1795428000",
        "1795428000000",
        "1795428000000000",
        "1795428000000000000",
        "1795428000.0",
        r#""1795428000""#,
        r#""2026-11-23T11:00:00+01:00""#,
    ] {
        assert_eq!(decode(&mut d, format!(r#"{{"ts":{ts},"a":1}}"#)).2, Some(1_795_428_000_000_000), "{ts}");
    }
}

#[test]
fn every_numeric_leaf() {
    let mut d = decoder("time = 'ts'");
    let (readings, rejections, time) = decode(
        &mut d,
        r#"{"ts":1795428000,"t":21.5,"on":true,"name":"7","none":null,"e":{"p":[1,{"q":2},"x"],"a.b":3},"":{"":4}}"#,
    );
    let expected = [("t", 21.5), ("on", 1.0), ("e.p.0", 1.0), ("e.p.1.q", 2.0), ("e.a%2Eb", 3.0), (".", 4.0)]
        .map(|(n, v)| reading(n, v));
    assert_eq!(readings, expected);
    assert!(rejections.is_empty());
    assert_eq!(time, Some(1_795_428_000_000_000));

    let mut d = decoder("");
    assert_eq!(decode(&mut d, "21.5"), (vec![reading("value", 21.5)], vec![], None));
    assert_eq!(decode(&mut d, "[1,2]").0, [reading("0", 1.0), reading("1", 2.0)]);
    for payload in ["{}", "[]", "null", r#"{"a":null}"#] {
        assert_eq!(decode(&mut d, payload), (vec![], vec![Rejection::MissingField], None), "{payload}");
    }
    for payload in [r#"{"a":"x"}"#, r#""7""#, r#"{"a":null,"b":["x"]}"#] {
        assert_eq!(decode(&mut d, payload), (vec![], vec![Rejection::NotANumber], None), "{payload}");
    }
    assert_eq!(
        decode(&mut d, r#"{"a":1e999,"b":2}"#),
        (vec![reading("b", 2.0)], vec![Rejection::NotFinite], None)
    );
}

#[test]
fn leaves_without_a_time_are_each_rejected() {
    let mut d = decoder("time = 'ts'");
    assert_eq!(decode(&mut d, r#"{"a":1,"b":2}"#), (vec![], vec![Rejection::BadTime; 2], None));
}

#[test]
fn deep_nesting_is_refused_not_followed() {
    for keys in ["", "fields = ['a']"] {
        let mut d = decoder(keys);
        let deep = "[".repeat(100_000);
        assert_eq!(decode(&mut d, &deep).1, [Rejection::Unparseable]);
        let deep = "{\"a\":".repeat(100_000);
        assert_eq!(decode(&mut d, &deep).1, [Rejection::Unparseable]);
    }
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in r#"[{}\[\]",:a-c0-9.eE+\\-]{0,60}"#) {
        for mut d in [decoder(""), decoder("payload = 'number'"), decoder("fields = ['a', 'b.0', '/c']\ntime = 'a.b'")] {
            for payload in [&bytes[..], text.as_bytes()] {
                let (readings, rejections, _) = decode(&mut d, payload);
                prop_assert!(readings.len() + rejections.len() >= 1);
                prop_assert!(readings.iter().all(|(_, v)| v.is_finite()));
            }
        }
    }

    /// Against `serde_json`'s own tree.
    #[test]
    fn leaves_are_those_of_the_tree(numbers in prop::collection::vec((0..4usize, -1e6..1e6f64), 1..12)) {
        let mut tree = serde_json::json!({});
        let mut expected = Vec::new();
        for (i, (kind, number)) in numbers.iter().enumerate() {
            let name = format!("m{i}");
            let (value, suffix) = match kind {
                0 => (serde_json::json!(number), ""),
                1 => (serde_json::json!({"x": number}), ".x"),
                2 => (serde_json::json!(["s", number]), ".1"),
                _ => (serde_json::json!({"y": [{"z": number}]}), ".y.0.z"),
            };
            tree[&name] = value;
            expected.push((format!("{name}{suffix}"), *number));
        }
        let text = tree.to_string();
        let reparsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        prop_assume!(reparsed == tree);
        let (mut readings, rejections, _) = decode(&mut decoder(""), &text);
        readings.sort_by(|a, b| a.0.cmp(&b.0));
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        prop_assert_eq!(readings, expected.clone());
        prop_assert!(rejections.is_empty());
        // And asked for by name, the same.
        let fields: Vec<_> = expected.iter().map(|(n, _)| format!("'{n}'")).collect();
        let (readings, _, _) = decode(&mut decoder(&format!("fields = [{}]", fields.join(","))), &text);
        prop_assert_eq!(readings, expected);
    }
}
