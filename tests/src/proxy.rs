//! A TCP proxy that stands between the daemon and a server and does what networks do.
//!
//! It runs on a thread of its own and is changed while connections go through it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::net::free_port;

/// Bytes read at a time.
const CHUNK: usize = 16 * 1024;
/// Chunks that may be under way in one direction: what a long line holds.
const UNDER_WAY: usize = 256;

/// What becomes of bytes and of new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Everything passes.
    Open,
    /// New connections are refused; those that stand go on.
    Refusing,
    /// New connections are taken and nothing is read from or written to any: what was sent waits, as with
    /// a peer that hangs, and goes on its way when the line opens again.
    Hole,
    /// Of what new connections send, only the first bytes arrive, for an MQTT client its CONNECT.
    Deaf,
    /// Everything comes later by this much.
    Late(Duration),
    /// So many bytes a second in each direction of a connection.
    Narrow(u32),
}

/// How connections are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Closed in order.
    Fin,
    /// Reset.
    Reset,
}

/// The proxy.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    // Dropped last, with all connections.
    _runtime: Runtime,
}

#[derive(Debug)]
struct Shared {
    upstream: AtomicU16,
    /// Connections taken so far.
    taken: AtomicUsize,
    line: watch::Sender<Line>,
    /// Counts the cuts, with how the last one was made.
    cut: watch::Sender<(u64, Cut)>,
    /// Connections up to this number are frozen, whatever the line is.
    frozen: watch::Sender<usize>,
    /// If given, all of this holds only for connections whose first bytes contain this text.
    only: Option<&'static str>,
}

impl Proxy {
    /// A proxy to a port of this machine.
    ///
    /// # Errors
    /// If no port is free.
    pub fn start(upstream: u16) -> Result<Proxy> {
        Proxy::with(upstream, None)
    }

    /// A proxy that lets pass untouched what does not begin with a packet that contains a text, such as an
    /// MQTT client id.
    ///
    /// # Errors
    /// If no port is free.
    pub fn only(upstream: u16, text: &'static str) -> Result<Proxy> {
        Proxy::with(upstream, Some(text))
    }

    fn with(upstream: u16, only: Option<&'static str>) -> Result<Proxy> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let port = free_port()?;
        let shared = Arc::new(Shared {
            upstream: AtomicU16::new(upstream),
            taken: AtomicUsize::new(0),
            line: watch::Sender::new(Line::Open),
            cut: watch::Sender::new((0, Cut::Fin)),
            frozen: watch::Sender::new(0),
            only,
        });
        let listener = runtime.block_on(listen(port))?;
        runtime.spawn(serve(port, listener, shared.clone()));
        Ok(Proxy { port, shared, _runtime: runtime })
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connections taken so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.taken.load(Ordering::Relaxed)
    }

    /// Changes the line, for the connections that stand, too.
    pub fn set(&self, line: Line) {
        self.shared.line.send_replace(line);
    }

    /// Cuts all connections that stand.
    pub fn cut(&self, how: Cut) {
        self.shared.cut.send_modify(|cut| *cut = (cut.0 + 1, how));
    }

    /// Freezes the connections that stand, for good: nothing passes any more, and nobody is told.
    pub fn freeze(&self) {
        self.shared.frozen.send_replace(self.connections());
    }

    /// Sends new connections to another port, and cuts those that stand.
    pub fn redirect(&self, upstream: u16) {
        self.shared.upstream.store(upstream, Ordering::Relaxed);
        self.cut(Cut::Reset);
    }
}

async fn listen(port: u16) -> Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", port)).await.with_context(|| format!("proxy on port {port}"))
}

async fn serve(port: u16, listener: TcpListener, shared: Arc<Shared>) -> Result<()> {
    let mut line = shared.line.subscribe();
    let mut listener = Some(listener);
    // A filter needs the first bytes, so those that it lets pass must be taken, too.
    let refusing = |line: &Line| *line == Line::Refusing && shared.only.is_none();
    loop {
        let Some(open) = &listener else {
            line.wait_for(|line| !refusing(line)).await?;
            listener = Some(listen(port).await?);
            continue;
        };
        tokio::select! {
            biased;
            refused = line.wait_for(refusing) => { refused?; listener = None }
            taken = open.accept() => {
                let (client, _) = taken?;
                let number = shared.taken.fetch_add(1, Ordering::Relaxed) + 1;
                // The end of a connection, however it comes, is the peers' affair.
                tokio::spawn({ let shared = shared.clone(); async move { connection(client, number, &shared).await } });
            }
        }
    }
}

/// Whether nothing passes.
#[derive(Clone)]
struct Gate {
    line: watch::Receiver<Line>,
    frozen: watch::Receiver<usize>,
    number: usize,
    exempt: bool,
}

impl Gate {
    fn line(&self) -> Line {
        if self.exempt { Line::Open } else { *self.line.borrow() }
    }

    async fn passed(&mut self) {
        if self.exempt {
            return;
        }
        // Senders live as long as the proxy, and this task no longer.
        let _ = self.line.wait_for(|line| *line != Line::Hole).await;
        if *self.frozen.borrow() >= self.number {
            std::future::pending::<()>().await;
        }
    }
}

async fn connection(mut client: TcpStream, number: usize, shared: &Shared) -> Result<()> {
    let mut cut = shared.cut.subscribe();
    let mut gate =
        Gate { line: shared.line.subscribe(), frozen: shared.frozen.subscribe(), number, exempt: false };
    if let Some(text) = shared.only {
        let mut first = [0; 1024];
        let length = client.peek(&mut first).await?;
        gate.exempt = !first[..length].windows(text.len()).any(|w| w == text.as_bytes());
        if !gate.exempt && gate.line() == Line::Refusing {
            return Ok(client.set_zero_linger()?);
        }
    }
    let opened = async {
        gate.passed().await;
        TcpStream::connect(("127.0.0.1", shared.upstream.load(Ordering::Relaxed))).await
    };
    let server = tokio::select! {
        server = opened => server,
        _ = cut.changed() => return Ok(client.set_zero_linger()?),
    };
    let Ok(mut server) = server else { return Ok(client.set_zero_linger()?) };
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let how = {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        let both = async {
            tokio::try_join!(
                pass(from_client, to_server, true, gate.clone()),
                pass(from_server, to_client, false, gate.clone())
            )
        };
        tokio::select! {
            // Whatever broke on the one side is a reset on the other.
            ended = both => if ended.is_ok() { Cut::Fin } else { Cut::Reset },
            () = cut_of(&mut cut, gate.exempt) => cut.borrow().1,
        }
    };
    if how == Cut::Reset {
        client.set_zero_linger()?;
        server.set_zero_linger()?;
    }
    Ok(())
}

async fn cut_of(cut: &mut watch::Receiver<(u64, Cut)>, exempt: bool) {
    if exempt || cut.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// One direction of a connection, to its end.
async fn pass(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, upward: bool, gate: Gate) -> io::Result<()> {
    let (queue, mut queued) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let mut before = gate.clone();
    let read = async move {
        loop {
            before.passed().await;
            let mut chunk = vec![0; CHUNK];
            let length = from.read(&mut chunk).await?;
            chunk.truncate(length);
            let line = before.line();
            let late = if let Line::Late(by) = line { by } else { Duration::ZERO };
            // The writing half ends with an error only, and then all of this does.
            let _ = queue.send((Instant::now() + late, chunk)).await;
            if length == 0 {
                return Ok(());
            }
            if let Line::Narrow(rate) = line {
                sleep(Duration::from_secs_f64(length as f64 / f64::from(rate))).await;
            }
        }
    };
    let mut after = gate;
    let write = async move {
        let mut first = true;
        while let Some((due, chunk)) = queued.recv().await {
            sleep_until(due).await;
            after.passed().await;
            if upward && !std::mem::take(&mut first) && after.line() == Line::Deaf {
                continue;
            }
            if chunk.is_empty() {
                return to.shutdown().await;
            }
            to.write_all(&chunk).await?;
        }
        Ok(())
    };
    tokio::try_join!(read, write).map(drop)
}
