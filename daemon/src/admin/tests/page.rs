//! The page and its parts.

use super::*;

/// A browser cannot send the token before it has a page that asks for it.
#[tokio::test]
async fn the_page_needs_no_token_and_holds_no_data() {
    let open = Server::start(None, engine()).await;
    let locked = Server::start(Some("s3cret"), engine()).await;
    for path in ["/", "/assets/page.js", "/assets/api.js", "/assets/page.css", "/assets/plotly.js"] {
        let page = locked.get(path, "").await;
        assert_eq!(page.status, 200, "{path}");
        assert_eq!(page.body, open.get(path, "").await.body, "{path} is the same for all");
    }
    let page = locked.get("/assets/api.js", "").await.body;
    assert!(page.contains("sessionStorage") && page.contains("headers.authorization = `Bearer ${token}`"));
    assert!(locked.get("/", "").await.body.contains("id=\"login\""));
}

#[tokio::test]
async fn the_page_and_its_parts_come_from_the_binary_and_are_cached_by_tag() {
    let server = Server::start(None, engine()).await;
    let index = server.get("/", "").await;
    assert_eq!(index.header("content-type"), Some("text/html; charset=utf-8"));
    // Everything that the page names is there, and it names nothing elsewhere.
    let named = |text: &str| -> Vec<String> {
        let name = |part: &str| part.strip_prefix("assets/").or(part.strip_prefix("./")).map(str::to_owned);
        text.split('"').filter_map(name).map(|name| format!("/assets/{name}")).collect()
    };
    let mut assets = named(&index.body);
    let mut at = 0;
    while let Some(asset) = assets.get(at).cloned() {
        // Scripts name others.
        if asset != "/assets/plotly.js" {
            let more = named(&server.get(&asset, "").await.body);
            assets.extend(more.into_iter().filter(|a| !assets.contains(a)).collect::<Vec<_>>());
        }
        at += 1;
    }
    for expected in ["/assets/page.css", "/assets/series.js", "/assets/icon.svg", "/assets/plotly.js"] {
        assert!(assets.iter().any(|a| a == expected), "{expected} in {assets:?}");
    }
    for path in assets {
        let first = server.get(&path, "").await;
        assert_eq!(first.status, 200, "{path}");
        assert_eq!(first.header("x-content-type-options"), Some("nosniff"));
        assert!(first.header("content-security-policy").unwrap().contains("script-src 'self';"));
        let tag = first.header("etag").unwrap();
        let again = server.get(&path, &format!("if-none-match: \"other\", W/{tag}\r\n")).await;
        assert_eq!((again.status, again.body.as_str(), again.header("etag")), (304, "", Some(tag)));
        assert_eq!(server.get(&path, "if-none-match: \"other\"\r\n").await.status, 200);
    }
    assert_eq!(server.get("/assets/nothing.js", "").await.status, 404);
}

#[tokio::test]
async fn plotly_is_a_script_alone() {
    let server = Server::start(None, engine()).await;
    let script = server.get("/assets/plotly.js", "").await;
    assert_eq!(script.header("content-type"), Some("text/javascript; charset=utf-8"));
    assert!(script.body.starts_with("/**\n* plotly.js v"));
    assert!(script.body.trim_end().ends_with("}));"));
    assert!(!script.body.contains("<script") && !script.body.contains("</script"));
    assert!(!script.body.contains("MathJax.loader"), "MathJax is not needed");
}
