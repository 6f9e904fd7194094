//! Secrets stay where they are: not in logs, answers, the list of processes or the output of commands.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use vidente_tests::{
    Authority, Cluster, Daemon, Feed, Mosquitto, Persistence, Postgres, WAIT, Wire, find_program, free_port,
    vidente, wait_until,
};

const STREAM: &str = "[[stream]]\nname = \"climate\"\ntopic = \"sensors/{site}/{device}/climate\"\n\
                      fields = [\"value\"]\ntime = \"ts\"\n[model]\nhidden = 4\n\
                      [training]\nevery = \"off\"\nmin_readings = 100\nwindow = \"3650d\"\n";
/// Right and wrong ones; none occurs anywhere by chance.
const SECRETS: [&str; 6] = [
    "mqtt-Zq4hunter",
    "store-Xw7hunter",
    "token-Kp9hunter-0123456789",
    "wrong-mqtt-Bv3hunter",
    "wrong-store-Nm5hunter",
    "given-Ty8hunter",
];

fn file(dir: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    std::fs::write(&path, text)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(path)
}

fn innocent(what: &str, text: &str, secrets: &[String]) {
    for secret in secrets {
        let found = text.lines().find(|line| line.contains(secret.as_str()));
        assert!(found.is_none(), "{what} holds a secret: {}", found.unwrap_or_default());
    }
}

#[test]
fn no_secret_shows_in_logs_answers_or_processes_whatever_fails() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    let [mqtt, store, token, wrong_mqtt, wrong_store, given] = SECRETS;
    let authority = Authority::new(dir, "ca")?;
    let server = authority.server("server", &["localhost"])?;
    let passwords = file(dir, "passwords", "")?;
    let made = Command::new(find_program(&["mosquitto_passwd"], "mosquitto")?)
        .args(["-b", &passwords.display().to_string(), "vidente", mqtt])
        .output()?;
    ensure!(made.status.success(), "mosquitto_passwd");
    // The sensors come in by another door than the daemon.
    let door = free_port()?;
    let broker = Mosquitto::start_with(
        Persistence::Memory,
        &format!("listener {door} 127.0.0.1\npassword_file {}", passwords.display()),
    )?;
    let postgres = Postgres::start_with(Cluster {
        superuser: "postgres",
        hba: Some("host all all 127.0.0.1/32 scram-sha-256\n"),
        ..Cluster::default()
    })?;
    postgres.admin("postgres")?.execute(&format!(
        "create role vidente login password '{store}'; alter database vidente owner to vidente"
    ))?;

    let start = |name: &str, mqtt: &str, store: &str| -> Result<(Daemon, u16)> {
        let http = free_port()?;
        let text = format!(
            "[mqtt]\nurl = \"mqtt://127.0.0.1:{door}\"\nusername = \"vidente\"\npassword_file = \"{}\"\n\
             [store]\nurl = \"postgres://vidente@127.0.0.1:{}/vidente\"\npassword_file = \"{}\"\n\
             [spool]\ndir = \"{}\"\n\
             [http]\nlisten = \"127.0.0.1:{http}\"\ntoken_file = \"{}\"\ncert_file = \"{}\"\nkey_file = \"{}\"\n{STREAM}",
            file(dir, &format!("{name}-mqtt"), mqtt)?.display(),
            postgres.port(),
            file(dir, &format!("{name}-store"), store)?.display(),
            dir.join(format!("{name}.spool")).display(),
            file(dir, &format!("{name}-token"), token)?.display(),
            server.certificate.display(),
            server.key.display(),
        );
        let config = file(dir, &format!("{name}.toml"), &text)?;
        let log = dir.join(format!("{name}.log"));
        Ok((Daemon::launch(&config, http, &log, &[("VIDENTE_LOG", "trace")])?, http))
    };
    let get =
        |http: u16, path: &str, headers: &str| Wire::tls(http, authority.certificate())?.get(path, headers);
    let mut secrets: Vec<String> = SECRETS.iter().map(|s| (*s).to_owned()).collect();
    // The base64 of a key, without the lines around it.
    secrets.extend(std::fs::read_to_string(&server.key)?.lines().skip(1).take(1).map(str::to_owned));
    let look = |name: &str, daemon: &Daemon, http: u16| -> Result<()> {
        let bearer = format!("authorization: Bearer {token}\r\n");
        for path in
            ["/metrics", "/ready", "/live", "/api/v1/series", "/api/v1/streams", "/", "/api/v1/series/x/y"]
        {
            for header in ["", &bearer, &format!("authorization: Bearer {given}\r\n")] {
                innocent(path, &get(http, path, header)?.1, &secrets);
            }
        }
        for list in ["cmdline", "environ"] {
            let text = std::fs::read(format!("/proc/{}/{list}", daemon.id()))?;
            innocent(list, &String::from_utf8_lossy(&text), &secrets);
        }
        innocent(name, &daemon.log(), &secrets);
        Ok(())
    };

    let (mut daemon, http) = start("right", mqtt, store)?;
    wait_until("vidente to be ready", WAIT, || Ok(get(http, "/ready", "")?.0 == 200))?;
    Feed::run(&broker, 2, 1, 0..100)?;
    let bearer = format!("authorization: Bearer {token}\r\n");
    let stored = "vidente_readings_stored_total 200\n";
    wait_until("the readings", WAIT, || Ok(get(http, "/metrics", &bearer)?.1.contains(stored)))?;
    daemon.ask_to_train()?;
    let trained = "vidente_training_duration_seconds_count{stream=\"climate\"} 1\n";
    wait_until("a training run", 3 * WAIT, || Ok(get(http, "/metrics", &bearer)?.1.contains(trained)))?;
    look("right", &daemon, http)?;
    daemon.stop()?;
    assert!(daemon.log().contains("DEBUG rumqttc"), "the log is not at its most talkative");
    innocent("right", &daemon.log(), &secrets);

    for (name, mqtt, store, texts) in [
        ("no-broker", wrong_mqtt, store, ["incoming connection", "check mqtt.username"]),
        ("no-store", mqtt, wrong_store, ["the store is away", "password_file"]),
    ] {
        let (mut daemon, http) = start(name, mqtt, store)?;
        daemon.wait_log(&texts)?;
        look(name, &daemon, http)?;
        daemon.stop()?;
        innocent(name, &daemon.log(), &secrets);
    }
    Ok(())
}

#[test]
fn a_secret_in_the_wrong_place_is_refused_and_not_repeated() -> Result<()> {
    const SECRET: &str = "Zq4hunter";
    let dir = tempfile::tempdir()?;
    let secrets = [SECRET.to_owned()];
    for (text, key) in [
        (format!("[mqtt]\nurl = \"mqtt://vidente:{SECRET}@127.0.0.1\"\n"), "mqtt.url"),
        (format!("[mqtt]\nurl = \"mqtt://vidente:{SECRET}@127.0.0.1:port\"\n"), "mqtt.url"),
        (format!("[store]\nurl = \"postgres://vidente:{SECRET}@127.0.0.1/vidente\"\n"), "store.url"),
        (format!("[store]\nurl = \"postgres://vidente@127.0.0.1/vidente?password={SECRET}\"\n"), "store.url"),
        (format!("[store]\nurl = \"postgres://vidente:{SECRET}@127.0.0.1:port/vidente\"\n"), "store.url"),
        (format!("[store]\nurl = \"mysql://vidente:{SECRET}@127.0.0.1/vidente\"\n"), "store.url"),
        (format!("[store]\npassword = \"{SECRET}\"\n"), "store.password"),
        (format!("[store]\npassword = {SECRET}\n"), "line 2"),
        (format!("[store]\nurl = \"postgres://vidente:{SECRET}@127.0.0.1/vidente\n"), "line 2"),
    ] {
        let config = file(dir.path(), "v.toml", &format!("{text}{STREAM}"))?;
        for command in ["check", "run", "migrate", "train"] {
            let out = vidente(&[command, "--config", config.to_str().context("path")?])?;
            let said =
                format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
            assert_eq!(out.status.code(), Some(78), "{command}: {said}");
            assert!(said.contains("v.toml") && said.contains(key), "{command}: {said}");
            innocent(command, &said, &secrets);
        }
    }
    let csv = file(dir.path(), "v.csv", "series,timestamp,value\na,2026-01-01T00:00:00Z,1\n")?;
    let csv = csv.to_str().context("path")?;
    for url in
        ["mqtt://u:Zq4hunter@127.0.0.1", "http://u:Zq4hunter@127.0.0.1", "mqtt://u:Zq4hunter@127.0.0.1:port"]
    {
        let out = vidente(&["replay", csv, "--topic", "x/{series}", "--url", url])?;
        assert!(!out.status.success());
        innocent("replay", &String::from_utf8_lossy(&out.stderr), &secrets);
    }
    Ok(())
}

#[test]
fn check_warns_of_what_lets_others_in_and_still_passes() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let token = file(dir.path(), "token", "0123456789abcdef0123456789abcdef\n")?;
    let store = format!("[store]\nurl = \"sqlite://{}\"\n", dir.path().join("v.db").display());
    let check = |http: &str| -> Result<String> {
        let config = file(dir.path(), "v.toml", &format!("{http}\n{store}{STREAM}"))?;
        let out = vidente(&["check", "--config", config.to_str().context("path")?])?;
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(0), "{said}");
        Ok(said)
    };
    assert_eq!(check("")?, "");
    let said = check("[http]\nlisten = \"0.0.0.0:9464\"")?;
    assert!(said.contains("v.toml: warning: http.listen: whoever reaches 0.0.0.0:9464"), "{said}");
    let with_token = format!("[http]\ntoken_file = \"{}\"", token.display());
    assert_eq!(check(&with_token)?, "");
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644))?;
    let said = check(&with_token)?;
    assert!(said.contains("http.token_file: every user of this machine can read"), "{said}");
    Ok(())
}

/// What the unit passes is where the sample configuration looks for it.
#[test]
fn the_credentials_of_the_shipped_unit_are_those_of_the_sample() {
    let unit = include_str!("../../deploy/systemd/vidente.service");
    let sample = include_str!("../../deploy/vidente.toml");
    let passed: Vec<&str> = unit
        .lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix("LoadCredential=")?.split(':').next())
        .collect();
    assert_eq!(passed.len(), 3);
    for name in passed {
        assert!(sample.contains(&format!("\"/run/credentials/vidente.service/{name}\"")), "{name}");
    }
}
