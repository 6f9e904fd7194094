//! For machines that watch: `/metrics`, `/live`, `/ready`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::{Desk, Pages, error};
use crate::store::Trouble;

pub(super) async fn metrics<P: Pages>(State(desk): State<Arc<Desk<P>>>) -> Response {
    match desk.admin.metrics.encode() {
        Ok(text) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(e) => error(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()),
    }
}

/// Alive means that the engine thread answers: a process that only serves HTTP is dead. While the
/// store is awaited and the series are restored there is no engine yet, and nothing to restart. The number of
/// the process tells `vidente doctor` whose port this is.
pub(super) async fn live<P: Pages>(State(desk): State<Arc<Desk<P>>>) -> Response {
    let pid = std::process::id();
    if !desk.admin.ready.restored() {
        return Json(json!({ "live": true, "restored": false, "pid": pid })).into_response();
    }
    match desk.streams().await {
        Some(_) => Json(json!({ "live": true, "pid": pid })).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "live": false, "missing": ["engine"] })))
            .into_response(),
    }
}

pub(super) async fn ready<P: Pages>(State(desk): State<Arc<Desk<P>>>) -> Response {
    let missing = desk.admin.ready.missing();
    let status = if missing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "ready": missing.is_empty(),
        "missing": missing,
        "store_up": desk.admin.metrics.store_up.get() == 1,
        "store_trouble": desk.admin.metrics.trouble().map(Trouble::label),
        "spool": {
            "readings": desk.admin.metrics.spool_readings.get(),
            "bytes": desk.admin.metrics.spool_bytes.get(),
            "max_bytes": desk.admin.metrics.spool_max_bytes.get(),
            "writable": desk.admin.metrics.spool_writable.get() == 1,
        },
        "mqtt_connected": desk.admin.metrics.mqtt_connected.get() == 1,
    });
    (status, Json(body)).into_response()
}
