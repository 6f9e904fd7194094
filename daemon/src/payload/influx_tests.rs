#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::payload::Field;

type Reading = (String, f64, Option<i64>);

fn decode(fields: &[&str], precision: Precision, text: &str) -> (Vec<Reading>, Vec<Rejection>) {
    let fields: Vec<String> = fields.iter().map(|f| (*f).to_owned()).collect();
    let mut out = Decoded::default();
    Lines::new(&fields, precision).decode(text, &mut out);
    let readings = out
        .readings()
        .map(|r| {
            let Field::Leaf(name) = r.field else { unreachable!("fields are known by name") };
            (name.to_owned(), r.value, r.time)
        })
        .collect();
    (readings, out.rejections().to_vec())
}

fn all(text: &str) -> (Vec<Reading>, Vec<Rejection>) {
    decode(&[], Precision::Nanoseconds, text)
}

fn reading(name: &str, value: f64, time: Option<i64>) -> Reading {
    (name.to_owned(), value, time)
}

const T: i64 = 1_795_428_000_000_000;

#[test]
fn lines_of_telegraf() {
    let (readings, rejections) =
        all("cpu,host=web1,cpu=cpu-total usage_idle=98.5,usage_user=1 1795428000000000000\n\
         system,host=web1 uptime_format=\"2 days, 1:00\" 1795428000000000000\r\n\
         mem,host=web1 free=4096i,active=18446744073709551615u,swap=t 1795428000000001999\n");
    assert_eq!(
        readings,
        [
            reading("cpu/cpu=cpu-total/host=web1/usage_idle", 98.5, Some(T)),
            reading("cpu/cpu=cpu-total/host=web1/usage_user", 1.0, Some(T)),
            reading("mem/host=web1/free", 4096.0, Some(T + 1)),
            reading("mem/host=web1/active", 18_446_744_073_709_551_615.0, Some(T + 1)),
            reading("mem/host=web1/swap", 1.0, Some(T + 1)),
        ]
    );
    assert!(rejections.is_empty());
}

#[test]
fn measurement_and_tags_are_labels() {
    let mut out = Decoded::default();
    let text = "a\\ b,z=2,t\\=x=v\\,w f=1\nm g=2\n";
    Lines::new(&[], Precision::Seconds).decode(text, &mut out);
    let labels: Vec<Vec<_>> = out.readings().map(|r| r.labels().collect()).collect();
    assert_eq!(
        labels,
        [vec![("measurement", "a b"), ("t=x", "v,w"), ("z", "2")], vec![("measurement", "m")]]
    );
    let names: Vec<_> = out.readings().map(|r| r.field).collect();
    assert_eq!(names, [Field::Leaf("a b/t%3Dx=v,w/z=2/f"), Field::Leaf("m/g")]);
}

#[test]
fn times_by_precision_and_of_arrival() {
    for (precision, number) in [
        (Precision::Seconds, "1795428000"),
        (Precision::Milliseconds, "1795428000000"),
        (Precision::Microseconds, "1795428000000000"),
        (Precision::Nanoseconds, "1795428000000000000"),
    ] {
        assert_eq!(decode(&[], precision, &format!("m f=1 {number}")).0, [reading("m/f", 1.0, Some(T))]);
    }
    assert_eq!(all("m f=1").0, [reading("m/f", 1.0, None)]);
    assert_eq!(all("  m  f=1  \n").0, [reading("m/f", 1.0, None)]);
    let (readings, rejections) = decode(&[], Precision::Seconds, "m f=1,g=2 9223372036854775807\nm f=3 -1");
    assert_eq!(readings, [reading("m/f", 3.0, Some(-1_000_000))]);
    assert_eq!(rejections, [Rejection::BadTime; 2]);
}

#[test]
fn escapes_and_quotes() {
    let (readings, rejections) = all("we\\,ather,loc=a\\=b\\ c te\\ mp=1\n# temp=2\n\n\
         log msg=\"a \\\"b\\\" m=1,\nx y=2\",n=3 5\n\
         p,path=C:\\dir f=1\ndisk,path=/var f=1\n");
    assert_eq!(
        readings,
        [
            reading("we,ather/loc=a=b c/te mp", 1.0, None),
            reading("log/n", 3.0, Some(0)),
            reading("p/path=C:\\dir/f", 1.0, None),
            reading("disk/path=%2Fvar/f", 1.0, None),
        ]
    );
    assert!(rejections.is_empty());
}

#[test]
fn a_wrong_line_costs_no_other() {
    for wrong in [
        "m",
        "m ",
        "m f",
        "m f=",
        "m f=x",
        "m f=1x",
        "m f=1 noon",
        "m f=1 1 1",
        "m, f=1",
        "m,t f=1",
        "m,t= f=1",
        ",t=1 f=1",
        "m f=1,",
        "m f=1.5i",
        "m f=-1u",
        "m f=\"a\"b",
        "m,t=1,t=2 f=1",
        "m f=\"a",
        "{\"f\":1}",
        "\\",
    ] {
        let (readings, rejections) = all(&format!("a f=1\n{wrong}"));
        assert_eq!(readings, [reading("a/f", 1.0, None)], "{wrong}");
        assert_eq!(rejections, [Rejection::Unparseable], "{wrong}");
    }
    assert_eq!(all("m f=1e999,g=nan,h=2"), (vec![reading("m/h", 2.0, None)], vec![Rejection::NotFinite; 2]));
    for empty in ["", "\n\n", "# f=1\n"] {
        assert_eq!(all(empty), (vec![], vec![Rejection::Unparseable]), "{empty:?}");
    }
    let (readings, rejections) = all("m f=\nm f=2\n");
    assert_eq!((readings, rejections), (vec![reading("m/f", 2.0, None)], vec![Rejection::Unparseable]));
}

#[test]
fn only_the_fields_asked_for() {
    let text = "m,f=1 f=1,g=\"x\",a/b=2\nn g=3\nn s=\"only text\"";
    let (readings, rejections) = decode(&["g", "a/b"], Precision::Seconds, text);
    assert_eq!(readings, [reading("m/f=1/a%2Fb", 2.0, None), reading("n/g", 3.0, None)]);
    assert_eq!(rejections, [Rejection::NotANumber]);
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(text in "[a-c,= \\\\\"#\\r\\n0-9.iutäé/]{0,60}") {
        let (readings, rejections) = all(&text);
        prop_assert!(readings.len() + rejections.len() <= text.len().max(1));
    }

    /// Whatever the names are, series differ when they do, and labels give them back.
    #[test]
    fn names_go_through(names in prop::collection::vec("[a,= \\\\/é+#.]{1,4}", 4)) {
        prop_assume!(names.iter().all(|n| !n.ends_with('\\') && !n.contains("\\\\")));
        let quote = |text: &str, special: &[char]| {
            text.chars().flat_map(|c| special.contains(&c).then_some('\\').into_iter().chain([c])).collect::<String>()
        };
        let special = [',', '=', ' '];
        // A backslash before one of them cannot be written.
        prop_assume!(names.iter().all(|n| special.iter().all(|s| !n.contains(&format!("\\{s}")))));
        let [m, t, v, f] = names.as_slice() else { unreachable!() };
        prop_assume!(!m.starts_with('#'), "a comment");
        let series = format!("{},{}={}", quote(m, &[',', ' ']), quote(t, &special), quote(v, &special));
        let text = format!("{series} {}=1", quote(f, &special));
        let mut out = Decoded::default();
        Lines::new(std::slice::from_ref(f), Precision::Seconds).decode(&text, &mut out);
        prop_assert_eq!(out.rejections(), []);
        let readings: Vec<_> = out.readings().collect();
        prop_assert_eq!(readings.len(), 1);
        let labels: Vec<_> = readings.first().unwrap().labels().collect();
        prop_assert_eq!(labels, vec![("measurement", m.as_str()), (t.as_str(), v.as_str())]);
    }
}
