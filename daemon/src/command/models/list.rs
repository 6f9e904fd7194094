//! `vidente models list`.

use std::collections::BTreeSet;

use comfy_table::{CellAlignment, Table, presets};

use super::{
    COVERAGE, HELD_OUT, JUDGED, figure, load, network, no_such_stream, open_store, say, status, time, to_json,
};
use crate::cli::ListArgs;
use crate::store::ModelRow;

/// Columns of numbers.
const NUMBERS: [usize; 3] = [4, 5, 6];

pub(super) async fn run(args: ListArgs) -> anyhow::Result<()> {
    let config = load(args.config)?;
    let store = open_store(&config).await?;
    let mut models = store.models().await?;
    if let Some(stream) = &args.stream {
        models.retain(|m| m.stream == *stream);
        if models.is_empty() && !config.stream.iter().any(|s| s.name == *stream) {
            return Err(no_such_stream(&config, stream));
        }
    }
    let mut on_probation = BTreeSet::new();
    for champion in models.iter().filter(|m| m.status == "champion") {
        on_probation.extend(store.probation(&champion.stream).await?.map(|p| p.model));
    }
    let models: Vec<_> = models.into_iter().map(|m| (on_probation.contains(&m.id), m)).collect();
    if args.json {
        let all: Vec<_> = models
            .into_iter()
            .map(|(probation, mut model)| {
                // `show` has it; here it would drown the rest.
                model.metrics.as_object_mut().and_then(|metrics| metrics.remove("curve"));
                to_json(&model, probation)
            })
            .collect();
        say(format_args!("{:#}", serde_json::Value::Array(all)))?;
    } else if models.is_empty() {
        let of = args.stream.map(|stream| format!(" of stream {stream}")).unwrap_or_default();
        println!(
            "no models{of} yet; a running daemon trains one once [training] min_readings ({}) are stored, and \
             vidente train does at once",
            config.training.min_readings
        );
    } else {
        say(table(&models))?;
    }
    Ok(())
}

/// A line a model.
pub(super) fn table(models: &[(bool, ModelRow)]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "MODEL",
        "CREATED",
        "NETWORK",
        "LEARNED FROM",
        "ERROR",
        "JUDGED",
        "COVERAGE",
        "STATUS",
        "ORIGIN",
        "WEIGHTS",
        "REASON",
    ]);
    for (place, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if NUMBERS.contains(&place) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for (probation, model) in models {
        let number = |pointer| figure(model, pointer).map_or_else(|| "-".to_owned(), |x| format!("{x:.3}"));
        table.add_row([
            model.name.clone(),
            time(model.created_at),
            network(model),
            window(model).unwrap_or_else(|| "-".to_owned()),
            number(HELD_OUT),
            number(JUDGED),
            number(COVERAGE),
            status(model, *probation),
            model.origin.clone(),
            if model.has_weights { "kept" } else { "dropped" }.to_owned(),
            // A line break would break the table.
            model.reason.as_deref().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" "),
        ]);
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n");
    format!(
        "{lines}\n\nERROR: of the median over the naive forecast's, below 1 is better, on the slice that the training \
         held out.\nJUDGED: the same on the stretch on which it was compared with the champion. COVERAGE: share of\n\
         the held-out slice inside the 90 % interval."
    )
}

/// First and last time learned from.
fn window(model: &ModelRow) -> Option<String> {
    Some(format!("{}/{}", time(model.window_start?), time(model.window_end?)))
}
