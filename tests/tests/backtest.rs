//! `vidente backtest`, from the outside.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use vidente_tests::vidente;

const HEAD: &str = "series,timestamp,value\n";

/// Status, standard output and standard error of a backtest of a file with this text.
fn backtest(dir: &Path, text: &str, more: &[&str]) -> Result<(Option<i32>, String, String)> {
    let input = dir.join("in.csv");
    std::fs::write(&input, text)?;
    let mut args = vec!["backtest", "--input", input.to_str().context("path")?];
    args.extend(more);
    let out = vidente(&args)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((out.status.code(), text(&out.stdout), text(&out.stderr)))
}

/// A row of a series on 2026-01-01, one a minute.
fn row(series: &str, minute: usize, value: &str) -> String {
    format!("{series},2026-01-01T{:02}:{:02}:00+02:00,{value}\n", minute / 60, minute % 60)
}

#[test]
fn short_constant_and_gappy_series_are_handled_and_said() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut text = HEAD.to_owned();
    for (name, rows) in [("one", 1), ("two", 2), ("three", 3), ("flat", 100)] {
        (0..rows).for_each(|minute| text += &row(name, minute, "5"));
    }
    (0..100).for_each(|i| text += &row("gappy", i, if i % 10 == 3 { "" } else { ["1", "2", "4"][i % 3] }));
    let output = dir.path().join("out.csv");
    let output = output.to_str().context("path")?;
    let (status, table, said) = backtest(dir.path(), &text, &["--output", output])?;
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("10 rows without a value taken as missing, the first in line 111"), "{said}");
    assert!(said.contains("no model: too little data"), "{said}");
    let line = |name: &str| -> Result<Vec<&str>> {
        let found = table
            .lines()
            .map(|l| l.split_whitespace().collect::<Vec<_>>())
            .find(|l| l.first() == Some(&name));
        found.with_context(|| format!("{name} is not in {table}"))
    };
    assert_eq!(line("one")?[1..], ["1", "-", "-", "-", "-", "-"].map(|x| if x == "1" { "0" } else { x }));
    assert_eq!(line("two")?[1..3], ["1", "-"]);
    assert_eq!(line("three")?[1..3], ["1", "-"]);
    assert_eq!(line("flat")?[1..], ["30", "-", "-", "-", "1.000", "-"]);
    assert_eq!(line("gappy")?[1], "28");
    assert!(table.contains("3 series left out of the means"), "{table}");
    for name in ["naive", "seasonal naive", "EWMA"] {
        assert!(table.contains(&format!("\n{name} ")), "{table}");
    }
    let written = std::fs::read_to_string(output)?;
    let mut lines = written.lines();
    assert_eq!(lines.next(), Some("series,timestamp,actual,mean,q05,q10,q25,q50,q75,q90,q95,score"));
    assert_eq!(lines.next(), Some("two,2026-01-01T00:01:00+02:00,5,5,5,5,5,5,5,5,5,0"));
    assert_eq!(lines.count(), 1 + 30 + 28);

    // Cold, every row from the second on; and one line a step.
    let (status, json, said) =
        backtest(dir.path(), &text, &["--split", "0", "--horizon", "2", "--json", "--output", output])?;
    assert_eq!(status, Some(0), "{said}");
    let json: Value = serde_json::from_str(&json)?;
    assert_eq!((&json["rows"], &json["steps"][1]["step"]), (&Value::from(1 + 2 + 99 + 89), &Value::from(2)));
    for place in
        ["/relative_mae", "/series/4/relative_winkler", "/baselines/2/coverage", "/steps/1/relative_crps"]
    {
        assert!(json.pointer(place).is_some_and(Value::is_f64), "no {place} in {json:#}");
    }
    assert_eq!(json["series"][3]["relative_mae"], Value::Null);
    let written = std::fs::read_to_string(output)?;
    assert!(written.lines().next().is_some_and(|l| l.ends_with(",score,step")));
    Ok(())
}

#[test]
fn what_cannot_be_read_or_written_is_said_with_file_and_line() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let good = format!("{HEAD}{}{}", row("a", 0, "1"), row("a", 1, "2"));
    let itself = dir.path().join("in.csv").display().to_string();
    let cases: [(String, &[&str], &str); 6] = [
        (String::new(), &[], "in.csv: is empty"),
        (format!("{good}{}", row("a", 2, "x")), &[], "in.csv: line 4: \"x\" is no number"),
        (format!("{good}{}", row("a", 1, "3")), &[], "in.csv: line 4: series \"a\" has two rows of"),
        (
            good.clone(),
            &["--output", "/nonexistent/out.csv"],
            "/nonexistent/out.csv: cannot be written: No such",
        ),
        (good.clone(), &["--output", &itself], "in.csv is the input; name another file"),
        (good, &["--save-model", "/tmp/model"], "--save-model: there is no trained model to save"),
    ];
    for (text, more, expected) in cases {
        let (status, out, said) = backtest(dir.path(), &text, more)?;
        assert_eq!((status, out.as_str()), (Some(1), ""), "{said}");
        assert!(said.contains(expected), "no {expected} in {said}");
    }
    Ok(())
}
