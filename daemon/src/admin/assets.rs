//! The live page and what it loads. Everything is in the binary: the page works without internet.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;

use axum::body::Bytes;
use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::error;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Plotly comes with its crate, as HTML that also holds `MathJax`, which the page does not need.
static PLOTLY: LazyLock<Bytes> = LazyLock::new(|| {
    let html = plotly::Plot::offline_js_sources();
    let script = html.split_once("<script type=\"text/javascript\">").map_or("", |(_, rest)| rest);
    let end = script.find("</script>").unwrap_or(script.len());
    Bytes::copy_from_slice(&script.as_bytes()[..end])
});

struct Asset {
    kind: &'static str,
    body: Bytes,
    tag: String,
}

impl Asset {
    fn new(kind: &'static str, body: Bytes) -> Self {
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        Asset { kind, body, tag: format!("\"{:016x}\"", hasher.finish()) }
    }

    /// The asset, or 304 if the browser has it. It asks each time, so a new binary shows at once.
    fn answer(&self, request: &HeaderMap) -> Response {
        let headers = [(CACHE_CONTROL, "no-cache"), (ETAG, self.tag.as_str()), (CONTENT_TYPE, self.kind)];
        let known = request.get(IF_NONE_MATCH).and_then(|v| v.to_str().ok());
        if known
            .is_some_and(|known| known.split(',').any(|tag| tag.trim().trim_start_matches("W/") == self.tag))
        {
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
        (headers, self.body.clone()).into_response()
    }
}

macro_rules! page {
    ($kind:expr, $file:literal) => {
        LazyLock::new(|| Asset::new($kind, Bytes::from_static(include_bytes!(concat!("page/", $file)))))
    };
}

static INDEX: LazyLock<Asset> = page!(HTML, "index.html");
static STYLE: LazyLock<Asset> = page!(CSS, "page.css");
static SERIES_STYLE: LazyLock<Asset> = page!(CSS, "series.css");
static THEME: LazyLock<Asset> = page!(JS, "theme.js");
static PAGE: LazyLock<Asset> = page!(JS, "page.js");
static OVERVIEW: LazyLock<Asset> = page!(JS, "overview.js");
static SERIES: LazyLock<Asset> = page!(JS, "series.js");
static CHART: LazyLock<Asset> = page!(JS, "chart.js");
static API: LazyLock<Asset> = page!(JS, "api.js");
static FORMAT: LazyLock<Asset> = page!(JS, "format.js");
static ICON: LazyLock<Asset> = page!(SVG, "icon.svg");
static PLOTLY_ASSET: LazyLock<Asset> = LazyLock::new(|| Asset::new(JS, PLOTLY.clone()));

pub(super) async fn index(request: HeaderMap) -> Response {
    INDEX.answer(&request)
}

pub(super) async fn asset(Path(name): Path<String>, request: HeaderMap) -> Response {
    let asset = match name.as_str() {
        "page.css" => &STYLE,
        "series.css" => &SERIES_STYLE,
        "theme.js" => &THEME,
        "page.js" => &PAGE,
        "overview.js" => &OVERVIEW,
        "series.js" => &SERIES,
        "chart.js" => &CHART,
        "api.js" => &API,
        "format.js" => &FORMAT,
        "icon.svg" => &ICON,
        "plotly.js" => &PLOTLY_ASSET,
        _ => return error(StatusCode::NOT_FOUND, "no such asset"),
    };
    asset.answer(&request)
}
