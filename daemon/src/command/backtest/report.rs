//! How accurate the forecasts were, as a table or as JSON.

use std::io::Write;

use forecaster::backtest::{Accuracy, BASELINES, Backtest, Overall, Ratios, overall};
use serde_json::{Value, json};

use crate::cli::BacktestArgs;

/// A line of the table: rows and ratios under a name.
type Line = (String, usize, Ratios);

pub(super) fn print(args: &BacktestArgs, names: &[String], backtest: &Backtest) -> anyhow::Result<()> {
    let figures = Figures::of(args, names, backtest);
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{:#}", figures.json(args))?;
    } else {
        figures.table(&mut out)?;
    }
    Ok(())
}

struct Figures<'a> {
    names: &'a [String],
    /// One step ahead, of each series.
    series: Vec<Accuracy>,
    /// All series together, for each step.
    steps: Vec<Overall>,
    /// For each baseline, of each series to which it applies.
    baselines: Vec<(&'static str, Vec<Option<Accuracy>>)>,
}

impl<'a> Figures<'a> {
    fn of(args: &BacktestArgs, names: &'a [String], backtest: &Backtest) -> Figures<'a> {
        let of_series = 0..names.len();
        let at = |step| of_series.clone().filter_map(move |i| backtest.accuracy_at(i, step));
        let baseline = |(which, name): (usize, &'static str)| {
            let of = |i: usize| -> Option<Accuracy> { backtest.baselines(i).get(which).copied()?.copied() };
            (name, of_series.clone().map(of).collect())
        };
        Figures {
            names,
            series: at(1).copied().collect(),
            steps: (1..=usize::from(args.horizon)).map(|step| overall(at(step))).collect(),
            baselines: (0..).zip(BASELINES).map(baseline).collect(),
        }
    }

    fn one_step(&self) -> Overall {
        self.steps.first().copied().unwrap_or_default()
    }

    fn table(&self, out: &mut impl Write) -> std::io::Result<()> {
        let all = self.one_step();
        let mut lines: Vec<Line> = Vec::new();
        for (name, accuracy) in self.names.iter().zip(&self.series) {
            lines.push((name.clone(), accuracy.rows(), accuracy.ratios()));
        }
        lines.push(("all series".to_owned(), all.rows, all.means));
        let mut steps = Vec::new();
        if self.steps.len() > 1 {
            for (step, all) in (1..).zip(&self.steps) {
                steps.push((format!("step {step}"), all.rows, all.means));
            }
        }
        let mut baselines = Vec::new();
        for (name, of_series) in &self.baselines {
            let all = overall(of_series.iter().flatten());
            // Over fewer series it would not compare with the line above.
            let partial = all.series > 0 && all.series < self.one_step().series;
            let name = if partial { format!("{name} ({} series)", all.series) } else { (*name).to_owned() };
            baselines.push((name, all.rows, all.means));
        }
        let names = lines.iter().chain(&steps).chain(&baselines).map(|(name, ..)| name.chars().count());
        let width = names.max().unwrap_or(0);
        writeln!(
            out,
            "{:<width$} {:>9} {:>8} {:>8} {:>8} {:>8} {:>10}",
            "series", "rows", "relMAE", "relRMSE", "relCRPS", "cover90", "relWinkler"
        )?;
        for line in &lines {
            write(out, width, line)?;
        }
        for (title, section) in [("ahead", &steps), ("baselines", &baselines)] {
            if !section.is_empty() {
                writeln!(out, "\n{title}")?;
                for line in section {
                    write(out, width, line)?;
                }
            }
        }
        writeln!(
            out,
            "\nErrors over the naive forecast's, below 1 is better: of the median (relMAE), of the mean (relRMSE),\n\
             pinball loss of the quantiles (relCRPS), Winkler score of the 90 % interval (relWinkler). cover90: share\n\
             of readings inside that interval. All series: geometric means; mean of cover90."
        )?;
        if all.skipped > 0 {
            writeln!(
                out,
                "{} series left out of the means: the naive forecast makes no error there.",
                all.skipped
            )?;
        }
        if all.clamped > 0 {
            writeln!(out, "{} series with a ratio below 0.0001 counted as that.", all.clamped)?;
        }
        Ok(())
    }

    fn json(&self, args: &BacktestArgs) -> Value {
        let per_series = |of_series: &[Option<Accuracy>]| -> Vec<Value> {
            let known = self.names.iter().zip(of_series).filter_map(|(name, a)| Some((name, (*a)?)));
            known.map(|(name, a)| with(json!({"series": name, "rows": a.rows()}), &a.ratios())).collect()
        };
        let own: Vec<Option<Accuracy>> = self.series.iter().copied().map(Some).collect();
        let mut whole = with(json!({}), &self.one_step().means);
        let parts = json!({
            "split": args.split,
            "horizon": args.horizon,
            "rows": self.one_step().rows,
            "skipped": self.one_step().skipped,
            "clamped": self.one_step().clamped,
            "series": per_series(&own),
            "steps": (1..).zip(&self.steps).map(|(step, all): (usize, _)| {
                with(json!({"step": step, "rows": all.rows}), &all.means)
            }).collect::<Vec<_>>(),
            "baselines": self.baselines.iter().map(|(name, of_series)| {
                let all = overall(of_series.iter().flatten());
                with(json!({"name": name, "rows": all.rows, "series": per_series(of_series)}), &all.means)
            }).collect::<Vec<_>>(),
        });
        if let (Some(whole), Value::Object(parts)) = (whole.as_object_mut(), parts) {
            whole.extend(parts);
        }
        whole
    }
}

fn write(out: &mut impl Write, width: usize, (name, rows, r): &Line) -> std::io::Result<()> {
    let number = |x: Option<f64>| x.map_or_else(|| "-".to_owned(), |x| format!("{x:.3}"));
    let [mae, rmse, crps, cover, winkler] = [r.mae, r.rmse, r.crps, r.coverage, r.winkler].map(number);
    writeln!(out, "{name:<width$} {rows:>9} {mae:>8} {rmse:>8} {crps:>8} {cover:>8} {winkler:>10}")
}

/// An object with the ratios added; null where one is not known.
fn with(mut object: Value, r: &Ratios) -> Value {
    for (name, ratio) in [
        ("relative_mae", r.mae),
        ("relative_rmse", r.rmse),
        ("relative_crps", r.crps),
        ("coverage", r.coverage),
        ("relative_winkler", r.winkler),
    ] {
        if let Some(object) = object.as_object_mut() {
            object.insert(name.to_owned(), ratio.into());
        }
    }
    object
}
