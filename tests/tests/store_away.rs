//! Postgres is away, slow, full, read-only, refuses the password, holds a newer schema, or fails over: the
//! forecasts go on, memory stays bounded, and once the store takes writes again nothing is missing.

use anyhow::{Context, Result, ensure};
use std::time::Duration;
use vidente_tests::{
    Audit, Daemon, Database, Line, Plan, Postgres, Proxies, Proxy, Publisher, Rig, Settings, Store,
    Subscriber, WAIT, peak_memory, wait_until,
};

const SERIES: usize = 20;
const RATE: f64 = 1_000.0;
/// Readings made while the store takes nothing: more than the broker sends ahead of acknowledgements, 10,000,
/// so that forecasts go on only if readings are durable elsewhere.
const MEANWHILE: u64 = 15_000;
/// What the daemon may hold in memory in the end, the store's backlog included.
const MEMORY: u64 = 400 << 20;

/// A daemon on Postgres by way of a proxy, with readings flowing.
struct Scene {
    rig: Rig,
    settings: Settings,
    proxy: Proxy,
    daemon: Daemon,
    heard: Subscriber,
    publisher: Publisher,
}

impl Scene {
    fn begin(rig: Rig) -> Result<Scene> {
        let proxy = Proxy::start(rig.postgres.as_ref().context("no Postgres")?.port())?;
        let proxies = Proxies { broker: None, store: Some(proxy.port()) };
        let settings = Settings { proxies, ..Settings::climate() };
        let heard = Subscriber::new(&rig.broker, "vidente/forecast/#")?;
        let mut daemon = rig.daemon(&settings)?;
        let publisher = Publisher::start(rig.broker.port(), Plan::new(SERIES, RATE));
        daemon.wait_stored(1_000)?;
        Ok(Scene { rig, settings, proxy, daemon, heard, publisher })
    }

    fn postgres(&mut self) -> Result<&mut Postgres> {
        self.rig.postgres.as_mut().context("no Postgres")
    }

    fn database(&self) -> Result<Database> {
        self.rig.database(&self.settings)
    }

    /// Readings go on being made, and each is answered by a forecast.
    fn goes_on(&self) -> Result<()> {
        let until = self.publisher.ledger().made + MEANWHILE;
        self.publisher.wait_made(until, WAIT)?;
        wait_until("the forecasts of the outage", WAIT, || Ok(self.heard.count() as u64 >= until))
            .with_context(|| format!("{} forecasts of {until} readings", self.heard.count()))
    }

    /// Nothing is stored meanwhile.
    fn takes_nothing(&self) -> Result<()> {
        wait_until("the store to be seen away", WAIT, || {
            Ok(self.daemon.metrics()?.sum("vidente_store_up", &[]) == 0.0)
        })
    }

    /// The store takes writes again: the audit.
    fn end(mut self, what: &'static str) -> Result<()> {
        let mut audit = Audit::default();
        audit.fault(what);
        let plan = self.publisher.plan();
        let ledger = self.publisher.finish()?;
        let database = self.rig.database(&self.settings)?;
        let report = audit.conclude(&mut self.daemon, &database, plan, ledger)?;
        let memory = peak_memory(self.daemon.id())?;
        println!("peak memory {} MB", memory >> 20);
        self.daemon.stop()?;
        report.check(what)?;
        ensure!(memory < MEMORY, "{} MB", memory >> 20);
        Ok(())
    }
}

/// A daemon whose store is as a statement makes it, until another one.
fn as_superuser(what: &'static str, begin: &str, end: &str) -> Result<()> {
    let scene = Scene::begin(Rig::new(Store::Postgres)?)?;
    // A session of its own, made before, that goes on whatever becomes of new ones.
    let database = scene.database()?;
    database.execute(begin)?;
    scene.proxy.cut(vidente_tests::Cut::Reset);
    scene.takes_nothing()?;
    scene.goes_on()?;
    database.execute(end)?;
    scene.proxy.cut(vidente_tests::Cut::Reset);
    scene.end(what)
}

#[test]
fn down() -> Result<()> {
    let mut scene = Scene::begin(Rig::new(Store::Postgres)?)?;
    scene.postgres()?.kill()?;
    scene.takes_nothing()?;
    scene.goes_on()?;
    scene.postgres()?.start_again()?;
    scene.end("Postgres down")
}

/// Two seconds each way: each batch takes several.
#[test]
fn slow() -> Result<()> {
    let scene = Scene::begin(Rig::new(Store::Postgres)?)?;
    scene.proxy.set(Line::Late(Duration::from_secs(2)));
    scene.goes_on()?;
    scene.proxy.set(Line::Open);
    scene.end("Postgres slow")
}

#[test]
fn hanging() -> Result<()> {
    let scene = Scene::begin(Rig::new(Store::Postgres)?)?;
    scene.proxy.set(Line::Hole);
    scene.goes_on()?;
    scene.proxy.set(Line::Open);
    scene.end("Postgres hangs")
}

/// As a server is that has become a standby, or that an operator has set so.
#[test]
fn read_only() -> Result<()> {
    as_superuser(
        "Postgres read-only",
        "alter role vidente set default_transaction_read_only = on",
        "set default_transaction_read_only = off; alter role vidente reset default_transaction_read_only",
    )
}

/// The error that a full disk gives, for every row: SQLSTATE 53100.
#[test]
fn full() -> Result<()> {
    as_superuser(
        "Postgres full",
        "create function full_disk() returns trigger language plpgsql as $$ begin \
         raise exception 'could not extend file: No space left on device' using errcode = '53100'; \
         end $$; \
         create trigger full_disk before insert on readings for each statement execute function full_disk()",
        "drop trigger full_disk on readings; drop function full_disk()",
    )
}

#[test]
fn refusing_the_password() -> Result<()> {
    let scene = Scene::begin(Rig::new(Store::Postgres)?)?;
    scene.rig.postgres.as_ref().context("no Postgres")?.ask_for_passwords(true)?;
    scene.proxy.cut(vidente_tests::Cut::Reset);
    scene.takes_nothing()?;
    scene.goes_on()?;
    scene.rig.postgres.as_ref().context("no Postgres")?.ask_for_passwords(false)?;
    scene.end("Postgres refuses the password")
}

/// A newer binary has been here, and gone again. What it has changed may fit; the rows must not be lost.
#[test]
fn with_a_newer_schema() -> Result<()> {
    let scene = Scene::begin(Rig::new(Store::Postgres)?)?;
    scene.database()?.execute(
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
         values (99999999999999, 'of the future', true, '\\x00', 0)",
    )?;
    scene.proxy.cut(vidente_tests::Cut::Reset);
    scene.goes_on()?;
    scene.end("Postgres with a newer schema")
}

/// The address leads to another server, that holds what the first held.
#[test]
fn failing_over() -> Result<()> {
    let mut scene = Scene::begin(Rig::new(Store::Postgres)?)?;
    scene.proxy.set(Line::Refusing);
    scene.proxy.cut(vidente_tests::Cut::Reset);
    scene.takes_nothing()?;
    scene.goes_on()?;
    scene.postgres()?.crash()?;
    let standby = scene.postgres()?.copy()?;
    scene.rig.postgres = Some(standby);
    let port = scene.postgres()?.port();
    scene.proxy.redirect(port);
    scene.proxy.set(Line::Open);
    scene.end("Postgres fails over")
}
