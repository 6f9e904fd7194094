//! What stands before and after every handler: limits of size and time, security headers.

use std::time::Duration;

use axum::body::HttpBody;
use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use super::error;

/// How long a request may take in all.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// Longest path with its query; a series' key, percent-encoded, is far shorter.
const PATH_LIMIT: usize = 16 * 1024;
/// Largest body. Nothing here reads one.
const BODY_LIMIT: u64 = 64 * 1024;

/// Own files only. Plotly sets style attributes and lets one save the chart as an image.
const CONTENT_SECURITY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Refuses what is larger than anything that makes sense here.
pub(super) async fn limit_size(request: Request, next: Next) -> Response {
    if request.uri().path_and_query().is_some_and(|path| path.as_str().len() > PATH_LIMIT) {
        return error(StatusCode::URI_TOO_LONG, "the path is too long");
    }
    match request.body().size_hint().exact() {
        Some(size) if size <= BODY_LIMIT => next.run(request).await,
        Some(_) => error(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large; nothing here takes one"),
        None => error(StatusCode::LENGTH_REQUIRED, "send the body's length; nothing here takes a body"),
    }
}

/// Gives up on a request that takes too long.
pub(super) async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => error(StatusCode::GATEWAY_TIMEOUT, "the answer took too long"),
    }
}

/// Adds the headers that keep browsers from doing more than they should.
pub(super) async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value| headers.insert(name, HeaderValue::from_static(value));
    set(CONTENT_SECURITY_POLICY, CONTENT_SECURITY);
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(REFERRER_POLICY, "no-referrer");
    set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
