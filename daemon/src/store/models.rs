//! Models: what was trained or brought in, and its weights.

use serde::Serialize;
use serde_json::Value;
use sqlx::types::Json;

use super::micros::Micros;
use super::{Store, StoreError, reading, without_nul, writing};

/// Where a model comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A training run.
    Trained,
    /// A file.
    Imported,
}

impl Origin {
    /// As in `models.origin`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Origin::Trained => "trained",
            Origin::Imported => "imported",
        }
    }
}

/// A model to be stored.
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
    /// Where it comes from.
    pub origin: Origin,
    /// Why it is no more than a candidate, if that is known already.
    pub reason: Option<String>,
    /// Time of the first reading it learned from, if that is known.
    pub window_start: Option<i64>,
    /// Time of the last.
    pub window_end: Option<i64>,
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
    /// Why it is a candidate, or why it was retired.
    pub reason: Option<String>,
    /// `trained` or `imported`.
    pub origin: String,
    /// Time of the first reading it learned from, if that is known.
    pub window_start: Option<i64>,
    /// Time of the last.
    pub window_end: Option<i64>,
    /// What the training measured.
    pub metrics: Value,
    /// Whether its weights are still there.
    pub has_weights: bool,
    /// The encoded model; empty in a list, and once the weights were dropped.
    #[serde(skip)]
    pub weights: Vec<u8>,
}

impl ModelRow {
    /// The encoded model.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the weights were dropped.
    pub fn kept_weights(&self) -> Result<&[u8], StoreError> {
        if self.has_weights { Ok(&self.weights) } else { Err(weights_gone(&self.name)) }
    }
}

/// Says that a model can no longer be used.
pub(super) fn weights_gone(name: &str) -> StoreError {
    StoreError::Refused(format!("the weights of {name} were dropped to save space; only its row is left"))
}

#[derive(sqlx::FromRow)]
struct ModelColumns {
    id: i64,
    name: String,
    stream: String,
    version: i32,
    cell: String,
    created_at: Micros,
    status: String,
    reason: Option<String>,
    origin: String,
    window_start: Option<Micros>,
    window_end: Option<Micros>,
    metrics: Json<Value>,
    has_weights: bool,
    weights: Vec<u8>,
}

impl From<ModelColumns> for ModelRow {
    fn from(row: ModelColumns) -> Self {
        ModelRow {
            id: row.id,
            name: row.name,
            stream: row.stream,
            version: row.version,
            cell: row.cell,
            created_at: row.created_at.0,
            status: row.status,
            reason: row.reason,
            origin: row.origin,
            window_start: row.window_start.map(|t| t.0),
            window_end: row.window_end.map(|t| t.0),
            metrics: row.metrics.0,
            has_weights: row.has_weights,
            weights: row.weights,
        }
    }
}

/// A query for `ModelColumns`.
macro_rules! select {
    ($weights:literal, $rest:literal) => {
        concat!(
            "select id, name, stream, version, cell, created_at, status, reason, origin, window_start, \
             window_end, metrics, length(weights) > 0 as has_weights, ",
            $weights,
            " as weights from models ",
            $rest
        )
    };
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
        const INSERT: &str = "insert into models (name, stream, version, cell, created_at, status, metrics, weights, \
             origin, reason, window_start, window_end) \
             select $1 || '-' || next.version, $1, next.version, $2, $3, 'candidate', $4, $5, $6, $7, $8, $9 \
             from (select coalesce(max(version), 0) + 1 as version from models where stream = $1) as next \
             returning id, name, version";
        let reason = model.reason.as_deref().map(|text| without_nul(text).into_owned());
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
                        .bind(model.origin.as_str())
                        .bind(&reason)
                        .bind(model.window_start.map(Micros))
                        .bind(model.window_end.map(Micros))
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
        const CHAMPION: &str = select!("weights", "where stream = $1 and status = 'champion'");
        let row: Option<ModelColumns> =
            reading!(self, pool => sqlx::query_as(CHAMPION).bind(stream).fetch_optional(pool).await?);
        Ok(row.map(ModelRow::from))
    }

    /// The id of the model in use on a stream.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn champion_id(&self, stream: &str) -> Result<Option<i64>, StoreError> {
        const CHAMPION: &str = "select id from models where stream = $1 and status = 'champion'";
        Ok(reading!(self, pool => sqlx::query_scalar(CHAMPION).bind(stream).fetch_optional(pool).await?))
    }

    /// A model.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn model(&self, id: i64) -> Result<Option<ModelRow>, StoreError> {
        const MODEL: &str = select!("weights", "where id = $1");
        let row: Option<ModelColumns> =
            reading!(self, pool => sqlx::query_as(MODEL).bind(id).fetch_optional(pool).await?);
        Ok(row.map(ModelRow::from))
    }

    /// A model by its name.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn model_by_name(&self, name: &str) -> Result<Option<ModelRow>, StoreError> {
        const MODEL: &str = select!("weights", "where name = $1");
        let name = without_nul(name);
        let row: Option<ModelColumns> =
            reading!(self, pool => sqlx::query_as(MODEL).bind(&*name).fetch_optional(pool).await?);
        Ok(row.map(ModelRow::from))
    }

    /// All models without their weights, by stream and version.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn models(&self) -> Result<Vec<ModelRow>, StoreError> {
        const MODELS: &str = select!("substr(weights, 1, 0)", "order by stream, version");
        let rows: Vec<ModelColumns> = reading!(self, pool => sqlx::query_as(MODELS).fetch_all(pool).await?);
        Ok(rows.into_iter().map(ModelRow::from).collect())
    }

    /// Drops the weights of a stream's trained models beyond the newest `keep`, and gives their names. What
    /// somebody brought in stays. The
    /// champion keeps its weights, and so does the model that a rollback would go back to. Rows
    /// stay, since forecasts refer to them.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn drop_old_weights(&self, stream: &str, keep: u32) -> Result<Vec<String>, StoreError> {
        const DROP: &str = "update models set weights = $3 \
             where stream = $1 and status <> 'champion' and origin = 'trained' and length(weights) > 0 \
             and id not in (select id from models where stream = $1 and origin = 'trained' \
             order by version desc limit $2) \
             and id not in (select previous_id from promotions where stream = $1 and previous_id is not null \
             and (status = 'probation' or id = (select max(id) from promotions where stream = $1))) \
             returning version, name";
        let mut dropped: Vec<(i32, String)> = writing!(self, pool => {
            sqlx::query_as(DROP)
                .bind(stream)
                .bind(i64::from(keep))
                .bind(&[] as &[u8])
                .fetch_all(pool)
                .await?
        });
        dropped.sort_unstable();
        Ok(dropped.into_iter().map(|(_, name)| name).collect())
    }
}
