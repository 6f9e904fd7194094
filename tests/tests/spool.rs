//! The spool on disk: what was acknowledged while the store was away outlives the process, however it ends,
//! and a spool or a disk that is full.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use vidente_tests::{Audit, Daemon, Metrics, Plan, Publisher, Rig, Settings, Store, WAIT, wait_until};

const SERIES: usize = 20;
const RATE: f64 = 1_000.0;

struct Scene {
    rig: Rig,
    settings: Settings,
    daemon: Daemon,
    publisher: Publisher,
    audit: Audit,
}

impl Scene {
    fn begin(rig: Rig, settings: Settings) -> Result<Scene> {
        let mut daemon = rig.daemon(&settings)?;
        let publisher = Publisher::start(rig.broker.port(), Plan::new(SERIES, RATE));
        daemon.wait_stored(1_000)?;
        Ok(Scene { rig, settings, daemon, publisher, audit: Audit::default() })
    }

    fn store_goes(&mut self) -> Result<()> {
        self.audit.fault("Postgres kill -9");
        self.rig.postgres.as_mut().context("no Postgres")?.kill()
    }

    fn store_comes(&mut self) -> Result<()> {
        self.rig.postgres.as_mut().context("no Postgres")?.start_again()
    }

    fn wait(&mut self, what: &str, condition: impl FnMut(&Metrics) -> bool) -> Result<Metrics> {
        self.daemon.wait_metrics(what, condition)
    }

    fn conclude(mut self, what: &str) -> Result<()> {
        let plan = self.publisher.plan();
        let ledger = self.publisher.finish()?;
        let database = self.rig.database(&self.settings)?;
        let report = self.audit.conclude(&mut self.daemon, &database, plan, ledger)?;
        self.daemon.stop()?;
        report.check(what)
    }
}

fn spooled(readings: f64) -> impl FnMut(&Metrics) -> bool {
    move |metrics| metrics.sum("vidente_spool_readings", &[]) >= readings
}

#[test]
fn a_daemon_that_ends_while_the_store_is_away_leaves_the_spool_to_the_next() -> Result<()> {
    let mut scene = Scene::begin(Rig::new(Store::Postgres)?, Settings::climate())?;
    for kill in [false, true, true] {
        scene.store_goes()?;
        let last = scene.wait("readings in the spool", spooled(2_000.0))?;
        scene.audit.run(&last);
        if kill {
            scene.audit.fault("daemon kill -9");
            scene.daemon.kill()?;
        } else {
            // With status 0, and not only after all tries.
            scene.audit.fault("daemon SIGTERM");
            scene.daemon.stop()?;
        }
        scene.store_comes()?;
        scene.daemon = scene.rig.daemon(&scene.settings)?;
        let metrics = scene.daemon.metrics()?;
        assert!(metrics.sum("vidente_spool_recovered_readings_total", &[]) >= 2_000.0, "{:#?}", metrics.0);
        assert_eq!(metrics.sum("vidente_spool_bytes", &[]), 0.0);
    }
    scene.conclude("the spool outlives the daemon")
}

#[test]
fn a_spool_that_is_full_stops_acknowledgements_and_loses_nothing() -> Result<()> {
    let settings = Settings { spool: "max_bytes = 1048576".to_owned(), ..Settings::climate() };
    let mut scene = Scene::begin(Rig::new(Store::Postgres)?, settings)?;
    full(&mut scene)?;
    let bytes = scene.daemon.metrics()?.sum("vidente_spool_bytes", &[]);
    assert!((900_000.0..=1_048_576.0).contains(&bytes), "{bytes}");
    scene.store_comes()?;
    scene.conclude("the spool is full")
}

/// A file system of two megabytes, made for the spool.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None without the right to mount.
    fn mount(path: PathBuf) -> Result<Option<SmallDisk>> {
        std::fs::create_dir_all(&path)?;
        let mut mount = Command::new("mount");
        let status = mount.args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(&path).status()?;
        Ok(status.success().then_some(SmallDisk(path)))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_is_full_is_as_a_spool_that_is() -> Result<()> {
    let rig = Rig::new(Store::Postgres)?;
    let settings = Settings::climate();
    let Some(disk) = SmallDisk::mount(rig.dir().join(format!("{}.spool", settings.name)))? else {
        println!("NOT RUN: a small file system cannot be mounted here; it takes root");
        return Ok(());
    };
    let mut scene = Scene::begin(rig, settings)?;
    scene.audit.fault("disk full");
    full(&mut scene)?;
    // What could not be written to its end is in nobody's way, in this process and in the next.
    let last = scene.daemon.metrics()?;
    scene.audit.run(&last);
    scene.daemon.kill()?;
    scene.store_comes()?;
    scene.daemon = scene.rig.daemon(&scene.settings)?;
    scene.conclude("the disk is full")?;
    drop(disk);
    Ok(())
}

/// The store goes, and the spool fills.
fn full(scene: &mut Scene) -> Result<()> {
    scene.store_goes()?;
    scene.wait("a full spool", |m| m.sum("vidente_spool_writable", &[]) == 0.0)?;
    let told = scene.daemon.json("/ready")?;
    assert_eq!(told["spool"]["writable"], false, "{told}");
    assert_eq!((&told["store_up"], &told["ready"]), (&false.into(), &true.into()), "{told}");
    assert!(
        ["unreachable", "timeout"].contains(&told["store_trouble"].as_str().unwrap_or_default()),
        "{told}"
    );
    // Readings wait in memory now, unacknowledged.
    scene.wait("readings in memory", |m| m.sum("vidente_store_queue_readings", &[]) > 1_000.0).map(drop)
}

#[test]
fn a_start_waits_for_the_store_or_fails_if_told_so() -> Result<()> {
    let mut rig = Rig::new(Store::Postgres)?;
    let settings = Settings::climate();
    rig.daemon(&settings)?.stop()?;
    rig.postgres.as_mut().context("no Postgres")?.kill()?;
    let hasty = Settings { store: "start_timeout = \"0s\"".to_owned(), ..settings.clone() };
    let mut daemon = rig.launch(&hasty, &[])?;
    let status = daemon.wait(WAIT)?;
    assert_eq!(status.code(), Some(1));
    assert!(daemon.log().contains("[store] start_timeout: the store is away"), "{}", daemon.log());

    let mut daemon = rig.launch(&settings, &[])?;
    wait_until("vidente to answer", WAIT, || Ok(daemon.get("/live").is_ok_and(|(status, _)| status == 200)))?;
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(daemon.get("/ready")?.0, 503);
    rig.postgres.as_mut().context("no Postgres")?.start_again()?;
    wait_until("vidente to be ready", WAIT, || Ok(daemon.get("/ready")?.0 == 200))?;
    daemon.stop()?;

    // A schema that it does not know is none to wait for.
    rig.database(&settings)?.execute(
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
         values (99999999999999, 'of the future', true, '\\x00', 0)",
    )?;
    let mut daemon = rig.launch(&settings, &[])?;
    assert_eq!(daemon.wait(WAIT)?.code(), Some(1));
    assert!(daemon.log().contains("was migrated by a newer Vidente"), "{}", daemon.log());
    Ok(())
}
