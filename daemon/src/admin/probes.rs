//! For machines that watch: `/metrics`, `/live`, `/ready`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::{Admin, Pages, error};
use crate::message::Query;

pub(super) async fn metrics<P: Pages>(State(admin): State<Arc<Admin<P>>>) -> Response {
    match admin.metrics.encode() {
        Ok(text) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(e) => error(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()),
    }
}

/// Alive means that the engine thread answers: a process that only serves HTTP is dead. While the
/// store is awaited and the series are restored there is no engine yet, and nothing to restart.
pub(super) async fn live<P: Pages>(State(admin): State<Arc<Admin<P>>>) -> Response {
    if !admin.ready.restored() {
        return Json(json!({ "live": true, "restored": false })).into_response();
    }
    match admin.ask(Query::Streams).await {
        Some(_) => Json(json!({ "live": true })).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "live": false, "missing": ["engine"] })))
            .into_response(),
    }
}

pub(super) async fn ready<P: Pages>(State(admin): State<Arc<Admin<P>>>) -> Response {
    let missing = admin.ready.missing();
    let status = if missing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "ready": missing.is_empty(),
        "missing": missing,
        "store_up": admin.metrics.store_up.get() == 1,
        "mqtt_connected": admin.metrics.mqtt_connected.get() == 1,
    });
    (status, Json(body)).into_response()
}
