//! What a publisher's ledger says against what the store holds, after whatever went wrong in between.
//!
//! Every reading that the broker has confirmed must be in the store once, with its value, and with the one
//! forecast that was made from it; nothing else may be there. And what the daemon counted must add up:
//! received = stored + rejected.
//!
//! **What a confirmation of the broker is worth.** mosquitto confirms a message once it holds it in memory,
//! and writes its database from time to time, so if mosquitto is killed, what it confirmed since is lost,
//! with any subscriber. Such a reading can be called lost by the broker only if it is known not to have been
//! saved, and the daemon must not profit from doubt. So tests that kill the broker look at when its database
//! was last written before the kill, and the publisher takes back its confirmations of after that time and
//! publishes those readings again ([`crate::Publisher::broker_lost_all_since`]), as a sensor would that
//! waits for more than a PUBACK. What was confirmed before, the broker has to know when it is back, and the
//! daemon has to get. So no reading is excused: the audit is the same for every fault.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Result, ensure};

use crate::daemon::{Daemon, Metrics};
use crate::database::Database;
use crate::feed::Reading;
use crate::ledger::Ledger;
use crate::plan::Plan;

/// What was done and counted on the way.
#[derive(Debug, Default)]
pub struct Audit {
    faults: BTreeMap<&'static str, usize>,
    /// Sums over the daemon's runs, by the last scrape of each.
    runs: usize,
    received: f64,
    stored: f64,
    rejected: BTreeMap<String, f64>,
}

/// What came out; displayed, a table.
#[derive(Debug)]
pub struct Report {
    audit: Audit,
    plan: Plan,
    ledger: Ledger,
    /// Rows of readings in the store.
    pub rows: u64,
    /// Readings that were confirmed and are not in the store.
    pub lost: u64,
    /// Readings in the store that were never published, or twice, or with another value.
    pub wrong: u64,
    /// Readings that were stored as late, though every series was published in order.
    pub late: u64,
    /// Forecasts missing, or too many.
    pub forecasts_off: u64,
    examples: Vec<String>,
}

impl Audit {
    /// Counts a fault.
    pub fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    /// How many faults there were.
    #[must_use]
    pub fn faults(&self) -> usize {
        self.faults.values().sum()
    }

    /// Adds what a run of the daemon had counted when it was last asked.
    pub fn run(&mut self, last: &Metrics) {
        self.runs += 1;
        self.received += last.received();
        self.stored += last.stored();
        for (reason, count) in last.rejections() {
            *self.rejected.entry(reason).or_default() += count;
        }
    }

    /// Waits until the daemon has settled all it has received and the store has as many readings as were
    /// published, and compares.
    ///
    /// # Errors
    /// If the daemon's counters do not come to add up, or the store cannot be read.
    pub fn conclude(
        mut self,
        daemon: &mut Daemon,
        database: &Database,
        plan: Plan,
        ledger: Ledger,
    ) -> Result<Report> {
        let count = "select count(*) from readings";
        // A loss is for the report below to show.
        let _ = daemon.wait_metrics("the store to have all readings", |_| {
            database.int(count).is_ok_and(|n| n as u64 >= ledger.made)
        });
        let last = daemon.wait_metrics("received = stored + rejected", |m| {
            m.received() == m.stored() + m.rejected(None)
        })?;
        self.run(&last);
        let mut report = Report {
            audit: self,
            plan,
            ledger,
            rows: 0,
            lost: 0,
            wrong: 0,
            late: 0,
            forecasts_off: 0,
            examples: Vec::new(),
        };
        report.compare(database)?;
        Ok(report)
    }
}

impl Report {
    fn compare(&mut self, database: &Database) -> Result<()> {
        let ids: BTreeMap<String, i64> =
            database.rows::<(String, i64)>("select key, id from series")?.into_iter().collect();
        self.rows = u64::try_from(database.int("select count(*) from readings")?)?;
        self.late = u64::try_from(database.int("select count(*) from readings where late")?)?;
        let mut known = 0;
        for series in 0..self.plan.series {
            let made = self.made_of(series);
            let key = format!("climate/hall/dev{series}/value");
            let Some(id) = ids.get(&key) else {
                self.lost += made;
                continue;
            };
            let rows: Vec<(i64, f64)> = database.rows(&format!(
                "select {}, value from readings where series_id = {id} order by time",
                database.micros("time")
            ))?;
            known += rows.len() as u64;
            self.series(series, made, &rows);
            let forecasts =
                database.int(&format!("select count(*) from forecasts where series_id = {id}"))?;
            // From each reading but the first, which tells no interval.
            self.forecasts_off += u64::try_from(forecasts)?.abs_diff(made.saturating_sub(1));
        }
        self.wrong += self.rows - known;
        Ok(())
    }

    fn series(&mut self, series: usize, made: u64, rows: &[(i64, f64)]) {
        let published = (self.plan.begin..self.plan.begin + made as usize).map(|position| {
            let reading = Reading { series, position };
            (reading.time() as i64 * 1_000_000, reading.value())
        });
        let stored: BTreeMap<i64, f64> = rows.iter().copied().collect();
        self.wrong += (rows.len() - stored.len()) as u64;
        let mut right = 0;
        for (time, value) in published {
            match stored.get(&time) {
                // Payloads have four decimals.
                Some(found) if (found - value).abs() < 1e-3 => right += 1,
                Some(found) => self.example(format!("dev{series} at {time}: {found} instead of {value}")),
                None => {
                    self.lost += 1;
                    self.example(format!("dev{series} at {time}: not there"));
                }
            }
        }
        self.wrong += stored.len() as u64 - right;
    }

    fn example(&mut self, text: String) {
        if self.examples.len() < 10 {
            self.examples.push(text);
        }
    }

    /// Readings made of a series.
    fn made_of(&self, series: usize) -> u64 {
        let all = self.plan.series as u64;
        self.ledger.made / all + u64::from((series as u64) < self.ledger.made % all)
    }

    /// Prints the table.
    ///
    /// # Errors
    /// If a reading is lost, doubled, wrong or late, or a forecast is missing.
    pub fn check(&self, what: &str) -> Result<()> {
        println!("{what}\n{self}\n");
        let clean = self.lost + self.wrong + self.late + self.forecasts_off == 0;
        ensure!(clean && self.rows == self.ledger.made, "{self}\n{}", self.examples.join("\n"));
        let unreadable = self.audit.rejected.get("unparseable").copied().unwrap_or_default();
        // What a run counted after its last scrape is not known.
        ensure!(self.audit.runs > 1 || unreadable >= self.ledger.garbage as f64, "{self}");
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Report { audit, ledger, rows, lost, wrong, late, forecasts_off, .. } = self;
        let list = |items: Vec<String>| if items.is_empty() { "none".to_owned() } else { items.join(", ") };
        let faults = list(audit.faults.iter().map(|(kind, n)| format!("{kind} × {n}")).collect());
        let reasons =
            list(audit.rejected.iter().filter(|(_, n)| **n > 0.0).map(|(r, n)| format!("{r} {n}")).collect());
        let Ledger { made, garbage, written, confirmations, taken_back, connections } = ledger;
        writeln!(f, "faults     {}: {faults}", audit.faults())?;
        writeln!(f, "published  {} messages: {made} readings, {garbage} that are none", made + garbage)?;
        writeln!(
            f,
            "           written {written} times over {connections} connections, confirmed {confirmations} \
             times, {taken_back} taken back"
        )?;
        writeln!(
            f,
            "daemon     {} runs: received {}, stored {}, rejected: {reasons} (last scrape of each run)",
            audit.runs, audit.received, audit.stored
        )?;
        write!(
            f,
            "store      {rows} readings: {lost} lost, {wrong} doubled or wrong, {late} late, {forecasts_off} \
             forecasts off"
        )
    }
}
