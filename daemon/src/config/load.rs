//! Finding the file, and what is wrong with what was read.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::Config;
use super::read::{Variables, Wrong};

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
    /// A variable of the environment cannot be used.
    #[error("{0}")]
    Variable(String),
    /// All was read, and some values make no sense.
    #[error("{}", .0.join("\n"))]
    Invalid(
        /// One entry a problem: file or variable, key, reason, fix.
        Vec<String>,
    ),
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
        let text = std::fs::read_to_string(file).map_err(|error| {
            let fix = match error.kind() {
                ErrorKind::PermissionDenied => "run this as a user that may, for instance by sudo -u vidente",
                ErrorKind::InvalidData => "save it as UTF-8",
                _ => "name one that exists after --config, or leave that out for the default",
            };
            unreadable(format!("cannot be read: {error}; {fix}"))
        })?;
        let variables = Variables::of_environment();
        let mut config = Config::parse_with(&text, &variables).map_err(|wrong| match wrong {
            Wrong::File(reason) => unreadable(reason),
            Wrong::Variable(reason) => ConfigError::Variable(reason),
        })?;
        config.find_credentials(std::env::var_os("CREDENTIALS_DIRECTORY").as_deref().map(Path::new));
        let problems = config.problems();
        if problems.is_empty() {
            return Ok(config);
        }
        let placed = problems.iter().map(|problem| {
            let key = problem.split(": ").next().unwrap_or_default();
            match variables.setting(key) {
                Some(variable) => format!("{variable} in the environment: {problem}"),
                None => format!("{}: {problem}", file.display()),
            }
        });
        Err(ConfigError::Invalid(placed.collect()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn loading_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("v.toml");
        let missing = Config::load(&file).unwrap_err();
        assert!(matches!(missing, ConfigError::Unreadable { .. }));
        assert!(missing.to_string().contains("cannot be read") && missing.to_string().contains("--config"));
        std::fs::write(&file, "[model]\nhidden = 0\nlayers = 9\n").unwrap();
        let text = Config::load(&file).unwrap_err().to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines.iter().all(|l| l.starts_with(&format!("{}: ", file.display()))), "{text}");
    }
}
