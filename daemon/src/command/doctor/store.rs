//! The store: whether it is there, up to date, and lets the daemon write.

use super::Findings;
use crate::config::Config;
use crate::store::{Health, Store, StoreError};

const PART: &str = "store";

/// Clocks that differ by more, in seconds, are not kept by anybody.
const SKEW: f64 = 2.0;

pub(super) async fn look(config: &Config, findings: &mut Findings) {
    if let Some(file) =
        config.store.url.strip_prefix("sqlite://").map(|rest| rest.split('?').next().unwrap_or(rest))
        && !std::path::Path::new(file).exists()
    {
        return match std::path::Path::new(file).parent().map(super::machine::writable) {
            Some(Ok(())) => findings.ok(PART, format!("{file} will be made at the first start")),
            Some(Err(error)) => findings.fail(
                PART,
                format!("{file} cannot be made: {error}"),
                "name a file in store.url in a folder that this user may write to",
            ),
            None => findings.fail(PART, format!("{file} is no file"), "name one in store.url"),
        };
    }
    let health = match Store::open(&config.store).await {
        Ok(store) => store.health().await,
        Err(error) => Err(error),
    };
    let health = match health {
        Ok(health) => health,
        Err(error) => {
            let said = error.to_string();
            let (found, fix) = match (said.split_once("; [store] "), &error) {
                (Some((found, advice)), _) => (found, format!("in [store]: {advice}")),
                (None, StoreError::Unavailable(..)) => {
                    (&*said, "check store.url, login and rights, and that the server runs".to_owned())
                }
                (None, _) => (&*said, "change what is named".to_owned()),
            };
            return findings.fail(PART, found, fix);
        }
    };
    tell(config, &health, findings);
}

fn tell(config: &Config, health: &Health, findings: &mut Findings) {
    findings.ok(PART, format!("{} answers", health.version));
    if !health.current {
        findings.warn(
            PART,
            "the schema is not that of this version",
            "run vidente migrate as the owner of the tables, or let the daemon do it if its role may",
        );
        return;
    }
    if health.denied.is_empty() {
        let kept = health.kept.as_ref().map(|kept| format!(", their readings in {kept}")).unwrap_or_default();
        findings.ok(PART, format!("the schema is current, {} series are stored{kept}", health.series));
    } else {
        findings.fail(
            PART,
            format!("rights are missing: {}", health.denied.join(", ")),
            "run deploy/postgres/roles.sql as the owner of the tables",
        );
    }
    if health.series >= config.limits.max_series as u64 {
        findings.warn(
            PART,
            format!(
                "{} series are stored, limits.max_series is {}: new ones are refused",
                health.series, config.limits.max_series
            ),
            "raise limits.max_series",
        );
    }
    if let Some(ahead) = health.ahead.map(|micros| micros as f64 / 1e6) {
        if ahead.abs() > SKEW {
            findings.warn(
                "clock",
                format!("the store's clock is {ahead:+.1} s from this machine's"),
                "synchronise both, for instance by chrony or systemd-timesyncd",
            );
        } else {
            findings.ok("clock", format!("the store's clock is {ahead:+.3} s from this machine's"));
        }
    }
}
