//! The JSON API.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query as Parameters, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::{Admin, Pages, error};
use crate::message::Query;

/// Readings given of a series unless asked for more or fewer, and the most given.
const HISTORY: usize = 200;
const MAX_HISTORY: usize = 10_000;

#[derive(Debug, Deserialize)]
pub(super) struct Span {
    history: Option<usize>,
}

pub(super) async fn all_series<P: Pages>(State(admin): State<Arc<Admin<P>>>) -> Response {
    present(admin.ask(Query::Series).await)
}

pub(super) async fn streams<P: Pages>(State(admin): State<Arc<Admin<P>>>) -> Response {
    present(admin.ask(Query::Streams).await)
}

fn present<T: Serialize>(answer: Option<T>) -> Response {
    match answer {
        Some(answer) => ([(CACHE_CONTROL, "no-store")], Json(answer)).into_response(),
        None => error(StatusCode::SERVICE_UNAVAILABLE, "the engine does not answer"),
    }
}

pub(super) async fn one_series<P: Pages>(
    State(admin): State<Arc<Admin<P>>>,
    uri: Uri,
    Path(key): Path<String>,
    span: Result<Parameters<Span>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let history = match span {
        Ok(Parameters(span)) => span.history.unwrap_or(HISTORY).min(MAX_HISTORY),
        Err(_) => return error(StatusCode::BAD_REQUEST, "history must be a number of readings"),
    };
    // Keys hold percent signs of their own, so a raw key must not be decoded: what the path says
    // decoded is tried first, then what it says to the letter.
    let raw = uri.path().strip_prefix("/api/v1/series/").unwrap_or_default();
    for key in [key.as_str(), raw] {
        match admin.pages.page(key, history).await {
            Ok(Some(page)) => return present(Some(page)),
            Ok(None) => {}
            Err(e) => {
                tracing::warn!(error = format!("{e:#}"), "the store did not answer the API");
                return error(StatusCode::SERVICE_UNAVAILABLE, "the store does not answer");
            }
        }
        if key == raw {
            break;
        }
    }
    error(StatusCode::NOT_FOUND, "no such series")
}

pub(super) async fn not_found() -> Response {
    error(StatusCode::NOT_FOUND, "no such page")
}
