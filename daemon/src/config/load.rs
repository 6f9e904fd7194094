//! Finding, reading and overriding the file.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::Config;

/// Places looked at, in order, when no path is given.
const DEFAULT_PATHS: [&str; 2] = ["/etc/vidente/vidente.toml", "./vidente.toml"];

/// A configuration that cannot be used; the command ends with status 78 (EX_CONFIG).
#[derive(Debug, Error)]
pub enum ConfigError {
    /// No file was given and none stands in the default places.
    #[error("no configuration file: neither {} nor {} exists; pass --config FILE", DEFAULT_PATHS[0], DEFAULT_PATHS[1])]
    Missing,
    /// The file cannot be read or does not have the right shape.
    #[error("{}: {reason}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What is wrong, with the key.
        reason: String,
    },
    /// The file was read, and some values make no sense.
    #[error("{}", problems.iter().map(|p| format!("{}: {p}", file.display())).collect::<Vec<_>>().join("\n"))]
    Invalid {
        /// The file.
        file: PathBuf,
        /// One entry a problem: key, reason, fix.
        problems: Vec<String>,
    },
}

/// The file to read: the one given, or the first that exists in the default places.
///
/// # Errors
/// [`ConfigError::Missing`] if there is none.
pub fn locate(given: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
    given.or_else(|| DEFAULT_PATHS.iter().map(PathBuf::from).find(|p| p.exists())).ok_or(ConfigError::Missing)
}

impl Config {
    /// Reads and validates a file; environment variables `VIDENTE__SECTION__KEY` override it.
    ///
    /// # Errors
    /// Names the file, the key, the reason and the fix.
    pub fn load(file: &Path) -> Result<Config, ConfigError> {
        let unreadable = |reason: String| ConfigError::Unreadable { file: file.to_owned(), reason };
        let text = std::fs::read_to_string(file).map_err(|e| unreadable(e.to_string()))?;
        let config = Config::parse(&text).map_err(unreadable)?;
        let problems = config.problems();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Invalid { file: file.to_owned(), problems })
        }
    }

    /// Reads the text of a file without validating its meaning.
    ///
    /// # Errors
    /// What is wrong, with the key.
    pub fn parse(text: &str) -> Result<Config, String> {
        config::Config::builder()
            .add_source(config::File::from_str(text, config::FileFormat::Toml))
            .add_source(config::Environment::with_prefix("VIDENTE").prefix_separator("__").separator("__"))
            .build()
            .and_then(config::Config::try_deserialize)
            .map_err(|e| e.to_string())
    }
}
