//! `[spool]`: where readings are kept on disk while the store takes none.

use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::Config;
use super::validate::Problems;

/// Where spools are unless `[spool] dir` says otherwise.
const HOME: &str = "/var/lib/vidente/spool";
/// What a client id keeps as the name of a folder.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');
/// Smallest spool that is worth its name, in bytes.
const SMALLEST: u64 = 1 << 20;

/// `[spool]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spool {
    /// Folder for this daemon alone; none means one in `/var/lib/vidente/spool` if that can be used.
    pub dir: Option<PathBuf>,
    /// Bytes that it may take on disk; 0 keeps everything in memory and, beyond, at the broker.
    pub max_bytes: u64,
}

impl Default for Spool {
    fn default() -> Self {
        Spool { dir: None, max_bytes: 1 << 30 }
    }
}

impl Config {
    /// The spool's folder.
    #[must_use]
    pub fn spool_dir(&self) -> PathBuf {
        self.spool.dir.clone().unwrap_or_else(|| {
            // Two daemons on one broker have different client ids.
            let name = utf8_percent_encode(&self.mqtt.client_id, ENCODED).to_string();
            Path::new(HOME).join(name)
        })
    }
}

pub(super) fn check(spool: &Spool, problems: &mut Problems) {
    problems.unless(
        spool.max_bytes == 0 || spool.max_bytes >= SMALLEST,
        "spool.max_bytes",
        format!("{} is less than {SMALLEST}; write more, or 0 for no spool", spool.max_bytes),
    );
    problems.unless(
        spool.dir.as_ref().is_none_or(|dir| !dir.as_os_str().is_empty()),
        "spool.dir",
        "is empty; name a folder, or leave it out",
    );
}
