//! `vidente models export`.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;

use super::{find, load, open_store};
use crate::cli::ExportArgs;

pub(super) async fn run(args: ExportArgs) -> anyhow::Result<()> {
    let store = open_store(&load(args.config)?).await?;
    let model = find(&store, &args.name).await?;
    let weights = model.kept_weights()?;
    write(&args.output, weights, args.force)?;
    println!("{}: {} bytes in {}", model.name, weights.len(), args.output.display());
    Ok(())
}

/// All or nothing: whoever reads the file never finds half of it.
pub(super) fn write(output: &Path, bytes: &[u8], force: bool) -> anyhow::Result<()> {
    let named = || output.display().to_string();
    let dir = output.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        // As of any other new file: what the umask leaves.
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(dir)
        .with_context(named)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).with_context(named)?;
    if force {
        file.persist(output).with_context(named)?;
        return Ok(());
    }
    match file.persist_noclobber(output) {
        Ok(_) => Ok(()),
        Err(e) if e.error.kind() == std::io::ErrorKind::AlreadyExists => {
            anyhow::bail!("{} is there already; --force overwrites it", output.display())
        }
        Err(e) => Err(e).with_context(named),
    }
}
