//! `vidente train`: one run now, the same code as the daemon's.

use indicatif::{ProgressBar, ProgressStyle};

use super::{load, no_such_stream, open_store, told_to_stop};
use crate::cli::TrainArgs;
use crate::store::Trigger;
use crate::training::{self, Candidate, Outcome};

pub(super) async fn run(args: TrainArgs) -> anyhow::Result<()> {
    let config = load(args.config)?;
    let store = open_store(&config).await?;
    let streams: Vec<_> =
        config.stream.iter().filter(|s| args.stream.as_ref().is_none_or(|name| *name == s.name)).collect();
    if let (true, Some(name)) = (streams.is_empty(), &args.stream) {
        return Err(no_such_stream(&config, name));
    }
    let giving_up = told_to_stop()?;
    for stream in streams {
        let bar = progress_bar(&stream.name);
        let shown = bar.clone();
        let look = move |p: &forecaster::train::Progress| show(&shown, p);
        let outcome = training::run(&store, &config, stream, Trigger::Command, giving_up.clone(), look).await;
        bar.finish_and_clear();
        match outcome? {
            Outcome::Better(candidate) => {
                let name = &candidate.saved.name;
                if store.promote(training::promotion(&candidate, &config)).await? {
                    println!("{name}: champion; {}", figures(&candidate));
                } else {
                    println!("{name}: kept as a candidate, since the champion changed meanwhile");
                }
            }
            Outcome::Worse(candidate, reason) => {
                println!("{}: kept as a candidate, {reason}; {}", candidate.saved.name, figures(&candidate));
            }
            Outcome::Skipped(reason) => println!("{}: skipped, {reason}", stream.name),
        }
    }
    Ok(())
}

/// What training and trial measured.
fn figures(candidate: &Candidate) -> String {
    let report = &candidate.report;
    let learned = format!("{} series, {} updates", report.series, report.updates);
    candidate.judgement.as_ref().map_or(learned.clone(), |j| {
        format!(
            "{learned}; on {} readings held out error {:.3} of the naive forecast's, coverage {:.2}, loss {:.4} against \
             {:.4} of {}",
            j.standing.readings,
            j.standing.relative_error,
            j.standing.coverage,
            j.standing.loss,
            j.opponent.loss,
            j.against.as_deref().unwrap_or("the online experts alone")
        )
    })
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
