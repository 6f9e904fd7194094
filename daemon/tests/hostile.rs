//! What fuzzing found worth keeping (`tests/fuzz/corpus`), read again by the code of today.
#![allow(clippy::panic, reason = "a broken promise is told by a panic")]

#[path = "../../tests/fuzz/lib.rs"]
#[allow(unreachable_pub, reason = "there it is a library")]
mod readers;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use readers::TARGETS;

#[test]
fn every_input_of_the_corpora_keeps_its_promises() -> Result<()> {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus");
    for (name, target) in TARGETS {
        let folder = corpora.join(name);
        let mut count = 0;
        for file in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = file?.path();
            let bytes = std::fs::read(&path)?;
            std::panic::catch_unwind(|| target(&bytes))
                .map_err(|_| anyhow::anyhow!("{} broke a promise", path.display()))?;
            count += 1;
        }
        ensure!(count >= 10, "{name}: {count} inputs");
    }
    Ok(())
}
