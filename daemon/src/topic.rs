//! Topic patterns, series keys, and the topics Vidente itself publishes on.
//!
//! A series key is `<stream>/<captured levels>/<field>`. Keys are used as topics, so characters that
//! a topic may not hold (`+`, `#`, control and non-characters) are percent-encoded, and `%` with
//! them. A field is written as a dotted path whose members have `.` and `/` encoded too, so within
//! one stream two different captures or fields never share a key. Two things are one on purpose: an
//! array index and an object member of the same digits, and a bare JSON number and the member
//! `value`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;

use crate::config::Config;

/// Longest series key in bytes: Postgres indexes some 2.7 kB.
pub(crate) const MAX_KEY: usize = 1024;

/// Topic of the daemon's `online` and `offline`, retained.
pub const STATUS_TOPIC: &str = "vidente/status";

/// What anomaly topics begin with; the series key follows.
const ANOMALY_PREFIX: &str = "vidente/anomaly/";

/// What the topics of requests begin with; their kind follows.
pub(crate) const REQUEST_PREFIX: &str = "vidente/request/";

/// Where clients may have answers sent even if a stream would take everything in: never ingested.
pub(crate) const RESPONSE_PREFIX: &str = "vidente/response/";

/// What the topics of each series' present problem begin with, retained; the series key follows.
pub(crate) const PROBLEM_PREFIX: &str = "vidente/problem/";

/// What stands for the series key in `[forecast] topic`.
pub(crate) const SERIES_PLACEHOLDER: &str = "{series}";

/// A topic pattern: literal levels, `{name}` for one level, `{name...}` for the rest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern {
    levels: Vec<Level>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    Literal(String),
    One(String),
    Rest(String),
}

impl Level {
    fn name(&self) -> Option<&str> {
        match self {
            Level::Literal(_) => None,
            Level::One(name) | Level::Rest(name) => Some(name),
        }
    }
}

/// What the captures of a pattern stand for in one topic, in the pattern's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captures<'t>(Vec<&'t str>);

impl<'t> Captures<'t> {
    /// Parts of a topic as if they had been captured.
    #[must_use]
    pub fn of(parts: Vec<&'t str>) -> Captures<'t> {
        Captures(parts)
    }

    /// The values in the pattern's order; the last holds `/` if it captured several levels.
    #[must_use]
    pub fn values(&self) -> &[&'t str] {
        &self.0
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Pattern::parse(&text)
    }
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// The reason and the fix.
    pub fn parse(text: &str) -> Result<Pattern, String> {
        if text.is_empty() {
            return Err("is empty; write for instance \"sensors/{device}/climate\"".into());
        }
        if text.len() > usize::from(u16::MAX) {
            return Err("is longer than the 65535 bytes that MQTT allows; shorten it".into());
        }
        if text.starts_with("$share/") {
            return Err(format!(
                "\"{text}\" is a shared subscription, which would tear a series' readings apart; \
                 drop \"$share/<group>/\""
            ));
        }
        let parts: Vec<&str> = text.split('/').collect();
        let mut levels: Vec<Level> = Vec::with_capacity(parts.len());
        for (position, part) in parts.iter().enumerate() {
            let level = parse_level(part, text)?;
            if let Some(name) = level.name()
                && levels.iter().any(|l| l.name() == Some(name))
            {
                return Err(format!("\"{text}\" captures {{{name}}} twice; give each capture its own name"));
            }
            if matches!(level, Level::Rest(_)) && position + 1 < parts.len() {
                return Err(format!(
                    "\"{text}\" has {part} before the end, but it captures all that is left; \
                     move it to the end or capture one level with {}",
                    part.replace("...", "")
                ));
            }
            levels.push(level);
        }
        Ok(Pattern { levels })
    }

    /// The MQTT filter that delivers what the pattern matches (and at times a little more).
    #[must_use]
    pub fn filter(&self) -> String {
        let levels: Vec<&str> = self
            .levels
            .iter()
            .map(|level| match level {
                Level::Literal(text) => text.as_str(),
                Level::One(_) => "+",
                Level::Rest(_) => "#",
            })
            .collect();
        levels.join("/")
    }

    /// The captures, if the topic matches. As in MQTT, a first level that is captured matches no
    /// topic that starts with `$`; unlike `#`, `{x...}` stands for at least one level.
    #[must_use]
    pub fn matches<'t>(&self, topic: &'t str) -> Option<Captures<'t>> {
        let captured_first = self.levels.first().is_some_and(|l| l.name().is_some());
        if captured_first && topic.starts_with('$') {
            return None;
        }
        let mut captures = Vec::new();
        let mut rest = Some(topic);
        for level in &self.levels {
            let left = rest?;
            if let Level::Rest(_) = level {
                captures.push(left);
                return Some(Captures(captures));
            }
            let (this, next) = match left.split_once('/') {
                Some((this, next)) => (this, Some(next)),
                None => (left, None),
            };
            match level {
                Level::Literal(text) if text != this => return None,
                Level::Literal(_) => {}
                Level::One(_) | Level::Rest(_) => captures.push(this),
            }
            rest = next;
        }
        rest.is_none().then_some(Captures(captures))
    }

    /// Names of the captures, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.levels.iter().filter_map(Level::name)
    }

    /// The captures as labels.
    #[must_use]
    pub fn labels(&self, captures: &Captures) -> BTreeMap<String, String> {
        self.names().zip(&captures.0).map(|(name, value)| (name.to_owned(), (*value).to_owned())).collect()
    }
}

fn parse_level(part: &str, whole: &str) -> Result<Level, String> {
    if part == "+" {
        return Err(format!(
            "\"{whole}\" has a bare +, by which two devices could share a series; \
             name the level, for instance {{device}}"
        ));
    }
    if part == "#" {
        return Err(format!(
            "\"{whole}\" has a bare #, by which two devices could share a series; \
             name what it stands for, for instance {{device...}}"
        ));
    }
    if part.contains(['+', '#']) {
        return Err(format!(
            "\"{whole}\" has a wildcard inside the level \"{part}\", which no topic can hold; \
             capture the whole level, for instance {{device}}"
        ));
    }
    if part.chars().any(unfit) {
        return Err(format!("\"{whole}\" has a control character in it, which no topic can hold; remove it"));
    }
    if !part.contains(['{', '}']) {
        return Ok(Level::Literal(part.to_owned()));
    }
    let Some(inner) = part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) else {
        return Err(format!(
            "\"{whole}\" mixes a capture with text in the level \"{part}\"; a capture stands for a \
             whole level, for instance {{device}}"
        ));
    };
    let (name, rest) = match inner.strip_suffix("...") {
        Some(name) => (name, true),
        None => (inner, false),
    };
    if name.is_empty() {
        return Err(format!("\"{whole}\" has a capture without a name; write for instance {{device}}"));
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
        return Err(format!(
            "\"{whole}\" has the capture {part}; its name may hold letters, digits, _ and - only, \
             and a capture stands for a whole level"
        ));
    }
    Ok(if rest { Level::Rest(name.to_owned()) } else { Level::One(name.to_owned()) })
}

/// What the keys of all series of a topic begin with, `/` included; a field name completes the key.
#[must_use]
pub fn key_prefix(stream: &str, captures: &Captures) -> String {
    let mut key = String::with_capacity(stream.len() + 16 * captures.0.len() + 2);
    key.push_str(stream);
    key.push('/');
    for value in &captures.0 {
        push_encoded(&mut key, value, unfit_or_escape);
        key.push('/');
    }
    key
}

/// Appends a member of a JSON path to a field name, after a `.` unless it is the first.
pub(crate) fn push_member(name: &mut String, first: bool, member: &str) {
    if !first {
        name.push('.');
    }
    push_encoded(name, member, |c| unfit_or_escape(c) || c == '.' || c == '/');
}

/// Appends a name to a key as a part of its own: without `/`, and without the `=` that [`push_value`] follows.
pub(crate) fn push_part(key: &mut String, name: &str) {
    push_encoded(key, name, |c| unfit_or_escape(c) || matches!(c, '/' | '='));
}

/// Appends to a key what stands after a name's `=`.
pub(crate) fn push_value(key: &mut String, value: &str) {
    push_encoded(key, value, |c| unfit_or_escape(c) || c == '/');
}

/// The field name of a JSON path.
pub(crate) fn field_name(path: &[String]) -> String {
    let mut name = String::new();
    for (i, member) in path.iter().enumerate() {
        push_member(&mut name, i == 0, member);
    }
    name
}

/// Text with what a topic may not hold percent-encoded.
pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    push_encoded(&mut out, text, unfit_or_escape);
    out
}

/// Characters that brokers refuse in a topic to publish on.
pub(crate) fn unfit(c: char) -> bool {
    c.is_control() || matches!(c, '\u{FDD0}'..='\u{FDEF}') || (c as u32) & 0xFFFE == 0xFFFE
}

fn unfit_or_escape(c: char) -> bool {
    matches!(c, '+' | '#' | '%') || unfit(c)
}

fn push_encoded(out: &mut String, text: &str, encode: impl Fn(char) -> bool) {
    for c in text.chars() {
        if encode(c) {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a String does not fail.
                let _ = write!(out, "%{byte:02X}");
            }
        } else {
            out.push(c);
        }
    }
}

/// The topics Vidente publishes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outputs {
    forecast: (String, String),
    /// What discovery topics begin with, where there are any.
    discovery: Option<String>,
}

impl Outputs {
    /// Outputs with a `[forecast] topic`, which validation has found to hold `{series}` once.
    #[must_use]
    pub fn new(forecast_topic: &str) -> Outputs {
        let (before, after) = forecast_topic.split_once(SERIES_PLACEHOLDER).unwrap_or((forecast_topic, ""));
        Outputs { forecast: (before.to_owned(), after.to_owned()), discovery: None }
    }

    /// All outputs of a configuration.
    #[must_use]
    pub fn of(config: &Config) -> Outputs {
        let discovery = config.homeassistant.discovery.then(|| format!("{}/", config.homeassistant.prefix));
        Outputs { discovery, ..Outputs::new(&config.forecast.topic) }
    }

    /// Where the forecasts of a series go.
    #[must_use]
    pub fn forecast(&self, key: &str) -> String {
        [&self.forecast.0, key, &self.forecast.1].concat()
    }

    /// Where the anomalies of a series go.
    #[must_use]
    pub fn anomaly(&self, key: &str) -> String {
        [ANOMALY_PREFIX, key].concat()
    }

    /// Where it is kept what is the matter with a series.
    #[must_use]
    pub fn problem(&self, key: &str) -> String {
        [PROBLEM_PREFIX, key].concat()
    }

    /// Whether a topic is one of Vidente's own, which is never ingested: of what it publishes, of requests and of
    /// their answers.
    #[must_use]
    pub fn is_own(&self, topic: &str) -> bool {
        let (before, after) = &self.forecast;
        topic == STATUS_TOPIC
            || [ANOMALY_PREFIX, REQUEST_PREFIX, RESPONSE_PREFIX, PROBLEM_PREFIX]
                .iter()
                .any(|prefix| topic.starts_with(prefix))
            || self.discovery(topic).is_some_and(|rest| {
                // Other topics there may be of states, which Home Assistant publishes below the same prefix.
                rest == "status" || (rest.starts_with("device/") && rest.ends_with("/config"))
            })
            || topic
                .strip_prefix(before.as_str())
                .is_some_and(|t| t.strip_suffix(after.as_str()).is_some_and(|key| !key.is_empty()))
    }

    /// What follows the prefix of discovery in a topic, if it begins with that.
    fn discovery<'t>(&self, topic: &'t str) -> Option<&'t str> {
        topic.strip_prefix(self.discovery.as_deref()?)
    }

    /// Whether something may be published on a topic because somebody asks for it: not on our own topics, nor
    /// where Home Assistant takes it for an announcement.
    #[must_use]
    pub fn is_free(&self, topic: &str) -> bool {
        !self.is_own(topic) && self.discovery(topic).is_none()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
