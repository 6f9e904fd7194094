//! The broker's rights that are shipped: sensors write their own topics, the daemon its forecasts, and nobody
//! anything else.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use vidente_tests::{
    Authority, Daemon, Database, Mosquitto, Persistence, Reading, Subscriber, WAIT, ask_with_login,
    find_program, free_port, wait_until,
};

const ACL: &str = include_str!("../../deploy/mosquitto/vidente.acl");
const SECURE: &str = include_str!("../../deploy/mosquitto/secure.conf");
const PROTOCOLS: [&str; 2] = ["5", "3.1.1"];
const STREAM: &str = "[[stream]]\nname = \"climate\"\ntopic = \"sensors/{site}/{device}/climate\"\n\
                      fields = [\"value\"]\ntime = \"ts\"\n[training]\nevery = \"off\"\n";

/// Publishes as a user; what comes back of a message that the broker does not take differs with the protocol.
fn publish(
    broker: &Mosquitto,
    user: &str,
    protocol: &str,
    topic: &str,
    payload: &str,
    retain: bool,
) -> Result<()> {
    let mut command = Command::new(find_program(&["mosquitto_pub"], "mosquitto-clients")?);
    command.args([
        "-h",
        "127.0.0.1",
        "-p",
        &broker.port().to_string(),
        "-q",
        "1",
        "-u",
        user,
        "-P",
        "secret",
    ]);
    command.args(["-V", if protocol == "5" { "mqttv5" } else { "mqttv311" }, "-t", topic, "-m", payload]);
    if retain {
        command.arg("-r");
    }
    let out = command.output()?;
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    ensure!(out.status.success() || said.contains("Not authorized"), "{}: {said}", out.status);
    Ok(())
}

#[test]
fn with_the_shipped_rights_sensors_cannot_speak_for_others_nor_for_vidente() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    let authority = Authority::new(dir, "ca")?;
    let server = authority.server("server", &["localhost"])?;
    let passwords = dir.join("vidente.passwd");
    std::fs::write(&passwords, "")?;
    for user in ["vidente", "dashboard", "operator", "homeassistant", "dev0", "dev1"] {
        let made = Command::new(find_program(&["mosquitto_passwd"], "mosquitto")?)
            .arg("-b")
            .arg(&passwords)
            .args([user, "secret"])
            .output()?;
        ensure!(made.status.success(), "mosquitto_passwd: {}", String::from_utf8_lossy(&made.stderr));
    }
    let acl = dir.join("vidente.acl");
    std::fs::write(&acl, ACL)?;
    let tls = free_port()?;
    let mut secure = SECURE.to_owned();
    for (shipped, here) in [
        ("listener 8883", format!("listener {tls} 127.0.0.1")),
        ("/etc/mosquitto/vidente.passwd", passwords.display().to_string()),
        ("/etc/mosquitto/vidente.acl", acl.display().to_string()),
        ("/etc/mosquitto/certs/ca.pem", authority.certificate().display().to_string()),
        ("/etc/mosquitto/certs/server.pem", server.certificate.display().to_string()),
        ("/etc/mosquitto/certs/server.key", server.key.display().to_string()),
    ] {
        assert!(secure.contains(shipped), "{shipped}");
        secure = secure.replace(shipped, &here);
    }
    let broker = Mosquitto::start_with(Persistence::Memory, &secure)?;
    let password = dir.join("password");
    std::fs::write(&password, "secret\n")?;
    assert!(Subscriber::new(&broker, "#").is_err(), "nobody comes in without a login");

    for protocol in PROTOCOLS {
        let http = free_port()?;
        let url = format!("sqlite://{}", dir.join(format!("{protocol}.db")).display());
        let config = dir.join(format!("{protocol}.toml"));
        std::fs::write(
            &config,
            format!(
                "[mqtt]\nurl = \"mqtts://localhost:{tls}\"\nprotocol = \"{protocol}\"\nusername = \"vidente\"\n\
                 password_file = \"{}\"\nca_file = \"{}\"\n[store]\nurl = \"{url}\"\n\
                 [spool]\ndir = \"{}\"\n\
                 [http]\nlisten = \"127.0.0.1:{http}\"\n{STREAM}[homeassistant]\ndiscovery = true\n",
                password.display(),
                authority.certificate().display(),
                dir.join("spool").display()
            ),
        )?;
        let mut daemon = Daemon::start(&config, http, &dir.join(format!("{protocol}.log")))?;
        daemon.wait_log(&["listening to vidente/request/#"])?;
        let all = Subscriber::with_login(&broker, "#", Some(("dashboard", "secret")))?;
        let reading = |position| Reading { series: 0, position }.payload();
        let say =
            |user: &str, topic: &str, payload: &str| publish(&broker, user, protocol, topic, payload, false);

        say("dev0", "sensors/hall/dev0/climate", &reading(0))?;
        say("dev0", "sensors/hall/dev0/climate", &reading(1))?;
        daemon.wait_stored(2)?;
        // Another's readings, forecasts, anomalies, and that the daemon is gone.
        say("dev0", "sensors/hall/dev1/climate", &reading(2))?;
        say("dashboard", "sensors/hall/dev0/climate", &reading(2))?;
        say("dev0", "vidente/forecast/climate/hall/dev0/value", "forged")?;
        say("dashboard", "vidente/forecast/climate/hall/dev0/value", "forged")?;
        say("dev0", "vidente/anomaly/climate/hall/dev0/value", "forged")?;
        publish(&broker, "dev0", protocol, "vidente/status", "offline", true)?;
        publish(&broker, "vidente", protocol, "sensors/hall/dev0/climate", &reading(2), false)?;
        // Nobody asks but who may.
        for user in ["dev0", "dashboard", "homeassistant"] {
            say(user, "vidente/request/series", "{\"response_topic\":\"vidente/response/x\"}")?;
        }
        let answer = ask_with_login(&broker, protocol, "series", "{}", Some(("operator", "secret")))?;
        assert_eq!(answer["total"], 1);
        let asked = |m: &vidente_tests::Metrics| m.sum("vidente_requests_total", &[]);
        assert_eq!(asked(&daemon.metrics()?), 1.0);
        // Home Assistant finds the series, and hears of them.
        let home = Subscriber::with_login(&broker, "#", Some(("homeassistant", "secret")))?;
        wait_until("the announcements", WAIT, || {
            let heard = home.messages();
            let some = |prefix: &str| heard.iter().any(|m| m.topic.starts_with(prefix));
            Ok(["homeassistant/device/", "vidente/forecast/", "vidente/problem/", "vidente/status"]
                .into_iter()
                .all(some))
        })?;
        // What comes after all that has come after it everywhere.
        say("dev1", "sensors/hall/dev1/climate", &reading(3))?;
        let metrics = daemon.wait_stored(3)?;
        assert_eq!((metrics.received(), metrics.rejected(None)), (3.0, 0.0));
        let last = "vidente/forecast/climate/hall/dev1/value";
        wait_until("the last forecast", WAIT, || Ok(all.messages().iter().any(|m| m.topic == last)))?;
        for message in all.messages() {
            assert!(message.topic.starts_with("vidente/"), "readings are not for all: {}", message.topic);
            assert_ne!(message.payload, b"forged", "{}", message.topic);
            // What the broker kept is of the daemon before.
            let status = message.topic == "vidente/status" && !message.retained;
            assert!(!status || message.payload == b"online", "{message:?}");
        }
        assert_eq!(Database::connect(&url)?.int("select count(*) from series")?, 2);
        daemon.stop()?;
        wait_until("the farewell", WAIT, || {
            let heard = all.messages();
            Ok(heard.iter().any(|m| m.topic == "vidente/status" && !m.retained && m.payload == b"offline"))
        })?;
    }

    let wrong = dir.join("wrong.toml");
    std::fs::write(&password, "other\n")?;
    std::fs::write(&wrong, std::fs::read_to_string(dir.join("5.toml"))?)?;
    let mut daemon = Daemon::launch(&wrong, free_port()?, &dir.join("wrong.log"), &[])?;
    daemon.wait_log(&["incoming connection", "check mqtt.username and mqtt.password_file"])?;
    daemon.stop()
}

/// mosquitto's ACL file lets everybody subscribe and then hands nothing over; its plugin refuses, as other
/// brokers do.
#[test]
fn a_refused_subscription_is_said_and_not_ready() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    let plugin = plugin().context("mosquitto comes without its plugin for rights")?;
    let rights = dir.join("rights.json");
    std::fs::write(
        &rights,
        r#"{"defaultACLAccess":{"publishClientSend":true,"publishClientReceive":true,"subscribe":false,"unsubscribe":true}}"#,
    )?;
    let more = format!("plugin {plugin}\nplugin_opt_config_file {}\nallow_anonymous true", rights.display());
    let broker = Mosquitto::start_with(Persistence::Memory, &more)?;
    for protocol in PROTOCOLS {
        let http = free_port()?;
        let config = dir.join(format!("{protocol}.toml"));
        let db = dir.join(format!("{protocol}.db"));
        std::fs::write(
            &config,
            format!(
                "[mqtt]\nurl = \"{}\"\nprotocol = \"{protocol}\"\n[store]\nurl = \"sqlite://{}\"\n\
                 [spool]\ndir = \"{}\"\n[http]\nlisten = \"127.0.0.1:{http}\"\n{STREAM}",
                broker.url(),
                db.display(),
                dir.join("spool").display()
            ),
        )?;
        let mut daemon = Daemon::launch(&config, http, &dir.join(format!("{protocol}.log")), &[])?;
        daemon.wait_log(&["ERROR", "refuses the subscription to sensors/+/+/climate", "ACL file"])?;
        let (status, body) = daemon.get("/ready")?;
        assert!(status == 503 && body.contains("subscribed"), "{status} {body}");
        daemon.stop()?;
    }
    Ok(())
}

fn plugin() -> Option<String> {
    let name = "mosquitto_dynamic_security.so";
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    let mut candidates = folders.chain([Path::new("/usr/lib").to_owned()]).map(|folder| folder.join(name));
    candidates.find(|path| path.is_file()).map(|path| path.display().to_string())
}
