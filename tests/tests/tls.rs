//! TLS to the broker and to Postgres, with certificates made here: who is trusted, who is not, and what the
//! log says to change.

use std::path::Path;

use anyhow::Result;
use vidente_tests::{
    Authority, Cluster, Daemon, Database, Feed, Identity, Mosquitto, Persistence, Postgres, Subscriber,
    free_port,
};

const PROTOCOLS: [&str; 2] = ["5", "3.1.1"];
const STREAM: &str = "[[stream]]\nname = \"climate\"\ntopic = \"sensors/{site}/{device}/climate\"\n\
                      fields = [\"value\"]\ntime = \"ts\"\n[training]\nevery = \"off\"\n";

/// A daemon with these sections; the name is that of its files.
fn daemon(dir: &Path, name: &str, mqtt: &str, store: &str) -> Result<Daemon> {
    let http = free_port()?;
    let config = dir.join(format!("{name}.toml"));
    let spool = dir.join(format!("{name}.spool"));
    let text = format!(
        "[mqtt]\n{mqtt}\n[store]\n{store}\n[spool]\ndir = \"{}\"\n[http]\nlisten = \"127.0.0.1:{http}\"\n{STREAM}",
        spool.display()
    );
    std::fs::write(&config, text)?;
    Daemon::launch(&config, http, &dir.join(format!("{name}.log")), &[])
}

fn sqlite(dir: &Path, name: &str) -> String {
    format!("url = \"sqlite://{}\"", dir.join(format!("{name}.db")).display())
}

fn listener(authority: &Authority, server: &Identity, more: &str) -> Result<(u16, String)> {
    let port = free_port()?;
    let lines = format!(
        "listener {port} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\n{more}\n",
        authority.certificate().display(),
        server.certificate.display(),
        server.key.display()
    );
    Ok((port, lines))
}

/// What is refused stays out, and the log names the fix.
fn refused(daemon: &mut Daemon, texts: &[&str]) -> Result<()> {
    daemon.wait_log(texts)?;
    let (status, body) = daemon.get("/ready")?;
    assert_eq!(status, 503, "{body}");
    daemon.stop()
}

#[test]
fn readings_and_forecasts_flow_over_tls_and_the_untrusted_are_refused_with_the_fix() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    let (ours, other) = (Authority::new(dir, "ours")?, Authority::new(dir, "other")?);
    let local = ["localhost", "127.0.0.1"];
    let good = ours.server("good", &local)?;
    let (trusted, a) = listener(&ours, &good, "")?;
    let (misnamed, b) = listener(&ours, &ours.server("misnamed", &["broker.example"])?, "")?;
    let (expired, c) = listener(&ours, &ours.expired("expired", &local)?, "")?;
    let (mutual, d) = listener(&ours, &good, "require_certificate true")?;
    let broker = Mosquitto::start_with(Persistence::Memory, &[a, b, c, d].concat())?;
    let client = ours.client("vidente")?;
    let stranger = other.client("stranger")?;
    let identity = |i: &Identity| {
        format!("cert_file = \"{}\"\nkey_file = \"{}\"", i.certificate.display(), i.key.display())
    };

    for protocol in PROTOCOLS {
        let mqtt = |name: &str, port: u16, authority: &Authority, more: &str| {
            format!(
                "url = \"mqtts://localhost:{port}\"\nca_file = \"{}\"\nprotocol = \"{protocol}\"\n\
                 client_id = \"{name}\"\n{more}",
                authority.certificate().display()
            )
        };
        let start = |what: &str, port: u16, authority: &Authority, more: &str| {
            let name = format!("{what}-{protocol}");
            daemon(dir, &name, &mqtt(&name, port, authority, more), &sqlite(dir, &name))
        };
        // In and out, over TLS alone and with a client certificate.
        for (what, port, more) in [("plain", trusted, String::new()), ("mutual", mutual, identity(&client))] {
            let mut daemon = start(what, port, &ours, &more)?;
            daemon.wait_ready()?;
            let subscriber = Subscriber::new(&broker, "vidente/forecast/#")?;
            let kept = subscriber.count();
            Feed::run(&broker, 2, 1, 0..10)?;
            daemon.wait_stored(20)?;
            subscriber.wait_for(kept + 20)?;
            daemon.stop()?;
        }
        let mut wrong = [
            (start("authority", trusted, &other, "")?, "set ca_file"),
            (start("name", misnamed, &ours, "")?, "write the host in url as"),
            (start("expired", expired, &ours, "")?, "renew the server's certificate"),
            (start("anonymous", mutual, &ours, "")?, "set cert_file and key_file"),
            (start("stranger", mutual, &ours, &identity(&stranger))?, "certificate in cert_file"),
        ];
        for (daemon, fix) in &mut wrong {
            for connection in ["incoming connection", "outgoing connection"] {
                daemon.wait_log(&["WARN", connection, "[mqtt]", fix])?;
            }
            refused(daemon, &[fix])?;
        }
    }
    Ok(())
}

/// A port that does not speak TLS.
#[test]
fn tls_to_a_port_without_it_is_said_to_be_that() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let authority = Authority::new(dir.path(), "ours")?;
    let broker = Mosquitto::start(Persistence::Memory)?;
    let mqtt = format!(
        "url = \"mqtts://localhost:{}\"\nca_file = \"{}\"",
        broker.port(),
        authority.certificate().display()
    );
    let mut daemon = daemon(dir.path(), "v", &mqtt, &sqlite(dir.path(), "v"))?;
    refused(&mut daemon, &["WARN", "incoming connection", "failed"])
}

#[test]
fn postgres_is_verified_in_full_and_knows_the_client_by_its_certificate() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    let (ours, other) = (Authority::new(dir, "ours")?, Authority::new(dir, "other")?);
    let server = ours.server("server", &["localhost"])?;
    let postgres = Postgres::start_with(Cluster {
        superuser: "postgres",
        settings: "\nssl = on\nssl_ca_file = 'ca.pem'\n",
        hba: Some(
            "hostssl all vidente 127.0.0.1/32 cert\nhostssl all scribe 127.0.0.1/32 scram-sha-256\n\
             hostssl all scribe ::1/128 scram-sha-256\nhostssl all vidente ::1/128 cert\n",
        ),
        files: &[
            (&server.certificate, "server.crt"),
            (&server.key, "server.key"),
            (ours.certificate(), "ca.pem"),
        ],
    })?;
    postgres.admin("postgres")?.execute(
        "create role vidente login; create role scribe login password 'hunter2'; \
         alter database vidente owner to vidente",
    )?;
    let broker = Mosquitto::start(Persistence::Memory)?;
    let password = dir.join("password");
    std::fs::write(&password, "hunter2\n")?;
    let (client, imposter) = (ours.client("vidente")?, ours.client("imposter")?);
    let start = |name: &str, user: &str, host: &str, keys: &str| {
        let mqtt = format!("url = \"{}\"\nclient_id = \"{name}\"", broker.url());
        let store = format!("url = \"postgres://{user}@{host}:{}/vidente\"\n{keys}", postgres.port());
        daemon(dir, name, &mqtt, &store)
    };
    let ca = |authority: &Authority| format!("ca_file = \"{}\"\n", authority.certificate().display());
    let identity = |i: &Identity| {
        format!("cert_file = \"{}\"\nkey_file = \"{}\"\n", i.certificate.display(), i.key.display())
    };
    let with_password = format!("password_file = \"{}\"\n", password.display());

    let mut daemon = start("right", "vidente", "localhost", &(ca(&ours) + &identity(&client)))?;
    daemon.wait_ready()?;
    Feed::run(&broker, 2, 1, 0..10)?;
    daemon.wait_stored(20)?;
    let admin: Database = postgres.admin("vidente")?;
    let encrypted = "select count(*) from pg_stat_ssl s join pg_stat_activity a using (pid) \
                     where a.application_name = 'vidente' and s.ssl and s.client_dn = '/CN=vidente'";
    assert!(admin.int(encrypted)? >= 1);
    assert_eq!(admin.int("select count(*) from readings")?, 20);
    daemon.stop()?;

    // A parameter of the address does the same as ca_file.
    let parameters = format!(
        "localhost:{}/vidente?sslmode=verify-full&sslrootcert={}",
        postgres.port(),
        ours.certificate().display()
    );
    admin.execute("grant vidente to scribe")?;
    let store = format!("url = \"postgres://scribe@{parameters}\"\n{with_password}");
    let mqtt = format!("url = \"{}\"\nclient_id = \"parameters\"", broker.url());
    let mut by_parameters = self::daemon(dir, "parameters", &mqtt, &store)?;
    by_parameters.wait_ready()?;
    by_parameters.stop()?;

    for (name, user, host, keys, fix) in [
        ("authority", "scribe", "localhost", ca(&other) + &with_password, "set ca_file"),
        ("name", "scribe", "127.0.0.1", ca(&ours) + &with_password, "write the host in url as"),
        ("anonymous", "vidente", "localhost", ca(&ours), "cert_file"),
        ("imposter", "vidente", "localhost", ca(&ours) + &identity(&imposter), "cert_file"),
    ] {
        let mut daemon = start(name, user, host, &keys)?;
        refused(&mut daemon, &["the store is away", "[store]", fix])?;
    }
    Ok(())
}
