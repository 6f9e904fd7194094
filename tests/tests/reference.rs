//! Holds the reference pages in `deploy/reference/` to what the daemon makes, serves and publishes, and runs the
//! sample subscriber beside it.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};
use boon::{Compiler, SchemaIndex, Schemas};
use rustix::process::Signal;
use serde_json::{Value, json};
use vidente_tests::{Collected, Feed, Process, Rig, Settings, Store, Subscriber, WAIT, ask, wait_until};

const TABLES: &str = include_str!("../../deploy/reference/tables.md");
const METRICS: &str = include_str!("../../deploy/reference/metrics.md");
const MESSAGES: &str = include_str!("../../deploy/reference/messages.md");

/// What stands in backticks in the first cell of each row.
fn rows(page: &str) -> BTreeSet<&str> {
    page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect()
}

/// The schemas that are shipped.
struct Schema {
    all: Schemas,
    forecast: SchemaIndex,
    anomaly: SchemaIndex,
    problem: SchemaIndex,
    answer: SchemaIndex,
}

/// Lets objects take no keys but those named, so that one that is published and not described is found. What is
/// shipped lets later versions add some.
fn close(schema: &mut Value) {
    if let Value::Object(object) = schema {
        if object.get("type").is_some_and(|kind| kind == "object") {
            object.entry("additionalProperties").or_insert(json!(false));
        }
        object.values_mut().for_each(close);
    } else if let Value::Array(all) = schema {
        all.iter_mut().for_each(close);
    }
}

impl Schema {
    fn shipped() -> Result<Schema> {
        let (mut all, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.enable_format_assertions();
        let mut compile = |name: &str| -> Result<SchemaIndex> {
            let file = format!("{}/../deploy/reference/schemas/{name}.json", env!("CARGO_MANIFEST_DIR"));
            let mut schema: Value = serde_json::from_str(&std::fs::read_to_string(file)?)?;
            close(&mut schema);
            let id = schema["$id"].as_str().context("a schema without $id")?.to_owned();
            compiler.add_resource(&id, schema).map_err(|e| anyhow!("{e}"))?;
            compiler.compile(&id, &mut all).map_err(|e| anyhow!("{name}: {e:#}"))
        };
        let (forecast, anomaly) = (compile("forecast.schema")?, compile("anomaly.schema")?);
        let (problem, answer) = (compile("problem.schema")?, compile("answer.schema")?);
        Ok(Schema { all, forecast, anomaly, problem, answer })
    }

    fn check(&self, schema: SchemaIndex, message: &Value) -> Result<()> {
        self.all.validate(message, schema).map_err(|e| anyhow!("{message}: {e:#}"))
    }

    fn check_heard(&self, message: &Collected) -> Result<()> {
        let schema = match message.topic.split('/').nth(1) {
            Some("anomaly") => self.anomaly,
            Some("problem") => self.problem,
            _ => self.forecast,
        };
        self.check(schema, &message.json()?)
    }
}

#[test]
fn each_table_and_column_has_a_row_and_each_row_a_column() -> Result<()> {
    let rig = Rig::new(Store::Postgres)?;
    let settings = Settings::climate();
    rig.command(&settings, &["migrate"])?;
    let of_postgres = "select table_name || '.' || column_name from information_schema.columns c \
        join pg_class on relname = table_name and not relispartition where table_schema = 'public'";
    let postgres: BTreeSet<String> =
        rig.database(&settings)?.rows::<(String,)>(of_postgres)?.into_iter().map(|(name,)| name).collect();

    let rig = Rig::new(Store::Sqlite)?;
    rig.command(&settings, &["migrate"])?;
    let of_sqlite = "select m.name || '.' || c.name from sqlite_schema m, pragma_table_info(m.name) c \
                     where m.type in ('table', 'view') and m.name not like 'sqlite_%'";
    let sqlite: BTreeSet<String> =
        rig.database(&settings)?.rows::<(String,)>(of_sqlite)?.into_iter().map(|(name,)| name).collect();

    let documented: BTreeSet<String> = rows(TABLES).into_iter().map(str::to_owned).collect();
    for made in [postgres, sqlite] {
        // The one table that is sqlx's own.
        let made: BTreeSet<String> =
            made.into_iter().filter(|c| !c.starts_with("_sqlx_migrations.")).collect();
        assert_eq!(documented, made);
    }
    Ok(())
}

#[test]
fn what_is_served_and_published_is_what_is_described() -> Result<()> {
    let rig = Rig::new(Store::Sqlite)?;
    let settings = Settings {
        rest: "[[stream]]\nname = \"s\"\ntopic = \"in/{device}\"\nfields = [\"v\"]\ntime = \"ts\"\nhorizon = 3\n\
               [training]\nevery = \"off\"\n\
               [anomaly]\nsilence_after = 3\nwarm_up = 50\nalarms_per_week = 1000.0\n\
               [homeassistant]\ndiscovery = true\n"
            .to_owned(),
        ..Settings::climate()
    };
    let heard = Subscriber::new(&rig.broker, "vidente/#")?;
    let mut daemon = rig.daemon(&settings)?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/subscribe.sh");
    // It passes the signal on that ends it to all that the script has started.
    let mut shell = Command::new("timeout");
    shell.args(["300", "sh", script, "127.0.0.1", &rig.broker.port().to_string()]);
    let mut sample = Process::spawn("subscribe.sh", &shell, None, &rig.dir().join("subscribe.log"))?;
    // The script has no way to say that it is subscribed; what is retained is told it whenever it is.
    publish(&rig, 0, 7.0)?;
    wait_until("the sample subscriber", WAIT, || Ok(sample.log().contains("nothing is forecast yet")))?;

    // Steady, then far off, then steady again, then silent, then back.
    let value =
        |second: usize| if (80..84).contains(&second) { 900.0 } else { 7.0 + (second % 3) as f64 / 10.0 };
    (1..130).try_for_each(|second| publish(&rig, second, value(second)))?;
    let anomaly = |kind: &str, state: &str| -> Result<bool> {
        let messages: Result<Vec<Value>> = heard
            .messages()
            .iter()
            .filter(|m| m.topic.starts_with("vidente/anomaly/"))
            .map(Collected::json)
            .collect();
        Ok(messages?.iter().any(|m| m["kind"] == kind && m["state"] == state))
    };
    wait_until("the end of the anomaly", WAIT, || anomaly("value", "ended"))?;
    wait_until("the silence", WAIT, || anomaly("silence", "began"))?;
    publish(&rig, 200, 7.0)?;
    wait_until("the end of the silence", WAIT, || anomaly("silence", "ended"))?;
    daemon.wait_stored(131)?;

    let schema = Schema::shipped()?;
    let messages: Vec<Collected> = heard.messages();
    let json = messages.iter().filter(|m| m.topic != "vidente/status");
    assert!(
        json.clone().any(|m| m.json().is_ok_and(|m| m["steps"].as_array().is_some_and(|s| s.len() == 3)))
    );
    json.clone().try_for_each(|message| schema.check_heard(message))?;
    let problem = json.clone().filter(|m| m.topic.starts_with("vidente/problem/"));
    let kinds: Vec<bool> = problem.map(|m| m.json().map(|m| m["problem"] == true)).collect::<Result<_>>()?;
    ensure!(kinds.contains(&true) && kinds.contains(&false), "{kinds:?}");
    // The sample is for forecasts and anomalies.
    let json = json.filter(|m| !m.topic.starts_with("vidente/problem/"));
    wait_until("each message to be shown by the sample subscriber", WAIT, || {
        Ok(sample.log().lines().count() >= json.clone().count())
    })?;
    let said = sample.log();
    for message in json {
        let message = message.json()?;
        let next = &message["steps"][0];
        let (time, what) = match (&message["kind"], next) {
            (Value::String(kind), _) => {
                let state = message["state"].as_str().context("state")?;
                (&message["reading"]["time"], format!("{kind} {state}"))
            }
            (_, Value::Null) => (&message["origin"], "nothing is forecast yet".to_owned()),
            (_, next) => (&message["origin"], format!(" at {}", next["time"].as_str().context("time")?)),
        };
        let time = time.as_str().context("time")?;
        ensure!(
            said.lines().any(|l| l.starts_with(time) && l.contains(&what)),
            "{message} is not in\n{said}"
        );
    }

    sample.end(Signal::TERM)?;

    let key = json!({ "series": "s/a/v" });
    for (kind, body, has) in [
        ("forecast", &key, "steps"),
        ("history", &key, "readings"),
        ("series", &json!({}), "total"),
        ("feedback", &json!({ "series": "s/a/v", "anomaly": false }), "bar"),
        ("history", &json!({ "series": "none" }), "code"),
        ("unknown", &json!({}), "code"),
    ] {
        for protocol in ["5", "3.1.1"] {
            let answer = ask(&rig.broker, protocol, kind, body)?;
            ensure!(!answer[has].is_null(), "{answer}");
            schema.check(schema.answer, &answer)?;
        }
    }

    // What a run takes is shown once there was one, be it one that is skipped.
    daemon.ask_to_train()?;
    daemon.wait_metrics("the run", |m| m.sum("vidente_training_runs_total", &[]) == 1.0)?;
    let (_, page) = daemon.get("/metrics")?;
    let served: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let reasons: BTreeSet<&str> =
        page.lines().filter_map(|line| line.split_once("reason=\"")?.1.split('"').next()).collect();
    let documented = rows(METRICS);
    let described: BTreeSet<&str> = served.union(&reasons).copied().chain(["reason"]).collect();
    assert_eq!(documented, described);
    for (name, kind) in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')) {
        assert!(METRICS.contains(&format!("| `{name}` | {kind} |")), "{name} is a {kind}");
    }
    for kind in page.lines().filter_map(|line| line.strip_prefix("vidente_store_trouble{kind=\"")) {
        let kind = kind.split('"').next().unwrap_or_default();
        assert!(METRICS.contains(&format!("`{kind}`")), "trouble {kind}");
    }
    daemon.stop()
}

fn publish(rig: &Rig, second: usize, value: f64) -> Result<()> {
    let payload = format!("{{\"v\":{value},\"ts\":{}}}", 1_767_225_600 + second);
    Feed::message(&rig.broker, "in/a", payload.as_bytes(), false)
}

#[test]
fn the_examples_on_the_page_are_taken_by_the_schemas_and_what_is_wrong_is_not() -> Result<()> {
    let schema = Schema::shipped()?;
    let examples = MESSAGES.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next());
    let examples: Vec<Value> = examples.map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!(examples.len(), 7);
    schema.check(schema.forecast, &examples[0])?;
    schema.check(schema.anomaly, &examples[1])?;
    schema.check(schema.anomaly, &examples[2])?;
    schema.check(schema.problem, &examples[3])?;
    examples[4..].iter().try_for_each(|example| schema.check(schema.answer, example))?;

    let changed = |example: &Value, pointer: &str, value: Value| -> Result<Value> {
        let mut message = example.clone();
        *message.pointer_mut(pointer).context("no such place")? = value;
        Ok(message)
    };
    for (pointer, value) in [
        ("/origin", json!("2026-11-23 10:00:00")),
        ("/reading/score", json!(1.5)),
        ("/reading", json!({"value": 1.0, "score": 0.0})),
        ("/steps/0/q50", json!("21.4")),
        ("/steps/0", json!({})),
    ] {
        let wrong = changed(&examples[0], pointer, value)?;
        assert!(schema.check(schema.forecast, &wrong).is_err(), "{wrong}");
    }
    for (example, pointer, value) in [
        (1, "/ended_at", Value::Null),
        (1, "/kind", json!("silence")),
        (1, "/state", json!("began")),
        (2, "/ended_at", json!("2026-11-23T10:05:00Z")),
        (2, "/kind", json!("value")),
        (2, "/lasted", Value::Null),
    ] {
        let wrong = changed(&examples[example], pointer, value)?;
        assert!(schema.check(schema.anomaly, &wrong).is_err(), "{wrong}");
    }
    for (example, pointer, value) in [
        (3, "/problem", json!(false)),
        (3, "/silence_since", Value::Null),
        (4, "/series/0/last/score", json!(2)),
        (5, "/bar", json!({})),
        (6, "/code", json!("no_such_code")),
    ] {
        let which = if example == 3 { schema.problem } else { schema.answer };
        let wrong = changed(&examples[example], pointer, value)?;
        assert!(schema.check(which, &wrong).is_err(), "{wrong}");
    }
    Ok(())
}
