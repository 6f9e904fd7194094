//! Tests of training runs, and of a database that an earlier version made.

use super::*;

on_both!(training_runs_are_noted, runs_that_nobody_runs_are_interrupted);

const RUNNING: &str = "select count(*) from training_runs where status = 'running'";

async fn start(store: &Store, owner: &str, started_at: i64) -> i64 {
    let run = NewRun { stream: "climate", started_at, trigger: Trigger::Drift, owner, seed: u64::MAX };
    store.start_training_run(&run).await.unwrap()
}

fn outcome(status: &'static str, model: Option<i64>) -> RunOutcome<'static> {
    let (error, metrics) = (Some("a \0 in it".into()), json!({"curve": [1, 2]}));
    RunOutcome { finished_at: T0 + 9, status, error, metrics, model }
}

async fn training_runs_are_noted(t: Scratch) {
    let model = models(&t.store, "climate", 1).await[0];
    assert_eq!(t.store.training_run_of(model).await.unwrap(), None);
    let run = start(&t.store, "a", T0).await;
    assert_eq!(count(&t.store, RUNNING).await, 1);
    let window = RunWindow { start: T0 - MINUTE, end: T0 - 1, readings: 500 };
    t.store.window_of_run(run, T0 + 1, window).await.unwrap();
    t.store.progress_of_run(run, T0 + 2, 0.25, &json!({"curve": [1]})).await.unwrap();
    let half = "select count(*) from training_runs where progress = 0.25 and updated_at > started_at";
    assert_eq!(count(&t.store, half).await, 1);
    t.store.finish_training_run(run, &outcome("succeeded", Some(model))).await.unwrap();
    // What comes too late changes nothing.
    t.store.progress_of_run(run, T0 + 10, 0.5, &json!({})).await.unwrap();
    // Its model is a candidate still.
    assert_eq!(t.store.last_training_run("climate").await.unwrap(), None);
    let promotion = Promotion { model, expected: None, cause: Cause::Training, at: T0, probation: false };
    assert!(t.store.promote(promotion).await.unwrap());
    assert_eq!(t.store.last_training_run("climate").await.unwrap(), Some(T0));
    assert_eq!(t.store.last_training_run("power").await.unwrap(), None);
    let row = t.store.training_run_of(model).await.unwrap().unwrap();
    assert_eq!(
        row,
        RunRow {
            id: run,
            started_at: T0,
            finished_at: Some(T0 + 9),
            status: "succeeded".into(),
            error: Some("a \u{fffd} in it".into()),
            trigger: Some("drift".into()),
            seed: Some(u64::MAX),
            window: Some(window),
            progress: Some(1.0),
            metrics: Some(json!({"curve": [1, 2]})),
        }
    );
}

async fn runs_that_nobody_runs_are_interrupted(t: Scratch) {
    let ended = start(&t.store, "mine", T0).await;
    t.store.finish_training_run(ended, &outcome("failed", None)).await.unwrap();
    start(&t.store, "mine", T0 + 100).await;
    let alive = start(&t.store, "other", T0).await;
    start(&t.store, "other", T0).await;
    t.store.progress_of_run(alive, T0 + 50, 0.5, &json!({})).await.unwrap();
    assert_eq!(t.store.interrupt_runs("mine", T0 + 200, T0 + 50).await.unwrap(), 2);
    assert_eq!(t.store.interrupt_runs("mine", T0 + 200, i64::MIN).await.unwrap(), 0);
    assert_eq!(count(&t.store, RUNNING).await, 1, "the other's that is alive");
    let interrupted = "select count(*) from training_runs where status = 'interrupted' \
         and error = 'the process ended during the run' and finished_at > started_at";
    assert_eq!(count(&t.store, interrupted).await, 2);
    assert_eq!(count(&t.store, "select count(*) from training_runs where status = 'failed'").await, 1);
}

/// What a database of schema 2 holds: four models, the third champion, a run that was killed.
const OLD_ROWS: &str = "
    insert into models (name, stream, version, cell, created_at, status, metrics, weights) values
        ('climate-1', 'climate', 1, 'lstm', TIME, 'retired', '{}', WEIGHTS),
        ('climate-2', 'climate', 2, 'lstm', TIME, 'candidate', '{}', WEIGHTS),
        ('power-1', 'power', 1, 'lstm', TIME, 'champion', '{}', WEIGHTS),
        ('climate-3', 'climate', 3, 'lstm', TIME, 'champion', '{}', WEIGHTS);
    insert into training_runs (stream, started_at, status) values ('climate', TIME, 'running');";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_of_schema_2_is_upgraded() {
    let t = empty_postgres().await;
    let Inner::Postgres(pg) = &t.store.inner else { unreachable!() };
    postgres::MIGRATIONS.run_to(2, pg.pool()).await.unwrap();
    let rows = OLD_ROWS.replace("TIME", "'2026-11-01T00:00:00Z'").replace("WEIGHTS", "'\\x01'");
    sqlx::raw_sql(sqlx::AssertSqlSafe(rows)).execute(pg.pool()).await.unwrap();
    upgraded(t).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_sqlite_of_schema_2_is_upgraded() {
    let t = empty_sqlite().await;
    let Inner::Sqlite(lite) = &t.store.inner else { unreachable!() };
    sqlite::MIGRATIONS.run_to(2, lite.writer()).await.unwrap();
    let rows = OLD_ROWS.replace("TIME", "1793491200000000").replace("WEIGHTS", "x'01'");
    sqlx::raw_sql(sqlx::AssertSqlSafe(rows)).execute(lite.writer()).await.unwrap();
    upgraded(t).await;
}

async fn upgraded(t: Scratch) {
    t.store.migrate().await.unwrap();
    let listed = t.store.models().await.unwrap();
    assert_eq!(listed.len(), 4);
    for model in &listed {
        assert_eq!((model.origin.as_str(), model.created_at), ("trained", 1_793_491_200_000_000));
        assert_eq!((model.window_start, model.has_weights), (None, true));
    }
    assert_eq!(count(&t.store, "select count(*) from promotions").await, 3, "not of the candidate");
    assert_eq!(t.store.probation("climate").await.unwrap(), None);
    assert_eq!(t.store.interrupt_runs("anybody", T0, T0).await.unwrap(), 1);
    let done = t.store.rollback("climate", T0, "worse", None).await.unwrap().unwrap();
    assert_eq!(done.retired.name, "climate-3");
    assert_eq!(done.champion.map(|c| c.name).as_deref(), Some("climate-1"));
    let done = t.store.rollback("climate", T0, "worse", None).await.unwrap().unwrap();
    assert_eq!(done.champion, None);
    let done = t.store.rollback("power", T0, "worse", None).await.unwrap().unwrap();
    assert_eq!(done.champion, None);
}
