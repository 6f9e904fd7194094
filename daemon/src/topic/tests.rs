use proptest::prelude::*;

use super::*;

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap()
}

#[test]
fn captures_become_filter_key_and_labels() {
    let p = pattern("sensors/{site}/{device}/climate");
    assert_eq!(p.filter(), "sensors/+/+/climate");
    let captures = p.matches("sensors/berlin/dev1/climate").unwrap();
    assert_eq!(captures.values(), ["berlin", "dev1"]);
    assert_eq!(key_prefix("climate", &captures), "climate/berlin/dev1/");
    let labels = p.labels(&captures);
    assert_eq!(labels.get("site").map(String::as_str), Some("berlin"));
    assert_eq!(labels.get("device").map(String::as_str), Some("dev1"));
    assert_eq!(p.matches("sensors/berlin/dev1"), None);
    assert_eq!(p.matches("sensors/berlin/dev1/climate/x"), None);
}

#[test]
fn rest_captures_one_level_or_more() {
    let p = pattern("zigbee2mqtt/{name...}");
    assert_eq!(p.filter(), "zigbee2mqtt/#");
    assert_eq!(p.matches("zigbee2mqtt/living room/lamp").unwrap().values(), ["living room/lamp"]);
    assert_eq!(p.matches("zigbee2mqtt"), None, "# delivers the parent too");
    assert_eq!(pattern("{all...}").matches("$SYS/broker/uptime"), None);
    assert!(pattern("$SYS/{all...}").matches("$SYS/broker/uptime").is_some());
}

#[test]
fn refusals_name_reason_and_fix() {
    for (text, part) in [
        ("", "is empty"),
        ("a/+/b", "name the level, for instance {device}"),
        ("a/#", "for instance {device...}"),
        ("a/b+", "wildcard inside"),
        ("a/{x}/{x}", "captures {x} twice"),
        ("a/{}", "capture without a name"),
        ("a/{...}", "capture without a name"),
        ("a/dev-{x}", "mixes a capture with text"),
        ("a/{x}{y}", "whole level"),
        ("a/{x", "mixes a capture"),
        ("a/{x...}/b", "move it to the end or capture one level with {x}"),
        ("a/{x y}", "letters, digits"),
        ("$share/g/a", "drop"),
        ("a/\u{1}", "control character"),
    ] {
        let error = Pattern::parse(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn keys_hold_nothing_a_topic_may_not() {
    assert_eq!(field_name(&["a".into(), "b".into(), "0".into()]), "a.b.0");
    assert_eq!(field_name(&["a.b/c+#%".into()]), "a%2Eb%2Fc%2B%23%25");
    assert_eq!(field_name(&["\0\u{85}\u{FFFF}".into()]), "%00%C2%85%EF%BF%BF");
    assert_eq!(field_name(&["Größe °C".into()]), "Größe °C");
    let p = pattern("a/{x}");
    assert_eq!(key_prefix("s", &p.matches("a/50%\u{7}").unwrap()), "s/50%25%07/");
}

#[test]
fn own_topics_are_known() {
    let outputs = Outputs::new("out/{series}/next");
    assert!(outputs.is_own(&outputs.forecast("s/dev/value")));
    assert!(outputs.is_own(&outputs.anomaly("s/dev/value")));
    assert!(outputs.is_own(STATUS_TOPIC));
    assert!(!outputs.is_own("out/s/dev/value"));
    assert!(!outputs.is_own("vidente/other"));
    assert!(!outputs.is_own("out//next"), "the key is never empty");
}

#[test]
fn announcements_are_own_and_what_else_is_below_their_prefix_is_neither_own_nor_free() {
    let text =
        "[[stream]]\nname = 'a'\ntopic = 'a/{x}'\n[homeassistant]\ndiscovery = true\nprefix = 'ha/x'\n";
    let outputs = Outputs::of(&Config::parse(text).unwrap());
    for (topic, own, free) in [
        ("ha/x/device/some_id/config", true, false),
        ("ha/x/status", true, false),
        ("ha/x/sensor/hall/state", false, false),
        ("ha/x/device/hall/state", false, false),
        ("ha/xy", false, true),
        ("vidente/response/x", true, false),
        ("elsewhere", false, true),
    ] {
        assert_eq!((outputs.is_own(topic), outputs.is_free(topic)), (own, free), "{topic}");
    }
    assert!(Outputs::new("out/{series}").is_free("ha/x/status"), "where nothing is announced");
}

/// MQTT's own matching, level by level.
fn reference(filter: &str, topic: &str) -> bool {
    let (f, t): (Vec<&str>, Vec<&str>) = (filter.split('/').collect(), topic.split('/').collect());
    if topic.starts_with('$') && matches!(f[0], "+" | "#") {
        return false;
    }
    if f.last() == Some(&"#") {
        let fixed = f.len() - 1;
        return t.len() > fixed && f[..fixed].iter().zip(&t).all(|(f, t)| *f == "+" || f == t);
    }
    f.len() == t.len() && f.iter().zip(&t).all(|(f, t)| *f == "+" || f == t)
}

fn level() -> impl Strategy<Value = String> {
    prop_oneof![Just("a".to_owned()), Just("b".to_owned()), Just(String::new()), Just("$x".to_owned())]
}

proptest! {
    #[test]
    fn matching_equals_the_reference(
        parts in prop::collection::vec(prop_oneof![level(), Just("{}".to_owned())], 1..5),
        rest: bool,
        topic in prop::collection::vec(level(), 1..6),
    ) {
        let mut text: Vec<String> = parts
            .iter()
            .enumerate()
            .map(|(i, p)| if p == "{}" { format!("{{c{i}}}") } else { p.clone() })
            .collect();
        if rest {
            text.push("{rest...}".into());
        }
        let text = text.join("/");
        prop_assume!(!text.is_empty());
        let p = pattern(&text);
        let topic = topic.join("/");
        prop_assert_eq!(p.matches(&topic).is_some(), reference(&p.filter(), &topic));
    }

    #[test]
    fn different_series_have_different_keys(
        a in ("[a%/+#.\u{1}]{1,3}", prop::collection::vec("[a%/.+]{0,2}", 1..3)),
        b in ("[a%/+#.\u{1}]{1,3}", prop::collection::vec("[a%/.+]{0,2}", 1..3)),
    ) {
        let key = |(captured, path): &(String, Vec<String>)| {
            key_prefix("s", &Captures(vec![captured.as_str()])) + &field_name(path)
        };
        prop_assert_eq!(key(&a) == key(&b), a == b);
        let unfit = key(&a).contains(['+', '#', '\u{1}']);
        prop_assert!(!unfit);
    }
}
