//! The commands that end by themselves, and configurations that cannot be used.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use vidente_tests::{Cluster, Database, Postgres, free_port, vidente, vidente_binary};

/// Status and standard error of a command with a configuration file.
fn told(command: &mut Command, name: &str, file: &Path) -> Result<(Option<i32>, String)> {
    let out = command.args([name, "--config"]).arg(file).output()?;
    Ok((out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned()))
}

/// Those of `vidente check`.
fn check(dir: &Path, text: &str) -> Result<(Option<i32>, String)> {
    let file = dir.join("broken.toml");
    std::fs::write(&file, text)?;
    told(&mut Command::new(vidente_binary()?), "check", &file)
}

#[test]
fn a_configuration_that_cannot_be_used_is_refused_with_file_key_reason_and_fix() -> Result<()> {
    const STREAM: &str = "[[stream]]\nname = \"s\"\ntopic = \"in/{x}\"\n";
    let dir = tempfile::tempdir()?;
    // Text, key named, and words of reason and fix.
    let cases = [
        ("[[stream]]\nname = \"s\"\ntopic = \"in/+\"\n".to_owned(), "topic", ["+", "{"]),
        ("[[stream]]\nname = \"s\"\ntopic = \"#\"\n".to_owned(), "topic", ["#", "..."]),
        (format!("[mqtt]\nurl = \"http://x\"\n{STREAM}"), "mqtt.url", ["http", "mqtt://"]),
        (format!("[mqtt]\nqos = 2\n{STREAM}"), "mqtt.qos", ["2", "1"]),
        (format!("[store]\nurl = \"mysql://x/y\"\n{STREAM}"), "store.url", ["no URL", "postgres://"]),
        (format!("[mqtt]\nprotocol = \"4\"\n{STREAM}"), "protocol", ["4", "3.1.1"]),
        (format!("[training]\nevery = \"soon\"\n{STREAM}"), "every", ["soon", "6h"]),
        (format!("[forecast]\ntopic = \"out\"\n{STREAM}"), "forecast.topic", ["out", "{series}"]),
        (format!("[mqtt]\nurll = \"mqtt://x\"\n{STREAM}"), "urll", ["unknown", "url"]),
        (format!("{STREAM}{STREAM}"), "name", ["s", "differ"]),
        ("[[stream]]\nname = \"s\"\n".to_owned(), "topic", ["missing", "topic"]),
        (String::new(), "stream", ["none", "[[stream]]"]),
        (format!("{STREAM}horizon = \"12\"\n"), "stream[0].horizon", ["integer", "12, without quotes"]),
        (format!("{STREAM}fields = \"x\"\n"), "stream[0].fields", ["a list", "[\"x\"]"]),
        (format!("[anomaly]\nwarm_up = 5.5\n{STREAM}"), "anomaly.warm_up", ["5.5", "integer"]),
        (format!("[store]\nurl = \"sqlite:///tmp\"\n{STREAM}"), "store.url", ["is a directory", "/tmp/"]),
        (format!("[store]\nurl = \"sqlite:x.db\"\n{STREAM}"), "store.url", ["names no file", "sqlite:///"]),
        (format!("[store]\nurl = \"sqlite:///no/x.db\"\n{STREAM}"), "store.url", ["/no does not", "mkdir"]),
    ];
    for (text, key, words) in cases {
        let (status, said) = check(dir.path(), &text)?;
        assert_eq!(status, Some(78), "{text}\n{said}");
        assert!(said.contains("broken.toml"), "no file in: {said}");
        assert!(said.contains(key), "no {key} in: {said}");
        for word in words {
            assert!(said.contains(word), "no {word} in: {said}");
        }
    }
    Ok(())
}

#[test]
fn every_problem_is_named_at_once() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (status, said) =
        check(dir.path(), "[mqtt]\nqos = 2\n[model]\nhidden = 0\n[[stream]]\nname = \"s\"\ntopic = \"t\"\n")?;
    assert_eq!(status, Some(78));
    assert!(said.contains("mqtt.qos") && said.contains("model.hidden"), "{said}");
    Ok(())
}

#[test]
fn no_configuration_is_refused_with_the_places_looked_at() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let missing = dir.path().join("missing.toml");
    let (status, said) = told(&mut Command::new(vidente_binary()?), "run", &missing)?;
    assert_eq!(status, Some(78));
    assert!(said.contains("missing.toml: cannot be read") && said.contains("after --config"), "{said}");
    Ok(())
}

#[test]
fn a_variable_that_cannot_be_used_is_named_and_what_is_hardly_meant_is_said() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("v.toml");
    let stream = |name: &str| format!("[[stream]]\nname = \"{name}\"\ntopic = \"in/{{x}}\"\n");
    std::fs::write(&file, format!("[store]\nurl = \"sqlite://v.db\"\n{}{}", stream("a"), stream("b")))?;
    let run = |variable: &str, value: &str| {
        told(Command::new(vidente_binary()?).env(variable, value), "check", &file)
    };
    for (variable, value, words) in [
        ("VIDENTE__HTTP__LISTEN", "foo", ["http.listen", "127.0.0.1:9464"]),
        ("VIDENTE__FOO", "1", ["foo: unknown key", "allowed here: mqtt"]),
        ("VIDENTE__MODEL__HIDDEN", "x", ["model.hidden", "an integer"]),
    ] {
        let (status, said) = run(variable, value)?;
        assert_eq!(status, Some(78), "{said}");
        assert!(said.contains(&format!("vidente: {variable} in the environment: ")), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
    let (status, said) = run("VIDENTE__MODEL__HIDDEN", "16")?;
    assert_eq!(status, Some(0), "{said}");
    for words in
        ["v.toml: warning: store.url: v.db is looked for", "warning: stream[1].topic: \"in/+\" is read"]
    {
        assert!(said.contains(words), "{said}");
    }
    Ok(())
}

#[test]
fn a_store_that_says_no_names_what_to_change() -> Result<()> {
    const NOBODY: &str = "65534";
    const OURS: &str = "";
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("v.toml");
    // Where others may enter.
    let program = dir.path().join("vidente");
    std::fs::copy(vidente_binary()?, &program)?;
    let migrate = |url: &str, user: &str| {
        let text = format!("[store]\nurl = \"{url}\"\n[[stream]]\nname = \"s\"\ntopic = \"in/{{x}}\"\n");
        std::fs::write(&file, text)?;
        let mut command = match user {
            NOBODY => Command::new("setpriv"),
            _ => Command::new(&program),
        };
        if user == NOBODY {
            command.args(["--reuid", user, "--regid", user, "--clear-groups"]).arg(&program);
        }
        told(&mut command, "migrate", &file)
    };
    let postgres = Postgres::start_with(Cluster {
        superuser: "postgres",
        hba: Some(
            "host all postgres 127.0.0.1/32 trust\nhost all nobody 127.0.0.1/32 trust\n\
                   host all asked 127.0.0.1/32 scram-sha-256\n",
        ),
        ..Cluster::default()
    })?;
    let at =
        |user: &str, database: &str| format!("postgres://{user}@127.0.0.1:{}/{database}", postgres.port());
    let sqlite = |path: &str| format!("sqlite://{}", dir.path().join(path).display());
    // A folder of ours that others may enter, with a store of ours in it.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))?;
    let (status, said) = migrate(&sqlite("ours.db"), OURS)?;
    assert_eq!(status, Some(0), "{said}");
    std::fs::write(dir.path().join("text"), "no database at all")?;
    for (url, user, words) in [
        (at("nobody", "vidente"), OURS, ["createuser", "in url"]),
        (at("postgres", "none"), OURS, ["createdb", "in url"]),
        (at("asked", "vidente"), OURS, ["the user in url", "password_file"]),
        (at("stranger", "vidente"), OURS, ["pg_hba.conf have a line", "cert_file"]),
        (format!("postgres://x@127.0.0.1:{}/x", free_port()?), OURS, ["port in url", "server runs"]),
        (sqlite("new.db"), NOBODY, ["to its folder", "chown"]),
        (sqlite("ours.db"), NOBODY, ["to its folder", "chown"]),
        (sqlite("text"), OURS, ["no database of SQLite", "name another"]),
    ] {
        if user == NOBODY && !rustix::process::geteuid().is_root() {
            continue;
        }
        let (status, said) = migrate(&url, user)?;
        assert!(status != Some(0) && said.contains("; [store] "), "{url}: {said}");
        assert!(words.iter().all(|word| said.contains(word)), "{url}: no {words:?} in: {said}");
    }
    Ok(())
}

#[test]
fn the_shipped_configuration_is_accepted() -> Result<()> {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/vidente.toml");
    let out = vidente(&["check", "--config", shipped])?;
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}

#[test]
fn migrate_makes_the_schema_and_is_harmless_twice() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let url = format!("sqlite://{}", dir.path().join("v.db").display());
    let file = dir.path().join("v.toml");
    std::fs::write(
        &file,
        format!("[store]\nurl = \"{url}\"\n[[stream]]\nname = \"s\"\ntopic = \"in/{{x}}\"\n"),
    )?;
    for _ in 0..2 {
        let out = vidente(&["migrate", "--config", file.to_str().context("path")?])?;
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    for table in [
        "series",
        "readings",
        "forecasts",
        "anomalies",
        "models",
        "training_runs",
        "series_state",
        "forecast_errors",
    ] {
        assert_eq!(Database::connect(&url)?.int(&format!("select count(*) from {table}"))?, 0, "{table}");
    }
    Ok(())
}

#[test]
fn each_command_has_a_page_in_the_manual() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let out = vidente(&["man", dir.path().to_str().context("path")?])?;
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let help = String::from_utf8(vidente(&["--help"])?.stdout)?;
    let listed =
        help.split("Commands:").nth(1).and_then(|rest| rest.split("\n\n").next()).context("commands")?;
    let commands = listed.lines().filter_map(|line| line.split_whitespace().next()).filter(|c| *c != "help");
    let overview = std::fs::read_to_string(dir.path().join("vidente.1"))?;
    let mut pages = 0;
    for command in commands.chain(["models-list"]) {
        let page = std::fs::read_to_string(dir.path().join(format!("vidente-{command}.1")))?;
        // `models` is a group of commands, which have the examples.
        let shown = command == "models" || page.contains("Example:");
        assert!(page.contains(".SH SYNOPSIS") && shown, "{command}: {page}");
        assert!(
            command == "models-list" || overview.contains(&format!("vidente\\-{command}(1)")),
            "{overview}"
        );
        pages += 1;
    }
    assert!(pages > 10, "{listed}");
    assert!(!dir.path().join("vidente-man.1").exists(), "a hidden command");

    let missing = dir.path().join("missing");
    let out = vidente(&["man", missing.to_str().context("path")?])?;
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("missing"));
    Ok(())
}
