//! Connections: how many, for how long, with or without TLS.
//!
//! On a thread of their own: whoever floods it takes no time from the tasks that carry readings.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures_util::StreamExt;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;

/// Connections at a time; far below the 1,024 files that a process may usually have open.
const CONNECTIONS: usize = 128;
/// How long the head of a request may take, and a connection may lie idle.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// How long a connection may go on after its last request began, or after somebody last read of a lasting
/// answer: for those who do not read.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(120);
/// How long a TLS handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Bytes and fields of a request's head.
const HEAD: usize = 32 * 1024;
const FIELDS: usize = 64;
/// Bytes that have been read and not parsed, and of an answer those that wait to be written.
const BUFFER: usize = 64 * 1024;
/// Time between two looks for a connection that could go when there is no place for a new one.
const FULL: Duration = Duration::from_millis(20);
/// Wait after an error that is not a single client's, such as too many open files.
const TROUBLE: Duration = Duration::from_millis(500);
/// How long requests in progress may go on once told to stop.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// Marks an answer that goes on for as long as somebody reads it, until the end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lasting;

/// Answers requests until told to stop, then lets those in progress end within a limit.
///
/// # Errors
/// If the listener cannot be used.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    router: Router,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let (done, ended) = oneshot::channel();
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            listen(listener, tls.map(TlsAcceptor::from), router, stop).await;
            Ok(())
        })
    };
    // Whoever asked may be gone by then.
    std::thread::Builder::new().name("http".to_owned()).spawn(move || drop(done.send(work())))?;
    ended.await.unwrap_or_else(|_| Err(io::Error::other("the thread of HTTP panicked")))
}

async fn listen(
    listener: tokio::net::TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let service = TowerToHyperService::new(router);
    let places = Places::default();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // A sender that is gone also means to stop.
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                use io::ErrorKind as E;
                if !matches!(error.kind(), E::ConnectionAborted | E::ConnectionReset | E::Interrupted) {
                    tracing::warn!("HTTP takes no connection for a moment: {error}");
                    sleep(TROUBLE).await;
                }
                continue;
            }
        };
        let (place, guest) = tokio::select! {
            placed = places.take() => placed,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        while connections.try_join_next().is_some() {}
        let (tls, service, stop) = (tls.clone(), service.clone(), stop.clone());
        connections.spawn(async move {
            let _place = place;
            tokio::select! {
                () = guest.leave.notified() => {}
                () = connection(stream, tls, &guest, service, stop) => {}
            }
        });
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(STOP_LIMIT, all).await.is_err() {
        tracing::warn!("HTTP requests still in progress were cut off");
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    guest: &Arc<Guest>,
    service: TowerToHyperService<Router>,
    stop: watch::Receiver<bool>,
) {
    // Without it answers are only slower.
    let _ = stream.set_nodelay(true);
    match tls {
        None => converse(stream, guest, service, stop).await,
        Some(tls) => match timeout(HANDSHAKE_LIMIT, tls.accept(stream)).await {
            Ok(Ok(stream)) => converse(stream, guest, service, stop).await,
            Ok(Err(error)) => tracing::debug!("TLS with a client of HTTP failed: {error}"),
            Err(_) => tracing::debug!("TLS with a client of HTTP took too long"),
        },
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    guest: &Arc<Guest>,
    service: TowerToHyperService<Router>,
    mut stop: watch::Receiver<bool>,
) {
    let stopped = stop.clone();
    let service = service_fn(|request| {
        let answer = service.call(request);
        let (asking, stop) = (guest.asks(), stopped.clone());
        async move {
            let answer = answer.await?;
            if answer.extensions().get::<Lasting>().is_none() {
                return Ok(answer);
            }
            Ok::<_, Infallible>(answer.map(|body| lasting(body, asking, stop)))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_header_size(HEAD)
        .max_buf_size(BUFFER)
        .max_headers(FIELDS)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let mut stopping = false;
    loop {
        let limit = guest.since() + EXCHANGE_LIMIT;
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!("a connection of HTTP ended: {error}");
                }
                return;
            }
            () = sleep_until(limit) => {
                if guest.since() + EXCHANGE_LIMIT <= Instant::now() {
                    return;
                }
            }
            _ = stop.wait_for(|stop| *stop), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Lets a body go on: each part that is taken from it is a sign that somebody reads.
fn lasting(body: Body, asking: Asking, mut stop: watch::Receiver<bool>) -> Body {
    let parts = body.into_data_stream().inspect(move |_| asking.0.renew());
    let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
    Body::from_stream(parts.take_until(Box::pin(stopped)))
}

/// One connection, as the others see it.
#[derive(Debug)]
struct Guest {
    /// When its last request, or itself, began, or a part of a lasting answer was taken.
    since: Mutex<Instant>,
    /// Whether an answer is being made.
    asking: AtomicBool,
    /// Told when its place is needed.
    leave: Notify,
}

impl Guest {
    fn since(&self) -> Instant {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a request begins; it ends with what is returned.
    fn asks(self: &Arc<Self>) -> Asking {
        self.renew();
        self.asking.store(true, Ordering::Relaxed);
        Asking(self.clone())
    }

    fn renew(&self) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

struct Asking(Arc<Guest>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.asking.store(false, Ordering::Relaxed);
    }
}

/// Places for connections. When all are taken, the connection that has gone longest without a request
/// makes way, so that those who hold many open and say nothing keep nobody out.
#[derive(Debug)]
struct Places {
    free: Arc<Semaphore>,
    guests: Mutex<Vec<Arc<Guest>>>,
}

impl Default for Places {
    fn default() -> Self {
        Places { free: Arc::new(Semaphore::new(CONNECTIONS)), guests: Mutex::default() }
    }
}

impl Places {
    async fn take(&self) -> (OwnedSemaphorePermit, Arc<Guest>) {
        let place = loop {
            if let Ok(place) = self.free.clone().try_acquire_owned() {
                break place;
            }
            if let Some(idle) = self.longest_idle() {
                idle.leave.notify_one();
            }
            if let Ok(Ok(place)) = timeout(FULL, self.free.clone().acquire_owned()).await {
                break place;
            }
        };
        let guest = Arc::new(Guest {
            since: Mutex::new(Instant::now()),
            asking: AtomicBool::new(false),
            leave: Notify::new(),
        });
        let mut guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that are gone are known to nobody else.
        guests.retain(|guest| Arc::strong_count(guest) > 1);
        guests.push(guest.clone());
        (place, guest)
    }

    fn longest_idle(&self) -> Option<Arc<Guest>> {
        let guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = guests.iter().filter(|g| Arc::strong_count(g) > 1 && !g.asking.load(Ordering::Relaxed));
        idle.min_by_key(|guest| guest.since()).cloned()
    }
}

#[cfg(test)]
mod tests;
