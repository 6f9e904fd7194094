//! `vidente train`: one run now, the same code as the daemon's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressStyle};

use super::{load, signals};
use crate::cli::TrainArgs;
use crate::store::Store;
use crate::training::{self, Outcome};

pub(super) async fn run(args: TrainArgs) -> anyhow::Result<()> {
    let config = load(args.config)?;
    let store = Store::open(&config.store).await?;
    store.migrate().await?;
    let streams: Vec<_> =
        config.stream.iter().filter(|s| args.stream.as_ref().is_none_or(|name| *name == s.name)).collect();
    if let (true, Some(name)) = (streams.is_empty(), &args.stream) {
        let known: Vec<_> = config.stream.iter().map(|s| s.name.as_str()).collect();
        anyhow::bail!("no stream is named \"{name}\"; there are: {}", known.join(", "));
    }
    let giving_up = Arc::new(AtomicBool::new(false));
    let mut stop = signals()?;
    tokio::spawn({
        let giving_up = giving_up.clone();
        async move {
            // The sender lives as long as the process.
            let _ = stop.wait_for(|stop| *stop).await;
            giving_up.store(true, Ordering::Relaxed);
        }
    });
    for stream in streams {
        let bar = progress_bar(&stream.name);
        let shown = bar.clone();
        let look = move |p: &forecaster::train::Progress| show(&shown, p);
        let outcome = training::run(&store, &config, stream, giving_up.clone(), look).await;
        bar.finish_and_clear();
        match outcome? {
            Outcome::Better(model, report) => {
                store.promote(model.id).await?;
                println!(
                    "{}: champion; {} series, {} updates, error {:.3} of the naive forecast's on the held-out slice, \
                     coverage {:.2}",
                    model.name, report.series, report.updates, report.relative_error, report.coverage
                );
            }
            Outcome::Worse(model, report) => println!(
                "{}: kept as a candidate, no better than the naive forecast on the held-out slice (loss {:.4}, naive {:.4})",
                model.name, report.validation_loss, report.naive_loss
            ),
            Outcome::Skipped(reason) => println!("{}: skipped, {reason}", stream.name),
        }
    }
    Ok(())
}

/// A progress bar over updates; it draws itself only on a terminal.
pub(super) fn progress_bar(name: &str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} updates {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.set_prefix(format!("training {name}"));
    bar
}

/// Moves the bar to where a run stands.
pub(super) fn show(bar: &ProgressBar, progress: &forecaster::train::Progress) {
    bar.set_length(progress.max_updates as u64);
    bar.set_position(progress.update as u64);
    bar.set_message(format!("validation loss {:.4}", progress.validation_loss));
}
