//! The overview: all series as they were a moment ago, put together here from what the engine gives in parts,
//! so that to search and to sort is no work of its thread.

use std::cmp::Reverse;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::shared::pause;
use super::{Admin, Pages};
use crate::encode;
use crate::message::{Query, SeriesPart, SeriesRow, StreamSnapshot};

/// Series in a view unless asked for fewer or more, and the most.
const LIMIT: usize = 50;
const MAX_LIMIT: usize = 500;
/// Longest text searched for, in bytes, and most words.
const MAX_SEARCH: usize = 256;
const MAX_WORDS: usize = 8;
/// Error over the naive forecast's from which on a forecast needs attention.
const WORSE: f64 = 1.1;

/// Which series to show.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct View {
    /// Words that a key holds, all of them, in any case.
    search: Option<String>,
    #[serde(default)]
    sort: Sort,
    #[serde(default)]
    offset: usize,
    limit: Option<usize>,
}

impl View {
    pub(super) fn fits(&self) -> bool {
        let fits = |text: &String| text.len() <= MAX_SEARCH && text.split_whitespace().count() <= MAX_WORDS;
        self.search.as_ref().is_none_or(fits) && self.limit.is_none_or(|limit| limit <= MAX_LIMIT)
    }
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Sort {
    /// In an anomaly, silent, forecast badly; the newest trouble first.
    #[default]
    Attention,
    Key,
    /// Worst forecast first.
    Error,
}

/// Why a series needs attention; the first is the most urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Attention {
    Flagged,
    Silent,
    Worse,
}

impl Attention {
    fn of(row: &SeriesRow) -> Option<Attention> {
        if row.flagged_since.is_some() {
            Some(Attention::Flagged)
        } else if row.silent_since.is_some() {
            Some(Attention::Silent)
        } else {
            row.relative_error.filter(|error| *error >= WORSE).map(|_| Attention::Worse)
        }
    }
}

/// All series at a moment.
#[derive(Debug)]
pub(super) struct Board {
    streams: Vec<StreamTotals>,
    rows: Vec<SeriesRow>,
    /// Keys in small letters, as they are searched.
    small: OnceLock<Vec<String>>,
    /// Rows by key.
    by_key: OnceLock<Vec<usize>>,
    by_attention: OnceLock<Vec<usize>>,
    by_error: OnceLock<Vec<usize>>,
}

#[derive(Debug, Clone, Serialize)]
struct StreamTotals {
    #[serde(flatten)]
    stream: StreamSnapshot,
    /// Series in an anomaly.
    flagged: usize,
    /// Silent ones.
    silent: usize,
    /// Series forecast worse than by the last value.
    worse: usize,
}

/// What is answered.
#[derive(Debug, Serialize)]
pub(super) struct Overview<'a> {
    /// Series in all.
    total: usize,
    /// Series that match the search.
    matching: usize,
    /// Matching series that come before those shown.
    offset: usize,
    streams: &'a [StreamTotals],
    series: Vec<Line<'a>>,
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    key: &'a str,
    stream: &'a str,
    attention: Option<Attention>,
    /// Since when, if it is flagged or silent.
    since: Option<String>,
    last: Option<Last>,
    next: Option<Next>,
    relative_error: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Last {
    time: String,
    value: f64,
    score: f64,
}

#[derive(Debug, Serialize)]
struct Next {
    q05: f64,
    q50: f64,
    q95: f64,
}

impl Board {
    /// Asks the engine for all series, a part at a time with pauses between; none if it does not answer.
    pub(super) async fn ask<P: Pages>(admin: &Admin<P>) -> Option<Arc<Board>> {
        let streams = admin.ask(Query::Streams).await?;
        let mut rows: Vec<SeriesRow> = Vec::new();
        loop {
            let (begun, from) = (Instant::now(), rows.len());
            let SeriesPart { rows: more, total } = admin.ask(|reply| Query::Part { from, reply }).await?;
            let ended = more.is_empty();
            rows.extend(more);
            if ended || rows.len() >= total {
                return Some(Arc::new(Board::new(streams, rows)));
            }
            sleep(pause(begun.elapsed())).await;
        }
    }

    fn new(streams: Vec<StreamSnapshot>, mut rows: Vec<SeriesRow>) -> Board {
        let totals = |stream| StreamTotals { stream, flagged: 0, silent: 0, worse: 0 };
        let mut streams: Vec<StreamTotals> = streams.into_iter().map(totals).collect();
        // Series of streams that a reload took out are not shown.
        rows.retain(|row| {
            let Some(stream) = streams.iter_mut().find(|s| *s.stream.stream == *row.stream) else {
                return false;
            };
            match Attention::of(row) {
                Some(Attention::Flagged) => stream.flagged += 1,
                Some(Attention::Silent) => stream.silent += 1,
                Some(Attention::Worse) => stream.worse += 1,
                None => {}
            }
            true
        });
        let (small, by_key, by_attention, by_error) = Default::default();
        Board { streams, rows, small, by_key, by_attention, by_error }
    }

    fn by_key(&self) -> &[usize] {
        self.by_key.get_or_init(|| {
            let mut order: Vec<usize> = (0..self.rows.len()).collect();
            order.sort_unstable_by_key(|at| &self.rows[*at].key);
            order
        })
    }

    /// Ordered by a rank, then by key.
    fn ranked<R: Ord>(&self, rank: impl Fn(&SeriesRow) -> R) -> Vec<usize> {
        let mut order = self.by_key().to_vec();
        order.sort_by_cached_key(|at| rank(&self.rows[*at]));
        order
    }

    fn order(&self, sort: Sort) -> &[usize] {
        // None comes last; whole thousandths change less often.
        let error = |row: &SeriesRow| Reverse(row.relative_error.map(|error| (1000.0 * error) as i64));
        match sort {
            Sort::Key => self.by_key(),
            Sort::Error => self.by_error.get_or_init(|| self.ranked(error)),
            Sort::Attention => self.by_attention.get_or_init(|| {
                self.ranked(|row| match Attention::of(row) {
                    Some(Attention::Flagged) => (0, Reverse(row.flagged_since), Reverse(None)),
                    Some(Attention::Silent) => (1, Reverse(row.silent_since), Reverse(None)),
                    Some(Attention::Worse) => (2, Reverse(None), error(row)),
                    None => (3, Reverse(None), Reverse(None)),
                })
            }),
        }
    }

    /// The series that a view shows.
    pub(super) fn view(&self, view: &View) -> Overview<'_> {
        let search = view.search.as_deref().unwrap_or_default().to_lowercase();
        let words: Vec<&str> = search.split_whitespace().collect();
        let matches = |at: &&usize| {
            words.is_empty() || {
                let small =
                    self.small.get_or_init(|| self.rows.iter().map(|r| r.key.to_lowercase()).collect());
                words.iter().all(|word| small[**at].contains(word))
            }
        };
        let limit = view.limit.unwrap_or(LIMIT);
        let order = self.order(view.sort);
        let (mut matching, mut series) = (0, Vec::new());
        for at in order.iter().filter(matches) {
            if matching >= view.offset && series.len() < limit {
                series.push(self.line(&self.rows[*at]));
            }
            matching += 1;
        }
        let offset = view.offset;
        Overview { total: self.rows.len(), matching, offset, streams: &self.streams, series }
    }

    fn line<'a>(&'a self, row: &'a SeriesRow) -> Line<'a> {
        let attention = Attention::of(row);
        let since = match attention {
            Some(Attention::Flagged) => row.flagged_since,
            Some(Attention::Silent) => row.silent_since,
            _ => None,
        };
        Line {
            key: &row.key,
            stream: &row.stream,
            attention,
            since: since.map(encode::text),
            last: row.last.map(|last| Last {
                time: encode::text(last.time),
                value: last.value,
                score: row.score,
            }),
            next: row.next.map(|[q05, q50, q95]| Next { q05, q50, q95 }),
            relative_error: row.relative_error,
        }
    }
}

#[cfg(test)]
mod tests {
    use forecaster::{Reading, Timestamp};
    use serde_json::{Value, json};

    use super::*;

    fn row(key: &str) -> SeriesRow {
        SeriesRow {
            key: key.into(),
            stream: key.split('/').next().unwrap_or_default().into(),
            last: Some(Reading { time: Timestamp(0), value: 1.0 }),
            score: 0.5,
            flagged_since: None,
            silent_since: None,
            next: Some([0.0, 1.0, 2.0]),
            relative_error: None,
        }
    }

    fn board() -> Board {
        let stream = |name: &str| StreamSnapshot {
            stream: name.into(),
            model: "naive".into(),
            series: 0,
            relative_error: None,
            coverage: None,
            heard: true,
        };
        let at = |second: i64| Some(Timestamp(second * 1_000_000));
        Board::new(
            vec![stream("climate"), stream("power")],
            vec![
                row("climate/b/x"),
                SeriesRow { relative_error: Some(1.5), ..row("climate/z/bad") },
                SeriesRow { silent_since: at(5), ..row("climate/c/Silent") },
                SeriesRow { relative_error: Some(0.5), ..row("climate/a/good") },
                SeriesRow { silent_since: at(9), relative_error: Some(7.0), ..row("power/new/silent") },
                SeriesRow { flagged_since: at(1), silent_since: at(2), ..row("climate/y/flagged") },
                SeriesRow { flagged_since: at(3), ..row("power/y/flagged") },
                SeriesRow { relative_error: Some(2.5), ..row("power/z/worst") },
                SeriesRow { flagged_since: at(4), ..row("gone/y/flagged") },
            ],
        )
    }

    fn show(view: Value) -> Value {
        let view: View = serde_json::from_value(view).unwrap_or_default();
        serde_json::to_value(board().view(&view)).unwrap_or_default()
    }

    fn keys(view: Value) -> Vec<String> {
        let shown = show(view);
        let keys = shown["series"].as_array().into_iter().flatten().map(|s| s["key"].as_str());
        keys.flatten().map(str::to_owned).collect()
    }

    #[test]
    fn what_needs_attention_comes_first() {
        assert_eq!(
            keys(json!({})),
            [
                "power/y/flagged",
                "climate/y/flagged",
                "power/new/silent",
                "climate/c/Silent",
                "power/z/worst",
                "climate/z/bad",
                "climate/a/good",
                "climate/b/x",
            ]
        );
        let shown = show(json!({}));
        let reasons: Vec<_> = (0..8).map(|n| shown["series"][n]["attention"].as_str()).collect();
        let [flagged, silent, worse] = [Some("flagged"), Some("silent"), Some("worse")];
        assert_eq!(reasons, [flagged, flagged, silent, silent, worse, worse, None, None]);
        assert_eq!(shown["series"][0]["since"], "1970-01-01T00:00:03Z");
        assert_eq!(shown["series"][4]["since"], Value::Null);
        let totals = |n: usize| ["flagged", "silent", "worse"].map(|of| shown["streams"][n][of].as_u64());
        assert_eq!((totals(0), totals(1)), ([Some(1); 3], [Some(1); 3]));
    }

    #[test]
    fn it_is_sorted_searched_and_cut() {
        assert_eq!(
            keys(json!({"sort": "error", "limit": 4})),
            ["power/new/silent", "power/z/worst", "climate/z/bad", "climate/a/good"]
        );
        assert_eq!(keys(json!({"sort": "key", "limit": 2})), ["climate/a/good", "climate/b/x"]);
        assert_eq!(keys(json!({"sort": "key", "limit": 2, "offset": 7})), ["power/z/worst"]);
        assert_eq!(keys(json!({"search": "SILENT climate"})), ["climate/c/Silent"]);
        assert!(keys(json!({"search": "climate nothing"})).is_empty());
        let shown = show(json!({"search": "power", "offset": 1, "limit": 1}));
        assert_eq!(
            (&shown["total"], &shown["matching"], &shown["offset"]),
            (&json!(8), &json!(3), &json!(1))
        );
        assert_eq!(shown["series"].as_array().map(Vec::len), Some(1));
        assert!(serde_json::from_value::<View>(json!({"sort": "colour"})).is_err());
        assert!(serde_json::from_value::<View>(json!({"serch": "x"})).is_err());
    }
}
