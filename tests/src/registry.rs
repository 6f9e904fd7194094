//! What a store says of models and training runs.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::database::Database;
use crate::process::{WAIT, wait_until};

/// A row of `training_runs`; times in microseconds.
#[derive(Debug, Clone)]
pub struct Run {
    /// When it began.
    pub started: i64,
    /// When it ended.
    pub finished: Option<i64>,
    /// `running`, or how it ended.
    pub status: String,
    /// Why it ended so.
    pub error: String,
    /// What made it begin.
    pub trigger: String,
    /// Name of the model that came out.
    pub model: Option<String>,
    /// How that was judged; null if it was not.
    pub judged: Value,
}

/// A row of `promotions`.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Promoted {
    /// Name of the model.
    pub model: String,
    /// Name of the champion before, that a rollback goes back to.
    pub before: Option<String>,
    /// `training`, `command` or `rollback`.
    pub cause: String,
    /// What became of it.
    pub status: String,
}

impl Promoted {
    /// A row to be expected.
    #[must_use]
    pub fn new(model: &str, before: Option<&str>, cause: &str, status: &str) -> Promoted {
        let [model, cause, status] = [model, cause, status].map(str::to_owned);
        Promoted { model, before: before.map(str::to_owned), cause, status }
    }
}

/// The models, promotions and runs of a store with one stream.
#[derive(Debug)]
pub struct Registry<'a>(pub &'a Database);

impl Registry<'_> {
    /// Training runs, in order.
    ///
    /// # Errors
    /// If the store refuses.
    pub fn runs(&self) -> Result<Vec<Run>> {
        let micros = |column: &str| self.0.micros(&format!("r.{column}"));
        let (started, finished) = (micros("started_at"), micros("finished_at"));
        type Columns =
            (i64, Option<i64>, String, Option<String>, Option<String>, Option<String>, Option<String>);
        let rows: Vec<Columns> = self.0.rows(&format!(
            "select {started}, {finished}, r.status, r.error, r.trigger, m.name, cast(r.metrics as text) \
             from training_runs r left join models m on m.id = r.model_id order by r.id"
        ))?;
        rows.into_iter()
            .map(|(started, finished, status, error, trigger, model, metrics)| {
                let metrics: Value = serde_json::from_str(&metrics.unwrap_or_else(|| "{}".to_owned()))?;
                let (error, trigger) = (error.unwrap_or_default(), trigger.unwrap_or_default());
                Ok(Run {
                    started,
                    finished,
                    status,
                    error,
                    trigger,
                    model,
                    judged: metrics["judged"].clone(),
                })
            })
            .collect()
    }

    /// Waits until so many runs have ended, and returns all.
    ///
    /// # Errors
    /// If they do not end.
    pub fn wait_ended(&self, count: usize) -> Result<Vec<Run>> {
        let ended = |runs: &[Run]| runs.iter().filter(|r| r.finished.is_some()).count();
        // Training gives way to everything else on the machine.
        wait_until(&format!("{count} ended runs"), 3 * WAIT, || Ok(ended(&self.runs()?) >= count))
            .with_context(|| format!("{:#?}", self.runs()))?;
        self.runs()
    }

    /// Name of the champion, if there is one.
    ///
    /// # Errors
    /// If there are several.
    pub fn champion(&self) -> Result<Option<String>> {
        let rows: Vec<(String,)> = self.0.rows("select name from models where status = 'champion'")?;
        anyhow::ensure!(rows.len() <= 1, "several champions: {rows:?}");
        Ok(rows.into_iter().next().map(|row| row.0))
    }

    /// Promotions, in order.
    ///
    /// # Errors
    /// If the store refuses.
    pub fn promotions(&self) -> Result<Vec<Promoted>> {
        self.0.rows(
            "select m.name as model, b.name as before, p.cause, p.status from promotions p join models m on m.id = p.model_id \
             left join models b on b.id = p.previous_id order by p.id",
        )
    }

    /// Waits until the newest promotion has a status, and returns all.
    ///
    /// # Errors
    /// If it does not come to that.
    pub fn wait_promotion(&self, status: &str) -> Result<Vec<Promoted>> {
        wait_until(&format!("a promotion {status}"), 3 * WAIT, || {
            Ok(self.promotions()?.last().is_some_and(|p| p.status == status))
        })
        .with_context(|| format!("{:#?}", self.promotions()))?;
        self.promotions()
    }

    /// The weights of a model.
    ///
    /// # Errors
    /// If there is no such model.
    pub fn weights(&self, model: &str) -> Result<Vec<u8>> {
        let rows: Vec<(Vec<u8>,)> =
            self.0.rows(&format!("select weights from models where name = '{model}'"))?;
        Ok(rows.into_iter().next().with_context(|| format!("no model {model}"))?.0)
    }
}

/// A stored model with the answers of its networks and trees multiplied: of the right shape, finite, and wrong.
///
/// # Errors
/// If it is no safetensors file.
pub fn distorted(weights: &[u8], factor: f32) -> Result<Vec<u8>> {
    let (length, rest) = weights.split_first_chunk::<8>().context("no safetensors file")?;
    let length = usize::try_from(u64::from_le_bytes(*length))?;
    let header: Value = serde_json::from_slice(rest.get(..length).context("header")?)?;
    let mut distorted = weights.to_vec();
    for (name, tensor) in header.as_object().context("header")? {
        if !(name.ends_with("head.weight") || name.ends_with("head.bias") || name == "trees.leaves") {
            continue;
        }
        let offset = |at: usize| tensor["data_offsets"][at].as_u64().context("offset");
        let (begin, end) = (usize::try_from(offset(0)?)?, usize::try_from(offset(1)?)?);
        let data = distorted.get_mut(8 + length + begin..8 + length + end).context("data")?;
        for value in data.as_chunks_mut::<4>().0 {
            *value = (factor * f32::from_le_bytes(*value)).to_le_bytes();
        }
    }
    Ok(distorted)
}
