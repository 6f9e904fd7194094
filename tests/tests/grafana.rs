//! The shipped Grafana dashboards: every query runs on a real Postgres and a real Prometheus that the
//! daemon has filled, and what they refer to is provisioned.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use vidente_tests::{Daemon, Database, Feed, Prometheus, Reading, Rig, Settings, Store, WAIT, wait_until};

const SERIES: &str = include_str!("../../deploy/grafana/dashboards/series.json");
const DAEMON: &str = include_str!("../../deploy/grafana/dashboards/daemon.json");
const DATASOURCES: &str = include_str!("../../deploy/grafana/provisioning/datasources/vidente.yml");
const PROVIDER: &str = include_str!("../../deploy/grafana/provisioning/dashboards/vidente.yml");
const ROLE: &str = include_str!("../../deploy/grafana/read-only.sql");
const SCRAPE: &str = include_str!("../../deploy/prometheus/prometheus.yml");

/// Position in series 0 of a reading far outside.
const WILD: usize = 150;
/// Steps ahead.
const HORIZON: usize = 3;

#[test]
fn dashboards_refer_to_what_is_provisioned() -> Result<()> {
    let provisioned = provisioned();
    assert_eq!(provisioned.len(), 2);
    let mut uids = BTreeSet::new();
    for text in [SERIES, DAEMON] {
        let dashboard: Value = serde_json::from_str(text)?;
        assert!(dashboard["schemaVersion"].as_u64() >= Some(39));
        assert!(uids.insert(string(&dashboard, "uid")?.to_owned()));
        let mut ids = BTreeSet::new();
        for panel in items(&dashboard["panels"])? {
            let title = string(panel, "title")?;
            assert!(ids.insert(panel["id"].as_u64().context("id")?), "{title}: its id is taken");
            assert!(!string(panel, "description")?.is_empty(), "{title}");
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}: no unit");
            assert!(!items(&panel["targets"])?.is_empty(), "{title}: no query");
        }
        let used = datasources(&dashboard)?;
        assert!(!used.is_empty() && used.is_subset(&provisioned), "{used:?}, provisioned {provisioned:?}");
        for link in items(&dashboard["links"])? {
            let other = string(link, "url")?.trim_start_matches("/d/");
            assert!([SERIES, DAEMON].iter().any(|d| d.contains(&format!("\"uid\": \"{other}\""))), "{other}");
        }
    }
    assert!(
        PROVIDER.contains("type: file") && PROVIDER.contains("path: /var/lib/grafana/dashboards/vidente")
    );
    // The data source logs in as the role that is shipped, and holds no password.
    assert!(DATASOURCES.contains("user: vidente_grafana\n") && ROLE.contains("create role vidente_grafana "));
    assert!(DATASOURCES.contains("password: $VIDENTE_GRAFANA_PASSWORD\n"));
    Ok(())
}

#[test]
fn every_query_of_the_dashboards_runs_and_shows_what_the_daemon_did() -> Result<()> {
    const COUNT: usize = 2;
    let rig = Rig::new(Store::Postgres)?;
    let climate = Settings::climate();
    let rest = climate.rest.replace("time = \"ts\"", &format!("time = \"ts\"\nhorizon = {HORIZON}"));
    let rest = rest.replace("every = \"off\"", "every = \"1h\"\nmin_readings = 200");
    let settings = Settings { rest: format!("{rest}\n[model]\nhidden = 4\n"), ..climate };
    let (config, http) = rig.configure(&settings)?;
    let mut daemon = Daemon::start(&config, http, &rig.dir().join("log"))?;
    let prometheus = Prometheus::start(&SCRAPE.replace(":9464", &format!(":{http}")).replace("15s", "1s"))?;
    Feed::run(&rig.broker, COUNT, 1, 0..WILD)?;
    let wild = format!("{{\"value\":500,\"ts\":{}}}", time(WILD));
    Feed::message(&rig.broker, &Feed::topic(0), wild.as_bytes(), false)?;
    Feed::run(&rig.broker, COUNT, 1, WILD + 1..300)?;
    daemon.wait_stored(COUNT * 299 + 1)?;
    daemon
        .wait_metrics("a training run", |m| m.sum("vidente_training_duration_seconds_count", &[]) >= 1.0)?;

    postgres(&rig, &settings)?;

    let dashboard: Value = serde_json::from_str(DAEMON)?;
    let served: BTreeSet<String> =
        daemon.metrics()?.0.keys().filter_map(|k| k.split('{').next()).map(str::to_owned).collect();
    let mut queries: Vec<(String, String)> = Vec::new();
    for (title, target) in targets(&dashboard)? {
        queries.push((title.to_owned(), promql(string(target, "expr")?)));
    }
    for variable in items(&dashboard["templating"]["list"])? {
        let query = string(&variable["query"], "query")?;
        let inner = query.strip_prefix("label_values(").and_then(|q| q.strip_suffix(')'));
        let (selector, label) = inner.and_then(|q| q.rsplit_once(", ")).with_context(|| query.to_owned())?;
        queries.push((query.to_owned(), promql(&format!("group by ({label}) ({selector})"))));
    }
    for (title, query) in &queries {
        assert!(!query.contains('$'), "{title}: {query}");
        for name in query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            assert!(!name.starts_with("vidente_") || served.contains(name), "{title}: no metric {name}");
        }
        // A rate needs two scrapes.
        wait_until(&format!("{title}: {query}"), WAIT, || Ok(!prometheus.query(query)?.is_empty()))?;
    }
    let ready = targets(&dashboard)?.first().map(|(_, t)| string(t, "expr")).context("no panel")??;
    assert!(prometheus.query(&promql(ready))?.iter().all(|(_, v)| *v == 1.0));
    daemon.stop()?;
    wait_until("the state to turn to down", WAIT, || {
        let rows = prometheus.query(&promql(ready))?;
        Ok(rows.len() == 1 && rows.iter().all(|(_, v)| *v == 0.0))
    })
}

/// The dashboard of series, read with the role that is shipped.
fn postgres(rig: &Rig, settings: &Settings) -> Result<()> {
    rig.database(settings)?.execute(ROLE)?;
    let url = rig.store_url(&settings.name).replace("//vidente@", "//vidente_grafana@");
    let grafana = Database::connect(&url)?;
    // It is the grants that hold: a session can undo the role's default.
    grafana.execute("set default_transaction_read_only = off")?;
    for forbidden in ["delete from readings", "select weights from models", "select * from series_state"] {
        let refused = grafana.execute(forbidden).err().map(|e| format!("{e:#}")).unwrap_or_default();
        assert!(refused.contains("permission denied"), "{forbidden}: {refused}");
    }
    grafana.execute("reset default_transaction_read_only")?;

    let dashboard: Value = serde_json::from_str(SERIES)?;
    let part = Range { from: time(100), to: time(199), interval: 15 };
    for (title, target) in targets(&dashboard)? {
        let query = sql(string(target, "rawSql")?, &part)?;
        assert!(grafana.row_count(&query)? > 0, "{title}: no rows\n{query}");
    }
    for (name, expected) in [("stream", "climate"), ("series", "climate/hall/dev0/value")] {
        let variables = items(&dashboard["templating"]["list"])?;
        let query = variables.iter().find(|v| v["name"] == name).context(name)?;
        let rows: Vec<(String,)> = grafana.rows(&sql(string(query, "query")?, &part)?)?;
        assert_eq!(rows.first().map(|r| r.0.as_str()), Some(expected), "{rows:?}");
    }

    let query = |title: &str, id: &str, range: &Range| -> Result<String> {
        let found = targets(&dashboard)?.into_iter().find(|(t, q)| *t == title && q["refId"] == id);
        sql(string(found.with_context(|| title.to_owned())?.1, "rawSql")?, range)
    };
    let main = "Readings and the forecast one step before";
    let residuals = "Residuals one step ahead";
    // Every reading of the range, the first included, has its forecast from the one before.
    for (title, id) in [(main, "A"), (main, "B"), (residuals, "A")] {
        assert_eq!(grafana.row_count(&query(title, id, &part)?)?, 100, "{title} {id}");
        let coarse = Range { interval: 600, ..part };
        assert_eq!(grafana.row_count(&query(title, id, &coarse)?)?, 10, "{title} {id}");
    }
    let paired = format!(
        "select count(*) from ({}) r join ({}) f using (time) \
         where r.time <> to_timestamp({}) and f.q05 <= f.q50 and f.q50 <= f.q95",
        query(main, "A", &part)?,
        query(main, "B", &part)?,
        time(WILD)
    );
    assert_eq!(grafana.int(&paired)?, 99);
    let flagged = format!("select min(time) = to_timestamp({}) and max(flagged) = 500", time(WILD));
    let flagged = format!(
        "select case when ({flagged} from ({}) f) then 1::bigint else 0 end",
        query(main, "C", &part)?
    );
    assert_eq!(grafana.int(&flagged)?, 1);
    let ahead = query("Ahead of the newest reading", "A", &part)?;
    let ahead: Vec<(f64,)> = grafana.rows(&format!("select ahead from ({ahead}) a order by 1"))?;
    let expected: Vec<(f64,)> = (0..=HORIZON as u64).map(|s| ((s * Reading::INTERVAL) as f64,)).collect();
    assert_eq!(ahead, expected);
    // Tables this small are scanned unless that is discouraged; then an index must serve each query.
    grafana.execute("set enable_seqscan = off")?;
    for (title, id) in [(main, "A"), (main, "B"), (residuals, "A"), ("Ahead of the newest reading", "A")] {
        let query = query(title, id, &part)?;
        let plan: Vec<(String,)> = grafana.rows(&format!("explain {query}"))?;
        assert!(!plan.iter().any(|l| l.0.contains("Seq Scan")), "{title} {id}: {plan:#?}");
    }
    Ok(())
}

fn time(position: usize) -> u64 {
    Reading { series: 0, position }.time()
}

/// The time range shown, in seconds, and the time a pixel stands for.
#[derive(Clone, Copy)]
struct Range {
    from: u64,
    to: u64,
    interval: u64,
}

/// What Grafana sends for a query on series 0: its variables and macros expanded as its Postgres data
/// source does. Times become untyped literals there.
fn sql(query: &str, range: &Range) -> Result<String> {
    let stamp = |s: u64| {
        let s = s - Reading::BEGIN;
        format!("'2026-01-{:02}T{:02}:{:02}:{:02}Z'", 1 + s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60)
    };
    let (from, to) = (stamp(range.from), stamp(range.to));
    let mut text = query
        .replace("${series:sqlstring}", "'climate/hall/dev0/value'")
        .replace("${stream:sqlstring}", "'climate'")
        .replace("$__searchFilter", "%")
        .replace("$__interval", &format!("{}s", range.interval));
    while let Some((before, rest)) = text.split_once("$__") {
        let (call, after) = rest.split_once(')').context("a macro's closing parenthesis")?;
        let (name, arguments) = call.split_once('(').context("a macro's opening parenthesis")?;
        let column = arguments.split(',').next().unwrap_or_default();
        let seconds = range.interval;
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

/// A query with its variables set to all.
fn promql(query: &str) -> String {
    query.replace("$instance", ".+").replace("$stream", ".+").replace("$__rate_interval", "1m")
}

/// Title of the panel and target, for every query.
fn targets(dashboard: &Value) -> Result<Vec<(&str, &Value)>> {
    let mut all = Vec::new();
    for panel in items(&dashboard["panels"])? {
        let title = string(panel, "title")?;
        all.extend(items(&panel["targets"])?.iter().map(|target| (title, target)));
    }
    ensure!(!all.is_empty(), "no queries");
    Ok(all)
}

/// Type and uid of every data source that a dashboard refers to, wherever it does.
fn datasources(value: &Value) -> Result<BTreeSet<(String, String)>> {
    let mut found = BTreeSet::new();
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                if key == "datasource" {
                    found.insert((string(member, "type")?.to_owned(), string(member, "uid")?.to_owned()));
                } else {
                    found.extend(datasources(member)?);
                }
            }
        }
        Value::Array(members) => {
            for member in members {
                found.extend(datasources(member)?);
            }
        }
        _ => {}
    }
    Ok(found)
}

/// Type and uid of every provisioned data source.
fn provisioned() -> BTreeSet<(String, String)> {
    let (_, list) = DATASOURCES.split_once("\ndatasources:\n").unwrap_or_default();
    let field = |item: &str, key: &str| {
        item.lines().find_map(|l| l.strip_prefix(&format!("    {key}: "))).unwrap_or_default().to_owned()
    };
    list.split("  - name:").skip(1).map(|item| (field(item, "type"), field(item, "uid"))).collect()
}

fn items(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().with_context(|| format!("no array: {value}"))
}

fn string<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("no {key} in {value}"))
}
