//! Who may ask for what: the token, and the names by which a browser may ask.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use super::error;
use crate::config::Http;
use crate::secret::Secret;

/// What is asked of a request before it is answered.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    /// Bearer token asked for all data.
    pub token: Option<Secret>,
    /// Names besides `localhost` and addresses by which it may be asked; none means by any.
    ///
    /// A page elsewhere can let its own name point to this machine and so have a browser here read
    /// for it (DNS rebinding). Where nobody else can connect and no token is asked, that must fail.
    pub names: Option<Vec<String>>,
}

impl Gate {
    /// Reads the token.
    ///
    /// # Errors
    /// If it cannot be used.
    pub fn open(http: &Http) -> Result<Gate> {
        let token = match &http.token_file {
            Some(file) => Some(Secret::read(file).map_err(|e| anyhow!("http.token_file: {e}"))?),
            None => None,
        };
        let names = (token.is_none() && http.is_local()).then(|| http.allowed_hosts.clone());
        Ok(Gate { token, names })
    }

    fn knows(&self, host: &str) -> bool {
        let Some(names) = &self.names else { return true };
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => host,
        };
        let address = name.trim_start_matches('[').trim_end_matches(']');
        address.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || names.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// Lets a request pass if it asks for a name that is known here.
pub(super) async fn check_name(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    match host.filter(|host| !gate.knows(host)) {
        None => next.run(request).await,
        Some(host) => error(
            StatusCode::MISDIRECTED_REQUEST,
            &format!("not known here as {host}; add that name to [http] allowed_hosts, or set token_file"),
        ),
    }
}

/// Lets a request pass if no token is configured or it bears the token.
pub(super) async fn authorise(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    if gate.token.as_ref().is_none_or(|token| bears(&request, token.expose().as_bytes())) {
        return next.run(request).await;
    }
    let challenge = [(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"vidente\""))];
    (challenge, error(StatusCode::UNAUTHORIZED, "send the token as Authorization: Bearer <token>"))
        .into_response()
}

fn bears(request: &Request, token: &[u8]) -> bool {
    let given = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let Some((scheme, given)) = given.and_then(|value| value.split_at_checked("Bearer ".len())) else {
        return false;
    };
    scheme.eq_ignore_ascii_case(b"Bearer ") && same(given.trim_ascii(), token)
}

/// Takes as long for any `given`, so that neither the token's length nor its beginning can be measured.
fn same(given: &[u8], token: &[u8]) -> bool {
    let padded: Vec<u8> = given.iter().copied().chain(std::iter::repeat(0)).take(token.len()).collect();
    (padded.ct_eq(token) & given.len().ct_eq(&token.len())).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_same_or_it_is_not() {
        for (given, expected) in [
            ("s3cret", true),
            ("s3cre", false),
            ("s3crets", false),
            ("S3cret", false),
            ("", false),
            ("s3cret\0", false),
        ] {
            assert_eq!(same(given.as_bytes(), b"s3cret"), expected, "{given:?}");
        }
    }

    #[test]
    fn names_are_those_of_this_machine_and_those_allowed() {
        let gate = Gate { token: None, names: Some(vec!["hub.lan".to_owned()]) };
        for host in [
            "localhost",
            "LOCALHOST:9464",
            "127.0.0.1",
            "127.0.0.1:9464",
            "[::1]:9464",
            "[::1]",
            "Hub.lan:80",
        ] {
            assert!(gate.knows(host), "{host}");
        }
        for host in
            ["evil.example", "evil.example:9464", "localhost.evil.example", "127.0.0.1.evil.example", ""]
        {
            assert!(!gate.knows(host), "{host}");
        }
        assert!(Gate::default().knows("evil.example"));
    }
}
