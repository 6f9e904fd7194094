//! Models and training runs.

use serde::Serialize;
use serde_json::Value;
use sqlx::types::Json;

use super::micros::Micros;
use super::{SeriesIds, Store, StoreError, reading, without_nul, writing};
use crate::record::WriteBatch;

/// The two statements of a promotion, in this order: there is one champion a stream at most.
pub(super) const RETIRE: &str = "update models set status = 'retired' where status = 'champion' and id <> $1 \
     and stream = (select stream from models where id = $1)";
pub(super) const CROWN: &str = "update models set status = 'champion' where id = $1";

/// A promotion that changed no row names a model that is not there.
pub(super) fn must_exist(changed: u64, model: i64) -> Result<(), StoreError> {
    if changed == 0 { Err(StoreError::Refused(format!("there is no model with id {model}"))) } else { Ok(()) }
}

/// A model fresh from training.
#[derive(Debug, Clone)]
pub struct NewModel {
    /// Stream it was trained on.
    pub stream: String,
    /// Kind of recurrent cell, as in `[model] cell`.
    pub cell: String,
    /// Microseconds since the Unix epoch.
    pub created_at: i64,
    /// What the training measured.
    pub metrics: Value,
    /// The encoded model.
    pub weights: Vec<u8>,
}

/// What the store named a model.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct SavedModel {
    /// Id, as in `forecasts.model_id`.
    pub id: i64,
    /// `<stream>-<version>`.
    pub name: String,
    /// Version within the stream, from 1.
    pub version: i32,
}

/// A row of `models`.
#[derive(Debug, Clone, Serialize)]
pub struct ModelRow {
    /// Id, as in `forecasts.model_id`.
    pub id: i64,
    /// `<stream>-<version>`.
    pub name: String,
    /// Stream it was trained on.
    pub stream: String,
    /// Version within the stream, from 1.
    pub version: i32,
    /// Kind of recurrent cell.
    pub cell: String,
    /// Microseconds since the Unix epoch.
    pub created_at: i64,
    /// `candidate`, `champion` or `retired`.
    pub status: String,
    /// What the training measured.
    pub metrics: Value,
    /// The encoded model; empty in a list.
    #[serde(skip)]
    pub weights: Vec<u8>,
}

type ModelColumns = (i64, String, String, i32, String, Micros, String, Json<Value>, Vec<u8>);

impl From<ModelColumns> for ModelRow {
    fn from((id, name, stream, version, cell, created_at, status, metrics, weights): ModelColumns) -> Self {
        let (created_at, metrics) = (created_at.0, metrics.0);
        ModelRow { id, name, stream, version, cell, created_at, status, metrics, weights }
    }
}

/// How a training run ended.
#[derive(Debug, Clone)]
pub struct RunOutcome<'a> {
    /// Microseconds since the Unix epoch.
    pub finished_at: i64,
    /// One word, for instance `ok` or `failed`.
    pub status: &'a str,
    /// What went wrong, if anything.
    pub error: Option<String>,
    /// What was measured.
    pub metrics: Value,
    /// The model that came out.
    pub model: Option<i64>,
}

impl Store {
    /// Stores a model as a candidate under the stream's next version. Repeating it with the same
    /// model gives the same row, in case the answer to the first got lost.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn save_model(&self, model: &NewModel) -> Result<SavedModel, StoreError> {
        const FIND: &str =
            "select id, name, version from models where stream = $1 and created_at = $2 and weights = $3";
        const INSERT: &str = "insert into models (name, stream, version, cell, created_at, status, metrics, weights) \
             select $1 || '-' || next.version, $1, next.version, $2, $3, 'candidate', $4, $5 \
             from (select coalesce(max(version), 0) + 1 as version from models where stream = $1) as next \
             returning id, name, version";
        // Another process may take the same version at the same moment: the next one is free then.
        let mut tries = 0;
        loop {
            let saved = writing!(self, pool => {
                let found = sqlx::query_as(FIND)
                    .bind(&model.stream)
                    .bind(Micros(model.created_at))
                    .bind(&model.weights)
                    .fetch_optional(pool)
                    .await?;
                match found {
                    Some(saved) => Ok(saved),
                    None => sqlx::query_as(INSERT)
                        .bind(&model.stream)
                        .bind(&model.cell)
                        .bind(Micros(model.created_at))
                        .bind(Json(&model.metrics))
                        .bind(&model.weights)
                        .fetch_one(pool)
                        .await,
                }
            });
            tries += 1;
            match saved {
                Err(sqlx::Error::Database(e)) if e.is_unique_violation() && tries < 10 => {}
                other => return Ok(other?),
            }
        }
    }

    /// The model in use on a stream.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn champion(&self, stream: &str) -> Result<Option<ModelRow>, StoreError> {
        const CHAMPION: &str = "select id, name, stream, version, cell, created_at, status, metrics, weights \
             from models where stream = $1 and status = 'champion'";
        let row: Option<ModelColumns> =
            reading!(self, pool => sqlx::query_as(CHAMPION).bind(stream).fetch_optional(pool).await?);
        Ok(row.map(ModelRow::from))
    }

    /// A model.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn model(&self, id: i64) -> Result<Option<ModelRow>, StoreError> {
        const MODEL: &str = "select id, name, stream, version, cell, created_at, status, metrics, weights \
             from models where id = $1";
        let row: Option<ModelColumns> =
            reading!(self, pool => sqlx::query_as(MODEL).bind(id).fetch_optional(pool).await?);
        Ok(row.map(ModelRow::from))
    }

    /// All models without their weights, by stream and version.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn models(&self) -> Result<Vec<ModelRow>, StoreError> {
        const MODELS: &str = "select id, name, stream, version, cell, created_at, status, metrics, \
             substr(weights, 1, 0) as weights from models order by stream, version";
        let rows: Vec<ModelColumns> = reading!(self, pool => sqlx::query_as(MODELS).fetch_all(pool).await?);
        Ok(rows.into_iter().map(ModelRow::from).collect())
    }

    /// Makes a model its stream's champion; the champion before retires.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if there is no such model.
    pub async fn promote(&self, model: i64) -> Result<(), StoreError> {
        let batch = WriteBatch { promote: vec![model], ..WriteBatch::default() };
        self.write(&batch, &mut SeriesIds::default()).await.map(drop)
    }

    /// Notes that a training run starts, and gives its id.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn start_training_run(&self, stream: &str, started_at: i64) -> Result<i64, StoreError> {
        const START: &str =
            "insert into training_runs (stream, started_at, status) values ($1, $2, 'running') returning id";
        Ok(writing!(self, pool => {
            sqlx::query_scalar(START).bind(stream).bind(Micros(started_at)).fetch_one(pool).await?
        }))
    }

    /// Notes how a training run ended.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn finish_training_run(&self, run: i64, outcome: &RunOutcome<'_>) -> Result<(), StoreError> {
        const FINISH: &str = "update training_runs set finished_at = $2, status = $3, error = $4, metrics = $5, \
             model_id = $6 where id = $1";
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
}
