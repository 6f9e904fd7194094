//! HTTP: metrics, probes, the JSON API and the live page.

mod api;
mod assets;
mod board;
mod events;
mod gate;
mod guard;
mod probes;
mod serve;
mod shared;

use std::future::Future;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};

pub use gate::Gate;
pub use serve::serve;

use crate::config;
use crate::message::{Message, Query};
use crate::metrics::Metrics;
use crate::ready::Ready;
use crate::trainer::Demands;
use board::Board;
use shared::Shared;

/// How long the engine may take to answer before it counts as stalled.
const ENGINE_LIMIT: Duration = Duration::from_secs(3);
/// Histories that are read from the store at a time, fewer than the store has connections.
const PAGES: usize = 3;
/// Histories that may be waited for; who asks for more is told so.
const WAITING_PAGES: usize = 16;

/// Where a series' history comes from: the store.
pub trait Pages: Send + Sync + 'static {
    /// What `/api/v1/series/{key}` answers.
    type Page: Serialize + Send;

    /// The newest `history` readings of a series with their forecasts and anomalies; none if
    /// there is no such series.
    fn page(
        &self,
        key: &str,
        history: usize,
    ) -> impl Future<Output = anyhow::Result<Option<Self::Page>>> + Send;
}

/// What the HTTP side needs of the rest.
#[derive(Debug)]
pub struct Admin<P> {
    /// Shown at `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Shown at `/ready`.
    pub ready: Arc<Ready>,
    /// Asked about the present. Weak, since a connection that a client holds open must not keep the
    /// engine from ending.
    pub engine: mpsc::WeakSender<Message>,
    /// Asked about the past.
    pub pages: P,
    /// Told to train.
    pub demands: Arc<Demands>,
    /// Who may ask.
    pub gate: Gate,
}

/// What the handlers share.
#[derive(Debug)]
struct Desk<P> {
    admin: Admin<P>,
    /// Where the store's connections live; the handlers run elsewhere.
    home: Handle,
    series: Shared<Bytes>,
    streams: Shared<Bytes>,
    board: Shared<Arc<Board>>,
    event_places: Arc<Semaphore>,
    pages: Semaphore,
    waiting_pages: Semaphore,
}

impl<P: Pages> Admin<P> {
    /// All routes. Must be called from the runtime that the store belongs to.
    pub fn router(mut self) -> Router {
        let gate = Arc::new(std::mem::take(&mut self.gate));
        // What changes something is for those who hold the token, and for nobody where there is none.
        let train = if gate.token.is_some() { post(api::train) } else { post(api::no_token) };
        let data = Router::new()
            .route("/metrics", get(probes::metrics))
            .route("/api/v1/series", get(api::all_series))
            .route("/api/v1/series/{*key}", get(api::one_series))
            .route("/api/v1/streams", get(api::streams))
            .route("/api/v1/overview", get(api::overview))
            .route("/api/v1/events", get(events::events))
            .route("/api/v1/train", train)
            .fallback(api::not_found)
            .method_not_allowed_fallback(api::wrong_method)
            .layer(middleware::from_fn_with_state(gate.clone(), gate::authorise));
        // A browser cannot send a token before it has a page to type it into. The page holds no data.
        let page = Router::new()
            .route("/", get(assets::index))
            .route("/assets/{name}", get(assets::asset))
            .method_not_allowed_fallback(api::wrong_method)
            .merge(data)
            .layer(middleware::from_fn_with_state(gate, gate::check_name));
        let desk = Desk {
            admin: self,
            home: Handle::current(),
            series: Shared::default(),
            streams: Shared::default(),
            board: Shared::default(),
            event_places: Arc::new(Semaphore::new(events::CLIENTS)),
            pages: Semaphore::new(PAGES),
            waiting_pages: Semaphore::new(WAITING_PAGES),
        };
        Router::new()
            .route("/live", get(probes::live))
            .route("/ready", get(probes::ready))
            .method_not_allowed_fallback(api::wrong_method)
            .merge(page)
            .layer(middleware::from_fn(guard::limit_size))
            .layer(middleware::from_fn(guard::limit_time))
            .layer(middleware::map_response(guard::harden))
            .with_state(Arc::new(desk))
    }

    /// Asks the engine; none if it does not answer in time.
    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Query) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.engine.upgrade()?.send(Message::Query(question(answer))).await.ok()?;
            answered.await.ok()
        };
        tokio::time::timeout(ENGINE_LIMIT, asked).await.ok().flatten()
    }
}

impl<P: Pages> Desk<P> {
    /// All series, as JSON.
    async fn series(&self) -> Option<Bytes> {
        self.series.get(async { json(&self.admin.ask(Query::Series).await?) }).await
    }

    /// All streams, as JSON.
    async fn streams(&self) -> Option<Bytes> {
        self.streams.get(async { json(&self.admin.ask(Query::Streams).await?) }).await
    }

    /// All series, not older than that.
    async fn board(&self, age: Duration) -> Option<Arc<Board>> {
        self.board.recent(age, Board::ask(&self.admin)).await
    }
}

fn json(answer: &impl Serialize) -> Option<Bytes> {
    serde_json::to_vec(answer).ok().map(Bytes::from)
}

/// What `[http]` says of TLS.
///
/// # Errors
/// If the certificate cannot be used.
pub fn tls(http: &config::Http) -> anyhow::Result<Option<Arc<rustls::ServerConfig>>> {
    match (&http.cert_file, &http.key_file) {
        (Some(cert), Some(key)) => Ok(Some(Arc::new(crate::tls::server(cert, key)?))),
        _ => Ok(None),
    }
}

/// Opens the port.
///
/// # Errors
/// With the key and the fix.
pub async fn bind(listen: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(listen).await.map_err(|error| {
        let fix = bind_fix(error.kind());
        anyhow::anyhow!("http.listen: {listen} cannot be listened on: {error}; {fix}")
    })
}

/// What to do if the port cannot be opened.
pub(crate) fn bind_fix(error: ErrorKind) -> &'static str {
    match error {
        ErrorKind::AddrInUse => {
            "choose another port in http.listen (of the demo: --listen), or end the program that has it"
        }
        _ => "name an address of this machine in http.listen, with a port that this user may take",
    }
}

/// An error as the API answers it.
fn error(status: axum::http::StatusCode, message: &str) -> Response {
    (status, axum::Json(serde_json::json!({ "error": message }))).into_response()
}

#[cfg(test)]
mod tests;
