//! `vidente doctor` on set-ups that are fine, and on each thing that is not.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vidente_tests::{
    Feed, Mosquitto, Persistence, Rig, Settings, Store, WAIT, free_port, vidente, wait_until,
};

/// Exit status and findings.
fn examine(config: &Path) -> Result<(Option<i32>, Vec<Value>)> {
    let out = vidente(&["doctor", "--json", "--config", &config.display().to_string()])?;
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let found = serde_json::from_str(&said)
        .with_context(|| format!("{said}{}", String::from_utf8_lossy(&out.stderr)))?;
    Ok((out.status.code(), found))
}

/// The finding on a part that says all of some words.
fn found<'a>(findings: &'a [Value], verdict: &str, part: &str, words: &[&str]) -> Result<&'a Value> {
    let says = |finding: &&Value| {
        let text = format!("{} → {}", finding["found"], finding["fix"]);
        finding["verdict"] == verdict
            && finding["part"] == part
            && words.iter().all(|word| text.contains(word))
    };
    findings
        .iter()
        .find(says)
        .with_context(|| format!("no {verdict} of {part} with {words:?}: {findings:#?}"))
}

/// A spool that any disk has room for.
fn roomy() -> Settings {
    Settings { spool: "max_bytes = 1048576".to_owned(), ..Settings::climate() }
}

#[test]
fn a_set_up_that_is_fine_fails_nothing_before_and_while_the_daemon_runs() -> Result<()> {
    for (store, named) in [(Store::Postgres, "Postgres 1"), (Store::Sqlite, "SQLite 3")] {
        let rig = Rig::new(store)?;
        let (config, http) = rig.configure(&roomy())?;
        let (status, findings) = examine(&config)?;
        ensure!(status == Some(0), "{findings:#?}");
        found(&findings, "warn", "broker", &["climate heard nothing on sensors/+/+/climate", "topic"])?;
        // No reading, and none that is published later, so that it is heard at once from here on.
        Feed::message(&rig.broker, &Feed::topic(0), b"{}", true)?;
        let (_, findings) = examine(&config)?;
        found(&findings, "ok", "broker", &[&format!("stream climate hears {}", Feed::topic(0))])?;
        found(&findings, "ok", "broker", &["mosquitto version 2", "lets the user in"])?;
        found(&findings, "ok", "broker", &["grants sensors/+/+/climate, vidente/request/#"])?;
        found(&findings, "ok", "broker", &["takes what is published"])?;
        found(&findings, "warn", "broker", &["queue limits", "max_queued_messages"])?;
        found(&findings, "ok", "http", &["is free"])?;
        if store == Store::Postgres {
            found(&findings, "warn", "store", &["schema is not", "vidente migrate"])?;
        } else {
            found(&findings, "ok", "store", &["will be made"])?;
            ensure!(!rig.dir().join("vidente.db").exists(), "looking made the file");
        }
        ensure!(!rig.dir().join("vidente.spool").exists(), "looking made the spool");
        let mut daemon = vidente_tests::Daemon::start(&config, http, &rig.dir().join("log"))?;
        let (status, findings) = examine(&config)?;
        ensure!(status == Some(0), "{findings:#?}");
        found(&findings, "ok", "store", &[named])?;
        found(&findings, "ok", "store", &["the schema is current, 0 series"])?;
        found(&findings, "ok", "spool", &["iB are free", " 0 B used"])?;
        let id = format!("(process {})", daemon.id());
        found(&findings, "ok", "http", &["served by a running Vidente", &id])?;
        found(&findings, "ok", "spool", &["in use by this Vidente at its work", "mqtt.client_id"])?;
        if store == Store::Postgres {
            found(&findings, "ok", "clock", &["the store's clock is"])?;
        }
        daemon.stop()?;
    }
    Ok(())
}

#[test]
fn a_broker_or_store_that_is_away_or_says_no_fails() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let dead = free_port()?;
    let settings = Settings {
        proxies: vidente_tests::Proxies { broker: Some(dead), ..Default::default() },
        ..Settings::climate()
    };
    let (config, _) = rig.configure(&settings)?;
    let text = std::fs::read_to_string(&config)?;
    let sqlite = rig.store_url("vidente");
    std::fs::write(&config, text.replace(&sqlite, &format!("postgres://nobody@127.0.0.1:{dead}/none")))?;
    let (status, findings) = examine(&config)?;
    ensure!(status == Some(1), "{findings:#?}");
    found(&findings, "fail", "broker", &[&dead.to_string(), "mqtt.url"])?;
    found(&findings, "fail", "store", &["refused", "in [store]: check host and port in url"])?;

    // Somebody else has the port, and the spool's place is a file.
    let squatter = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = squatter.local_addr()?.port();
    let taken = text.lines().map(|line| match line {
        line if line.starts_with("listen") => format!("listen = \"127.0.0.1:{port}\"\n"),
        line if line.starts_with("dir") => "dir = \"/proc/nowhere\"\n".to_owned(),
        line => format!("{line}\n"),
    });
    std::fs::write(&config, taken.collect::<String>())?;
    let (status, findings) = examine(&config)?;
    ensure!(status == Some(1), "{findings:#?}");
    found(&findings, "fail", "http", &["taken by another program", "http.listen"])?;
    found(&findings, "fail", "spool", &["/proc", "spool.dir"])?;
    drop(squatter);

    std::fs::write(&config, "[mqtt]\nqos = 7\n")?;
    let (status, findings) = examine(&config)?;
    ensure!(status == Some(1), "{findings:#?}");
    found(&findings, "fail", "configuration", &["mqtt.qos"])?;
    Ok(())
}

#[test]
fn rights_and_limits_of_broker_and_store_are_named() -> Result<()> {
    let mut rig = Rig::new(Store::Postgres)?;
    let acl = rig.dir().join("acl");
    std::fs::write(&acl, "topic read sensors/#\n")?;
    rig.broker = Mosquitto::start_with(
        Persistence::Memory,
        &format!("acl_file {}\nretain_available false\nmax_packet_size 5000", acl.display()),
    )?;
    let settings = Settings::climate();
    rig.command(&settings, &["migrate"])?;
    let database = rig.database(&settings)?;
    database.execute("insert into series (key, stream, labels, field) values ('climate/x/y/value', 'climate', '{}', 'value')")?;
    let postgres = rig.postgres.as_ref().context("no Postgres")?;
    postgres
        .admin("vidente")?
        .execute("create role weak login; grant select on series, _sqlx_migrations to weak")?;
    let (config, _) = rig.configure(&Settings {
        rest: format!("{}\n[limits]\nmax_series = 1\n", settings.rest),
        ..settings
    })?;
    let text = std::fs::read_to_string(&config)?;
    let url = postgres.url();
    let user = url.split("//").nth(1).and_then(|rest| rest.split('@').next()).context("user")?;
    std::fs::write(&config, text.replace(&url, &url.replacen(user, "weak", 1)))?;
    let (status, findings) = examine(&config)?;
    ensure!(status == Some(1), "{findings:#?}");
    found(&findings, "fail", "broker", &["vidente/doctor", "write vidente/#"])?;
    found(&findings, "warn", "broker", &["no retained messages"])?;
    found(&findings, "warn", "broker", &["5000 bytes", "mqtt.max_packet_bytes"])?;
    found(&findings, "fail", "store", &["readings: insert", "feedback: insert", "roles.sql"])?;
    found(&findings, "warn", "store", &["limits.max_series is 1"])?;
    Ok(())
}

#[test]
fn what_another_daemon_has_fails_and_so_does_a_second_run() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let (config, http) = rig.configure(&roomy())?;
    let mut daemon = vidente_tests::Daemon::start(&config, http, &rig.dir().join("log"))?;
    let heard = || anyhow::Ok(daemon.json("/api/v1/streams")?[0]["heard"] == true);
    ensure!(!heard()?, "nothing has been published");
    Feed::message(&rig.broker, &Feed::topic(0), b"{}", true)?;
    wait_until("the stream to be heard", WAIT, heard)?;
    let (port, id) = (format!("127.0.0.1:{http}"), format!("process {}", daemon.id()));
    let second = |name: &str, change: &dyn Fn(String) -> String| {
        let (config, _) = rig.configure(&Settings { name: name.to_owned(), ..roomy() })?;
        std::fs::write(&config, change(std::fs::read_to_string(&config)?))?;
        let (status, findings) = examine(&config)?;
        ensure!(status == Some(1), "{findings:#?}");
        let out = vidente(&["run", "--config", &config.display().to_string()])?;
        ensure!(out.status.code() == Some(1), "{}", out.status);
        anyhow::Ok((findings, String::from_utf8_lossy(&out.stderr).into_owned()))
    };

    let listens = |text: String| {
        let lines = text.lines().map(|line| match line {
            line if line.starts_with("listen") => format!("listen = \"{port}\"\n"),
            line => format!("{line}\n"),
        });
        lines.collect()
    };
    let (findings, said) = second("beside", &listens)?;
    found(&findings, "fail", "http", &["taken by a Vidente", "another one", &id, "http.listen"])?;
    ensure!(
        said.contains(&format!("http.listen: {port} cannot")) && said.contains("choose another port"),
        "{said}"
    );

    let (findings, said) = second("below", &|text| text.replace("below.spool", "vidente.spool"))?;
    found(&findings, "fail", "spool", &["does not listen", &id, "spool.dir"])?;
    ensure!(said.contains("spool.dir: ") && said.contains(&id) && said.contains("mqtt.client_id"), "{said}");

    // Another file of the same daemon, or of a second one.
    let copy = rig.dir().join("copy.toml");
    std::fs::copy(&config, &copy)?;
    found(&examine(&copy)?.1, "warn", "spool", &["another file", "mqtt.client_id"])?;

    // The file of the daemon itself, changed before a restart: that is no second daemon.
    let text = std::fs::read_to_string(&config)?;
    let changes: [(&str, &str, &str); 2] =
        [("spool", &port, "127.0.0.1:9"), ("http", "vidente.spool", "other.spool")];
    for (part, from, to) in changes {
        std::fs::write(&config, text.replace(from, to))?;
        let (status, findings) = examine(&config)?;
        ensure!(status == Some(0), "{findings:#?}");
        found(&findings, "warn", part, &["of this configuration", &id, "restart it"])?;
    }
    daemon.stop()
}
