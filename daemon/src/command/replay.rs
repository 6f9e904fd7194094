//! `vidente replay`: publishes a CSV as sensors would.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use forecaster::Timestamp;
use indicatif::{ProgressBar, ProgressStyle};
use url::Url;

use crate::cli::ReplayArgs;
use crate::clock::rounded;
use crate::config::Mqtt;
use crate::encode;
use crate::mqtt::Publisher;
use crate::table::Table;
use crate::topic::{self, SERIES_PLACEHOLDER};
use crate::training;

/// Messages between two moves of the progress bar.
const SHOWN_EVERY: u64 = 256;
/// Longest topic that MQTT can express.
const MAX_TOPIC: usize = u16::MAX as usize;

pub(super) async fn run(args: ReplayArgs) -> anyhow::Result<()> {
    let mqtt = broker(&args)?;
    let mut table = Table::read(&args.file)?;
    for note in table.notes() {
        eprintln!("{}: {note}", args.file.display());
    }
    // As sensors would, whatever the order of the series in the file.
    table.rows.sort_by_key(|row| row.reading.time);
    let topics = topics(&args.topic, &table.names)?;
    let (Some(first), Some(last)) = (table.rows.first(), table.rows.last()) else { return Ok(()) };
    let (first, last) = (first.reading.time.0, last.reading.time.0);
    let shift = if args.now { training::now() - last } else { 0 };

    let total = table.rows.len() as u64;
    let mut publisher = Publisher::connect(&mqtt, args.qos).await?;
    let bar = ProgressBar::new(total);
    if let Ok(style) = ProgressStyle::with_template("publishing {bar:30} {pos}/{len} {per_sec} {elapsed}") {
        bar.set_style(style);
    }
    let begun = Instant::now();
    for (sent, row) in (0_u64..).zip(&table.rows) {
        let Some(topic) = topics.get(row.series) else { continue };
        let due = match (args.rate, args.speed) {
            (Some(rate), _) => sent as f64 / rate,
            (None, Some(speed)) => (row.reading.time.0 - first) as f64 / 1e6 / speed,
            (None, None) => 0.0,
        };
        let wait = Duration::try_from_secs_f64(due).unwrap_or(Duration::MAX).saturating_sub(begun.elapsed());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let value = serde_json::to_string(&row.reading.value)?;
        let time = encode::text(Timestamp(row.reading.time.0 + shift));
        let payload = format!("{{\"value\":{value},\"ts\":\"{time}\"}}").into_bytes();
        if let Err(error) = publisher.publish(topic.clone(), payload).await {
            bar.abandon();
            return Err(error.context(format!("after {} of {total} readings", publisher.done())));
        }
        if sent % SHOWN_EVERY == 0 {
            bar.set_position(sent);
        }
    }
    publisher.finish().await.context("waiting for the broker to confirm the last readings")?;
    bar.finish_and_clear();
    println!("{total} readings of {} series published in {}", table.names.len(), rounded(begun.elapsed()));
    Ok(())
}

fn broker(args: &ReplayArgs) -> anyhow::Result<Mqtt> {
    let url = Url::parse(&args.url).context("--url: is no URL; write for instance mqtt://127.0.0.1:1883")?;
    ensure!(
        url.username().is_empty() && url.password().is_none(),
        "--url: holds credentials; use --username and --password-file"
    );
    ensure!(
        matches!(url.scheme(), "mqtt" | "mqtts") && url.host_str().is_some_and(|h| !h.is_empty()),
        "--url: \"{}\" names no broker; write mqtt://host:port or, for TLS, mqtts://host:port",
        args.url
    );
    Ok(Mqtt {
        url: args.url.clone(),
        client_id: format!("vidente-replay-{}", std::process::id()),
        username: args.username.clone(),
        password_file: args.password_file.clone(),
        ca_file: args.ca_file.clone(),
        ..Mqtt::default()
    })
}

/// The topic of each series.
fn topics(pattern: &str, names: &[String]) -> anyhow::Result<Vec<String>> {
    let literal = pattern.replace(SERIES_PLACEHOLDER, "");
    if literal.contains(['+', '#', '\0', '{', '}']) || pattern.is_empty() || pattern.starts_with('$') {
        bail!(
            "--topic: \"{pattern}\" cannot be published on; write for instance \"sensors/{SERIES_PLACEHOLDER}/climate\""
        );
    }
    ensure!(
        names.len() == 1 || pattern.contains(SERIES_PLACEHOLDER),
        "--topic: \"{pattern}\" would put {} series on one topic; let it hold {SERIES_PLACEHOLDER}",
        names.len()
    );
    names
        .iter()
        .map(|name| {
            let topic = pattern.replace(SERIES_PLACEHOLDER, &topic::encoded(name));
            ensure!(topic.len() <= MAX_TOPIC, "the topic of series \"{name}\" is longer than MQTT allows");
            Ok(topic)
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn of(pattern: &str, names: &[&str]) -> Result<Vec<String>, String> {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        topics(pattern, &names).map_err(|e| e.to_string())
    }

    #[test]
    fn every_series_has_a_topic_that_may_be_published_on() {
        assert_eq!(
            of("a/{series}/b", &["x", "y+#\0z", "p/q"]).unwrap(),
            ["a/x/b", "a/y%2B%23%00z/b", "a/p/q/b"]
        );
        assert_eq!(of("plain", &["x"]).unwrap(), ["plain"]);
        assert!(of("plain", &["x", "y"]).unwrap_err().contains("would put 2 series on one topic"));
        for pattern in ["", "#", "a/+/{series}", "$SYS/{series}", "{site}/{series}"] {
            assert!(of(pattern, &["x"]).unwrap_err().contains("cannot be published on"), "{pattern}");
        }
        assert!(of("{series}", &[&"x".repeat(70_000)]).unwrap_err().contains("longer than MQTT allows"));
    }
}
