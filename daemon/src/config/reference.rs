//! Holds `deploy/reference/config.md` and the package's configuration to the code.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use super::Config;

const REFERENCE: &str = include_str!("../../../deploy/reference/config.md");
const README: &str = include_str!("../../../README.md");
const STREAM: &str = "[[stream]]\nname = 'a'\ntopic = 'b/{x}'\n";

/// Key and default of each row.
fn rows() -> Vec<(&'static str, &'static str)> {
    let rows = REFERENCE.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split(" | ").collect();
        (cells[0].trim_end_matches('`'), cells[2])
    })
    .collect()
}

/// What a table of the file may hold, by what the error of a key that none has says.
fn allowed(header: &str) -> Option<Vec<String>> {
    let error = Config::parse(&format!("{header}\nno_such_key = 1\n")).unwrap_err();
    let (_, keys) = error.split_once("allowed here: ")?;
    // Two are told as "a or b".
    Some(keys.split(", ").flat_map(|keys| keys.split(" or ")).map(str::to_owned).collect())
}

#[test]
fn each_key_has_a_row_and_each_row_a_key() {
    let mut keys = BTreeSet::new();
    for section in allowed("").unwrap() {
        let header = if section == "stream" { STREAM.to_owned() } else { format!("[{section}]") };
        for key in allowed(&header).unwrap() {
            keys.insert(format!("{section}.{key}"));
        }
    }
    for key in allowed(&format!("{STREAM}[stream.anomaly]")).unwrap() {
        keys.insert(format!("stream.anomaly.{key}"));
    }
    let documented: BTreeSet<String> = rows().iter().map(|(key, _)| (*key).to_owned()).collect();
    assert_eq!(documented, keys);
    assert_eq!(rows().len(), keys.len(), "a key has two rows");
}

#[test]
fn what_is_said_to_be_the_default_is() {
    let mut text = String::new();
    let mut stream = STREAM.to_owned();
    for (key, default) in rows() {
        let Some(literal) = default.strip_prefix('`').and_then(|d| d.strip_suffix('`')) else {
            assert!(["none", "required"].contains(&default), "{key}: {default}");
            continue;
        };
        match key.strip_prefix("stream.") {
            Some(name) => stream += &format!("{name} = {literal}\n"),
            None => text += &format!("{key} = {literal}\n"),
        }
    }
    assert_eq!(Config::parse(&format!("{text}{stream}")), Config::parse(STREAM));
}

/// A key without a default that had one would be documented wrongly: leaving it out is the same as nothing else.
#[test]
fn keys_without_a_default_are_absent_by_default() {
    let shown = format!("{:#?}", Config::parse(STREAM).unwrap());
    let (mut absent, mut within) = (BTreeSet::new(), Vec::new());
    for line in shown.lines().map(str::trim) {
        let (name, value) = line.split_once(": ").unwrap_or(("", line));
        if value.ends_with(['{', '[', '(']) {
            within.push(name);
        } else if line.starts_with(['}', ']', ')']) {
            within.pop();
        } else if value == "None," {
            let path = within.iter().chain([&name]).filter(|name| !name.is_empty());
            absent.insert(path.copied().collect::<Vec<_>>().join("."));
        }
    }
    for (key, _) in rows().iter().filter(|(_, default)| *default == "none") {
        assert!(absent.contains(*key), "{key} is not among {absent:?}");
    }
}

#[test]
fn the_configuration_of_the_package_is_taken() {
    let config = Config::parse(include_str!("../../../deploy/debian/vidente.toml")).unwrap();
    assert_eq!(config.problems(), [""; 0]);
}

/// The part of the README under a heading.
fn section(heading: &str) -> &'static str {
    README.split("\n## ").find(|section| section.starts_with(&format!("{heading}\n"))).unwrap()
}

#[test]
fn the_configuration_that_the_readme_begins_with_is_taken() {
    let own = section("Your own topics, in five minutes");
    let text = own.split("```toml").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let config = Config::parse(text).unwrap();
    assert_eq!(config.problems(), [""; 0]);
    let keys = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    assert!(keys.count() <= 10, "{text}");
}

#[test]
fn the_keys_of_the_readme_are_those_of_the_reference() {
    let documented: BTreeSet<&str> = rows().into_iter().map(|(key, _)| key).collect();
    let named =
        section("Configuration").lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let keys: Vec<&str> = named.flat_map(|cell| cell.split(", ")).map(|key| key.trim_matches('`')).collect();
    assert!(keys.len() >= 10, "{keys:?}");
    for key in keys {
        assert!(documented.contains(key), "{key}");
    }
}
