//! `vidente models rollback`.

use anyhow::bail;

use super::{load, no_such_stream, open_store};
use crate::cli::RollbackArgs;
use crate::training;

pub(super) async fn run(args: RollbackArgs) -> anyhow::Result<()> {
    let config = load(args.config)?;
    let store = open_store(&config).await?;
    let stream = &args.stream;
    let champion = store.champion_id(stream).await?;
    if champion.is_none() && !config.stream.iter().any(|s| s.name == *stream) {
        return Err(no_such_stream(&config, stream));
    }
    let Some(done) = store.rollback(stream, training::now(), &args.reason, champion).await? else {
        bail!("another model became the champion of stream {stream} meanwhile; look at vidente models list");
    };
    let now = match done.champion {
        Some(model) => format!("{} is the champion of stream {stream} again", model.name),
        None => format!("stream {stream} has no champion, the online experts forecast alone"),
    };
    println!(
        "{}: retired ({}); {now}; a running daemon follows within seconds",
        done.retired.name, args.reason
    );
    if config.training.every.is_some() {
        println!(
            "the next training run may make another model champion; [training] every = \"off\" keeps it so"
        );
    }
    Ok(())
}
