//! Postgres with TimescaleDB, where that is installed.

use std::io::Write as _;

use anyhow::Result;

use crate::database::{Cluster, Postgres, program};

impl Postgres {
    /// Makes a cluster with the extension in the database `vidente` and starts it; none, and a line that says so, where
    /// TimescaleDB is not installed.
    ///
    /// # Errors
    /// If Postgres is missing or does not come up.
    pub fn timescaledb(cluster: Cluster<'_>) -> Result<Option<Postgres>> {
        let library = program("postgres")?.canonicalize()?.with_file_name("../lib/timescaledb.so");
        if !library.exists() {
            // Not by a macro, whose output the test harness keeps to itself.
            let line = format!("skipped: TimescaleDB is not installed: no {}\n", library.display());
            std::io::stderr().write_all(line.as_bytes())?;
            return Ok(None);
        }
        let settings = format!(
            "{}shared_preload_libraries = 'timescaledb'\ntimescaledb.telemetry_level = off\n",
            cluster.settings
        );
        let postgres = Postgres::start_with(Cluster { settings: &settings, ..cluster })?;
        postgres.admin("vidente")?.execute("create extension timescaledb")?;
        Ok(Some(postgres))
    }
}
