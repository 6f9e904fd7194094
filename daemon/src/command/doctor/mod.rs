//! `vidente doctor`: looks at everything that a daemon stands on, and says what to change.

mod broker;
mod machine;
mod port;
mod store;

use anyhow::ensure;
use comfy_table::{Table, presets};
use serde::Serialize;

use super::say;
use crate::cli::DoctorArgs;
use crate::config::{Config, locate};

/// How something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        }
    }
}

/// Something that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    verdict: Verdict,
    part: &'static str,
    found: String,
    /// What to change.
    fix: Option<String>,
}

/// What was found so far.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, part: &'static str, found: impl Into<String>) {
        self.0.push(Finding { verdict: Verdict::Ok, part, found: found.into(), fix: None });
    }

    fn warn(&mut self, part: &'static str, found: impl Into<String>, fix: impl Into<String>) {
        self.add(Verdict::Warn, part, found, fix);
    }

    fn fail(&mut self, part: &'static str, found: impl Into<String>, fix: impl Into<String>) {
        self.add(Verdict::Fail, part, found, fix);
    }

    fn add(
        &mut self,
        verdict: Verdict,
        part: &'static str,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.0.push(Finding { verdict, part, found: found.into(), fix: Some(fix.into()) });
    }
}

pub(super) async fn run(args: DoctorArgs) -> anyhow::Result<()> {
    let file = locate(args.config.config)?;
    let mut findings = Findings::default();
    match Config::load(&file) {
        Err(error) => {
            findings.fail("configuration", error.to_string(), "correct the file; all else stands on it")
        }
        Ok(config) => {
            let streams = config.stream.len();
            findings.ok("configuration", format!("{}: {streams} stream(s)", file.display()));
            for (part, warnings) in [("configuration", config.doubts()), ("secrets", config.exposed())] {
                for warning in warnings {
                    let (found, fix) =
                        warning.rsplit_once("; ").unwrap_or((&warning, "see README, Security"));
                    findings.warn(part, found, fix);
                }
            }
            broker::look(&config, &mut findings).await;
            store::look(&config, &mut findings).await;
            let holder = machine::spool(&config, &mut findings);
            port::look(&file, &config, holder, &mut findings).await;
            machine::clock(&mut findings);
        }
    }
    let Findings(findings) = findings;
    if args.json {
        say(format_args!("{:#}", serde_json::to_value(&findings)?))?;
    } else {
        say(table(&findings))?;
    }
    let failed = findings.iter().filter(|f| f.verdict == Verdict::Fail).count();
    ensure!(failed == 0, "{failed} of {} would keep the daemon from its work", findings.len());
    Ok(())
}

fn table(findings: &[Finding]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for finding in findings {
        let fix = finding.fix.as_deref().map(|fix| format!("\n→ {fix}")).unwrap_or_default();
        table.add_row([finding.verdict.name(), finding.part, &format!("{}{fix}", finding.found)]);
    }
    table.to_string()
}
