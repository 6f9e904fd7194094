//! The shipped Grafana dashboards: every query runs on a real Postgres and a real Prometheus that the
//! daemon has filled, and what they refer to is provisioned.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::Value;
use vidente_tests::{
    Daemon, Dashboard, Database, Feed, Prometheus, Reading, Rig, Settings, Store, View, WAIT, promql,
    wait_until,
};

const DASHBOARDS: [&str; 3] = [Dashboard::SERIES, Dashboard::QUALITY, Dashboard::DAEMON];
const DATASOURCES: &str = include_str!("../../deploy/grafana/provisioning/datasources/vidente.yml");
const PROVIDER: &str = include_str!("../../deploy/grafana/provisioning/dashboards/vidente.yml");
const ROLE: &str = include_str!("../../deploy/grafana/read-only.sql");

/// Position in series 0 of a reading far outside.
const WILD: usize = 150;
/// Steps ahead.
const HORIZON: usize = 3;
/// What is looked at.
const KEY: &str = "climate/hall/dev0/value";

#[test]
fn dashboards_refer_to_what_is_provisioned() -> Result<()> {
    let provisioned = provisioned();
    assert_eq!(provisioned.len(), 2);
    let mut uids = BTreeSet::new();
    for text in DASHBOARDS {
        let dashboard = Dashboard::parse(text)?;
        assert!(dashboard.0["schemaVersion"].as_u64() >= Some(39));
        assert!(uids.insert(dashboard.0["uid"].as_str().context("uid")?.to_owned()));
        let mut ids = BTreeSet::new();
        for panel in dashboard.items("/panels")? {
            let title = panel["title"].as_str().context("title")?;
            assert!(ids.insert(panel["id"].as_u64().context("id")?), "{title}: its id is taken");
            assert!(panel["description"].as_str().is_some_and(|d| !d.is_empty()), "{title}");
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}: no unit");
            assert!(panel["targets"].as_array().is_some_and(|t| !t.is_empty()), "{title}: no query");
        }
        let used = datasources(&dashboard.0)?;
        assert!(!used.is_empty() && used.is_subset(&provisioned), "{used:?}, provisioned {provisioned:?}");
    }
    for text in DASHBOARDS {
        for link in Dashboard::parse(text)?.items("/links")? {
            let other = link["url"].as_str().and_then(|url| url.strip_prefix("/d/")).context("url")?;
            assert!(uids.contains(other), "{other}");
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
    let rig = Rig::new(Store::Postgres)?;
    let (mut daemon, settings, prometheus) = fill(&rig)?;
    postgres(&rig, &settings)?;

    let served: BTreeSet<String> =
        daemon.metrics()?.0.keys().filter_map(|k| k.split('{').next()).map(str::to_owned).collect();
    let (quality, dashboard) = (Dashboard::parse(Dashboard::QUALITY)?, Dashboard::parse(Dashboard::DAEMON)?);
    let mut queries: Vec<(String, String)> = Vec::new();
    for query in [quality.queries()?, dashboard.queries()?].concat().iter().filter(|q| !q.sql) {
        queries.push((query.title.to_owned(), promql(query.text)));
    }
    for variable in dashboard.items("/templating/list")? {
        let query = variable["query"]["query"].as_str().context("query")?;
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
    let ready = promql(dashboard.queries()?.first().context("no panel")?.text);
    assert!(prometheus.query(&ready)?.iter().all(|(_, v)| *v == 1.0));
    daemon.stop()?;
    wait_until("the state to turn to down", WAIT, || {
        let rows = prometheus.query(&ready)?;
        Ok(rows.len() == 1 && rows.iter().all(|(_, v)| *v == 0.0))
    })
}

#[test]
fn the_queries_of_postgres_run_on_hypertables() -> Result<()> {
    let Some(rig) = Rig::timescaledb()? else { return Ok(()) };
    let (mut daemon, settings, _) = fill(&rig)?;
    postgres(&rig, &settings)?;
    daemon.stop()
}

/// A daemon that has seen readings and trained, its settings, and Prometheus, which watched it.
fn fill(rig: &Rig) -> Result<(Daemon, Settings, Prometheus)> {
    const COUNT: usize = 2;
    // The one run is to see all that is published: one that finds too little does not come again within the hour.
    const READINGS: usize = COUNT * 299 + 1;
    let climate = Settings::climate();
    let rest = climate.rest.replace("time = \"ts\"", &format!("time = \"ts\"\nhorizon = {HORIZON}"));
    let rest = rest.replace("every = \"off\"", &format!("every = \"1h\"\nmin_readings = {READINGS}"));
    let settings = Settings { rest: format!("{rest}\n[model]\nhidden = 4\n"), ..climate };
    let (config, http) = rig.configure(&settings)?;
    let mut daemon = Daemon::start(&config, http, &rig.dir().join("log"))?;
    let prometheus = Prometheus::shipped(http)?;
    Feed::run(&rig.broker, COUNT, 1, 0..WILD)?;
    let wild = format!("{{\"value\":500,\"ts\":{}}}", time(WILD));
    Feed::message(&rig.broker, &Feed::topic(0), wild.as_bytes(), false)?;
    Feed::run(&rig.broker, COUNT, 1, WILD + 1..300)?;
    daemon.wait_stored(READINGS)?;
    daemon
        .wait_metrics("a training run", |m| m.sum("vidente_training_duration_seconds_count", &[]) >= 1.0)?;
    let hour_ago = (jiff::Timestamp::now().as_second() - 3600) as f64;
    daemon.wait_metrics("when it was, and how often one comes", |m| {
        m.sum("vidente_training_last_success_timestamp_seconds", &["stream=\"climate\""]) > hour_ago
            && m.sum("vidente_training_interval_seconds", &[]) == 3600.0
    })?;

    Ok((daemon, settings, prometheus))
}

/// The dashboards of series and quality, read with the role that is shipped.
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

    let (series, quality) = (Dashboard::parse(Dashboard::SERIES)?, Dashboard::parse(Dashboard::QUALITY)?);
    let part = View { from: time(100), to: time(199), interval: 15, series: KEY };
    // Runs are of today.
    let until_now = View { from: time(0), to: time(1_000_000), interval: 86_400, series: KEY };
    for query in [series.queries()?, quality.queries()?].concat().iter().filter(|q| q.sql) {
        let view = if query.title == "Training runs" { &until_now } else { &part };
        let text = view.sql(query.text)?;
        let rows = grafana.row_count(&text)?;
        // Whether the first model became champion is not certain.
        assert!(rows > 0 || query.title == "Champions", "{}: no rows\n{text}", query.title);
    }
    for (name, expected) in [("stream", "climate"), ("label", "device=dev0"), ("series", KEY)] {
        let rows: Vec<(String,)> = grafana.rows(&part.sql(series.variable(name)?)?)?;
        assert_eq!(rows.first().map(|r| r.0.as_str()), Some(expected), "{rows:?}");
    }
    let narrowed = series.variable("series")?.replace("${label:sqlstring}", "'device=dev1'");
    assert_eq!(grafana.rows::<(String,)>(&part.sql(&narrowed)?)?, [("climate/hall/dev1/value".to_owned(),)]);

    let main = "Readings and the forecast one step before";
    let residuals = "Residuals one step ahead";
    // Every reading of the range, the first included, has its forecast from the one before.
    for (title, id) in [(main, "A"), (main, "B"), (residuals, "A")] {
        assert_eq!(grafana.row_count(&series.sql(title, id, &part)?)?, 100, "{title} {id}");
        let coarse = View { interval: 600, ..part };
        assert_eq!(grafana.row_count(&series.sql(title, id, &coarse)?)?, 10, "{title} {id}");
    }
    let paired = format!(
        "select count(*) from ({}) r join ({}) f using (time) \
         where r.time <> to_timestamp({}) and f.q05 <= f.q50 and f.q50 <= f.q95",
        series.sql(main, "A", &part)?,
        series.sql(main, "B", &part)?,
        time(WILD)
    );
    assert_eq!(grafana.int(&paired)?, 99);
    let flagged = format!("select min(time) = to_timestamp({}) and max(flagged) = 500", time(WILD));
    let flagged = format!(
        "select case when ({flagged} from ({}) f) then 1::bigint else 0 end",
        series.sql(main, "C", &part)?
    );
    assert_eq!(grafana.int(&flagged)?, 1);
    // From the reading that began an anomaly to the one before that which ended it.
    let within = "r.time = a.time or a.ended_at is null or r.time < a.ended_at";
    let within = format!(
        "select count(distinct r.time) from anomalies a join series s on s.id = a.series_id \
         join readings r on r.series_id = s.id and r.time >= a.time and ({within}) where s.key = '{KEY}' \
         and a.kind = 'value' and r.time between to_timestamp({}) and to_timestamp({})",
        part.from, part.to
    );
    let shown = grafana.row_count(&series.sql(main, "C", &part)?)?;
    assert_eq!(i64::try_from(shown)?, grafana.int(&within)?);
    let ahead = series.sql("Ahead of the newest reading", "A", &part)?;
    let ahead: Vec<(f64,)> = grafana.rows(&format!("select ahead from ({ahead}) a order by 1"))?;
    let expected: Vec<(f64,)> = (0..=HORIZON as u64).map(|s| ((s * Reading::INTERVAL) as f64,)).collect();
    assert_eq!(ahead, expected);

    // The panels go about it in a quicker way than the view, and come to the same; zoomed out, of the first five of
    // each pixel.
    for interval in [part.interval, 600] {
        let accuracy = series.sql("Accuracy in the time range", "A", &View { interval, ..part })?;
        let shown: Vec<(f64, f64)> = grafana.rows(&format!(
            "select \"mean absolute error\", \"inside the 90 % interval\"::float8 from ({accuracy}) a"
        ))?;
        let view: Vec<(f64, f64, i64)> = grafana.rows(&format!(
            "select avg(abs(error)), avg(inside::int)::float8, count(*) from (select *, row_number() over \
             (partition by greatest(floor((extract(epoch from origin) - {from}) / {interval}), 0) order by origin) \
             from forecast_errors where key = '{KEY}' and step = 1 \
             and time between to_timestamp({from}) and to_timestamp({})) e where row_number <= 5",
            part.to,
            from = part.from
        ))?;
        assert_eq!(view[0].2, if interval == 600 { 50 } else { 100 });
        assert!(
            (shown[0].0 - view[0].0).abs() < 1e-9 && (shown[0].1 - view[0].1).abs() < 1e-9,
            "{shown:?} {view:?}"
        );
    }
    judged(&grafana, &quality, &part)?;
    // Tables this small are scanned unless that is discouraged; then an index must serve each query.
    grafana.execute("set enable_seqscan = off")?;
    for query in [series.queries()?, quality.queries()?].concat().iter().filter(|q| q.sql) {
        let plan: Vec<(String,)> = grafana.rows(&format!("explain {}", part.sql(query.text)?))?;
        let scanned = |line: &str| {
            ["readings", "forecasts", "_hyper_"].iter().any(|t| line.contains(&format!("Seq Scan on {t}")))
        };
        assert!(!plan.iter().any(|l| scanned(&l.0)), "{} {}: {plan:#?}", query.title, query.id);
    }
    Ok(())
}

/// What *Quality* says of the models is what the tables say, reckoned in another way.
fn judged(grafana: &Database, quality: &Dashboard, view: &View<'_>) -> Result<()> {
    let table = quality.sql("By model", "A", view)?;
    let shown: Vec<(i64, f64, f64)> = grafana.rows(&format!(
        "select sum(forecasts)::bigint, (sum(forecasts * \"mean absolute error\") / sum(forecasts))::float8, \
         (sum(forecasts * \"inside 90 %\") / sum(forecasts))::float8 from ({table}) t"
    ))?;
    // The feed's readings come on time: each forecast of the range is followed by one at just its time.
    let direct: Vec<(i64, f64, f64)> = grafana.rows(&format!(
        "select count(*), avg(abs(r.value - f.q50)), avg((r.value between f.q05 and f.q95)::int)::float8 \
         from forecasts f join readings r on r.series_id = f.series_id and r.time = f.time \
         where f.step = 1 and f.origin between to_timestamp({}) and to_timestamp({})",
        view.from, view.to
    ))?;
    let ((shown_count, shown_error, shown_inside), (count, error, inside)) = (shown[0], direct[0]);
    assert!(count > 190 && shown_count == count, "{shown:?} {direct:?}");
    assert!(
        (shown_error - error).abs() < 1e-9 && (shown_inside - inside).abs() < 1e-9,
        "{shown:?} {direct:?}"
    );
    let bands = quality.sql("Error against naive, by model", "A", &View { interval: 86_400, ..*view })?;
    let relative: Vec<(f64,)> = grafana.rows(&format!("select value::float8 from ({bands}) b"))?;
    assert!(relative.iter().all(|(value,)| *value > 0.0 && *value < 10.0), "{relative:?}");
    Ok(())
}

fn time(position: usize) -> u64 {
    Reading { series: 0, position }.time()
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

fn string<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("no {key} in {value}"))
}
