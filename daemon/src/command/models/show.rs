//! `vidente models show`.

use std::fmt::Write;
use std::time::Duration;

use forecaster::{Model, Tally};
use serde_json::{Value, json};

use super::{COVERAGE, HELD_OUT, JUDGED, curve, figure, find, load, open_store, say, status, time, to_json};
use crate::cli::ShowArgs;
use crate::clock::rounded;
use crate::store::{ModelRow, PromotionRow, RunRow};

/// A model, and what is known of it.
pub(super) struct Shown {
    pub(super) model: ModelRow,
    pub(super) promotions: Vec<PromotionRow>,
    pub(super) run: Option<RunRow>,
}

pub(super) async fn run(args: ShowArgs) -> anyhow::Result<()> {
    let store = open_store(&load(args.config)?).await?;
    let model = find(&store, &args.name).await?;
    let promotions = store.promotions(model.id).await?;
    let run = store.training_run_of(model.id).await?;
    let shown = Shown { model, promotions, run };
    if args.json {
        say(format_args!("{:#}", shown.json()))?;
    } else {
        say(shown.text().trim_end())?;
    }
    Ok(())
}

impl Shown {
    fn on_probation(&self) -> bool {
        self.promotions.iter().any(|p| p.status == "probation")
    }

    fn json(&self) -> Value {
        let mut model = to_json(&self.model, self.on_probation());
        let promotion = |p: &PromotionRow| {
            json!({
                "promoted_at": time(p.promoted_at),
                "cause": p.cause,
                "previous": p.previous,
                "status": p.status,
                "ended_at": p.ended_at.map(time),
                "metrics": p.metrics,
            })
        };
        let run = |run: &RunRow| {
            json!({
                "id": run.id,
                "trigger": run.trigger,
                "seed": run.seed,
                "started_at": time(run.started_at),
                "finished_at": run.finished_at.map(time),
                "status": run.status,
                "error": run.error,
                "readings": run.window.map(|w| w.readings),
            })
        };
        if let Some(model) = model.as_object_mut() {
            model.insert("promotions".to_owned(), self.promotions.iter().map(promotion).collect());
            model.insert("training_run".to_owned(), self.run.as_ref().map_or(Value::Null, run));
        }
        model
    }

    pub(super) fn text(&self) -> String {
        let model = &self.model;
        let mut lines = vec![
            ("model", format!("{}, {}", model.name, status(model, self.on_probation()))),
            ("stream", model.stream.clone()),
            ("created", format!("{}, {}", time(model.created_at), model.origin)),
            ("network", network(model)),
        ];
        lines.extend(model.reason.clone().map(|reason| ("reason", reason)));
        if let (Some(start), Some(end)) = (model.window_start, model.window_end) {
            let readings =
                self.run.as_ref().and_then(|run| run.window).map(|w| format!(", {} readings", w.readings));
            let readings = readings.unwrap_or_default();
            lines.push(("learned from", format!("{} to {}{readings}", time(start), time(end))));
        }
        for (name, pointer, of) in [
            ("error", HELD_OUT, "of the naive forecast's, on the slice that the training held out"),
            ("judged", JUDGED, "of the naive forecast's, on the stretch of comparison with the champion"),
            ("coverage", COVERAGE, "of the held-out slice inside the 90 % interval"),
        ] {
            lines.extend(figure(model, pointer).map(|x| (name, format!("{x:.3} {of}"))));
        }
        lines.extend(self.promotions.iter().map(|p| ("promoted", promotion(p))));
        lines.extend(self.run.iter().map(|run| ("training run", training_run(run, model))));
        let mut text = String::new();
        for (name, value) in lines {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:<13} {value}");
        }
        let drawn =
            curve::draw(&model.metrics).unwrap_or_else(|| "there is no curve of its training".to_owned());
        let _ = writeln!(text, "\n{drawn}");
        text
    }
}

fn network(model: &ModelRow) -> String {
    let network = super::network(model);
    if !model.has_weights {
        return format!("{network}; its weights were dropped to save space");
    }
    let kib = model.weights.len().div_ceil(1024);
    match Model::from_safetensors(&model.weights) {
        Ok(known) => {
            let (sizes, networks) = (known.sizes(), known.weights().count());
            let forest = if known.forest().is_some() { ", and a forest" } else { "" };
            format!(
                "{}: {networks} network(s) of {} layer(s) of {} units{forest}; {kib} KiB",
                model.cell, sizes.layers, sizes.hidden
            )
        }
        Err(error) => format!("{network}; {kib} KiB that this version cannot use: {error}"),
    }
}

fn promotion(promotion: &PromotionRow) -> String {
    let before = promotion.previous.as_deref().unwrap_or("none, the online experts alone");
    let ended = promotion.ended_at.map(|at| format!(" {}", time(at))).unwrap_or_default();
    let measured = promotion.metrics.as_ref().and_then(measured).unwrap_or_default();
    format!(
        "{} by {}, {}{ended}; before it: {before}{measured}",
        time(promotion.promoted_at),
        promotion.cause,
        promotion.status.replace('_', " ")
    )
}

/// What the live readings of a probation say, each figure if there is one.
fn measured(metrics: &Value) -> Option<String> {
    let tally: Tally = serde_json::from_value(metrics.clone()).ok()?;
    let mut text = format!("; {} live readings on probation", tally.readings);
    if tally.naive_error > 0.0 {
        let (error, before) = (tally.error / tally.naive_error, tally.error_before / tally.naive_error);
        text +=
            &format!(", error {error:.3} of the naive forecast's, {before:.3} by the forecasts before it");
    }
    if let Some(rise) = tally.rise() {
        let side = if rise > 0.0 { "above" } else { "below" };
        text += &format!(", loss {:.1} % {side} theirs", 100.0 * rise.abs());
    }
    Some(text)
}

fn training_run(run: &RunRow, model: &ModelRow) -> String {
    let mut text = format!("{}: {}", run.id, run.status);
    let number = |name| model.metrics.get(name).and_then(Value::as_u64);
    let took = run.finished_at.map(|end| {
        let took = Duration::from_micros(end.saturating_sub(run.started_at).max(0).unsigned_abs());
        format!("took {}", rounded(took))
    });
    for part in [
        run.trigger.as_ref().map(|trigger| format!("by {trigger}")),
        run.seed.map(|seed| format!("seed {seed}")),
        took,
        number("updates").map(|updates| format!("{updates} updates")),
        number("series").map(|series| format!("{series} series")),
        number("training_rows").map(|rows| format!("{rows} rows")),
    ]
    .into_iter()
    .flatten()
    {
        text.push_str(", ");
        text.push_str(&part);
    }
    text
}
