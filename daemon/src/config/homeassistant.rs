//! `[homeassistant]`.

use std::time::Duration;

use serde::Deserialize;

use super::duration_or_off;
use super::validate::Problems;
use crate::topic;

/// Less would be for series that are read more often than they are looked at for having expired.
const SHORTEST: Duration = Duration::from_secs(60);

/// `[homeassistant]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HomeAssistant {
    /// Whether series are announced.
    pub discovery: bool,
    /// What the topics begin with on which Home Assistant listens to announcements.
    pub prefix: String,
    /// How long no reading of a series may come before it is removed; none: for ever.
    #[serde(deserialize_with = "duration_or_off")]
    pub expire_after: Option<Duration>,
}

impl Default for HomeAssistant {
    fn default() -> Self {
        HomeAssistant { discovery: false, prefix: "homeassistant".to_owned(), expire_after: None }
    }
}

pub(super) fn check(config: &HomeAssistant, problems: &mut Problems) {
    let prefix = &config.prefix;
    problems.unless(
        !prefix.is_empty()
            && !prefix.starts_with(['/', '$'])
            && !prefix.ends_with('/')
            && !prefix.contains(['+', '#'])
            && !prefix.chars().any(topic::unfit)
            && prefix.len() <= 256
            && prefix.split('/').next() != Some("vidente"),
        "homeassistant.prefix",
        format!("\"{prefix}\" is no beginning of a topic for this; write for instance \"homeassistant\""),
    );
    problems.unless(
        config.expire_after.is_none_or(|after| after >= SHORTEST),
        "homeassistant.expire_after",
        "is less than a minute; write for instance \"30d\", or \"off\"",
    );
}
