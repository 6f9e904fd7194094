//! Tests of models, promotions and rollbacks.

use super::*;

on_both!(
    models_are_kept_as_they_came,
    one_champion_a_stream,
    a_promotion_whose_condition_is_not_met_keeps_the_readings,
    two_promotions_at_once_give_one_champion,
    probations_run_one_at_a_time,
    rollbacks_go_back_one_by_one,
    a_rollback_can_lead_to_no_champion,
    a_rollback_is_conditional_and_never_done_twice,
    old_weights_are_dropped_but_those_that_may_be_needed,
);

async fn champion(store: &Store) -> Option<i64> {
    store.champion_id("climate").await.unwrap()
}

/// Status and reason of a model.
async fn standing(store: &Store, id: i64) -> (String, Option<String>) {
    let row = store.model(id).await.unwrap().unwrap();
    (row.status, row.reason)
}

fn is(status: &str, reason: Option<&str>) -> (String, Option<String>) {
    (status.to_owned(), reason.map(str::to_owned))
}

/// Cause, status and previous model of a model's promotions.
async fn promotions(store: &Store, model: i64) -> Vec<(String, String, Option<String>)> {
    let rows = store.promotions(model).await.unwrap();
    rows.into_iter().map(|p| (p.cause, p.status, p.previous)).collect()
}

fn was(cause: &str, status: &str, previous: Option<&str>) -> (String, String, Option<String>) {
    (cause.to_owned(), status.to_owned(), previous.map(str::to_owned))
}

async fn models_are_kept_as_they_came(t: Scratch) {
    let saved = t.store.save_model(&model("climate", 1)).await.unwrap();
    let imported = NewModel {
        origin: Origin::Imported,
        reason: Some("not yet \0 judged".into()),
        window_end: Some(T0),
        ..model("climate", 2)
    };
    let other = t.store.save_model(&imported).await.unwrap();
    assert_eq!((saved.name.as_str(), other.name.as_str()), ("climate-1", "climate-2"));
    assert_eq!(t.store.save_model(&imported).await.unwrap(), other, "safe to repeat");
    let row = t.store.model_by_name("climate-1").await.unwrap().unwrap();
    assert_eq!((row.id, row.status.as_str(), row.origin.as_str()), (saved.id, "candidate", "trained"));
    assert_eq!((row.window_start, row.window_end, row.reason), (Some(T0 - MINUTE), None, None));
    assert_eq!((row.created_at, row.metrics), (T0 + 1, json!({"mae": 0.5, "n": 1})));
    assert_eq!((row.has_weights, row.weights), (true, vec![1, 0, 255]));
    let row = t.store.model(other.id).await.unwrap().unwrap();
    assert_eq!((row.origin.as_str(), row.window_end), ("imported", Some(T0)));
    assert_eq!(row.reason.as_deref(), Some("not yet \u{fffd} judged"));
    let listed = t.store.models().await.unwrap();
    assert!(listed.iter().all(|m| m.has_weights && m.weights.is_empty()), "{listed:?}");
    assert!(t.store.model_by_name("climate-3\0").await.unwrap().is_none());
}

async fn one_champion_a_stream(t: Scratch) {
    let [first, second]: [i64; 2] = models(&t.store, "climate", 2).await.try_into().unwrap();
    let other = models(&t.store, "power", 1).await[0];
    assert_eq!(champion(&t.store).await, None);
    assert!(t.store.promote(promotion(first, None)).await.unwrap());
    assert!(t.store.promote(promotion(other, None)).await.unwrap());
    let batch = WriteBatch { models: vec![promote(second, None)], ..WriteBatch::default() };
    for _ in 0..2 {
        let done = t.store.write(&batch, &mut SeriesIds::default()).await.unwrap();
        assert_eq!(done.models, [Changed::Promoted], "safe to repeat");
    }
    let champion = t.store.champion("climate").await.unwrap().unwrap();
    assert_eq!((champion.id, champion.version, champion.weights), (second, 2, vec![2, 0, 255]));
    let listed = t.store.models().await.unwrap();
    let status: Vec<_> = listed.iter().map(|m| (m.name.as_str(), m.status.as_str())).collect();
    assert_eq!(status, [("climate-1", "retired"), ("climate-2", "champion"), ("power-1", "champion")]);
    assert_eq!(standing(&t.store, first).await, is("retired", Some("replaced by climate-2")));
    assert_eq!(
        promotions(&t.store, second).await,
        [was("training", "probation", Some("climate-1"))],
        "noted once"
    );
    assert!(t.store.promote(promotion(first, None)).await.unwrap());
    assert_eq!(standing(&t.store, first).await, is("champion", None));
    let error = t.store.promote(promotion(999, None)).await.unwrap_err();
    assert!(error.is_refused() && error.to_string().contains("999"), "{error}");
}

async fn a_promotion_whose_condition_is_not_met_keeps_the_readings(t: Scratch) {
    let mut ids = two_series(&t.store).await;
    let [first, second, third]: [i64; 3] = models(&t.store, "climate", 3).await.try_into().unwrap();
    assert!(!t.store.promote(promotion(first, Some(Some(second)))).await.unwrap(), "there is none");
    assert!(t.store.promote(promotion(first, Some(None))).await.unwrap());
    let mut batch = WriteBatch {
        readings: readings(&[(0, T0, 1.0)]),
        states: vec![StateRow { series: 0, time: T0, model: Some(third), state: vec![1] }],
        models: vec![promote(third, Some(Some(second))), promote(third, Some(None))],
        ..WriteBatch::default()
    };
    let done = t.store.write(&batch, &mut ids).await.unwrap();
    let left_out = Changed::LeftOut { champion: Some(ModelName { id: first, name: "climate-1".to_owned() }) };
    assert_eq!((done.stored, done.models), (1, vec![left_out.clone(), left_out]));
    assert_eq!((champion(&t.store).await, history(&t.store, "climate", 0).await.len()), (Some(first), 1));
    assert_eq!(t.store.states("climate").await.unwrap().len(), 1);
    assert_eq!(promotions(&t.store, third).await, []);
    // The same, judged against the champion that is.
    batch.models = vec![promote(third, Some(Some(first)))];
    assert_eq!(t.store.write(&batch, &mut ids).await.unwrap().models, [Changed::Promoted]);
    assert_eq!(champion(&t.store).await, Some(third));
    // And again, as after a commit whose answer was lost.
    assert_eq!(t.store.write(&batch, &mut ids).await.unwrap().models, [Changed::Promoted]);
}

async fn two_promotions_at_once_give_one_champion(t: Scratch) {
    let ids = models(&t.store, "climate", 9).await;
    assert!(t.store.promote(promotion(ids[0], None)).await.unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for &id in &ids[1..] {
        let (store, judged_against) = (Store::open(&t.config).await.unwrap(), ids[0]);
        tasks.spawn(async move { store.promote(promotion(id, Some(Some(judged_against)))).await.unwrap() });
    }
    let done = tasks.join_all().await;
    assert_eq!(done.iter().filter(|done| **done).count(), 1, "{done:?}");
    assert_eq!(count(&t.store, "select count(*) from models where status = 'champion'").await, 1);
    assert_eq!(count(&t.store, "select count(*) from promotions where status = 'probation'").await, 1);
    // Whatever the champion is: each in its turn.
    let mut tasks = tokio::task::JoinSet::new();
    for id in ids {
        let store = Store::open(&t.config).await.unwrap();
        tasks.spawn(async move { store.promote(promotion(id, None)).await.unwrap() });
    }
    assert!(tasks.join_all().await.iter().all(|done| *done));
    assert_eq!(count(&t.store, "select count(*) from models where status = 'champion'").await, 1);
    assert_eq!(count(&t.store, "select count(*) from promotions where status = 'probation'").await, 1);
}

async fn probations_run_one_at_a_time(t: Scratch) {
    let [first, second, third]: [i64; 3] = models(&t.store, "climate", 3).await.try_into().unwrap();
    assert_eq!(t.store.probation("climate").await.unwrap(), None);
    let sure = Promotion { probation: false, cause: Cause::Command, ..promotion(first, None) };
    assert!(t.store.promote(sure).await.unwrap());
    assert_eq!(t.store.probation("climate").await.unwrap(), None);
    assert_eq!(promotions(&t.store, first).await, [was("command", "confirmed", None)]);
    assert!(t.store.promote(promotion(second, None)).await.unwrap());
    let running = t.store.probation("climate").await.unwrap().unwrap();
    assert_eq!((running.model, running.previous, running.promoted_at), (second, Some(first), T0 + second));
    assert_eq!(running.metrics, None);
    t.store.update_probation(running.id, &json!({"readings": 7})).await.unwrap();
    let seen = t.store.probation("climate").await.unwrap().unwrap();
    assert_eq!(seen.metrics, Some(json!({"readings": 7})));
    assert!(t.store.promote(promotion(third, None)).await.unwrap());
    let rows = t.store.promotions(second).await.unwrap();
    assert_eq!((rows[0].status.as_str(), rows[0].ended_at), ("superseded", Some(T0 + third)));
    assert!(!t.store.confirm(running.id, T0 + 99, &json!({})).await.unwrap(), "it runs no more");
    t.store.update_probation(running.id, &json!({"readings": 8})).await.unwrap();
    assert_eq!(t.store.promotions(second).await.unwrap(), rows);
    let running = t.store.probation("climate").await.unwrap().unwrap();
    assert!(t.store.confirm(running.id, T0 + 100, &json!({"readings": 9})).await.unwrap());
    assert_eq!(t.store.probation("climate").await.unwrap(), None);
    let row = t.store.promotions(third).await.unwrap().remove(0);
    assert_eq!((row.status.as_str(), row.ended_at), ("confirmed", Some(T0 + 100)));
    assert_eq!(row.metrics, Some(json!({"readings": 9})));
}

async fn rollbacks_go_back_one_by_one(t: Scratch) {
    let [first, second, third, fourth]: [i64; 4] = models(&t.store, "climate", 4).await.try_into().unwrap();
    for id in [first, second, third] {
        t.store.promote(promotion(id, None)).await.unwrap();
    }
    let done = t.store.rollback("climate", T0 + 50, "worse", None).await.unwrap().unwrap();
    assert_eq!((done.retired.id, done.champion.map(|c| c.id)), (third, Some(second)));
    assert_eq!(standing(&t.store, third).await, is("retired", Some("worse")));
    assert_eq!(standing(&t.store, second).await, is("champion", None));
    let row = t.store.promotions(third).await.unwrap().remove(0);
    assert_eq!((row.status.as_str(), row.ended_at), ("rolled_back", Some(T0 + 50)));
    assert_eq!(
        promotions(&t.store, second).await,
        [was("training", "superseded", Some("climate-1")), was("rollback", "confirmed", Some("climate-1"))]
    );
    // Another comes and goes: behind the second there is still the first.
    t.store.promote(promotion(fourth, None)).await.unwrap();
    for (from, to) in [(fourth, Some(second)), (second, Some(first)), (first, None)] {
        let done = t.store.rollback("climate", T0 + 60, "worse", None).await.unwrap().unwrap();
        assert_eq!((done.retired.id, done.champion.map(|c| c.id)), (from, to));
        assert_eq!(champion(&t.store).await, to);
    }
    // What was rolled back may be promoted again.
    for id in [third, first] {
        t.store.promote(promotion(id, None)).await.unwrap();
    }
    for to in [Some(third), None] {
        t.store.rollback("climate", T0 + 70, "worse", None).await.unwrap();
        assert_eq!(champion(&t.store).await, to);
    }
    // The first twice, with the second between.
    for id in [first, second, first] {
        t.store.promote(promotion(id, None)).await.unwrap();
    }
    for to in [Some(second), Some(first), None] {
        t.store.rollback("climate", T0 + 80, "worse", None).await.unwrap();
        assert_eq!(champion(&t.store).await, to);
    }
}

async fn a_rollback_can_lead_to_no_champion(t: Scratch) {
    let first = models(&t.store, "climate", 1).await[0];
    t.store.promote(promotion(first, None)).await.unwrap();
    let done = t.store.rollback("climate", T0 + 50, "worse\0", None).await.unwrap().unwrap();
    assert_eq!(done.retired, ModelName { id: first, name: "climate-1".to_owned() });
    assert_eq!((done.champion, champion(&t.store).await), (None, None));
    assert_eq!(standing(&t.store, first).await, is("retired", Some("worse\u{fffd}")));
    assert_eq!(promotions(&t.store, first).await, [was("training", "rolled_back", None)]);
    assert_eq!(t.store.probation("climate").await.unwrap(), None);
    let error = t.store.rollback("climate", T0 + 51, "worse", None).await.unwrap_err();
    assert!(error.is_refused() && error.to_string().contains("no champion"), "{error}");
}

async fn a_rollback_is_conditional_and_never_done_twice(t: Scratch) {
    let mut ids = two_series(&t.store).await;
    let [first, second]: [i64; 2] = models(&t.store, "climate", 2).await.try_into().unwrap();
    for id in [first, second] {
        t.store.promote(promotion(id, None)).await.unwrap();
    }
    assert_eq!(t.store.rollback("climate", T0, "worse", Some(first)).await.unwrap(), None);
    assert_eq!(champion(&t.store).await, Some(second));
    let change = ModelChange::Rollback(crate::record::Rollback {
        stream: "climate".to_owned(),
        expected: second,
        reason: "worse".to_owned(),
        at: T0 + 50,
    });
    let batch =
        WriteBatch { readings: readings(&[(0, T0, 1.0)]), models: vec![change], ..WriteBatch::default() };
    let done = t.store.write(&batch, &mut ids).await.unwrap();
    assert!(matches!(done.models[..], [Changed::RolledBack(_)]), "{done:?}");
    // As after a commit whose answer was lost.
    let again = t.store.write(&batch, &mut ids).await.unwrap();
    assert!(matches!(again.models[..], [Changed::LeftOut { champion: Some(_) }]), "{again:?}");
    assert_eq!(champion(&t.store).await, Some(first));
}

async fn old_weights_are_dropped_but_those_that_may_be_needed(t: Scratch) {
    let ids = models(&t.store, "climate", 8).await;
    models(&t.store, "power", 3).await;
    for n in [0, 1, 3] {
        t.store.promote(promotion(ids[n], None)).await.unwrap();
    }
    assert_eq!(t.store.drop_old_weights("climate", 8).await.unwrap(), [] as [&str; 0]);
    // 8 and 7 are the newest, 4 is champion, and 2 was before it.
    let dropped = t.store.drop_old_weights("climate", 2).await.unwrap();
    assert_eq!(dropped, ["climate-1", "climate-3", "climate-5", "climate-6"]);
    assert_eq!(t.store.drop_old_weights("climate", 2).await.unwrap(), [] as [&str; 0]);
    let listed = t.store.models().await.unwrap();
    let kept: Vec<_> = listed.iter().filter(|m| m.has_weights).map(|m| m.name.as_str()).collect();
    assert_eq!(kept, ["climate-2", "climate-4", "climate-7", "climate-8", "power-1", "power-2", "power-3"]);
    let gone = t.store.model(ids[2]).await.unwrap().unwrap();
    assert!(gone.kept_weights().unwrap_err().to_string().contains("climate-3"));
    let error = t.store.promote(promotion(ids[2], None)).await.unwrap_err();
    assert!(error.is_refused() && error.to_string().contains("climate-3"), "{error}");
    assert_eq!(champion(&t.store).await, Some(ids[3]), "nothing of it was done");
    assert!(t.store.probation("climate").await.unwrap().is_some());
    // With none of the newest kept, the rollback is still possible, but not the one after it.
    t.store.drop_old_weights("climate", 0).await.unwrap();
    t.store.rollback("climate", T0 + 50, "worse", None).await.unwrap().unwrap();
    let error = t.store.rollback("climate", T0 + 51, "worse", None).await.unwrap_err();
    assert!(error.is_refused() && error.to_string().contains("climate-1"), "{error}");
    assert_eq!(standing(&t.store, ids[1]).await, is("champion", None));
}
