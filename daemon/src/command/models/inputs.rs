//! `vidente models inputs`.

use anyhow::ensure;
use forecaster::Reading;
use forecaster::train::{Named, inputs_file};

use super::export::write;
use super::{load, no_such_stream, open_store};
use crate::cli::InputsArgs;
use crate::table::Table;
use crate::training;

pub(super) async fn run(args: InputsArgs) -> anyhow::Result<()> {
    let (interval, histories) = match (&args.input, &args.stream) {
        (Some(input), _) => {
            let table = Table::read(input)?;
            for note in table.notes() {
                eprintln!("{}: {note}", input.display());
            }
            (args.interval.map(training::micros), of_table(table))
        }
        (None, name) => {
            let config = load(args.config)?;
            let name = name.as_deref().unwrap_or_default();
            let Some(stream) = config.stream.iter().find(|s| s.name == name) else {
                return Err(no_such_stream(&config, name));
            };
            let store = open_store(&config).await?;
            let mut keys: hashbrown::HashMap<i64, String> =
                store.series().await?.into_iter().map(|row| (row.id, row.key)).collect();
            let history = training::history(&store, &config, name).await?;
            let named = |(id, readings)| Some(Named { name: keys.remove(&id)?, readings });
            (training::interval_of(stream), history.into_iter().filter_map(named).collect())
        }
    };
    let (file, series) = inputs_file(&histories, interval)?;
    ensure!(series > 0, "none of {} series has readings enough to learn from", histories.len());
    write(&args.output, &file, args.force)?;
    let short = histories.len() - series;
    let short = if short > 0 { format!(" ({short} too short to learn from)") } else { String::new() };
    println!("{series} series{short}: {} bytes in {}", file.len(), args.output.display());
    Ok(())
}

fn of_table(table: Table) -> Vec<Named> {
    let mut all: Vec<Named> =
        table.names.into_iter().map(|name| Named { name, readings: Vec::<Reading>::new() }).collect();
    for row in table.rows {
        all.get_mut(row.series).into_iter().for_each(|named| named.readings.push(row.reading));
    }
    all
}
