//! Whatever dies, hangs or is cut off while readings flow, at random moments: in the end every reading that
//! the broker has confirmed is stored once, and one forecast was made from it.
//!
//! `VIDENTE_ROUNDS` repeats each loop, 1 unless given; `VIDENTE_SEED` chooses the moments, otherwise others
//! each time.

use anyhow::{Context, Result};
use vidente_tests::{Fault, Ordeal, Persistence, Plan, Settings, Store};

const SERIES: usize = 20;
/// Readings a second.
const RATE: f64 = 1_000.0;
/// Killed twice as often as stopped.
const DAEMON_ENDS: [Fault; 3] = [Fault::KillDaemon, Fault::StopDaemon, Fault::KillDaemon];
/// Several times a second.
const SAVING: Persistence = Persistence::Saving(500);

fn number(name: &str) -> Result<Option<u64>> {
    std::env::var(name).ok().map(|text| text.parse().with_context(|| name.to_owned())).transpose()
}

/// A daemon whose series are checkpointed now and then during the test, so that restarts begin with
/// checkpoint and replay.
fn settings(protocol: &'static str) -> Settings {
    Settings { protocol, mqtt: "keep_alive = \"5s\"".to_owned(), ..Settings::climate() }
}

fn ordeal(store: Store, protocol: &'static str) -> Result<Ordeal> {
    let seed = number("VIDENTE_SEED")?.unwrap_or_else(rand::random);
    let plan = Plan { remember: true, ..Plan::new(SERIES, RATE) };
    Ordeal::begin(SAVING, store, &settings(protocol), plan, seed)
}

/// Each of the faults some times, by turns, and the audit.
fn suffer(what: &str, store: Store, protocol: &'static str, faults: &[Fault], times: u64) -> Result<()> {
    let mut ordeal = ordeal(store, protocol)?;
    for _ in 0..times * number("VIDENTE_ROUNDS")?.unwrap_or(1) {
        for fault in faults {
            ordeal.while_passes(50..600);
            ordeal.inflict(*fault, 0..500)?;
        }
    }
    ordeal.while_passes(50..600);
    ordeal.conclude()?.check(&format!("{what}, {store:?}, MQTT {protocol}"))
}

#[test]
fn the_daemon_is_killed_on_postgres() -> Result<()> {
    for protocol in ["5", "3.1.1"] {
        suffer("daemon ended", Store::Postgres, protocol, &DAEMON_ENDS, 2)?;
    }
    Ok(())
}

#[test]
fn the_daemon_is_killed_on_sqlite() -> Result<()> {
    for protocol in ["5", "3.1.1"] {
        suffer("daemon ended", Store::Sqlite, protocol, &DAEMON_ENDS, 2)?;
    }
    Ok(())
}

#[test]
fn postgres_is_killed() -> Result<()> {
    let faults = [Fault::KillPostgres, Fault::CrashPostgres];
    suffer("Postgres killed", Store::Postgres, "5", &faults, 3)
}

#[test]
fn the_broker_is_killed() -> Result<()> {
    suffer("broker killed", Store::Postgres, "5", &[Fault::KillBroker], 4)?;
    suffer("broker killed", Store::Sqlite, "3.1.1", &[Fault::KillBroker], 4)
}

#[test]
fn connections_to_the_broker_are_cut_delayed_and_hang() -> Result<()> {
    use Fault::{CutBroker, FreezeBroker, HoleBroker, LateBroker, NarrowBroker, ResetBroker, TakeOver};
    let faults = [CutBroker, ResetBroker, HoleBroker, LateBroker, NarrowBroker, FreezeBroker, TakeOver];
    suffer("line to the broker", Store::Postgres, "5", &faults, 1)?;
    suffer("line to the broker", Store::Sqlite, "3.1.1", &faults, 1)
}

#[test]
fn connections_to_the_store_are_cut_delayed_and_hang() -> Result<()> {
    use Fault::{FreezePostgres, HoleStore, LateStore, RefuseStore, ResetStore};
    let faults = [ResetStore, HoleStore, RefuseStore, LateStore, FreezePostgres];
    suffer("line to the store", Store::Postgres, "5", &faults, 2)
}

/// Two at a time that overlap, the daemon's death among them as often as not.
#[test]
fn faults_overlap() -> Result<()> {
    use Fault::{
        CrashPostgres, HoleBroker, HoleStore, KillBroker, KillDaemon, KillPostgres, LateStore, ResetBroker,
        ResetStore, TakeOver,
    };
    let mut ordeal = ordeal(Store::Postgres, "5")?;
    for _ in 0..8 * number("VIDENTE_ROUNDS")?.unwrap_or(1) {
        let first = ordeal.one_of(&[KillDaemon, KillDaemon, ResetBroker, TakeOver])?;
        let second = ordeal.one_of(&[
            KillPostgres,
            CrashPostgres,
            KillBroker,
            HoleBroker,
            HoleStore,
            LateStore,
            ResetStore,
        ])?;
        let (first, second) = ordeal.one_of(&[(first, second), (second, first)])?;
        ordeal.while_passes(50..400);
        ordeal.begin_fault(first)?;
        ordeal.while_passes(0..200);
        ordeal.begin_fault(second)?;
        ordeal.while_passes(0..300);
        ordeal.end_fault(first)?;
        ordeal.while_passes(0..200);
        ordeal.end_fault(second)?;
        ordeal.recover().with_context(|| format!("{first:?} and {second:?}"))?;
    }
    ordeal.conclude()?.check("faults overlap, Postgres, MQTT 5")
}
