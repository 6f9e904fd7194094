//! The file of forecasts, one line a row and step.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use forecaster::LEVEL_NAMES;
use forecaster::backtest;

use crate::table::Row;

pub(super) struct Output {
    path: PathBuf,
    writer: csv::Writer<BufWriter<File>>,
    steps: bool,
}

impl Output {
    /// Makes the file; with `steps` a last column says how many steps ahead.
    pub(super) fn create(path: &Path, steps: bool) -> anyhow::Result<Output> {
        let file = File::create(path).with_context(|| format!("{}: cannot be written", path.display()))?;
        let writer = csv::Writer::from_writer(BufWriter::new(file));
        let mut output = Output { path: path.to_owned(), writer, steps };
        let columns =
            ["series", "timestamp", "actual", "mean"].into_iter().chain(LEVEL_NAMES).chain(["score"]);
        output.record(columns.chain(steps.then_some("step")))?;
        Ok(output)
    }

    /// Every number with as many digits as it takes to read the same double back.
    pub(super) fn write(&mut self, name: &str, row: &Row, made: &backtest::Row) -> anyhow::Result<()> {
        let mut fields = vec![name.to_owned(), row.timestamp.clone(), row.reading.value.to_string()];
        fields.push(made.forecast.mean.to_string());
        fields.extend(made.forecast.quantiles.map(|q| q.to_string()));
        fields.push(made.score.to_string());
        fields.extend(self.steps.then(|| made.step.to_string()));
        self.record(fields)
    }

    fn record(&mut self, fields: impl IntoIterator<Item = impl AsRef<[u8]>>) -> anyhow::Result<()> {
        let Output { path, writer, .. } = self;
        writer.write_record(fields).with_context(|| format!("{}: cannot be written", path.display()))
    }

    pub(super) fn finish(self) -> anyhow::Result<()> {
        let Output { path, writer, .. } = self;
        let flushed = writer.into_inner().map_err(|e| e.into_error()).and_then(|mut file| file.flush());
        flushed.with_context(|| format!("{}: cannot be written", path.display()))
    }
}
