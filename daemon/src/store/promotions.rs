//! Which model is champion: promotions, rollbacks, and what became of each.

use serde_json::Value;
use sqlx::types::Json;
use sqlx::{PgConnection, SqliteConnection};

use super::micros::Micros;
use super::models::weights_gone;
use super::{SeriesIds, Store, StoreError, reading, without_nul, writing};
use crate::record::{ModelChange, Promotion, Rollback, WriteBatch};
use crate::recorder::Rows;

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// The model is champion now, or was already.
    Promoted,
    /// The champion before is back.
    RolledBack(RolledBack),
    /// Nothing: another model than expected was champion by then, or none.
    LeftOut {
        /// That champion.
        champion: Option<ModelName>,
    },
}

/// What a rollback did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolledBack {
    /// The champion that was.
    pub retired: ModelName,
    /// The champion that is; none if the online experts forecast alone again.
    pub champion: Option<ModelName>,
}

/// A model, to be named.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ModelName {
    /// Id, as in `forecasts.model_id`.
    pub id: i64,
    /// `<stream>-<version>`.
    pub name: String,
}

/// A champion that has yet to prove itself.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbationRow {
    /// Id of the promotion.
    pub id: i64,
    /// The champion.
    pub model: i64,
    /// The champion before it, if there was one.
    pub previous: Option<i64>,
    /// Microseconds since the Unix epoch.
    pub promoted_at: i64,
    /// What was measured since, if anything.
    pub metrics: Option<Value>,
}

/// A row of `promotions`, with names for ids.
#[derive(Debug, Clone, PartialEq)]
pub struct PromotionRow {
    /// Name of the model that a rollback goes back to.
    pub previous: Option<String>,
    /// Microseconds since the Unix epoch.
    pub promoted_at: i64,
    /// `training`, `command` or `rollback`.
    pub cause: String,
    /// `probation`, `confirmed`, `rolled_back` or `superseded`.
    pub status: String,
    /// When the probation ended, or the promotion was undone.
    pub ended_at: Option<i64>,
    /// What was measured on probation.
    pub metrics: Option<Value>,
}

/// The transaction under way.
pub(super) enum Transaction<'a> {
    /// In Postgres.
    Postgres(&'a mut PgConnection),
    /// In SQLite.
    Sqlite(&'a mut SqliteConnection),
}

/// The same statements for both databases: `$conn` is bound to the connection.
macro_rules! on {
    ($tx:expr, $conn:ident => $body:expr) => {
        match $tx {
            Transaction::Postgres(conn) => {
                let $conn = &mut **conn;
                $body
            }
            Transaction::Sqlite(conn) => {
                let $conn = &mut **conn;
                $body
            }
        }
    };
}

/// Makes changes in order, each on its condition.
pub(super) async fn apply(
    mut tx: Transaction<'_>,
    changes: &[ModelChange],
) -> Result<Vec<Changed>, StoreError> {
    let mut done = Vec::with_capacity(changes.len());
    for change in changes {
        done.push(match change {
            ModelChange::Promote(promotion) => promote(&mut tx, promotion).await?,
            ModelChange::Rollback(rollback) => roll_back(&mut tx, rollback).await?,
        });
    }
    Ok(done)
}

async fn promote(tx: &mut Transaction<'_>, promotion: &Promotion) -> Result<Changed, StoreError> {
    const STREAM: &str = "select stream from models where id = $1";
    let stream: Option<String> =
        on!(tx, c => sqlx::query_scalar(STREAM).bind(promotion.model).fetch_optional(c).await?);
    let Some(stream) = stream else {
        return Err(StoreError::Refused(format!("there is no model with id {}", promotion.model)));
    };
    lock(tx, &stream).await?;
    let champion = champion(tx, &stream).await?;
    let champion_id = champion.as_ref().map(|c| c.id);
    if champion_id == Some(promotion.model) {
        return Ok(Changed::Promoted);
    }
    if promotion.expected.is_some_and(|expected| expected != champion_id) {
        return Ok(Changed::LeftOut { champion });
    }
    let model = usable(tx, promotion.model).await?;
    const SUPERSEDE: &str = "update promotions set status = 'superseded', ended_at = $2 \
         where stream = $1 and status = 'probation'";
    on!(tx, c => { sqlx::query(SUPERSEDE).bind(&stream).bind(Micros(promotion.at)).execute(c).await?; });
    if let Some(champion) = champion {
        retire(tx, champion.id, &format!("replaced by {}", model.name)).await?;
    }
    crown(tx, model.id).await?;
    let status = if promotion.probation { "probation" } else { "confirmed" };
    note(tx, &stream, model.id, champion_id, promotion.at, promotion.cause.as_str(), status).await?;
    Ok(Changed::Promoted)
}

async fn roll_back(tx: &mut Transaction<'_>, rollback: &Rollback) -> Result<Changed, StoreError> {
    lock(tx, &rollback.stream).await?;
    let retired = match champion(tx, &rollback.stream).await? {
        Some(champion) if champion.id == rollback.expected => champion,
        champion => return Ok(Changed::LeftOut { champion }),
    };
    const IN_FORCE: &str = "select id, previous_id from promotions where stream = $1 and model_id = $2 \
         and status in ('probation', 'confirmed') order by id desc limit 1";
    let promotion: Option<(i64, Option<i64>)> = on!(tx, c => {
        sqlx::query_as(IN_FORCE).bind(&rollback.stream).bind(retired.id).fetch_optional(c).await?
    });
    let previous = match promotion {
        Some((_, Some(previous))) => Some(usable(tx, previous).await?),
        _ => None,
    };
    retire(tx, retired.id, &without_nul(&rollback.reason)).await?;
    if let Some((promotion, _)) = promotion {
        const UNDO: &str = "update promotions set status = 'rolled_back', ended_at = $2 where id = $1";
        on!(tx, c => { sqlx::query(UNDO).bind(promotion).bind(Micros(rollback.at)).execute(c).await?; });
        if let Some(model) = &previous {
            // It goes back to what it went back to before: two rollbacks in a row must not swap two models.
            const BEFORE: &str = "select previous_id from promotions where stream = $1 and model_id = $2 \
                 and status <> 'rolled_back' and id < $3 order by id desc limit 1";
            let before: Option<Option<i64>> = on!(tx, c => {
                sqlx::query_scalar(BEFORE)
                    .bind(&rollback.stream)
                    .bind(model.id)
                    .bind(promotion)
                    .fetch_optional(c)
                    .await?
            });
            crown(tx, model.id).await?;
            note(tx, &rollback.stream, model.id, before.flatten(), rollback.at, "rollback", "confirmed")
                .await?;
        }
    }
    Ok(Changed::RolledBack(RolledBack { retired, champion: previous }))
}

/// Daemons that share the stream take turns, or two could crown a champion at once. A transaction
/// of SQLite is alone anyway.
async fn lock(tx: &mut Transaction<'_>, stream: &str) -> Result<(), StoreError> {
    const LOCK: &str = "select id from models where stream = $1 order by id for no key update";
    if let Transaction::Postgres(conn) = tx {
        sqlx::query(LOCK).bind(stream).execute(&mut **conn).await?;
    }
    Ok(())
}

async fn champion(tx: &mut Transaction<'_>, stream: &str) -> Result<Option<ModelName>, StoreError> {
    const CHAMPION: &str = "select id, name from models where stream = $1 and status = 'champion'";
    Ok(on!(tx, c => sqlx::query_as(CHAMPION).bind(stream).fetch_optional(c).await?))
}

/// A model that is there and has weights.
async fn usable(tx: &mut Transaction<'_>, model: i64) -> Result<ModelName, StoreError> {
    const MODEL: &str = "select name, length(weights) > 0 from models where id = $1";
    let row: Option<(String, bool)> =
        on!(tx, c => sqlx::query_as(MODEL).bind(model).fetch_optional(c).await?);
    match row {
        Some((name, true)) => Ok(ModelName { id: model, name }),
        Some((name, false)) => Err(weights_gone(&name)),
        None => Err(StoreError::Refused(format!("there is no model with id {model}"))),
    }
}

async fn retire(tx: &mut Transaction<'_>, model: i64, reason: &str) -> Result<(), StoreError> {
    const RETIRE: &str = "update models set status = 'retired', reason = $2 where id = $1";
    on!(tx, c => { sqlx::query(RETIRE).bind(model).bind(reason.to_owned()).execute(c).await?; });
    Ok(())
}

async fn crown(tx: &mut Transaction<'_>, model: i64) -> Result<(), StoreError> {
    const CROWN: &str = "update models set status = 'champion', reason = null where id = $1";
    on!(tx, c => { sqlx::query(CROWN).bind(model).execute(c).await?; });
    Ok(())
}

async fn note(
    tx: &mut Transaction<'_>,
    stream: &str,
    model: i64,
    previous: Option<i64>,
    at: i64,
    cause: &'static str,
    status: &'static str,
) -> Result<(), StoreError> {
    const NOTE: &str = "insert into promotions (stream, model_id, previous_id, promoted_at, cause, status) \
         values ($1, $2, $3, $4, $5, $6)";
    on!(tx, c => {
        sqlx::query(NOTE)
            .bind(stream.to_owned())
            .bind(model)
            .bind(previous)
            .bind(Micros(at))
            .bind(cause)
            .bind(status)
            .execute(c)
            .await?;
    });
    Ok(())
}

impl Store {
    /// Makes a model its stream's champion, if its condition holds; the champion before retires.
    /// Whether the model is champion now.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if there is no such model, or its weights are gone.
    pub async fn promote(&self, promotion: Promotion) -> Result<bool, StoreError> {
        Ok(self.change(ModelChange::Promote(promotion)).await? == Some(Changed::Promoted))
    }

    /// Makes the champion before the present one champion again, or none if there was none before.
    /// Nothing if another model than the expected one was champion by then.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if none is expected and there is no champion, or the weights of the
    /// one before are gone.
    pub async fn rollback(
        &self,
        stream: &str,
        at: i64,
        reason: &str,
        expected: Option<i64>,
    ) -> Result<Option<RolledBack>, StoreError> {
        let expected = match expected {
            Some(expected) => expected,
            None => self.champion_id(stream).await?.ok_or_else(|| {
                StoreError::Refused(format!("stream {stream} has no champion to roll back from"))
            })?,
        };
        let rollback = Rollback { stream: stream.to_owned(), expected, reason: reason.to_owned(), at };
        match self.change(ModelChange::Rollback(rollback)).await? {
            Some(Changed::RolledBack(done)) => Ok(Some(done)),
            _ => Ok(None),
        }
    }

    async fn change(&self, change: ModelChange) -> Result<Option<Changed>, StoreError> {
        let batch = WriteBatch { models: vec![change], ..WriteBatch::default() };
        Ok(self.write(&batch, &mut SeriesIds::default()).await?.models.pop())
    }

    /// The probation that runs on a stream.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn probation(&self, stream: &str) -> Result<Option<ProbationRow>, StoreError> {
        const PROBATION: &str = "select id, model_id, previous_id, promoted_at, metrics from promotions \
             where stream = $1 and status = 'probation'";
        type Columns = (i64, i64, Option<i64>, Micros, Option<Json<Value>>);
        let row: Option<Columns> =
            reading!(self, pool => sqlx::query_as(PROBATION).bind(stream).fetch_optional(pool).await?);
        Ok(row.map(|(id, model, previous, promoted_at, metrics)| ProbationRow {
            id,
            model,
            previous,
            promoted_at: promoted_at.0,
            metrics: metrics.map(|m| m.0),
        }))
    }

    /// Notes what was measured so far in a probation that still runs.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn update_probation(&self, promotion: i64, metrics: &Value) -> Result<(), StoreError> {
        const UPDATE: &str = "update promotions set metrics = $2 where id = $1 and status = 'probation'";
        writing!(self, pool => {
            sqlx::query(UPDATE).bind(promotion).bind(Json(metrics)).execute(pool).await?;
        });
        Ok(())
    }

    /// Ends a probation well. Whether it still ran.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn confirm(&self, promotion: i64, at: i64, metrics: &Value) -> Result<bool, StoreError> {
        const CONFIRM: &str = "update promotions set status = 'confirmed', ended_at = $2, metrics = $3 \
             where id = $1 and status = 'probation'";
        Ok(writing!(self, pool => {
            sqlx::query(CONFIRM)
                .bind(promotion)
                .bind(Micros(at))
                .bind(Json(metrics))
                .execute(pool)
                .await?
                .rows_affected()
                > 0
        }))
    }

    /// The promotions of a model, in order.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn promotions(&self, model: i64) -> Result<Vec<PromotionRow>, StoreError> {
        const PROMOTIONS: &str = "select m.name, p.promoted_at, p.cause, p.status, p.ended_at, p.metrics \
             from promotions p left join models m on m.id = p.previous_id where p.model_id = $1 order by p.id";
        type Columns = (Option<String>, Micros, String, String, Option<Micros>, Option<Json<Value>>);
        let rows: Vec<Columns> =
            reading!(self, pool => sqlx::query_as(PROMOTIONS).bind(model).fetch_all(pool).await?);
        let row = |(previous, promoted_at, cause, status, ended_at, metrics): Columns| PromotionRow {
            previous,
            promoted_at: promoted_at.0,
            cause,
            status,
            ended_at: ended_at.map(|t| t.0),
            metrics: metrics.map(|m| m.0),
        };
        Ok(rows.into_iter().map(row).collect())
    }
}
