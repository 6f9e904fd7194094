//! The daemon's clock is set back and forward while readings flow (libfaketime, of the package `faketime`;
//! the machine's own clock stays as it is, and so does the daemon's monotonic one).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use vidente_tests::{Audit, Daemon, Plan, Publisher, Rig, Settings, Store, WAIT, wait_until};

const SERIES: usize = 5;
const RATE: f64 = 300.0;

/// A clock that can be set.
struct Clock {
    file: PathBuf,
    library: PathBuf,
}

impl Clock {
    fn new(dir: &Path) -> Result<Clock> {
        let folders = std::fs::read_dir("/usr/lib")?.flatten().map(|e| e.path());
        let library = folders
            .map(|folder| folder.join("faketime/libfaketime.so.1"))
            .find(|path| path.is_file())
            .context("libfaketime is not here; install the package faketime (tests/run does)")?;
        let clock = Clock { file: dir.join("clock"), library };
        clock.set("+0")?;
        Ok(clock)
    }

    /// Sets it off the machine's, in seconds or with a unit.
    fn set(&self, off: &str) -> Result<()> {
        // Renamed into place: the daemon reads it all the time.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{off}\n"))?;
        Ok(std::fs::rename(new, &self.file)?)
    }

    fn start(&self, rig: &Rig, settings: &Settings) -> Result<Daemon> {
        let (library, file) = (self.library.display().to_string(), self.file.display().to_string());
        let environment = [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME_TIMESTAMP_FILE", file.as_str()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ];
        let mut daemon = rig.launch(settings, &environment)?;
        daemon.wait_ready()?;
        Ok(daemon)
    }
}

/// Offsets, one after the other.
const STEPS: [&str; 7] = ["-1h", "+0", "+1h", "+0", "-30d", "+30d", "+0"];

#[test]
fn readings_with_times_are_stored_once_whatever_the_clock_says() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let clock = Clock::new(rig.dir())?;
    let settings = Settings::climate();
    let mut daemon = clock.start(&rig, &settings)?;
    let publisher = Publisher::start(rig.broker.port(), Plan::new(SERIES, RATE));
    let mut audit = Audit::default();
    for step in STEPS {
        let soon = publisher.ledger().made + RATE as u64 / 2;
        publisher.wait_made(soon, WAIT)?;
        clock.set(step)?;
        audit.fault("clock step");
    }
    let plan = publisher.plan();
    let ledger = publisher.finish()?;
    let report = audit.conclude(&mut daemon, &rig.database(&settings)?, plan, ledger)?;
    daemon.stop()?;
    report.check("clock steps, times in the readings")
}

#[test]
fn readings_without_times_are_stored_once_and_forecasts_come_when_the_clock_is_right() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let clock = Clock::new(rig.dir())?;
    let climate = Settings::climate();
    let settings = Settings { rest: climate.rest.replace("time = \"ts\"\n", ""), ..climate };
    let mut daemon = clock.start(&rig, &settings)?;
    let plan = Plan { timeless: true, garbage_every: 0, ..Plan::new(SERIES, RATE) };
    let publisher = Publisher::start(rig.broker.port(), plan);
    for step in STEPS {
        let soon = publisher.ledger().made + RATE as u64 / 2;
        publisher.wait_made(soon, WAIT)?;
        clock.set(step)?;
    }
    publisher.wait_made(publisher.ledger().made + RATE as u64 / 2, WAIT)?;
    let made = publisher.finish()?.made;
    let metrics = daemon.wait_metrics("all readings", |m| m.stored() + m.rejected(None) >= made as f64)?;
    let late = metrics.sum("vidente_readings_late_total", &[]);
    println!("{} clock steps, {made} readings, {late} late: {:#?}", STEPS.len(), metrics.rejections());
    assert_eq!(
        (metrics.received(), metrics.stored(), metrics.rejected(None)),
        (made as f64, made as f64, 0.0)
    );
    assert!(late > 0.0, "the clock has not moved");
    // Behind the clock of before they are late, and late ones only are without a forecast.
    wait_until("the forecasts", WAIT, || Ok(daemon.metrics()?.published() + late >= made as f64))?;
    let database = rig.database(&settings)?;
    let values: Vec<(f64,)> = database.rows("select value from readings order by value")?;
    let mut published: Vec<f64> = (0..made).map(|place| plan.reading(place).value()).collect();
    published.sort_unstable_by(f64::total_cmp);
    assert!(values.iter().zip(&published).all(|(stored, value)| (stored.0 - value).abs() < 1e-3));
    daemon.stop()
}
