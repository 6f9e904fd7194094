//! Grafana's dashboards as they are shipped, and their queries as Grafana would send them.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// A shipped dashboard.
#[derive(Debug)]
pub struct Dashboard(pub Value);

/// A query of a panel, or of an annotation.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// Title of the panel, or name of the annotation.
    pub title: &'a str,
    /// Which of the panel's.
    pub id: &'a str,
    /// SQL or PromQL, with variables and macros.
    pub text: &'a str,
    /// Whether it is SQL.
    pub sql: bool,
}

/// What a dashboard shows: one series over a time range.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Beginning of the range, in seconds since 1970.
    pub from: u64,
    /// Its end.
    pub to: u64,
    /// Time that a pixel stands for, in seconds.
    pub interval: u64,
    /// Key of the series.
    pub series: &'a str,
}

impl Dashboard {
    /// Series: readings, band and residuals.
    pub const SERIES: &'static str = include_str!("../../deploy/grafana/dashboards/series.json");
    /// Quality: error, coverage and models.
    pub const QUALITY: &'static str = include_str!("../../deploy/grafana/dashboards/quality.json");
    /// Daemon: throughput, latency and memory.
    pub const DAEMON: &'static str = include_str!("../../deploy/grafana/dashboards/daemon.json");

    /// Reads one.
    ///
    /// # Errors
    /// If it is no JSON.
    pub fn parse(text: &str) -> Result<Dashboard> {
        Ok(Dashboard(serde_json::from_str(text)?))
    }

    /// The elements of an array in it.
    ///
    /// # Errors
    /// If there is no array.
    pub fn items(&self, pointer: &str) -> Result<&Vec<Value>> {
        self.0.pointer(pointer).and_then(Value::as_array).with_context(|| format!("no {pointer}"))
    }

    /// Every query of panels and annotations.
    ///
    /// # Errors
    /// If one has no text.
    pub fn queries(&self) -> Result<Vec<Query<'_>>> {
        let mut all = Vec::new();
        for panel in self.items("/panels")? {
            let targets = panel["targets"].as_array().context("no targets")?;
            all.extend(targets.iter().map(|target| (&panel["title"], target)));
        }
        for annotation in self.items("/annotations/list")? {
            all.push((&annotation["name"], &annotation["target"]));
        }
        ensure!(!all.is_empty(), "no queries");
        all.into_iter()
            .map(|(title, target)| {
                let sql = target["rawSql"].as_str();
                let text = sql.or_else(|| target["expr"].as_str()).context("no text");
                let text = text.with_context(|| format!("{title}: {target}"))?;
                let (title, id) =
                    (title.as_str().context("no title")?, target["refId"].as_str().context("no id")?);
                Ok(Query { title, id, text, sql: sql.is_some() })
            })
            .collect()
    }

    /// The query of a variable that is SQL.
    ///
    /// # Errors
    /// If there is none.
    pub fn variable(&self, name: &str) -> Result<&str> {
        let found = self.items("/templating/list")?.iter().find(|v| v["name"] == name);
        found.and_then(|v| v["query"].as_str()).with_context(|| format!("no variable {name}"))
    }

    /// The SQL of a query.
    ///
    /// # Errors
    /// If there is none.
    pub fn sql(&self, title: &str, id: &str, view: &View<'_>) -> Result<String> {
        let found = self.queries()?.into_iter().find(|q| q.sql && q.title == title && q.id == id);
        view.sql(found.with_context(|| format!("no {title} {id}"))?.text)
    }
}

impl View<'_> {
    /// What Grafana sends for a query: its variables and macros expanded as its Postgres data source does.
    /// Times become untyped literals there.
    ///
    /// # Errors
    /// If it holds a variable or macro that is not there.
    pub fn sql(&self, query: &str) -> Result<String> {
        let stamp = |second: u64| -> Result<String> {
            Ok(format!("'{}'", jiff::Timestamp::from_second(i64::try_from(second)?)?))
        };
        let (from, to) = (stamp(self.from)?, stamp(self.to)?);
        let stream = self.series.split('/').next().unwrap_or_default();
        let mut text = query
            .replace("${series:sqlstring}", &format!("'{}'", self.series))
            .replace("${stream:sqlstring}", &format!("'{stream}'"))
            .replace("${label:sqlstring}", "'all'")
            .replace("$__searchFilter", "%")
            .replace("$__interval_ms", &format!("{}000", self.interval))
            .replace("$__interval", &format!("{}s", self.interval));
        while let Some((before, rest)) = text.split_once("$__") {
            let (call, after) = rest.split_once(')').context("a macro's closing parenthesis")?;
            let (name, arguments) = call.split_once('(').context("a macro's opening parenthesis")?;
            let column = arguments.split(',').next().unwrap_or_default();
            let seconds = self.interval;
            let expanded = match name {
                "timeFilter" => format!("{column} BETWEEN {from} AND {to}"),
                "timeFrom" => from.clone(),
                "timeTo" => to.clone(),
                "timeGroup" => format!("floor(extract(epoch from {column})/{seconds})*{seconds}"),
                _ => bail!("macro {name} in {query}"),
            };
            text = format!("{before}{expanded}{after}");
        }
        ensure!(!text.contains('$'), "{text}");
        Ok(text)
    }
}

/// A PromQL query with its variables set to all.
#[must_use]
pub fn promql(query: &str) -> String {
    query.replace("$instance", ".+").replace("$stream", ".+").replace("$__rate_interval", "1m")
}
