//! `vidente models`: the registry.

mod curve;
mod export;
mod import;
mod inputs;
mod list;
mod promote;
mod rollback;
mod show;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{load, no_such_stream, open_store, say};
use crate::cli::ModelsCommand;
use crate::store::{ModelRow, Store};

pub(super) async fn run(command: ModelsCommand) -> anyhow::Result<()> {
    match command {
        ModelsCommand::List(args) => list::run(args).await,
        ModelsCommand::Show(args) => show::run(args).await,
        ModelsCommand::Promote(args) => promote::run(args).await,
        ModelsCommand::Rollback(args) => rollback::run(args).await,
        ModelsCommand::Import(args) => import::run(args).await,
        ModelsCommand::Inputs(args) => inputs::run(args).await,
        ModelsCommand::Export(args) => export::run(args).await,
    }
}

async fn find(store: &Store, name: &str) -> anyhow::Result<ModelRow> {
    store.model_by_name(name).await?.ok_or_else(|| {
        anyhow::anyhow!("no model is named \"{name}\"; vidente models list shows those there are")
    })
}

/// A time to the second, RFC 3339.
fn time(micros: i64) -> String {
    let seconds = Timestamp::from_second(micros.div_euclid(1_000_000));
    seconds.map_or_else(|_| format!("{micros} µs"), |t| t.to_string())
}

/// The status, with the probation if one runs.
fn status(model: &ModelRow, probation: bool) -> String {
    if probation { format!("{} (probation)", model.status) } else { model.status.clone() }
}

/// Cell, hidden units and layers.
fn network(model: &ModelRow) -> String {
    let size = |name: &str| model.metrics.pointer(&format!("/sizes/{name}")).and_then(Value::as_u64);
    match (size("hidden"), size("layers")) {
        (Some(hidden), Some(1)) => format!("{} {hidden}", model.cell),
        (Some(hidden), Some(layers)) => format!("{} {layers}x{hidden}", model.cell),
        _ => model.cell.clone(),
    }
}

/// A measured figure, if it was measured.
fn figure(model: &ModelRow, pointer: &str) -> Option<f64> {
    model.metrics.pointer(pointer).and_then(Value::as_f64)
}

/// Error against naive on the slice that the training held out.
const HELD_OUT: &str = "/relative_error";
/// The same on the stretch on which the model was judged against the champion.
const JUDGED: &str = "/judged/relative_error";
/// Share of the held-out slice inside the 90 % interval.
const COVERAGE: &str = "/coverage";

/// A model as JSON, times as RFC 3339.
fn to_json(model: &ModelRow, probation: bool) -> Value {
    json!({
        "name": model.name,
        "stream": model.stream,
        "version": model.version,
        "created_at": time(model.created_at),
        "cell": model.cell,
        "status": model.status,
        "probation": probation,
        "origin": model.origin,
        "reason": model.reason,
        "window_start": model.window_start.map(time),
        "window_end": model.window_end.map(time),
        "has_weights": model.has_weights,
        "metrics": model.metrics,
    })
}
