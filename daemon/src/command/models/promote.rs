//! `vidente models promote`.

use anyhow::{Context, bail};

use super::{find, load, open_store};
use crate::cli::PromoteArgs;
use crate::record::{Cause, Promotion};
use crate::training;

pub(super) async fn run(args: PromoteArgs) -> anyhow::Result<()> {
    let config = load(args.config)?;
    let store = open_store(&config).await?;
    let model = find(&store, &args.name).await?;
    let (name, stream) = (&model.name, &model.stream);
    if model.status == "champion" {
        bail!("{name} is the champion of stream {stream} already");
    }
    training::model_of(&model).with_context(|| format!("{name} cannot forecast"))?;
    let champion = store.champion(stream).await?;
    let probation = config.models.probation.is_some();
    let promotion = Promotion {
        model: model.id,
        expected: Some(champion.as_ref().map(|c| c.id)),
        cause: Cause::Command,
        at: training::now(),
        probation,
    };
    if !store.promote(promotion).await? {
        bail!("another model became the champion of stream {stream} meanwhile; look at vidente models list");
    }
    let before = champion.map_or("none before: the online experts forecast alone".to_owned(), |c| {
        format!("before: {}", c.name)
    });
    let on_probation = if probation { ", on probation" } else { "" };
    println!(
        "{name}: champion of stream {stream}{on_probation} ({before}); a running daemon takes it over within seconds"
    );
    Ok(())
}
