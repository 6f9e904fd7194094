//! Training runs: how far each is, and how it ended.

use serde_json::Value;
use sqlx::types::Json;

use super::micros::Micros;
use super::{Store, StoreError, reading, without_nul, writing};

/// What made a run begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// `[training] every`.
    Schedule,
    /// Somebody asked a running daemon.
    Demand,
    /// Forecasts got worse.
    Drift,
    /// `vidente train`.
    Command,
}

impl Trigger {
    /// As in `training_runs.trigger`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Trigger::Schedule => "schedule",
            Trigger::Demand => "demand",
            Trigger::Drift => "drift",
            Trigger::Command => "command",
        }
    }
}

/// A run that begins.
#[derive(Debug, Clone)]
pub struct NewRun<'a> {
    /// Stream to be trained on.
    pub stream: &'a str,
    /// Microseconds since the Unix epoch.
    pub started_at: i64,
    /// What made it begin.
    pub trigger: Trigger,
    /// Who runs it: the same for a process and the one that takes its place, of no other.
    pub owner: &'a str,
    /// Seed of the training.
    pub seed: u64,
}

/// What a run learns from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunWindow {
    /// Time of the first reading.
    pub start: i64,
    /// Time of the last.
    pub end: i64,
    /// How many there are.
    pub readings: u64,
}

/// How a training run ended.
#[derive(Debug, Clone)]
pub struct RunOutcome<'a> {
    /// Microseconds since the Unix epoch.
    pub finished_at: i64,
    /// One word: `succeeded`, `rejected`, `skipped`, `failed` or `interrupted`.
    pub status: &'a str,
    /// What went wrong, if anything.
    pub error: Option<String>,
    /// What was measured.
    pub metrics: Value,
    /// The model that came out.
    pub model: Option<i64>,
}

/// A row of `training_runs`.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRow {
    /// Id.
    pub id: i64,
    /// Microseconds since the Unix epoch.
    pub started_at: i64,
    /// Microseconds since the Unix epoch, once it has ended.
    pub finished_at: Option<i64>,
    /// `running`, or how it ended.
    pub status: String,
    /// What went wrong, if anything.
    pub error: Option<String>,
    /// What made it begin; unknown of runs of old.
    pub trigger: Option<String>,
    /// Seed of the training.
    pub seed: Option<u64>,
    /// What it learned from, if it came so far.
    pub window: Option<RunWindow>,
    /// From 0 to 1.
    pub progress: Option<f64>,
    /// What was measured.
    pub metrics: Option<Value>,
}

#[derive(sqlx::FromRow)]
struct RunColumns {
    id: i64,
    started_at: Micros,
    finished_at: Option<Micros>,
    status: String,
    error: Option<String>,
    trigger: Option<String>,
    seed: Option<i64>,
    window_start: Option<Micros>,
    window_end: Option<Micros>,
    readings: Option<i64>,
    progress: Option<f64>,
    metrics: Option<Json<Value>>,
}

impl From<RunColumns> for RunRow {
    fn from(row: RunColumns) -> Self {
        let window = row.window_start.zip(row.window_end).zip(row.readings);
        RunRow {
            id: row.id,
            started_at: row.started_at.0,
            finished_at: row.finished_at.map(|t| t.0),
            status: row.status,
            error: row.error,
            trigger: row.trigger,
            seed: row.seed.map(i64::cast_unsigned),
            window: window.map(|((start, end), readings)| RunWindow {
                start: start.0,
                end: end.0,
                readings: readings.unsigned_abs(),
            }),
            progress: row.progress,
            metrics: row.metrics.map(|m| m.0),
        }
    }
}

impl Store {
    /// Notes that a training run starts, and gives its id.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn start_training_run(&self, run: &NewRun<'_>) -> Result<i64, StoreError> {
        const START: &str = "insert into training_runs (stream, started_at, updated_at, status, trigger, owner, seed, \
             progress) values ($1, $2, $2, 'running', $3, $4, $5, 0) returning id";
        Ok(writing!(self, pool => {
            sqlx::query_scalar(START)
                .bind(run.stream)
                .bind(Micros(run.started_at))
                .bind(run.trigger.as_str())
                .bind(run.owner)
                .bind(run.seed.cast_signed())
                .fetch_one(pool)
                .await?
        }))
    }

    /// Notes what a run learns from.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn window_of_run(
        &self,
        run: i64,
        updated_at: i64,
        window: RunWindow,
    ) -> Result<(), StoreError> {
        const WINDOW: &str = "update training_runs set updated_at = $2, window_start = $3, window_end = $4, \
             readings = $5 where id = $1 and status = 'running'";
        writing!(self, pool => {
            sqlx::query(WINDOW)
                .bind(run)
                .bind(Micros(updated_at))
                .bind(Micros(window.start))
                .bind(Micros(window.end))
                .bind(window.readings.cast_signed())
                .execute(pool)
                .await?;
        });
        Ok(())
    }

    /// Notes how far a run is, from 0 to 1, and what was measured so far.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn progress_of_run(
        &self,
        run: i64,
        updated_at: i64,
        progress: f64,
        metrics: &Value,
    ) -> Result<(), StoreError> {
        const PROGRESS: &str = "update training_runs set updated_at = $2, progress = $3, metrics = $4 \
             where id = $1 and status = 'running'";
        writing!(self, pool => {
            sqlx::query(PROGRESS)
                .bind(run)
                .bind(Micros(updated_at))
                .bind(progress)
                .bind(Json(metrics))
                .execute(pool)
                .await?;
        });
        Ok(())
    }

    /// Notes how a training run ended.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn finish_training_run(&self, run: i64, outcome: &RunOutcome<'_>) -> Result<(), StoreError> {
        const FINISH: &str = "update training_runs set finished_at = $2, updated_at = $2, status = $3, error = $4, \
             metrics = $5, model_id = $6, progress = case when $6 is null then progress else 1 end where id = $1";
        let error = outcome.error.as_deref().map(|text| without_nul(text).into_owned());
        writing!(self, pool => {
            sqlx::query(FINISH)
                .bind(run)
                .bind(Micros(outcome.finished_at))
                .bind(outcome.status)
                .bind(error)
                .bind(Json(&outcome.metrics))
                .bind(outcome.model)
                .execute(pool)
                .await?;
        });
        Ok(())
    }

    /// Ends the runs that nobody is running any more: those of an owner that starts anew, and those
    /// of which nothing was heard since `stale_before`. How many there were.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn interrupt_runs(&self, owner: &str, at: i64, stale_before: i64) -> Result<u64, StoreError> {
        const INTERRUPT: &str = "update training_runs set status = 'interrupted', finished_at = $2, \
             error = 'the process ended during the run' where status = 'running' \
             and (owner = $1 or coalesce(updated_at, started_at) < $3)";
        Ok(writing!(self, pool => {
            sqlx::query(INTERRUPT)
                .bind(owner)
                .bind(Micros(at))
                .bind(Micros::bound(stale_before))
                .execute(pool)
                .await?
                .rows_affected()
        }))
    }

    /// When the latest run of a stream that made a model began; not one whose model was to be champion and
    /// never became it, since the process ended first.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn last_training_run(&self, stream: &str) -> Result<Option<i64>, StoreError> {
        const LAST: &str = "select max(r.started_at) from training_runs r join models m on m.id = r.model_id \
             where r.stream = $1 and (r.status = 'rejected' or (r.status = 'succeeded' and m.status <> 'candidate'))";
        let last: Option<Micros> =
            reading!(self, pool => sqlx::query_scalar(LAST).bind(stream).fetch_one(pool).await?);
        Ok(last.map(|time| time.0))
    }

    /// The run that a model came out of, if one is known.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn training_run_of(&self, model: i64) -> Result<Option<RunRow>, StoreError> {
        const RUN: &str = "select id, started_at, finished_at, status, error, trigger, seed, window_start, window_end, \
             readings, progress, metrics from training_runs where model_id = $1 order by id desc limit 1";
        let row: Option<RunColumns> =
            reading!(self, pool => sqlx::query_as(RUN).bind(model).fetch_optional(pool).await?);
        Ok(row.map(RunRow::from))
    }
}
