//! Latency of forecasts while a model is trained, judged and swapped in, against the same load without
//! training; by turns, in one run.
//!
//! `cargo bench -p vidente-tests --bench training_latency [-- ROUNDS [READINGS A SECOND]]`

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use vidente_tests::{Counter, Daemon, Load, Metrics, Reading, Rig, Settings, Store, quiet};

const SERIES: usize = 500;
/// Readings of a series that are trained on.
const HISTORY: usize = 400;
/// Messages published and not yet answered, at most.
const WINDOW: u64 = 5_000;
/// Positions of a piece of load, after which metrics are looked at.
const PIECE: usize = 4;
/// Pieces without training.
const IDLE: usize = 10;
const LATENCY: &str = "vidente_forecast_latency_seconds";

fn main() -> Result<()> {
    // Cargo adds --bench.
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let rounds = args.first().map_or(Ok(3), |a| a.parse())?;
    let rate = args.get(1).map_or(Ok(2_000.0), |a| a.parse())?;
    run(rounds, rate)
}

struct Stream {
    rig: Rig,
    daemon: Daemon,
    counter: Counter,
    position: usize,
}

impl Stream {
    /// Publishes further positions of all series.
    fn publish(&mut self, positions: usize, rate: Option<f64>) -> Result<()> {
        let mut load = Load::default();
        for position in self.position..self.position + positions {
            for series in 0..SERIES {
                load.push(
                    &format!("sensors/hall/dev{series}/climate"),
                    &Reading { series, position }.payload(),
                )?;
            }
        }
        self.position += positions;
        load.run(&self.rig.broker, &self.counter, WINDOW, rate)?;
        Ok(())
    }

    fn runs(&self) -> Result<f64> {
        Ok(self.daemon.metrics()?.sum("vidente_training_runs_total", &[]))
    }
}

fn run(rounds: usize, rate: f64) -> Result<()> {
    quiet();
    let rig = Rig::new(Store::Postgres)?;
    let climate = Settings::climate();
    // Each run is to end in a swap, whatever the candidate is worth.
    let rest = format!("{}\n[models]\nprobation = \"off\"\nmargin = 0.0\nmax_worse = 1.0\n", climate.rest);
    let settings = Settings { qos: 0, rest, ..climate };
    let daemon = rig.daemon(&settings)?;
    let counter = Counter::new(&rig.broker, "vidente/forecast/#")?;
    let mut stream = Stream { rig, daemon, counter, position: 0 };
    while stream.position < HISTORY {
        // At QoS 0 what the store cannot keep up with would be rejected.
        stream.publish(20, None)?;
        stream.daemon.wait_stored(SERIES * stream.position)?;
    }
    println!(
        "{SERIES} series, {rate} readings/s at QoS 0, stored in Postgres, {} readings to train on",
        SERIES * HISTORY
    );
    let mut ratios = Vec::new();
    for round in 1..=rounds {
        let begin = stream.daemon.metrics()?;
        for _ in 0..IDLE {
            stream.publish(PIECE, Some(rate))?;
        }
        let idle = stream.daemon.metrics()?;
        let runs = stream.runs()?;
        signal(&stream.daemon)?;
        let mut pieces = 0;
        while stream.runs()? == runs {
            stream.publish(PIECE, Some(rate))?;
            pieces += 1;
        }
        let trained = stream.daemon.metrics()?;
        ensure!(pieces > 2, "training was over before there was anything to measure");
        let mut ratio = 0.0;
        for share in [0.5, 0.99, 0.999] {
            let before = between(&begin, &idle, share).context("no latency without training")?;
            let during = between(&idle, &trained, share).context("no latency during training")?;
            ratio = if share == 0.99 { during / before } else { ratio };
            println!(
                "round {round}: {:.1} % within {:.3} ms without training, {:.3} ms with it: {:.2} times",
                100.0 * share,
                1e3 * before,
                1e3 * during,
                during / before
            );
        }
        println!("round {round}: {} readings while training went on", pieces * PIECE * SERIES);
        ratios.push(ratio);
    }
    let version = stream.daemon.metrics()?.sum("vidente_model_version", &[]);
    println!("model version at the end: {version}");
    ratios.sort_unstable_by(f64::total_cmp);
    let median = ratios.get(ratios.len() / 2).context("no rounds")?;
    println!("p99 with training over p99 without, median of {rounds} rounds: {median:.2}");
    stream.daemon.stop()
}

fn signal(daemon: &Daemon) -> Result<()> {
    let id = i32::try_from(daemon.id())?;
    let process = rustix::process::Pid::from_raw(id).context("process id")?;
    Ok(rustix::process::kill_process(process, Signal::USR1)?)
}

/// A quantile of the latencies between two looks, interpolated within its bucket as Prometheus does.
fn between(before: &Metrics, after: &Metrics, share: f64) -> Option<f64> {
    let prefix = format!("{LATENCY}_bucket{{le=\"");
    let mut buckets: Vec<(f64, f64)> = after
        .0
        .iter()
        .filter_map(|(key, count)| {
            let bound: f64 = key.strip_prefix(&prefix)?.split('"').next()?.parse().ok()?;
            Some((bound, count - before.0.get(key).copied().unwrap_or_default()))
        })
        .collect();
    buckets.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let wanted = share * buckets.last()?.1;
    let (mut low, mut below) = (0.0, 0.0);
    for (bound, count) in buckets {
        if count >= wanted {
            return Some(low + (bound - low) * (wanted - below) / (count - below));
        }
        (low, below) = (bound, count);
    }
    None
}
