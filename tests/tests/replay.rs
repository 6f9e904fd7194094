//! `vidente replay`, and that a daemon fed by it makes what a backtest makes.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Output;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vidente_tests::{Reading, Rig, Settings, Store, Subscriber, vidente, wait_until};

/// Three series of the test feed in long form, ordered by time; a row is left out here and there.
fn csv(rows: usize) -> String {
    let mut text = "series,timestamp,value\n".to_owned();
    for position in 0..rows {
        for series in (0..3).filter(|series| (position * 7 + series) % 23 != 5) {
            let reading = Reading { series, position };
            let second = position * 60;
            let (day, hour, minute) = (1 + second / 86_400, second / 3600 % 24, second / 60 % 60);
            let value = reading.value();
            let _ = writeln!(text, "dev{series},2026-01-{day:02}T{hour:02}:{minute:02}:00Z,{value:.4}");
        }
    }
    text
}

fn replay(rig: &Rig, text: &str, more: &[&str]) -> Result<Output> {
    let file = rig.dir().join("replay.csv");
    std::fs::write(&file, text)?;
    let url = rig.broker.url();
    let mut args = vec!["replay", file.to_str().context("path")?, "--url", &url];
    args.extend(more);
    vidente(&args)
}

fn succeeded(out: &Output) -> Result<()> {
    ensure!(out.status.success(), "{}: {}", out.status, String::from_utf8_lossy(&out.stderr));
    Ok(())
}

#[test]
fn a_file_is_published_as_sensors_would() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let heard = Subscriber::new(&rig.broker, "in/#")?;
    // Series after series in the file, published in order of time.
    let text = "series,timestamp,value\na/b,2026-01-01T00:00:00+01:00,1.5\na/b,2026-01-01T00:02:00+01:00,-2\n\
                c#d,2025-12-31T23:01:00.25Z,1e-7\n";
    for qos in ["0", "1", "2"] {
        succeeded(&replay(&rig, text, &["--topic", "in/{series}/x", "--qos", qos])?)?;
    }
    let messages = heard.wait_for(9)?;
    let said =
        |n: usize| (messages[n].topic.as_str(), String::from_utf8_lossy(&messages[n].payload).into_owned());
    for begin in [0, 3, 6] {
        assert_eq!(said(begin), ("in/a/b/x", "{\"value\":1.5,\"ts\":\"2025-12-31T23:00:00Z\"}".to_owned()));
        assert_eq!(
            said(begin + 1),
            ("in/c%23d/x", "{\"value\":1e-7,\"ts\":\"2025-12-31T23:01:00.25Z\"}".to_owned())
        );
        assert_eq!(
            said(begin + 2),
            ("in/a/b/x", "{\"value\":-2.0,\"ts\":\"2025-12-31T23:02:00Z\"}".to_owned())
        );
    }
    Ok(())
}

#[test]
fn the_pace_is_kept_and_times_are_shifted_to_now() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let heard = Subscriber::new(&rig.broker, "in/#")?;
    let text = csv(4);
    let rows = text.lines().count() - 1;
    let timed = |more: &[&str]| -> Result<f64> {
        let begun = Instant::now();
        succeeded(&replay(&rig, &text, &[&["--topic", "in/{series}"], more].concat())?)?;
        Ok(begun.elapsed().as_secs_f64())
    };
    let took = timed(&["--rate", "10", "--now"])?;
    assert!((0.9..3.0).contains(&took), "{took}");
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let messages = heard.wait_for(rows)?;
    let last = messages[rows - 1].json()?["ts"].as_str().context("ts")?.to_owned();
    let out = std::process::Command::new("date").args(["-d", &last, "+%s"]).output()?;
    let last: u64 = String::from_utf8(out.stdout)?.trim().parse()?;
    assert!((now - 5..=now + 1).contains(&last), "{last} at {now}");
    // Three minutes of it in a second and a half.
    let took = timed(&["--speed", "120"])?;
    assert!((1.4..3.5).contains(&took), "{took}");
    Ok(())
}

#[test]
fn what_cannot_be_published_is_said() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let nowhere = vidente_tests::free_port()?;
    let nowhere = format!("mqtt://127.0.0.1:{nowhere}");
    for (text, more, expected) in [
        (csv(2), &["--topic", "one"][..], "would put 3 series on one topic; let it hold {series}"),
        (csv(2), &["--topic", "a/#"], "cannot be published on"),
        (csv(2) + "dev0,x,1\n", &["--topic", "{series}"], "is no RFC 3339 time"),
        (
            csv(2),
            &["--topic", "{series}", "--username", "u", "--password-file", "/nonexistent"],
            "/nonexistent cannot be read",
        ),
    ] {
        let out = replay(&rig, &text, more)?;
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert!(said.contains(expected), "no {expected} in {said}");
    }
    let file = rig.dir().join("replay.csv");
    std::fs::write(&file, csv(2))?;
    let file = file.to_str().context("path")?;
    for (url, expected) in [
        (nowhere.as_str(), "no connection to mqtt://127"),
        ("http://x", "--url: \"http://x\" names no broker"),
    ] {
        let out = vidente(&["replay", file, "--topic", "{series}", "--url", url])?;
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert!(said.contains(expected), "no {expected} in {said}");
    }
    Ok(())
}

/// Numbers of a forecast row, mean and quantiles, by series and the time forecast for, in seconds.
type Forecasts = HashMap<(String, i64), [f64; 8]>;
/// Scores of readings, by series and time.
type Scores = HashMap<(String, i64), f64>;
/// A stored forecast: series key, time of the reading it was for, mean and quantiles.
type Stored = (String, i64, f64, f64, f64, f64, f64, f64, f64, f64);

/// What `vidente backtest` makes of the file.
fn backtest(dir: &Path, text: &str, more: &[&str]) -> Result<(Forecasts, Scores)> {
    let (input, output) = (dir.join("in.csv"), dir.join("out.csv"));
    std::fs::write(&input, text)?;
    let [input, output] = [&input, &output].map(|p| p.display().to_string());
    succeeded(&vidente(&[&["backtest", "--input", &input, "--output", &output], more].concat())?)?;
    let (mut forecasts, mut scores) = (HashMap::new(), HashMap::new());
    for line in std::fs::read_to_string(&output)?.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let [day, hour, minute] =
            [8..10, 11..13, 14..16].map(|range| fields[1].get(range).unwrap_or_default());
        let [day, hour, minute] = [day.parse::<i64>()?, hour.parse()?, minute.parse()?];
        let time = Reading::BEGIN.cast_signed() + (day - 1) * 86_400 + hour * 3600 + minute * 60;
        let key = (fields[0].to_owned(), time);
        let numbers = fields[3..12].iter().map(|f| f.parse()).collect::<Result<Vec<f64>, _>>()?;
        forecasts.insert(key.clone(), numbers[..8].try_into()?);
        scores.insert(key, numbers[8]);
    }
    Ok((forecasts, scores))
}

/// The first rows of each series, as a backtest splits them, and the others.
fn halves(text: &str, split: f64) -> (String, String) {
    let series = |line: &str| line.split(',').next().unwrap_or_default().to_owned();
    let mut left: HashMap<String, usize> = HashMap::new();
    for line in text.lines().skip(1) {
        *left.entry(series(line)).or_default() += 1;
    }
    left.values_mut().for_each(|rows| *rows = (split * *rows as f64).floor() as usize);
    let mut halves = ("series,timestamp,value\n".to_owned(), "series,timestamp,value\n".to_owned());
    for line in text.lines().skip(1) {
        let half = match left.get_mut(&series(line)) {
            Some(rows) if *rows > 0 => {
                *rows -= 1;
                &mut halves.0
            }
            _ => &mut halves.1,
        };
        *half += line;
        *half += "\n";
    }
    halves
}

/// Replays the file into a daemon and holds its forecasts and scores against the backtest's. At the
/// split, if there is one, the daemon gets the backtest's model.
fn compare(split: f64) -> Result<()> {
    const ROWS: usize = 600;
    let rig = Rig::new(Store::Sqlite)?;
    let settings = Settings {
        rest: "[[stream]]\nname = \"s\"\ntopic = \"in/{device}\"\nfields = [\"value\"]\ntime = \"ts\"\n\
               [model]\nhidden = 8\n[training]\nevery = \"off\"\n"
            .to_owned(),
        ..Settings::climate()
    };
    let (config, _) = rig.configure(&settings)?;
    let config = config.display().to_string();
    let text = csv(ROWS);
    let model = rig.dir().join("model.safetensors");
    let model_path = model.display().to_string();
    let split_text = split.to_string();
    let mut more = vec!["--split", &split_text, "--config", &config, "--stream", "s"];
    if split > 0.0 {
        more.extend(["--save-model", &model_path]);
    }
    let (forecasts, scores) = backtest(rig.dir(), &text, &more)?;
    let (history, rest) = halves(&text, split);
    if split > 0.0 {
        let mut daemon = rig.daemon(&settings)?;
        succeeded(&replay(&rig, &history, &["--topic", "in/{series}"])?)?;
        daemon.wait_stored(history.lines().count() - 1)?;
        daemon.stop()?;
        let weights: String = std::fs::read(&model)?.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        rig.database(&settings)?.execute(&format!(
            "insert into models (name, stream, version, cell, created_at, status, metrics, weights) \
             values ('s-1', 's', 1, 'lstm', 0, 'champion', '{{}}', x'{weights}')"
        ))?;
    }
    let heard = Subscriber::new(&rig.broker, "vidente/forecast/#")?;
    let mut daemon = rig.daemon(&settings)?;
    succeeded(&replay(&rig, &rest, &["--topic", "in/{series}"])?)?;
    let rows = rest.lines().count() - 1;
    daemon.wait_stored(rows)?;
    wait_until("every forecast", vidente_tests::WAIT, || {
        Ok(heard.messages().iter().filter(|m| !m.retained).count() >= rows)
    })?;
    daemon.stop()?;

    let mut made: Forecasts = HashMap::new();
    let database = rig.database(&settings)?;
    // What was forecast for each reading: from the reading before it, whatever time it was for.
    let stored: Vec<Stored> = database.rows(
        "select s.key, (select min(r.time) from readings r where r.series_id = f.series_id and r.time > f.origin) / 1000000, \
         f.mean, f.q05, f.q10, f.q25, f.q50, f.q75, f.q90, f.q95 \
         from forecasts f join series s on s.id = f.series_id where f.step = 1 \
         and f.origin < (select max(r.time) from readings r where r.series_id = f.series_id)",
    )?;
    for (key, time, mean, q05, q10, q25, q50, q75, q90, q95) in stored {
        let series = key.split('/').nth(1).context("key")?.to_owned();
        made.insert((series, time), [mean, q05, q10, q25, q50, q75, q90, q95]);
    }
    let mut scored: Scores = HashMap::new();
    for message in heard.messages() {
        let body: Value = message.json()?;
        let series =
            body["series"].as_str().and_then(|key| key.split('/').nth(1)).context("series")?.to_owned();
        let origin = body["origin"].as_str().context("origin")?;
        let out = |range: std::ops::Range<usize>| origin.get(range).unwrap_or_default().parse::<i64>();
        let time = Reading::BEGIN.cast_signed()
            + (out(8..10)? - 1) * 86_400
            + out(11..13)? * 3600
            + out(14..16)? * 60;
        scored.insert((series, time), body["reading"]["score"].as_f64().context("score")?);
    }
    assert_eq!(forecasts.len(), rows - if split > 0.0 { 0 } else { 3 });
    let mut first: HashMap<&str, i64> = HashMap::new();
    for (series, time) in forecasts.keys() {
        let first = first.entry(series).or_insert(*time);
        *first = (*first).min(*time);
    }
    for (key, expected) in &forecasts {
        assert_eq!(scored.get(key), scores.get(key), "score of {key:?}");
        // What is forecast for the first row is stored before the model comes; and cold, after one
        // reading, nothing is stored, while the backtest says the last value.
        if first.get(key.0.as_str()) != Some(&key.1) {
            assert_eq!(made.get(key), Some(expected), "{key:?}");
        }
    }
    Ok(())
}

#[test]
fn a_daemon_with_the_same_model_makes_what_a_backtest_makes() -> Result<()> {
    compare(0.7)
}

#[test]
fn a_daemon_without_a_model_makes_what_a_cold_backtest_makes() -> Result<()> {
    compare(0.0)
}
