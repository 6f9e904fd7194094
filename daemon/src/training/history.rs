//! The stored past of a stream, and what a model makes of it.

use std::sync::Arc;

use anyhow::Context;
use forecaster::{Journal, Model, Reading, Rebuilt, Room, SeriesHandle, StreamSpec, Timestamp, rebuild};
use hashbrown::HashMap;
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};
use tokio::sync::oneshot;

use super::micros;
use crate::config::Config;
use crate::store::Past;
use crate::world::World;

/// Of each series at least so many readings are read, however many series there are: what a state takes to
/// be rebuilt.
const MIN_OF_SERIES: usize = 256;

/// A stored series' readings, in order of time.
pub type History = Vec<(i64, Vec<Reading>)>;

/// The stored readings of a stream, back by the training window from its newest; of very many, the
/// latest of each series, so that memory stays bounded.
///
/// # Errors
/// If the store fails.
pub(crate) async fn history(store: &impl Past, config: &Config, stream: &str) -> anyhow::Result<History> {
    let Some(newest) = store.newest(stream).await? else { return Ok(Vec::new()) };
    let since = newest.saturating_sub(micros(config.training.window));
    let series = store.series().await?.iter().filter(|row| row.stream == stream).count();
    let most = (config.training.max_readings / series.max(1)).max(MIN_OF_SERIES);
    let mut history: History = Vec::new();
    store
        .history(stream, since, |row| {
            let reading = Reading { time: Timestamp(row.time), value: row.value };
            match history.last_mut() {
                Some((series, readings)) if *series == row.series_id => {
                    if readings.len() == 2 * most {
                        readings.drain(..most);
                    }
                    readings.push(reading);
                }
                last => {
                    last.into_iter().for_each(|(_, readings)| keep_latest(readings, most));
                    history.push((row.series_id, vec![reading]));
                }
            }
        })
        .await?;
    history.last_mut().into_iter().for_each(|(_, readings)| keep_latest(readings, most));
    Ok(history)
}

/// Leaves a spread of the series, so that no more than so many readings are left of all.
pub(super) fn thin(history: &mut History, most: usize) {
    let readings: usize = history.iter().map(|(_, r)| r.len()).sum();
    let every = readings.div_ceil(most.max(1));
    if every > 1 {
        let mut place = 0_usize;
        history.retain(|_| {
            place += 1;
            place.is_multiple_of(every)
        });
    }
}

fn keep_latest(readings: &mut Vec<Reading>, most: usize) {
    readings.drain(..readings.len().saturating_sub(most));
    readings.shrink_to_fit();
}

/// What a model makes of each series' stored readings, by id in the store.
///
/// # Errors
/// If the thread breaks down.
pub(crate) async fn rebuild_states(
    world: &impl World,
    model: Arc<Model>,
    history: History,
    spec: StreamSpec,
) -> anyhow::Result<Vec<(i64, Rebuilt)>> {
    let work = move || {
        history
            .into_iter()
            .filter_map(|(series, readings)| Some((series, rebuild(&model, &readings, &spec)?)))
            .collect()
    };
    world.aside(work).await
}

/// Brings rebuilt states up to date with readings that came since.
///
/// # Errors
/// If the thread breaks down.
pub(crate) async fn catch_up(
    world: &impl World,
    model: Arc<Model>,
    mut states: HashMap<SeriesHandle, Rebuilt>,
    journal: Journal,
    spec: StreamSpec,
) -> anyhow::Result<HashMap<SeriesHandle, Rebuilt>> {
    let work = move || {
        let mut room = Room::default();
        for (handle, reading) in journal {
            states.entry(handle).or_default().step(reading, &spec, &model, true, &mut room);
        }
        states
    };
    world.aside(work).await
}

/// Runs work on a thread of its own, at the lowest priority; so do the threads that it starts.
///
/// # Errors
/// If the thread breaks down.
pub(crate) async fn on_low_priority<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    let (done, result) = oneshot::channel();
    std::thread::Builder::new().name("training".to_owned()).spawn(move || {
        // Whatever else wants to run goes before it at once; the threads it starts inherit that. Without it
        // training still works.
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        if let Err(error) = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle) {
            tracing::debug!(?error, "training at ordinary priority");
        }
        // The receiver is gone only when the daemon is stopping.
        let _ = done.send(work());
    })?;
    result.await.context("the training thread panicked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_very_many_series_a_spread_is_learned_from() {
        let series = |id| (id, vec![Reading { time: Timestamp(0), value: 1.0 }; 10]);
        let mut history: History = (0..100).map(series).collect();
        thin(&mut history, 1000);
        assert_eq!(history.len(), 100);
        thin(&mut history, 300);
        let left: Vec<i64> = history.iter().map(|(id, _)| *id).collect();
        assert_eq!((left.len(), left[0], left[24]), (25, 3, 99));
    }
}
