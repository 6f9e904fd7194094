//! Ports and HTTP.

use std::fs::File;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Ports handed out lie below Linux' ephemeral range, so that no outgoing connection takes one
/// between the check and its use.
const FIRST: u16 = 15_000;
const SPAN: u16 = 17_000;

/// A loopback port that nothing listens on, and that no process of tests has handed out that still runs.
///
/// # Errors
/// If every port of the range is taken.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Locked until this process ends.
    static TAKEN: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let locks = std::env::temp_dir().join("vidente-test-ports");
    std::fs::create_dir_all(&locks)?;
    // Test binaries that run at the same time begin at different places.
    let begin = (std::process::id().wrapping_mul(97) % u32::from(SPAN)) as u16;
    for _ in 0..SPAN {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (begin.wrapping_add(offset)) % SPAN;
        let lock = File::create(locks.join(port.to_string()))?;
        if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            TAKEN.lock().unwrap_or_else(PoisonError::into_inner).push(lock);
            return Ok(port);
        }
    }
    bail!("no free port from {FIRST} to {}", FIRST + SPAN)
}

/// GETs a URL: the status and the body.
///
/// # Errors
/// If no answer comes.
pub fn get(url: &str) -> Result<(u16, String)> {
    let mut answer = agent().get(url).call().with_context(|| format!("GET {url}"))?;
    let body = answer.body_mut().read_to_string().with_context(|| format!("GET {url}"))?;
    Ok((answer.status().as_u16(), body))
}

/// POSTs to a URL, with a bearer token if one is given: the status and the body.
///
/// # Errors
/// If no answer comes.
pub fn post(url: &str, token: Option<&str>) -> Result<(u16, String)> {
    let mut request = agent().post(url);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let mut answer = request.send_empty().with_context(|| format!("POST {url}"))?;
    let body = answer.body_mut().read_to_string().with_context(|| format!("POST {url}"))?;
    Ok((answer.status().as_u16(), body))
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(10)))
        .http_status_as_error(false)
        .build()
        .into()
}
