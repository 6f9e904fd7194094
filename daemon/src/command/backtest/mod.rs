//! `vidente backtest`: the daemon's own engine over a CSV.

mod output;
mod report;

use std::ops::ControlFlow;

use anyhow::{Context, bail, ensure};
use forecaster::backtest::Backtest;
use forecaster::train::TrainConfig;
use forecaster::{Reading, StreamSpec};
use indicatif::{ProgressBar, ProgressStyle};

use super::train::{progress_bar, show};
use crate::cli::BacktestArgs;
use crate::config::Config;
use crate::table::Table;
use crate::training;
use output::Output;

/// Rows between two moves of the progress bar.
const SHOWN_EVERY: usize = 1024;

pub(super) fn run(args: &BacktestArgs) -> anyhow::Result<()> {
    let (spec, train_config) = settings(args)?;
    let table = Table::read(&args.input)?;
    for note in table.notes() {
        eprintln!("{}: {note}", args.input.display());
    }
    if let Some(output) = &args.output {
        ensure!(
            !output.exists() || output.canonicalize()? != args.input.canonicalize()?,
            "--output: {} is the input; name another file",
            output.display()
        );
    }
    // Before the work, so that a wrong place is known at once.
    let mut output = args.output.as_deref().map(|path| Output::create(path, args.horizon > 1)).transpose()?;
    let splits: Vec<usize> =
        table.lengths.iter().map(|n| (args.split * *n as f64).floor() as usize).collect();
    let mut backtest = Backtest::new(spec, table.names.len());
    if args.split > 0.0 {
        train(&mut backtest, &table, &splits, &train_config)?;
    }
    if let Some(path) = &args.save_model {
        let Some(model) = backtest.model() else { bail!("--save-model: there is no trained model to save") };
        std::fs::write(path, model.to_safetensors()?)
            .with_context(|| format!("{}: cannot be written", path.display()))?;
    }
    forecast(&mut backtest, &table, &splits, output.as_mut())?;
    if let Some(output) = output {
        output.finish()?;
    }
    report::print(args, &table.names, &backtest)
}

fn settings(args: &BacktestArgs) -> anyhow::Result<(StreamSpec, TrainConfig)> {
    let mut train_config = TrainConfig::default();
    let mut spec = StreamSpec { horizon: usize::from(args.horizon), ..StreamSpec::default() };
    if let (Some(file), Some(name)) = (&args.config, &args.stream) {
        let config = Config::load(file)?;
        let Some(stream) = config.stream.iter().find(|s| s.name == *name) else {
            bail!("{}: no stream is named \"{name}\"", file.display());
        };
        train_config = training::train_config(&config);
        spec = StreamSpec { horizon: spec.horizon, ..training::spec_of(&config, stream) };
    }
    spec.interval = args.interval.map(training::micros).or(spec.interval);
    Ok((spec, train_config))
}

fn train(
    backtest: &mut Backtest,
    table: &Table,
    splits: &[usize],
    config: &TrainConfig,
) -> anyhow::Result<()> {
    let mut histories: Vec<Vec<Reading>> = splits.iter().map(|n| Vec::with_capacity(*n)).collect();
    for row in &table.rows {
        if let (Some(history), Some(split)) = (histories.get_mut(row.series), splits.get(row.series))
            && history.len() < *split
        {
            history.push(row.reading);
        }
    }
    let bar = progress_bar("on the history");
    let result = backtest.train(&histories, config, |progress| {
        show(&bar, progress);
        ControlFlow::Continue(())
    });
    bar.finish_and_clear();
    if let Err(error) = result {
        // Few rows are no reason to say nothing: forecasts without a network need none.
        eprintln!("no model: {error}; forecasts are made without one");
    }
    Ok(())
}

/// Feeds the rows after the split, in the file's order.
fn forecast(
    backtest: &mut Backtest,
    table: &Table,
    splits: &[usize],
    mut output: Option<&mut Output>,
) -> anyhow::Result<()> {
    let bar = ProgressBar::new(table.rows.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("forecasting {bar:30} {pos}/{len} rows {elapsed}") {
        bar.set_style(style);
    }
    let mut seen = vec![0_usize; table.names.len()];
    for (place, row) in table.rows.iter().enumerate() {
        if place % SHOWN_EVERY == 0 {
            bar.set_position(place as u64);
        }
        let (Some(at), Some(&split), Some(name)) =
            (seen.get_mut(row.series), splits.get(row.series), table.names.get(row.series))
        else {
            continue;
        };
        *at += 1;
        if *at <= split {
            // History: it went in with training.
            continue;
        }
        for made in backtest.feed(row.series, row.reading) {
            if let Some(output) = &mut output {
                output.write(name, row, &made)?;
            }
        }
    }
    bar.finish_and_clear();
    Ok(())
}
