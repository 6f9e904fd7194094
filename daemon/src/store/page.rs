//! One series as the API and the live page show it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::Serialize;
use serde_json::Value;
use sqlx::types::Json;

use super::micros::Micros;
use super::{Store, StoreError, reading};

/// The newest readings of a series and what was forecast over their span.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SeriesPage {
    /// `<stream>/<captured levels>/<field>`.
    pub series: String,
    /// Name of its stream.
    pub stream: String,
    /// Captured topic levels by name.
    pub labels: BTreeMap<String, String>,
    /// Oldest first.
    pub readings: Vec<PageReading>,
    /// The first step from each reading shown, and every step from the newest; by origin and step.
    pub forecasts: Vec<PageForecast>,
    /// Those that had not ended before the first reading shown; oldest first.
    pub anomalies: Vec<PageAnomaly>,
    /// The latest champions of its stream, newest first.
    pub models: Vec<PageModel>,
}

/// A reading.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PageReading {
    /// RFC 3339.
    pub time: String,
    /// Value.
    pub value: f64,
    /// Whether it came too late to be fed to the model.
    pub late: bool,
}

/// A forecast.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[allow(missing_docs, reason = "mean and quantiles say it themselves")]
pub struct PageForecast {
    /// Time forecast for, RFC 3339.
    pub time: String,
    /// Time of the reading it was made at, RFC 3339.
    pub origin: String,
    /// Steps ahead, from 1.
    pub step: i16,
    /// Name of the model, or `naive`.
    pub model: String,
    pub mean: f64,
    pub q05: f64,
    pub q10: f64,
    pub q25: f64,
    pub q50: f64,
    pub q75: f64,
    pub q90: f64,
    pub q95: f64,
}

/// An anomaly.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PageAnomaly {
    /// When it began, RFC 3339.
    pub time: String,
    /// When it ended, RFC 3339; none while it lasts.
    pub ended_at: Option<String>,
    /// `value` or `silence`.
    pub kind: String,
    /// The reading's value; of a silence, the last reading's.
    pub value: f64,
    /// Its score; none for a silence, as are the next two.
    pub score: Option<f64>,
    /// Lower end of the interval it broke.
    pub q05: Option<f64>,
    /// Upper end of that interval.
    pub q95: Option<f64>,
}

/// A model that became champion of a stream.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PageModel {
    /// `<stream>-<version>`.
    pub name: String,
    /// When it became champion, RFC 3339.
    pub promoted_at: String,
    /// `training`, `command` or `rollback`.
    pub cause: String,
    /// `probation`, `confirmed`, `rolled_back` or `superseded`.
    pub status: String,
    /// When its probation ended or the promotion was undone, RFC 3339.
    pub ended_at: Option<String>,
    /// The champion before it, if there was one.
    pub previous: Option<String>,
    /// Mean absolute error over the naive forecast's, when it was judged or else trained.
    pub relative_error: Option<f64>,
    /// Share of readings inside the 90 % interval then.
    pub coverage: Option<f64>,
}

#[derive(sqlx::FromRow)]
struct ModelColumns {
    name: String,
    promoted_at: Micros,
    cause: String,
    status: String,
    ended_at: Option<Micros>,
    previous: Option<String>,
    metrics: Json<Value>,
}

impl From<ModelColumns> for PageModel {
    fn from(row: ModelColumns) -> Self {
        let ModelColumns { name, promoted_at, cause, status, ended_at, previous, metrics } = row;
        let number = |name| metrics["judged"].get(name).or_else(|| metrics.get(name)).and_then(Value::as_f64);
        PageModel {
            name,
            promoted_at: rfc3339(promoted_at),
            cause,
            status,
            ended_at: ended_at.map(rfc3339),
            previous,
            relative_error: number("relative_error"),
            coverage: number("coverage"),
        }
    }
}

#[derive(sqlx::FromRow)]
struct ForecastRow {
    time: Micros,
    origin: Micros,
    step: i16,
    model: String,
    mean: f64,
    q05: f64,
    q10: f64,
    q25: f64,
    q50: f64,
    q75: f64,
    q90: f64,
    q95: f64,
}

impl From<ForecastRow> for PageForecast {
    fn from(row: ForecastRow) -> Self {
        let ForecastRow { time, origin, step, model, mean, q05, q10, q25, q50, q75, q90, q95 } = row;
        let (time, origin) = (rfc3339(time), rfc3339(origin));
        PageForecast { time, origin, step, model, mean, q05, q10, q25, q50, q75, q90, q95 }
    }
}

const SERIES: &str = "select id, stream, labels from series where key = $1";
const READINGS: &str = "select time, value, late from readings \
     where series_id = $1 and time >= $3 and time <= $4 order by time desc limit $2";
const NEWEST_ORIGIN: &str =
    "select origin from forecasts where series_id = $1 and origin <= $2 order by origin desc limit 1";
const FORECASTS: &str = "select f.time, f.origin, f.step, coalesce(m.name, 'naive') as model, \
     f.mean, f.q05, f.q10, f.q25, f.q50, f.q75, f.q90, f.q95 \
     from forecasts f left join models m on m.id = f.model_id \
     where f.series_id = $1 and f.origin >= $2 and f.origin <= $4 and (f.step = 1 or f.origin = $3) \
     order by f.origin, f.step";
const ANOMALIES: &str = "select time, ended_at, kind, value, score, q05, q95 from anomalies \
     where series_id = $1 and (ended_at is null or ended_at >= $2) and time <= $3 order by time";
const MODELS: &str = "select m.name, p.promoted_at, p.cause, p.status, p.ended_at, b.name as previous, m.metrics \
     from promotions p join models m on m.id = p.model_id left join models b on b.id = p.previous_id \
     where p.stream = $1 order by p.id desc limit 20";

type SeriesColumns = (i64, String, Json<BTreeMap<String, String>>);
type AnomalyColumns = (Micros, Option<Micros>, String, f64, Option<f64>, Option<f64>, Option<f64>);

impl Store {
    /// The newest `history` readings of a series with their forecasts and anomalies; none if there
    /// is no such series.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn series_page(&self, key: &str, history: usize) -> Result<Option<SeriesPage>, StoreError> {
        self.series_span(key, i64::MIN..=i64::MAX, history).await
    }

    /// The same of a span of time, in microseconds since the Unix epoch: the newest `history` readings in it,
    /// what was forecast from them, and anomalies that began before its end.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn series_span(
        &self,
        key: &str,
        span: RangeInclusive<i64>,
        history: usize,
    ) -> Result<Option<SeriesPage>, StoreError> {
        let (from, to) = (Micros::bound(*span.start()), Micros::bound(*span.end()));
        // Postgres refuses to even compare such a text.
        if key.contains('\0') {
            return Ok(None);
        }
        let limit = i64::try_from(history).unwrap_or(i64::MAX);
        reading!(self, pool => {
            let found: Option<SeriesColumns> =
                sqlx::query_as(SERIES).bind(key).fetch_optional(pool).await?;
            let Some((id, stream, Json(labels))) = found else { return Ok(None) };
            let mut readings: Vec<(Micros, f64, bool)> =
                sqlx::query_as(READINGS).bind(id).bind(limit).bind(from).bind(to).fetch_all(pool).await?;
            readings.reverse();
            let models: Vec<ModelColumns> =
                sqlx::query_as(MODELS).bind(&stream).fetch_all(pool).await?;
            let mut page = SeriesPage {
                series: key.to_owned(),
                stream,
                labels,
                readings: Vec::new(),
                forecasts: Vec::new(),
                anomalies: Vec::new(),
                models: models.into_iter().map(PageModel::from).collect(),
            };
            let Some(&(start, ..)) = readings.first() else { return Ok(Some(page)) };
            let newest: Option<Micros> =
                sqlx::query_scalar(NEWEST_ORIGIN).bind(id).bind(to).fetch_optional(pool).await?;
            let forecasts: Vec<ForecastRow> = sqlx::query_as(FORECASTS)
                .bind(id)
                .bind(start.min(newest.unwrap_or(start)))
                .bind(newest)
                .bind(to)
                .fetch_all(pool)
                .await?;
            let anomalies: Vec<AnomalyColumns> =
                sqlx::query_as(ANOMALIES).bind(id).bind(start).bind(to).fetch_all(pool).await?;
            page.readings = readings
                .into_iter()
                .map(|(time, value, late)| PageReading { time: rfc3339(time), value, late })
                .collect();
            page.forecasts = forecasts.into_iter().map(PageForecast::from).collect();
            page.anomalies = anomalies
                .into_iter()
                .map(|(time, ended_at, kind, value, score, q05, q95)| PageAnomaly {
                    time: rfc3339(time),
                    ended_at: ended_at.map(rfc3339),
                    kind,
                    value,
                    score,
                    q05,
                    q95,
                })
                .collect();
            Ok(Some(page))
        })
    }
}

/// A time beyond the year 9999, which the API cannot write, shows as its number.
fn rfc3339(time: Micros) -> String {
    jiff::Timestamp::from_microsecond(time.0).map_or_else(|_| time.0.to_string(), |t| t.to_string())
}
