//! `vidente backtest`: the daemon's own engine over a CSV.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use forecaster::backtest::{Accuracy, Backtest};
use forecaster::train::TrainConfig;
use forecaster::{LEVEL_NAMES, Reading, StreamSpec, Timestamp};
use hashbrown::HashMap;
use serde_json::json;

use super::train::{progress_bar, show};
use crate::cli::BacktestArgs;
use crate::config::Config;
use crate::training;

/// One row of the input.
struct Row {
    series: usize,
    /// As it stood in the file, to be echoed.
    timestamp: String,
    reading: Reading,
}

#[derive(Default)]
struct Table {
    names: Vec<String>,
    rows: Vec<Row>,
    /// Rows of each series.
    lengths: Vec<usize>,
}

pub(super) fn run(args: &BacktestArgs) -> anyhow::Result<()> {
    let (spec, train_config) = settings(args)?;
    let table = read(&args.input)?;
    let splits: Vec<usize> =
        table.lengths.iter().map(|n| (args.split * *n as f64).floor() as usize).collect();
    let mut backtest = Backtest::new(spec, table.names.len());
    if args.split > 0.0 {
        train(&mut backtest, &table, &splits, &train_config)?;
    }
    let mut output = args.output.as_deref().map(|path| Output::create(path, args.horizon > 1)).transpose()?;
    let mut seen = vec![0_usize; table.names.len()];
    for row in &table.rows {
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
    if let Some(output) = output {
        output.finish()?;
    }
    report(args, &table, &backtest)
}

fn settings(args: &BacktestArgs) -> anyhow::Result<(StreamSpec, TrainConfig)> {
    let mut train_config = TrainConfig::default();
    let mut interval = args.interval.map(training::micros);
    if let (Some(file), Some(name)) = (&args.config, &args.stream) {
        let config = Config::load(file)?;
        let Some(stream) = config.stream.iter().find(|s| s.name == *name) else {
            bail!("{}: no stream is named \"{name}\"", file.display());
        };
        train_config = training::train_config(&config);
        interval = interval.or_else(|| training::interval_of(stream));
    }
    Ok((
        StreamSpec { interval, horizon: usize::from(args.horizon), anomaly: Default::default() },
        train_config,
    ))
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
    match result {
        Ok(_) => {}
        // Few rows are no reason to say nothing: the naive forecast needs none.
        Err(error) => eprintln!("no model: {error}; forecasts are naive"),
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Table> {
    let file = path.display();
    let mut reader = csv::Reader::from_path(path).with_context(|| format!("{file}: cannot be read"))?;
    let header = reader.headers().with_context(|| format!("{file}: line 1"))?;
    ensure!(
        header.iter().eq(["series", "timestamp", "value"]),
        "{file}: line 1: the header must be series,timestamp,value"
    );
    let mut table = Table::default();
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut last: Vec<Timestamp> = Vec::new();
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).with_context(|| format!("{file}: line {}", reader_line(&record)))? {
        let line = reader_line(&record);
        let [name, timestamp, value] = [0, 1, 2].map(|i| record.get(i).unwrap_or_default());
        let time: jiff::Timestamp = timestamp
            .parse()
            .with_context(|| format!("{file}: line {line}: \"{timestamp}\" is no RFC 3339 time"))?;
        let value: f64 = value
            .trim()
            .parse()
            .ok()
            .filter(|v: &f64| v.is_finite())
            .with_context(|| format!("{file}: line {line}: \"{value}\" is no finite number"))?;
        let time = Timestamp(time.as_microsecond());
        let series = match known.get(name) {
            Some(series) => *series,
            None => {
                known.insert(name.to_owned(), table.names.len());
                table.names.push(name.to_owned());
                table.lengths.push(0);
                last.push(Timestamp(i64::MIN));
                table.names.len() - 1
            }
        };
        if let (Some(last), Some(length)) = (last.get_mut(series), table.lengths.get_mut(series)) {
            ensure!(*last != time, "{file}: line {line}: series \"{name}\" has two rows of {timestamp}");
            ensure!(*last < time, "{file}: line {line}: series \"{name}\" is not ordered by time");
            *last = time;
            *length += 1;
        }
        table.rows.push(Row { series, timestamp: timestamp.to_owned(), reading: Reading { time, value } });
    }
    ensure!(!table.rows.is_empty(), "{file}: holds no rows");
    Ok(table)
}

fn reader_line(record: &csv::StringRecord) -> u64 {
    record.position().map_or(0, csv::Position::line)
}

/// The file of forecasts.
struct Output {
    writer: csv::Writer<BufWriter<File>>,
    steps: bool,
}

impl Output {
    fn create(path: &Path, steps: bool) -> anyhow::Result<Output> {
        let file = File::create(path).with_context(|| format!("{}: cannot be written", path.display()))?;
        let mut writer = csv::Writer::from_writer(BufWriter::new(file));
        let columns =
            ["series", "timestamp", "actual", "mean"].into_iter().chain(LEVEL_NAMES).chain(["score"]);
        writer.write_record(columns.chain(steps.then_some("step")))?;
        Ok(Output { writer, steps })
    }

    fn write(&mut self, name: &str, row: &Row, made: &forecaster::backtest::Row) -> anyhow::Result<()> {
        let mut fields = vec![name.to_owned(), row.timestamp.clone(), row.reading.value.to_string()];
        fields.push(made.forecast.mean.to_string());
        fields.extend(made.forecast.quantiles.map(|q| q.to_string()));
        fields.push(made.score.to_string());
        fields.extend(self.steps.then(|| made.step.to_string()));
        Ok(self.writer.write_record(fields)?)
    }

    fn finish(self) -> anyhow::Result<()> {
        Ok(self.writer.into_inner().map_err(|e| e.into_error())?.flush()?)
    }
}

fn report(args: &BacktestArgs, table: &Table, backtest: &Backtest) -> anyhow::Result<()> {
    let all: Vec<(&String, &Accuracy)> =
        table.names.iter().enumerate().filter_map(|(i, name)| Some((name, backtest.accuracy(i)?))).collect();
    let overall = geometric_mean(all.iter().filter_map(|(_, a)| a.relative_mae()));
    let overall_rmse = geometric_mean(all.iter().filter_map(|(_, a)| a.relative_rmse()));
    let mut out = std::io::stdout().lock();
    if args.json {
        let series: Vec<_> = all
            .iter()
            .map(|(name, a)| {
                json!({"series": name, "rows": a.rows, "relative_mae": a.relative_mae(),
                       "relative_rmse": a.relative_rmse(), "coverage": a.coverage()})
            })
            .collect();
        let whole = json!({"series": series, "relative_mae": overall, "relative_rmse": overall_rmse});
        writeln!(out, "{whole:#}")?;
        return Ok(());
    }
    let width = table.names.iter().map(|n| n.chars().count()).max().unwrap_or(0).max(8);
    let number = |x: Option<f64>| x.map_or_else(|| "-".to_owned(), |x| format!("{x:.3}"));
    writeln!(out, "{:<width$} {:>9} {:>8} {:>8} {:>8}", "series", "rows", "relMAE", "relRMSE", "cover90")?;
    for (name, a) in &all {
        let (mae, rmse, cover) = (number(a.relative_mae()), number(a.relative_rmse()), number(a.coverage()));
        writeln!(out, "{name:<width$} {:>9} {mae:>8} {rmse:>8} {cover:>8}", a.rows)?;
    }
    writeln!(out, "{:<width$} {:>9} {:>8} {:>8}", "geo.mean", "", number(overall), number(overall_rmse))?;
    writeln!(out, "relMAE, relRMSE: error one step ahead over that of the last value; below 1 is better")?;
    Ok(())
}

fn geometric_mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (count, sum) = values.fold((0_u32, 0.0), |(n, sum), x| (n + 1, sum + x.max(1e-4).ln()));
    (count > 0).then(|| (sum / f64::from(count)).exp())
}
