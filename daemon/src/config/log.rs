//! `[log]`: what is logged, and in which form.

use serde::Deserialize;

/// `[log]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// What is logged at least.
    pub level: Level,
    /// Form of the lines.
    pub format: Format,
}

/// How important a line must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize)]
#[serde(try_from = "String")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Level {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl Level {
    const ALL: [Level; 5] = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];

    /// As it stands in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        }
    }
}

impl TryFrom<String> for Level {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Level::ALL.into_iter().find(|level| level.name() == text).ok_or_else(|| {
            format!(
                "\"{text}\" is no level; write \"error\", \"warn\", \"info\", \"debug\" or \"trace\" \
                 (VIDENTE_LOG takes a level for each part)"
            )
        })
    }
}

/// Forms of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub enum Format {
    /// The journal's fields if standard error leads there, else text.
    #[default]
    Auto,
    /// For people, with colours on a terminal.
    Text,
    /// An object a line.
    Json,
    /// Straight to the journal, with fields.
    Journald,
}

impl TryFrom<String> for Format {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "auto" => Ok(Format::Auto),
            "text" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            "journald" => Ok(Format::Journald),
            _ => Err(format!(
                "\"{text}\" is no form of a log; write \"auto\", \"text\", \"json\" or \"journald\""
            )),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn every_word_is_known_and_others_are_refused_with_a_fix() {
        let log = |text: &str| Config::parse(&format!("[log]\n{text}\n")).map(|config| config.log);
        assert_eq!(log("").unwrap(), Log { level: Level::Info, format: Format::Auto });
        for level in Level::ALL {
            assert_eq!(log(&format!("level = \"{}\"", level.name())).unwrap().level, level);
        }
        for (text, format) in [("text", Format::Text), ("json", Format::Json), ("journald", Format::Journald)]
        {
            assert_eq!(log(&format!("format = \"{text}\"")).unwrap().format, format);
        }
        let error = log("level = \"loud\"").unwrap_err();
        assert!(error.starts_with("log.level: \"loud\" is no level; write \"error\""), "{error}");
        let error = log("format = \"xml\"").unwrap_err();
        assert!(error.starts_with("log.format: \"xml\" is no form of a log; write \"auto\""), "{error}");
    }
}
