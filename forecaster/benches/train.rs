//! Forward and backward pass of an update: fused against plain dfdx, and whole updates against PyTorch where
//! Python has it.

use std::hint::black_box;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forecaster::cell::{Batch, Pass, Recurrent};
use forecaster::train::Learner;
use forecaster::weights::{Cell, Sizes, Weights};
use rand::{RngExt, SeedableRng, rngs::StdRng};

const STEPS: usize = 64;
const BATCH: usize = 64;

fn batch(sizes: Sizes) -> Batch {
    let mut rng = StdRng::seed_from_u64(1);
    let mut draw = |n: usize| (0..n).map(|_| rng.random_range(-1.0..1.0)).collect::<Vec<f32>>();
    let rows = STEPS * BATCH;
    Batch {
        steps: STEPS,
        batch: BATCH,
        inputs: draw(rows * sizes.inputs),
        targets: draw(rows),
        mask: vec![1.0; rows],
    }
}

/// Time of an update's forward and backward pass, of 64 × 64 series-steps.
fn passes(c: &mut Criterion) {
    for cell in Cell::ALL {
        let sizes = Sizes { cell, inputs: 37, hidden: 32, layers: 1 };
        let network = Recurrent::new(&Weights::random(sizes, 1));
        let batch = batch(sizes);
        let mut group = c.benchmark_group(format!("train_37_32/{cell:?}"));
        group.throughput(Throughput::Elements((STEPS * BATCH) as u64));
        group.sample_size(20).measurement_time(Duration::from_secs(2));
        for (name, pass) in
            [("dfdx", Pass::Plain), ("fused/1_thread", Pass::Fused(1)), ("fused/2_threads", Pass::Fused(2))]
        {
            group.bench_function(name, |b| {
                b.iter(|| black_box(network.loss_and_gradients(black_box(&batch), pass)));
            });
        }
        group.finish();
    }
}

/// Threads of both in the comparison with PyTorch.
const THREADS: usize = 2;
/// Runs of each, alternating, so that both meet the same machine …
const ROUNDS: usize = 9;
/// … of so many updates.
const UPDATES: u32 = 30;

/// Whole updates by PyTorch, in a process of its own.
struct Torch {
    process: Child,
    /// What both learn from and start with.
    data: PathBuf,
}

impl Drop for Torch {
    fn drop(&mut self) {
        // What is left behind when this fails ends with the benchmark, or lies in the temporary folder.
        let _ = self.process.kill().and_then(|()| self.process.wait());
        let _ = std::fs::remove_file(&self.data);
    }
}

impl Torch {
    /// None where the Python given has no PyTorch.
    fn start(python: &str, weights: &Weights, batch: &Batch) -> io::Result<Option<Torch>> {
        let there = Command::new(python).args(["-c", "import torch"]).stderr(Stdio::null()).status();
        if !there.is_ok_and(|status| status.success()) {
            return Ok(None);
        }
        let all = [&batch.inputs, &batch.targets].into_iter().chain(weights.named().map(|(_, _, v)| v));
        let bytes: Vec<u8> = all.flatten().flat_map(|v| v.to_le_bytes()).collect();
        let data = std::env::temp_dir().join(format!("vidente-train-{}.f32", std::process::id()));
        std::fs::write(&data, bytes)?;
        let Sizes { cell, inputs, hidden, .. } = weights.sizes;
        let process = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/peers/train_speed.py"))
            .arg(cell.name())
            .args([inputs, hidden, batch.steps, batch.batch, THREADS].map(|n| n.to_string()))
            .arg(&data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Some(Torch { process, data }))
    }

    /// Time of an update and the last loss.
    fn run(&mut self, updates: u32) -> io::Result<(Duration, f32)> {
        let (Some(to), Some(from)) = (&mut self.process.stdin, &mut self.process.stdout) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        writeln!(to, "{updates}")?;
        let mut line = String::new();
        BufReader::new(from).read_line(&mut line)?;
        let mut numbers = line.split_whitespace().map_while(|n| n.parse::<f64>().ok());
        match (numbers.next(), numbers.next()) {
            (Some(seconds), Some(loss)) => Ok((Duration::from_secs_f64(seconds) / updates, loss as f32)),
            _ => Err(io::Error::other("train_speed.py gave no answer")),
        }
    }
}

/// Prints the ratio of the two in one run.
fn side_by_side(_: &mut Criterion) {
    let python = std::env::var("VIDENTE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    for cell in [Cell::Lstm, Cell::Gru, Cell::Tanh] {
        match compare(&python, cell) {
            Ok(Some(line)) => println!("{line}"),
            Ok(None) => {
                println!(
                    "{python} has no PyTorch: no comparison with it; tests/peers/train_speed installs it"
                );
                return;
            }
            Err(error) => println!("comparison with PyTorch failed: {error}"),
        }
    }
}

fn compare(python: &str, cell: Cell) -> io::Result<Option<String>> {
    let sizes = Sizes { cell, inputs: 37, hidden: 32, layers: 1 };
    let (weights, batch) = (Weights::random(sizes, 1), batch(sizes));
    let Some(mut torch) = Torch::start(python, &weights, &batch)? else { return Ok(None) };
    let mut learner = Learner::new(weights, 1.0, THREADS);
    let mut ours = |updates| -> io::Result<(Duration, f32)> {
        let (start, mut loss) = (Instant::now(), 0.0);
        for _ in 0..updates {
            loss = learner.update(black_box(&batch), 1e-3).map_err(io::Error::other)?;
        }
        Ok((start.elapsed() / updates, loss))
    };
    // The first updates warm both up.
    let mut losses = (ours(5)?.1, torch.run(5)?.1);
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let ((time, loss), (torch_time, torch_loss)) = (ours(UPDATES)?, torch.run(UPDATES)?);
        times.push((time, torch_time));
        losses = (loss, torch_loss);
    }
    let ratio = |(a, b): (Duration, Duration)| b.as_secs_f64() / a.as_secs_f64();
    times.sort_by(|a, b| ratio(*a).total_cmp(&ratio(*b)));
    let median = times[ROUNDS / 2];
    let fastest = times.iter().copied().reduce(|a, b| (a.0.min(b.0), a.1.min(b.1))).unwrap_or(median);
    Ok(Some(format!(
        "{}(37→32) update of {BATCH} × {STEPS}, {THREADS} threads: ours {:.2?}, PyTorch {:.2?}, ratio {:.1} \
         (median of {ROUNDS} rounds); fastest {:.2?} and {:.2?}, ratio {:.1}; last loss {:.4} and {:.4}",
        cell.name(),
        median.0,
        median.1,
        ratio(median),
        fastest.0,
        fastest.1,
        ratio(fastest),
        losses.0,
        losses.1,
    )))
}

criterion_group!(benches, passes, side_by_side);
criterion_main!(benches);
