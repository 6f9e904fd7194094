//! Ten minutes of 5,000 readings a second with a fault every five seconds, and the audit at the end: zero
//! lost, zero doubled. Besides, the daemon's peak memory, and the latency of forecasts while the store is
//! away against that without a fault.
//!
//! `cargo bench -p vidente-tests --bench soak [-- SECONDS [READINGS A SECOND [SEED]]]`
//!
//! Latency is the daemon's own histogram, from a packet's arrival to the forecast handed to the MQTT client:
//! what was counted between the begin and the end of a fault that takes the store away, and what was counted
//! in the later half of each pause. Faults that end the daemon or touch its connection to the broker count for neither.

use std::time::{Duration, Instant};

use anyhow::Result;
use vidente_tests::{Fault, Metrics, Ordeal, Persistence, Plan, Settings, Store, peak_memory, quiet};

const DEVICES: usize = 100;
/// Time from one fault's begin to the next one's.
const EVERY: Duration = Duration::from_secs(5);
/// How long a fault lasts, in milliseconds: shorter than the time to the next by what recovering may take.
const LASTS: std::ops::Range<u64> = 200..3_000;
/// A few times a second at 5,000 readings.
const SAVING: Persistence = Persistence::Saving(5_000);
const LATENCY: &str = "vidente_forecast_latency_seconds";

const FAULTS: [Fault; 17] = [
    Fault::KillDaemon,
    Fault::StopDaemon,
    Fault::KillPostgres,
    Fault::CrashPostgres,
    Fault::FreezePostgres,
    Fault::KillBroker,
    Fault::FreezeBroker,
    Fault::CutBroker,
    Fault::ResetBroker,
    Fault::HoleBroker,
    Fault::LateBroker,
    Fault::NarrowBroker,
    Fault::ResetStore,
    Fault::HoleStore,
    Fault::RefuseStore,
    Fault::LateStore,
    Fault::TakeOver,
];

fn main() -> Result<()> {
    // Cargo adds --bench.
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let argument = |at: usize| args.get(at).map(|text| text.parse::<u64>()).transpose();
    let duration = Duration::from_secs(argument(0)?.unwrap_or(600));
    let rate = argument(1)?.unwrap_or(5_000) as f64;
    let seed = argument(2)?.unwrap_or_else(rand::random);
    quiet();
    println!("{DEVICES} devices, {rate} readings a second for {duration:?}, a fault every {EVERY:?}");
    let plan = Plan { remember: true, ..Plan::new(DEVICES, rate) };
    let settings = Settings { mqtt: "keep_alive = \"5s\"".to_owned(), ..Settings::climate() };
    let mut ordeal = Ordeal::begin(SAVING, Store::Postgres, &settings, plan, seed)?;
    let mut memory = 0;
    let (mut calm, mut away) = (Metrics::default(), Metrics::default());
    let begin = Instant::now();
    for number in 1.. {
        let at = EVERY * number;
        if at >= duration {
            break;
        }
        // What came late because of the last fault is not counted.
        std::thread::sleep(at.saturating_sub(begin.elapsed()) / 2);
        let before = ordeal.metrics()?;
        std::thread::sleep(at.saturating_sub(begin.elapsed()));
        let now = ordeal.metrics()?;
        calm.add(&now.since(&before));
        memory = memory.max(peak_memory(ordeal.daemon.id())?);
        let fault = ordeal.one_of(&FAULTS)?;
        ordeal.begin_fault(fault)?;
        ordeal.while_passes(LASTS);
        if fault.takes_the_store() {
            away.add(&ordeal.metrics()?.since(&now));
        }
        ordeal.end_fault(fault)?;
        ordeal.recover()?;
        if let Ok(saved) = ordeal.rig.broker.saved() {
            ordeal.publisher.broker_saved(saved);
        }
    }
    memory = memory.max(peak_memory(ordeal.daemon.id())?);
    let report = ordeal.conclude()?;
    print_latency("without a fault", &calm);
    print_latency("store away", &away);
    if let (Some(calm), Some(away)) = (calm.interpolated(LATENCY, 0.99), away.interpolated(LATENCY, 0.99)) {
        println!("99 % with the store away over 99 % without a fault: {:.2}", away / calm);
    }
    println!("peak memory of the daemon: {:.0} MB", memory as f64 / 1e6);
    report.check("soak")
}

fn print_latency(what: &str, metrics: &Metrics) {
    let count = metrics.sum(&format!("{LATENCY}_count"), &[]);
    let shown = [0.5, 0.99].map(|share| match metrics.interpolated(LATENCY, share) {
        Some(seconds) => format!("{:.0} %: {:.2} ms", share * 100.0, seconds * 1e3),
        None => format!("{:.0} %: beyond all buckets", share * 100.0),
    });
    println!("latency {what}: {}, of {count} forecasts", shown.join(", "));
}
