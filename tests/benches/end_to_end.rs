//! Publisher → mosquitto → Vidente → mosquitto → subscriber, everything stored in Postgres, against a
//! bare rumqttc client in Vidente's place that receives each message and publishes it again: the floor.
//! Both in one run, by turns, under the same load.
//!
//! `cargo bench -p vidente-tests --bench end_to_end [-- ROUNDS [READINGS PER SERIES]]`

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use vidente_tests::{
    Counter, Load, Metrics, Mosquitto, Process, Reading, Rig, Settings, Store, Subscriber, cpu_time, quiet,
    wait_until,
};

const SERIES: usize = 1_000;
/// Messages published and not yet answered, at most.
const WINDOW: u64 = 5_000;
/// Readings of a series published at once; then the publisher waits, if need be, until no more than
/// [`BEHIND`] are unstored.
const PIECE: usize = 25;
/// Readings not stored yet, at most: half of what the daemon holds before it rejects at QoS 0.
const BEHIND: usize = 50_000;
/// Readings of a series before the first round, so that partitions and series exist.
const WARM_UP: usize = 10;

fn main() -> Result<()> {
    // Cargo adds --bench.
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [role, port] = args.as_slice()
        && role == "echo"
    {
        return echo(port.parse()?);
    }
    let number = |at: usize, default: usize| args.get(at).map_or(Ok(default), |a| a.parse());
    run(number(0, 3)?, number(1, 200)?)
}

/// The bare client, in a process of its own as the daemon is.
fn echo(port: u16) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut options = MqttOptions::new("echo", "127.0.0.1", port);
        options.set_max_packet_size(1 << 20, 1 << 20);
        let (client, mut connection) = AsyncClient::new(options, 65_536);
        client.try_subscribe("sensors/#", QoS::AtMostOnce)?;
        loop {
            match connection.poll().await? {
                Event::Incoming(Packet::SubAck(_)) => {
                    client.try_publish("vidente/status", QoS::AtMostOnce, true, "online")?;
                }
                Event::Incoming(Packet::Publish(p)) => {
                    client.try_publish(format!("echo/{}", p.topic), QoS::AtMostOnce, false, p.payload)?;
                }
                _ => {}
            }
        }
    })
}

/// Readings of all series by turns, from a position on.
fn load(positions: std::ops::Range<usize>) -> Result<Load> {
    let mut load = Load::default();
    for position in positions {
        for series in 0..SERIES {
            load.push(&format!("sensors/hall/dev{series}/climate"), &Reading { series, position }.payload())?;
        }
    }
    Ok(load)
}

fn run(rounds: usize, length: usize) -> Result<()> {
    quiet();
    let rig = Rig::new(Store::Postgres)?;
    let settings = Settings { qos: 0, ..Settings::climate() };
    let postgres = rig.postgres.as_ref().context("Postgres")?.id();
    let counter = |filter: &str| Counter::new(&rig.broker, filter);
    println!(
        "{SERIES} series, {} readings a round at QoS 0, at most {WINDOW} on the way, horizon 1\n",
        SERIES * length
    );
    println!(
        "{:8} {:>12} {:>12} | CPU µs per message: {:>8} {:>8} {:>8}",
        "", "answered/s", "stored/s", "self", "broker", "Postgres"
    );

    let mut position = 0;
    let (mut floors, mut rates) = (Vec::new(), Vec::new());
    let mut daemon = rig.daemon(&settings)?;
    load(0..WARM_UP)?.run(&rig.broker, &counter("vidente/forecast/#")?, WINDOW, None)?;
    daemon.wait_stored(SERIES * WARM_UP)?;
    daemon.stop()?;
    position += WARM_UP;
    for _ in 0..rounds {
        let pieces = (0..length.div_ceil(PIECE))
            .map(|n| load(position + n * PIECE..position + ((n + 1) * PIECE).min(length)))
            .collect::<Result<Vec<_>>>()?;
        position += length;
        let count = (SERIES * length) as f64;

        let echo = start_echo(&rig.broker, rig.dir())?;
        let before = Usage::now(echo.id(), rig.broker.id(), postgres)?;
        let echoes = counter("echo/#")?;
        let begin = Instant::now();
        for piece in &pieces {
            piece.run(&rig.broker, &echoes, WINDOW, None)?;
        }
        let took = begin.elapsed();
        let used = Usage::now(echo.id(), rig.broker.id(), postgres)?.since(&before);
        floors.push(count / took.as_secs_f64());
        used.print("echo", count, took, None);
        drop(echo);

        let mut daemon = rig.daemon(&settings)?;
        let forecasts = counter("vidente/forecast/#")?;
        let before = Usage::now(daemon.id(), rig.broker.id(), postgres)?;
        let begin = Instant::now();
        let mut published = 0_usize;
        for piece in &pieces {
            piece.run(&rig.broker, &forecasts, WINDOW, None)?;
            published += piece.len();
            daemon.wait_stored(published.saturating_sub(BEHIND))?;
        }
        let took = begin.elapsed();
        let metrics = daemon.wait_stored(published)?;
        let stored = begin.elapsed();
        let used = Usage::now(daemon.id(), rig.broker.id(), postgres)?.since(&before);
        ensure!(metrics.stored() == count && metrics.rejected(None) == 0.0, "{:#?}", metrics.0);
        ensure!(metrics.published() == count && metrics.sum("vidente_forecasts_dropped_total", &[]) == 0.0);
        rates.push(count / stored.as_secs_f64());
        used.print("vidente", count, took, Some(stored));
        print_latency("         latency under this load", &metrics);
        daemon.stop()?;
    }

    let gentle = load(position..position + 10)?;
    let mut daemon = rig.daemon(&settings)?;
    gentle.run(&rig.broker, &counter("vidente/forecast/#")?, WINDOW, Some(2_000.0))?;
    print_latency("\nlatency at 2,000 readings/s", &daemon.wait_stored(gentle.len())?);
    daemon.stop()?;

    let rows = rig.database(&settings)?.int("select count(*) from readings")?;
    let published = SERIES * (position + 10);
    println!("published {published}, rows in readings {rows}");
    ensure!(rows == published as i64, "readings were lost");
    let (floor, rate) = (median(&mut floors)?, median(&mut rates)?);
    println!(
        "medians: echo {floor:.0}/s, vidente with everything stored {rate:.0}/s: {:.0} % of the floor",
        100.0 * rate / floor
    );
    Ok(())
}

fn start_echo(broker: &Mosquitto, dir: &Path) -> Result<Process> {
    let subscriber = Subscriber::new(broker, "vidente/status")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["echo", &broker.port().to_string()]);
    let mut echo = Process::spawn("echo", &command, None, &dir.join("echo.log"))?;
    // Published when its own subscription stands; what was retained before does not count.
    wait_until("the echo client", Duration::from_secs(10), || {
        echo.ensure_running()?;
        Ok(subscriber.messages().iter().any(|m| !m.retained && m.payload == b"online"))
    })?;
    Ok(echo)
}

/// Processor time used by the process in question, the broker and Postgres.
struct Usage([Duration; 3]);

impl Usage {
    fn now(own: u32, broker: u32, postgres: u32) -> Result<Usage> {
        Ok(Usage([cpu_time(own)?, cpu_time(broker)?, cpu_time(postgres)?]))
    }

    fn since(self, before: &Usage) -> Usage {
        let mut used = self.0;
        used.iter_mut().zip(before.0).for_each(|(now, before)| *now = now.saturating_sub(before));
        Usage(used)
    }

    fn print(&self, name: &str, count: f64, took: Duration, stored: Option<Duration>) {
        let [own, broker, postgres] = self.0.map(|t| t.as_secs_f64() * 1e6 / count);
        let stored = stored.map_or_else(|| "-".to_owned(), |t| format!("{:.0}", count / t.as_secs_f64()));
        let answered = count / took.as_secs_f64();
        println!(
            "{name:8} {answered:>12.0} {stored:>12} | {:19} {own:>8.2} {broker:>8.2} {postgres:>8.2}",
            ""
        );
    }
}

fn print_latency(what: &str, metrics: &Metrics) {
    let shown =
        [0.5, 0.9, 0.99, 0.999].map(|q| match metrics.quantile("vidente_forecast_latency_seconds", q) {
            Some(bound) => format!("{:.1} % ≤ {:.3} ms", q * 100.0, bound * 1e3),
            None => format!("{:.1} % beyond all buckets", q * 100.0),
        });
    println!("{what}: {}", shown.join(", "));
}

fn median(values: &mut [f64]) -> Result<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().context("no rounds")
}
