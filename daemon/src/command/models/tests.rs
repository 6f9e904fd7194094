//! Tests of what is shown.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use serde_json::json;

use super::show::Shown;
use super::{curve, list};
use crate::store::{ModelRow, PromotionRow, RunRow, RunWindow};

/// 2026-11-23T10:00:00.5Z.
const T0: i64 = 1_795_428_000_500_000;

fn model() -> ModelRow {
    ModelRow {
        id: 3,
        name: "climate-3".into(),
        stream: "climate".into(),
        version: 3,
        cell: "lstm".into(),
        created_at: T0,
        status: "champion".into(),
        reason: None,
        origin: "trained".into(),
        window_start: Some(T0 - 3_600_000_000),
        window_end: Some(T0),
        metrics: json!({
            "relative_error": 0.8125, "coverage": 0.9, "naive_loss": 0.5, "updates": 300, "series": 4,
            "judged": {"relative_error": 0.75}, "sizes": {"networks": 2, "hidden": 32, "layers": 1},
            "curve": (1..=30).map(|n| json!({
                "update": n * 10, "training_loss": 1.0 / f64::from(n), "validation_loss": 0.1 + 1.0 / f64::from(n),
            })).collect::<Vec<_>>(),
        }),
        has_weights: false,
        weights: vec![],
    }
}

#[test]
fn a_line_of_the_list_holds_all_that_is_known() {
    let bare = ModelRow {
        name: "climate-4".into(),
        status: "candidate".into(),
        reason: Some("no better\nthan naive".into()),
        window_start: None,
        metrics: json!({}),
        has_weights: true,
        ..model()
    };
    let text = list::table(&[(true, model()), (false, bare)]);
    let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(
        rows[1],
        [
            "climate-3",
            "2026-11-23T10:00:00Z",
            "lstm",
            "32",
            "2026-11-23T09:00:00Z/2026-11-23T10:00:00Z",
            "0.812",
            "0.750",
            "0.900",
            "champion",
            "(probation)",
            "trained",
            "dropped"
        ]
    );
    assert_eq!(
        rows[2],
        [
            "climate-4",
            "2026-11-23T10:00:00Z",
            "lstm",
            "-",
            "-",
            "-",
            "-",
            "candidate",
            "trained",
            "kept",
            "no",
            "better",
            "than",
            "naive"
        ]
    );
}

/// What a probation has measured, as it is stored.
fn tally() -> serde_json::Value {
    let mut tally = forecaster::Tally::default();
    (tally.readings, tally.loss, tally.loss_before) = (120, 45.0, 50.0);
    (tally.error, tally.error_before, tally.naive_error) = (60.0, 80.0, 100.0);
    serde_json::to_value(tally).unwrap()
}

#[test]
fn one_model_is_shown_with_its_promotions_its_run_and_its_curve() {
    let promotion = |previous: Option<&str>, status: &str, ended_at| PromotionRow {
        previous: previous.map(str::to_owned),
        promoted_at: T0,
        cause: "training".into(),
        status: status.into(),
        ended_at,
        metrics: None,
    };
    let run = RunRow {
        id: 7,
        started_at: T0,
        finished_at: Some(T0 + 61_200_000),
        status: "succeeded".into(),
        error: None,
        trigger: Some("schedule".into()),
        seed: Some(5),
        window: Some(RunWindow { start: T0, end: T0, readings: 1234 }),
        progress: Some(1.0),
        metrics: None,
    };
    let promotions = vec![
        promotion(None, "rolled_back", Some(T0 + 1_000_000)),
        PromotionRow { metrics: Some(tally()), ..promotion(Some("climate-2"), "probation", None) },
    ];
    let text = Shown { model: model(), promotions, run: Some(run) }.text();
    for part in [
        "climate-3, champion (probation)",
        "lstm 32; its weights were dropped",
        "2026-11-23T09:00:00Z to 2026-11-23T10:00:00Z, 1234 readings",
        "by training, rolled back 2026-11-23T10:00:01Z; before it: none",
        "by training, probation; before it: climate-2; 120 live readings on probation, error 0.600 of the naive \
         forecast's, 0.800 by the forecasts before it, loss 10.0 % below theirs\n",
        "7: succeeded, by schedule, seed 5, took 1m 1s, 300 updates, 4 series",
        "300 updates\n",
    ] {
        assert!(text.contains(part), "no {part} in:\n{text}");
    }
    assert!(!text.contains('{'), "{text}");
}

#[test]
fn the_curve_shows_three_lines_in_80_columns_without_colour() {
    let text = curve::draw(&model().metrics).unwrap();
    assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
    let rows: Vec<&str> = text.lines().skip(1).collect();
    // The naive loss is one level line; the losses fall from the upper left to the lower right.
    let naive: Vec<_> = rows.iter().filter(|row| row.matches('-').count() > 20).collect();
    assert_eq!(naive.len(), 1, "{text}");
    let highest = rows.iter().position(|row| row.contains('*')).unwrap();
    let lowest = rows.iter().rposition(|row| row.contains('*')).unwrap();
    assert!(lowest > highest + 5, "{text}");
    assert!(rows[highest].find('*').unwrap() < rows[lowest].rfind('*').unwrap() - 30, "{text}");
    assert!(rows.iter().any(|row| row.contains(".....")), "{text}");
}

#[test]
fn a_curve_that_is_missing_short_or_flat_does_no_harm() {
    assert_eq!(curve::draw(&json!({})), None);
    let look =
        |update, loss: Option<f64>| json!({"update": update, "training_loss": loss, "validation_loss": loss});
    assert_eq!(curve::draw(&json!({"curve": [look(10, Some(0.5))]})), None);
    assert_eq!(curve::draw(&json!({"curve": [look(10, None), look(20, None)]})), None);
    let flat = json!({"curve": [look(10, Some(0.0)), look(20, Some(0.0))], "naive_loss": 0.0});
    assert!(curve::draw(&flat).unwrap().contains('*'));
}
