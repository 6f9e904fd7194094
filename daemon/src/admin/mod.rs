//! HTTP: metrics, probes, the JSON API and the live page.

mod api;
mod assets;
mod guard;
mod probes;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

use crate::message::{Message, Query};
use crate::metrics::Metrics;
use crate::ready::Ready;

/// How long the engine may take to answer before it counts as stalled.
const ENGINE_LIMIT: Duration = Duration::from_secs(3);
/// How long requests in progress may go on once told to stop.
const STOP_LIMIT: Duration = Duration::from_secs(2);

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
    /// Bearer token asked on everything but `/live` and `/ready`.
    pub token: Option<String>,
}

impl<P: Pages> Admin<P> {
    /// All routes.
    pub fn router(mut self) -> Router {
        let token = self.token.take().map(Arc::<str>::from);
        let guarded = Router::new()
            .route("/metrics", get(probes::metrics))
            .route("/api/v1/series", get(api::all_series))
            .route("/api/v1/series/{*key}", get(api::one_series))
            .route("/api/v1/streams", get(api::streams))
            .route("/", get(assets::index))
            .route("/assets/{name}", get(assets::asset))
            .fallback(api::not_found)
            .layer(middleware::from_fn_with_state(token, guard::authorise));
        Router::new()
            .route("/live", get(probes::live))
            .route("/ready", get(probes::ready))
            .merge(guarded)
            .layer(middleware::from_fn(guard::limit_time))
            .layer(middleware::map_response(guard::harden))
            .with_state(Arc::new(self))
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

/// Answers requests until told to stop, then lets those in progress end within a limit.
///
/// # Errors
/// If the listener fails for good.
pub async fn serve(
    listener: tokio::net::TcpListener,
    router: Router,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let mut late = stop.clone();
    let serving = axum::serve(listener, router).with_graceful_shutdown(async move {
        // A sender that is gone also means to stop.
        let _ = stop.wait_for(|stop| *stop).await;
    });
    tokio::select! {
        ended = serving.into_future() => ended,
        () = async {
            let _ = late.wait_for(|stop| *stop).await;
            tokio::time::sleep(STOP_LIMIT).await;
        } => {
            tracing::warn!("HTTP requests still in progress were cut off");
            Ok(())
        }
    }
}

/// An error as the API answers it.
fn error(status: axum::http::StatusCode, message: &str) -> Response {
    (status, axum::Json(serde_json::json!({ "error": message }))).into_response()
}

#[cfg(test)]
mod tests;
