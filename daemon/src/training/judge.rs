//! Whether a candidate is to forecast: it and the champion replay the latest readings, that neither has
//! learned from.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use forecaster::judge::{Decision, Rule, SURE, Standing, Trial, trial};
use forecaster::{Model, Reading, StreamSpec, Timestamp};
use serde::Serialize;

use super::History;
use super::history::on_low_priority;
use crate::config;
use crate::encode;
use crate::store::Store;

/// Whom a candidate is held against.
#[derive(Debug, Clone, Default)]
pub struct Champion {
    /// Id in the store; none if there is no champion.
    pub id: Option<i64>,
    /// Name; none if there is no champion.
    pub name: Option<String>,
    /// The model; none if there is no champion, or one that this version cannot use.
    pub model: Option<Arc<Model>>,
}

impl Champion {
    /// The champion of a stream, as the store has it.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn of(store: &Store, stream: &str) -> anyhow::Result<Champion> {
        let Some(row) = store.champion(stream).await? else { return Ok(Champion::default()) };
        let model = Model::from_safetensors(&row.weights).ok().map(Arc::new);
        Ok(Champion { id: Some(row.id), name: Some(row.name), model })
    }
}

/// How a candidate was judged, for `models.metrics`.
#[derive(Debug, Clone, Serialize)]
pub struct Judgement {
    /// Readings after this time were judged on, RFC 3339.
    pub from: String,
    /// How the candidate did.
    #[serde(flatten)]
    pub standing: Standing,
    /// Name of the champion that it was held against; none for the online experts alone.
    pub against: Option<String>,
    /// How that did.
    pub opponent: Standing,
    /// What came of it.
    pub decision: Decision,
}

/// Why nothing was judged.
#[derive(Debug)]
pub enum Unjudged {
    /// There was nothing to judge on.
    NoReadings,
    /// It was stopped.
    Stopped,
}

/// Judges a candidate on the readings after `from`, or after those that the champion has learned from if
/// they reach further.
///
/// # Errors
/// If the thread breaks down.
pub async fn judge(
    candidate: Arc<Model>,
    champion: Champion,
    history: Arc<History>,
    from: Timestamp,
    spec: StreamSpec,
    rules: &config::Models,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<Result<Judgement, Unjudged>> {
    let rule = match champion.model {
        Some(_) => Rule { margin: rules.margin, max_worse: rules.max_worse, sure: SURE },
        None => Rule::FIRST,
    };
    // One that cannot be used is no opponent.
    let against = champion.name.filter(|_| champion.model.is_some());
    let from = champion.model.as_ref().map_or(from, |m| m.trained_until().max(from));
    let trials = on_low_priority(move || {
        let run = |model: Option<&Model>| -> Option<Trial> {
            let histories = history.iter().map(|(_, readings)| readings.as_slice() as &[Reading]);
            trial(model, histories, from, &spec, || stop.load(Ordering::Relaxed))
        };
        std::thread::scope(|threads| {
            let other = threads.spawn(|| run(champion.model.as_deref()));
            let own = run(Some(&candidate));
            own.zip(other.join().ok().flatten())
        })
    });
    let Some((own, other)) = trials.await? else { return Ok(Err(Unjudged::Stopped)) };
    let Some((standing, opponent)) = own.standing().zip(other.standing()) else {
        return Ok(Err(Unjudged::NoReadings));
    };
    Ok(Ok(Judgement {
        from: encode::text(from),
        standing,
        against,
        opponent,
        decision: own.against(&other, &rule),
    }))
}
