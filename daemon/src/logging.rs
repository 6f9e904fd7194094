//! The log: to people, to machines, or to the journal; its level may change while the daemon runs.

use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Layered, SubscriberExt};
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::config::{Format, Level, Log};

/// What overrides the level: one, or one for each part, as `warn,vidente::mqtt=debug`.
const VARIABLE: &str = "VIDENTE_LOG";

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Logs as `[log]` says.
pub fn start(log: &Log) {
    start_with(&filter_of(log.level), log.format);
}

/// Logs what a filter lets through to standard error, for commands that end by themselves.
pub fn start_tool(filter: &str) {
    start_with(filter, Format::Text);
}

fn start_with(filter: &str, format: Format) {
    let given = given();
    let filter = given.as_deref().and_then(filter_from).unwrap_or_else(|| EnvFilter::new(filter));
    let (filter, handle) = reload::Layer::new(filter);
    let (lines, trouble) = lines(format);
    // Both fail only if something logs already, as in tests.
    let _ = FILTER.set(handle);
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    if let Some(trouble) = trouble {
        tracing::warn!("[log] format: {trouble}; logging text instead");
    }
    if let Some(given) = given.filter(|given| filter_from(given).is_none()) {
        tracing::warn!(
            "{VARIABLE}: \"{given}\" is no level; write error, warn, info, debug or trace, or one for each part, as \
             warn,vidente::mqtt=debug; log.level counts instead"
        );
    }
}

/// Changes the level. False if `VIDENTE_LOG` has the say.
pub(crate) fn set_level(level: Level) -> bool {
    if given().as_deref().and_then(filter_from).is_some() {
        return false;
    }
    // Gone only with the log itself.
    FILTER.get().is_some_and(|filter| filter.reload(EnvFilter::new(filter_of(level))).is_ok())
}

fn given() -> Option<String> {
    std::env::var(VARIABLE).ok().filter(|given| !given.is_empty())
}

fn filter_from(given: &str) -> Option<EnvFilter> {
    // A word that is no level would be taken for a part, and everything else would be silent.
    let is_misspelt = |part: &str| {
        part.is_empty() || !part.contains(['=', ':', '[']) && part.parse::<LevelFilter>().is_err()
    };
    if given.split(',').map(str::trim).any(is_misspelt) {
        return None;
    }
    // Unless the library is named there, as below.
    EnvFilter::try_new(format!("sqlx={},{given}", Level::Warn.name())).ok()
}

/// Of the database library warnings are enough: at other levels it tells of every statement and notice.
fn filter_of(level: Level) -> String {
    format!("{},sqlx={}", level.name(), level.min(Level::Warn).name())
}

/// What writes lines, on top of the filter.
type Lines = Box<dyn Layer<Layered<reload::Layer<EnvFilter, Registry>, Registry>> + Send + Sync>;

/// What writes lines of a form, and why it is another one than was asked for.
fn lines(format: Format) -> (Lines, Option<String>) {
    let text = || tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        Format::Text => {}
        Format::Json => return (text().json().flatten_event(true).boxed(), None),
        Format::Auto
            if !leads_to_journal(std::env::var("JOURNAL_STREAM").ok().as_deref(), &std::io::stderr()) => {}
        Format::Auto | Format::Journald => match tracing_journald::layer() {
            Ok(journal) => return (journal.with_syslog_identifier("vidente".to_owned()).boxed(), None),
            Err(error) => {
                let trouble = format!("the journal cannot be reached ({error})");
                return (text().with_ansi(false).boxed(), Some(trouble));
            }
        },
    }
    (text().with_ansi(std::io::stderr().is_terminal()).boxed(), None)
}

/// Whether a stream is the one that systemd connected to the journal, by `JOURNAL_STREAM`: its device and
/// inode. The variable alone says nothing, since it is passed on when the stream is led elsewhere.
fn leads_to_journal(variable: Option<&str>, stream: &impl AsFd) -> bool {
    let connected = variable.and_then(|text| {
        let (device, inode) = text.split_once(':')?;
        Some((device.parse::<u64>().ok()?, inode.parse::<u64>().ok()?))
    });
    let own = || {
        let meta = File::from(stream.as_fd().try_clone_to_owned().ok()?).metadata().ok()?;
        Some((meta.dev(), meta.ino()))
    };
    connected.is_some() && connected == own()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_database_library_never_tells_of_every_statement() {
        assert_eq!(filter_of(Level::Error), "error,sqlx=error");
        assert_eq!(filter_of(Level::Info), "info,sqlx=warn");
        assert_eq!(filter_of(Level::Trace), "trace,sqlx=warn");
    }

    #[test]
    fn a_level_that_is_misspelt_silences_nothing() {
        for given in ["debug", "INFO", "warn,vidente::mqtt=debug", "vidente=trace", "off"] {
            assert!(filter_from(given).is_some(), "{given}");
        }
        for given in ["debgu", "warn,verbose", "vidente::mqtt=loud", ","] {
            assert!(filter_from(given).is_none(), "{given}");
        }
    }

    #[test]
    fn only_the_stream_that_systemd_connected_leads_to_the_journal() {
        let (stream, other) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let meta = stream.metadata().unwrap();
        let variable = format!("{}:{}", meta.dev(), meta.ino());
        assert!(leads_to_journal(Some(&variable), &stream));
        assert!(!leads_to_journal(Some(&variable), &other), "led elsewhere since");
        assert!(!leads_to_journal(None, &stream));
        for broken in ["", "7", ":", "a:b", "1:2:3"] {
            assert!(!leads_to_journal(Some(broken), &stream), "{broken}");
        }
    }
}
