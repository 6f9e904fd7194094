//! `vidente models import`.

use std::sync::Arc;

use anyhow::{Context, ensure};
use forecaster::judge::cutoff;
use forecaster::{Model, Timestamp};

use super::{load, no_such_stream, open_store};
use crate::cli::ImportArgs;
use crate::command::told_to_stop;
use crate::store::{NewModel, Origin};
use crate::training::{self, Champion, HELD_OUT, Judgement, Unjudged};

/// How far ahead of the clock a model may have learned, in microseconds: as far as readings are taken.
const LATEST: i64 = 3_600_000_000;

pub(super) async fn run(args: ImportArgs) -> anyhow::Result<()> {
    let config = load(args.config)?;
    let Some(stream) = config.stream.iter().find(|s| s.name == args.stream) else {
        return Err(no_such_stream(&config, &args.stream));
    };
    let file = args.file.display();
    let bytes = std::fs::read(&args.file).with_context(|| format!("{file}: cannot be read"))?;
    let model = Model::from_safetensors(&bytes).with_context(|| format!("{file}: no model for Vidente"))?;
    let latest = training::now().saturating_add(LATEST);
    ensure!(
        model.trained_until().0 <= latest,
        "{file}: header entry `trained_until` lies ahead; it is in microseconds since 1970, and now is {}",
        training::now()
    );
    let model = Arc::new(model);
    let store = open_store(&config).await?;
    let history = training::history(&store, &config, &stream.name).await.context("reading the history")?;
    let history = Arc::new(history);
    let stop = told_to_stop()?;
    let known = model.trained_until() > Timestamp(i64::MIN);
    let from = cutoff(history.iter().map(|(_, r)| r.as_slice()), HELD_OUT).max(model.trained_until());
    let champion = Champion::of(&store, &stream.name).await?;
    let spec = training::spec_of(&config, stream);
    let judged = training::judge(model.clone(), champion, history, from, spec, &config.models, stop).await?;
    let judgement = match judged {
        Ok(judgement) => Some(judgement),
        Err(Unjudged::NoReadings) => None,
        Err(Unjudged::Stopped) => anyhow::bail!("stopped; nothing was stored"),
    };
    let reason = reason(judgement.as_ref(), known);
    let saved = store
        .save_model(&NewModel {
            stream: stream.name.clone(),
            cell: model.sizes().cell.name().to_owned(),
            created_at: training::now(),
            metrics: training::metrics(&model, None, judgement.as_ref())?,
            weights: model.to_safetensors()?,
            origin: Origin::Imported,
            reason: Some(reason.clone()),
            window_start: None,
            window_end: known.then_some(model.trained_until().0),
        })
        .await
        .context("saving the model")?;
    println!("{}: candidate, {reason}", saved.name);
    if let Some(j) = judgement {
        let (own, other) = (&j.standing, &j.opponent);
        let against = j.against.as_deref().unwrap_or("the online experts alone");
        println!("on {} readings from {} on:", own.readings, j.from);
        for (name, s) in [(saved.name.as_str(), own), (against, other)] {
            println!(
                "  {name}: loss {:.4}, error {:.3} of the naive forecast's, coverage {:.2}",
                s.loss, s.relative_error, s.coverage
            );
        }
        println!("vidente models promote {} lets it forecast", saved.name);
    }
    Ok(())
}

/// What its trial says of a model, for `models.reason`.
fn reason(judgement: Option<&Judgement>, known: bool) -> String {
    let Some(j) = judgement else {
        return "not tried: no readings are stored that neither it nor the champion has learned from"
            .to_owned();
    };
    let seen = if known { "" } else { " (readings that it may have learned from)" };
    let against = j.against.as_deref().unwrap_or("the online experts alone");
    if j.decision.won {
        format!("its loss is {:.1} % below that of {against}{seen}", 100.0 * j.decision.better_by)
    } else {
        format!("not better than {against}: {}{seen}", j.decision.reason)
    }
}
