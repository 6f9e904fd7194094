//! The JSON API.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query as Parameters, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::board::View;
use super::{Desk, Pages, error};
use crate::message::{Expert, Query};

/// Readings given of a series unless asked for more or fewer, and the most given.
const HISTORY: usize = 200;
const MAX_HISTORY: usize = 10_000;

/// How old an overview may be.
const OVERVIEW_AGE: Duration = Duration::from_secs(2);
const OVERVIEW_WRONG: &str = "the parameters are search (256 bytes and 8 words at most), sort (attention, key or error), \
     offset (a number) and limit (a number, 500 at most)";

/// What the store has of a series, and what it is forecast by at present.
#[derive(Serialize)]
struct WithExperts<P> {
    #[serde(flatten)]
    page: P,
    /// None if the engine did not answer.
    experts: Option<Vec<Expert>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Span {
    history: Option<usize>,
}

pub(super) async fn all_series<P: Pages>(State(desk): State<Arc<Desk<P>>>) -> Response {
    present(desk.series().await)
}

pub(super) async fn streams<P: Pages>(State(desk): State<Arc<Desk<P>>>) -> Response {
    present(desk.streams().await)
}

/// The overview, searched, sorted and cut.
pub(super) async fn overview<P: Pages>(
    State(desk): State<Arc<Desk<P>>>,
    view: Result<Parameters<View>, axum::extract::rejection::QueryRejection>,
) -> Response {
    match view {
        Ok(Parameters(view)) if view.fits() => match desk.board(OVERVIEW_AGE).await {
            Some(board) => Json(board.view(&view)).into_response(),
            None => present(None),
        },
        _ => error(StatusCode::BAD_REQUEST, OVERVIEW_WRONG),
    }
}

fn present(answer: Option<Bytes>) -> Response {
    match answer {
        Some(answer) => ([(CONTENT_TYPE, "application/json")], answer).into_response(),
        None => error(StatusCode::SERVICE_UNAVAILABLE, "the engine does not answer"),
    }
}

pub(super) async fn one_series<P: Pages>(
    State(desk): State<Arc<Desk<P>>>,
    uri: Uri,
    Path(key): Path<String>,
    span: Result<Parameters<Span>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let history = match span {
        Ok(Parameters(span)) => span.history.unwrap_or(HISTORY).min(MAX_HISTORY),
        Err(_) => return error(StatusCode::BAD_REQUEST, "history must be a number of readings"),
    };
    let Ok(_waiting) = desk.waiting_pages.try_acquire() else {
        return error(StatusCode::SERVICE_UNAVAILABLE, "too many histories are being read; ask again");
    };
    // It is never closed.
    let reading = desk.pages.acquire().await;
    // Keys hold percent signs of their own, so a raw key must not be decoded: what the path says
    // decoded is tried first, then what it says to the letter.
    let raw = uri.path().strip_prefix("/api/v1/series/").unwrap_or_default();
    for key in [key.as_str(), raw] {
        let (key_asked, asked) = (key.to_owned(), desk.clone());
        // The store's connections must not be those of the thread that serves HTTP, which ends first.
        let page = desk.home.clone().spawn(async move { asked.admin.pages.page(&key_asked, history).await });
        match page.await.map_err(anyhow::Error::from).flatten() {
            Ok(Some(page)) => {
                drop(reading);
                let key = key.to_owned();
                let experts = desk.admin.ask(|reply| Query::Experts { key, reply }).await.flatten();
                return Json(WithExperts { page, experts }).into_response();
            }
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

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    stream: Option<String>,
}

/// Asks for a training run, of one stream or of all.
pub(super) async fn train<P: Pages>(
    State(desk): State<Arc<Desk<P>>>,
    which: Result<Parameters<Which>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Ok(Parameters(which)) = which else {
        return error(StatusCode::BAD_REQUEST, "the only parameter is stream, the name of one");
    };
    let asked = desk.admin.demands.ask(which.stream.as_deref());
    if asked.is_empty() {
        return error(StatusCode::NOT_FOUND, "no such stream");
    }
    (StatusCode::ACCEPTED, Json(serde_json::json!({ "queued": asked }))).into_response()
}

pub(super) async fn no_token() -> Response {
    error(StatusCode::FORBIDDEN, "set [http] token_file to allow this")
}

pub(super) async fn not_found() -> Response {
    error(StatusCode::NOT_FOUND, "no such page")
}

/// The header `Allow` comes with it.
pub(super) async fn wrong_method(method: Method) -> Response {
    let said = format!("this path does not take {method}; the header Allow says what it takes");
    error(StatusCode::METHOD_NOT_ALLOWED, &said)
}
