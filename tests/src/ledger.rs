//! A publisher that keeps a ledger: which readings it has made, and which of them the broker has
//! confirmed. What is not confirmed when the connection breaks, it publishes again on the next, as QoS 1
//! asks for, so the broker may get a reading twice and the daemon, too.
//!
//! Readings come round robin over the series, position by position, so that the ledger of readings made is
//! one number, and all that is not settled lies between it and the oldest reading without a confirmation.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, ensure};
use bytes::BytesMut;
use rumqttc::QoS;
use rumqttc::mqttbytes::{self, v4};

use crate::feed::Feed;
use crate::plan::Plan;
use crate::process::wait_until;

/// Messages on the way to the broker, at most.
const WINDOW: usize = 1000;
/// Messages written at a time.
const BATCH: usize = 100;
/// How long a confirmation is waited for before more is written.
const LISTEN: Duration = Duration::from_millis(1);
/// A broker that takes nothing for so long is connected to anew.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the broker's confirmations may take once no more readings are made.
const SETTLE: Duration = Duration::from_secs(120);
/// Largest packet that is read.
const MAX_PACKET: usize = 1 << 16;

/// How it stands, or stood at the end.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ledger {
    /// Readings made; all of them confirmed at the end.
    pub made: u64,
    /// Messages made that are no readings; all of them confirmed at the end.
    pub garbage: u64,
    /// Messages written, repetitions included.
    pub written: u64,
    /// Confirmations that came.
    pub confirmations: u64,
    /// Confirmations taken back, see [`Publisher::broker_lost_all_since`].
    pub taken_back: u64,
    /// Connections made.
    pub connections: u64,
}

/// A running publisher.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
    plan: Plan,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    books: Mutex<Books>,
    paused: AtomicBool,
    /// No more readings are made.
    finishing: AtomicBool,
    /// Nothing is done any more.
    ended: AtomicBool,
    made: AtomicU64,
}

#[derive(Debug, Default)]
struct Books {
    ledger: Ledger,
    /// Everything from the oldest message that is not settled on, in order.
    open: VecDeque<Entry>,
    /// Whether confirmations may be taken back, so that they are remembered.
    remember: bool,
    /// What was confirmed after this is taken back on the next connection.
    lost_since: Option<SystemTime>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    place: u64,
    garbage: bool,
    packet_id: u16,
    confirmed: Option<SystemTime>,
}

impl Shared {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Publisher {
    /// Starts publishing to a port of this machine.
    #[must_use]
    pub fn start(port: u16, plan: Plan) -> Publisher {
        let shared = Arc::new(Shared::default());
        shared.books().remember = plan.remember;
        let thread = std::thread::spawn({
            let shared = shared.clone();
            move || run(port, plan, &shared)
        });
        Publisher { shared, plan, thread: Some(thread) }
    }

    /// What it publishes.
    #[must_use]
    pub fn plan(&self) -> Plan {
        self.plan
    }

    /// How it stands.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.shared.books().ledger
    }

    /// Makes no readings until [`Publisher::resume`].
    pub fn pause(&self) {
        self.shared.paused.store(true, Ordering::Relaxed);
    }

    /// Goes on after [`Publisher::pause`].
    pub fn resume(&self) {
        self.shared.paused.store(false, Ordering::Relaxed);
    }

    /// Waits until so many readings have been made.
    ///
    /// # Errors
    /// If they are not within the time given.
    pub fn wait_made(&self, count: u64, deadline: Duration) -> Result<()> {
        wait_until(&format!("{count} readings to be made"), deadline, || {
            Ok(self.shared.made.load(Ordering::Relaxed) >= count)
        })
    }

    /// To be called between a broker's death and its next start: it has come back with what it had saved
    /// at this time. mosquitto confirms what it holds in memory, so a confirmation that came later is
    /// void; the message is taken for unconfirmed, and published again in its place in the order.
    pub fn broker_lost_all_since(&self, saved: SystemTime) {
        let mut books = self.shared.books();
        books.lost_since = Some(books.lost_since.map_or(saved, |since| since.min(saved)));
    }

    /// The broker has saved all that it had confirmed at this time: that is settled for good.
    pub fn broker_saved(&self, saved: SystemTime) {
        self.shared.books().settle(Some(saved));
    }

    /// Makes no more readings, and waits until all of them are confirmed.
    ///
    /// # Errors
    /// If they are not.
    pub fn finish(mut self) -> Result<Ledger> {
        self.shared.finishing.store(true, Ordering::Relaxed);
        let done = wait_until("the broker to confirm all messages", SETTLE, || {
            Ok(self.thread.as_ref().is_none_or(JoinHandle::is_finished))
        });
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow!("the publisher panicked"))?;
        }
        done.with_context(|| format!("{:?}", self.ledger()))?;
        Ok(self.ledger())
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
    }
}

impl Books {
    /// Strikes out what is settled: confirmed, and where that may be void, saved by the broker since.
    fn settle(&mut self, saved: Option<SystemTime>) {
        let remember = self.remember;
        let settled = |entry: &Entry| {
            entry.confirmed.is_some_and(|at| !remember || saved.is_some_and(|saved| at < saved))
        };
        while self.open.front().is_some_and(settled) {
            self.open.pop_front();
        }
    }

    fn confirm(&mut self, packet_id: u16) {
        let waiting = |entry: &&mut Entry| entry.packet_id == packet_id && entry.confirmed.is_none();
        // Confirmations come in order, and what waits for one lies at the end.
        let first = self.open.len().saturating_sub(2 * WINDOW);
        if let Some(entry) = self.open.range_mut(first..).find(waiting) {
            entry.confirmed = Some(SystemTime::now());
            self.ledger.confirmations += 1;
        }
        self.settle(None);
    }

    fn take_back(&mut self) {
        if let Some(since) = self.lost_since.take() {
            for entry in &mut self.open {
                if entry.confirmed.is_some_and(|at| at >= since) {
                    entry.confirmed = None;
                    self.ledger.taken_back += 1;
                }
            }
        }
    }
}

/// Publishes until all that is to be made is confirmed.
fn run(port: u16, plan: Plan, shared: &Shared) {
    let mut pace = Pace::default();
    while !shared.ended.load(Ordering::Relaxed) {
        // A connection that breaks is what this is for.
        if let Ok(true) = connection(port, plan, shared, &mut pace) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How many readings are due.
#[derive(Debug, Default)]
struct Pace {
    last: Option<Instant>,
    due: f64,
}

impl Pace {
    fn tick(&mut self, rate: f64, paused: bool) {
        let now = Instant::now();
        if let Some(last) = self.last.replace(now)
            && !paused
        {
            self.due += rate * (now - last).as_secs_f64();
        }
    }
}

/// One connection; true if there is nothing more to do.
fn connection(port: u16, plan: Plan, shared: &Shared, pace: &mut Pace) -> Result<bool> {
    let mut connection = Connection::open(port, plan, shared, pace)?;
    let end = connection.run();
    // What was not written is still to be.
    shared.books().open.extend(connection.again);
    end
}

struct Connection<'a> {
    plan: Plan,
    shared: &'a Shared,
    pace: &'a mut Pace,
    socket: TcpStream,
    reader: Reader,
    /// What comes before new readings.
    again: VecDeque<Entry>,
    /// Messages written on this connection and not confirmed.
    waiting: usize,
    last_id: u16,
}

impl Connection<'_> {
    fn open<'a>(port: u16, plan: Plan, shared: &'a Shared, pace: &'a mut Pace) -> Result<Connection<'a>> {
        let mut socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut connect = v4::Connect::new(format!("ledger-{port}"));
        connect.keep_alive = 0;
        let mut request = BytesMut::new();
        connect.write(&mut request).map_err(|e| anyhow!("{e}"))?;
        socket.write_all(&request)?;
        let mut reader = Reader { socket: socket.try_clone()?, buffer: BytesMut::new() };
        let welcome = reader.packets()?;
        ensure!(welcome.iter().any(|p| matches!(p, v4::Packet::ConnAck(_))), "no welcome: {welcome:?}");
        socket.set_read_timeout(Some(LISTEN))?;
        let mut books = shared.books();
        books.ledger.connections += 1;
        books.take_back();
        // They are entered again as they are written.
        let again = books.open.iter().filter(|e| e.confirmed.is_none()).copied().collect();
        books.open.retain(|e| e.confirmed.is_some());
        Ok(Connection { plan, shared, pace, socket, reader, again, waiting: 0, last_id: 0 })
    }

    fn run(&mut self) -> Result<bool> {
        loop {
            if self.shared.ended.load(Ordering::Relaxed) {
                return Ok(true);
            }
            let finishing = self.shared.finishing.load(Ordering::Relaxed);
            self.pace.tick(self.plan.rate, self.shared.paused.load(Ordering::Relaxed));
            let batch = self.batch(finishing)?;
            self.socket.write_all(&batch)?;
            for packet in self.reader.packets()? {
                if let v4::Packet::PubAck(ack) = packet {
                    self.shared.books().confirm(ack.pkid);
                    self.waiting -= 1;
                }
            }
            if finishing && self.waiting == 0 && self.again.is_empty() {
                return Ok(true);
            }
        }
    }

    /// The next messages, entered into the books and encoded.
    fn batch(&mut self, finishing: bool) -> Result<BytesMut> {
        let mut out = BytesMut::new();
        let mut books = self.shared.books();
        for _ in 0..BATCH.min(WINDOW - self.waiting) {
            let mut entry = match self.again.pop_front() {
                Some(entry) => entry,
                None if !finishing && self.pace.due >= 1.0 => {
                    self.pace.due -= 1.0;
                    let place = books.ledger.made;
                    books.ledger.made += 1;
                    self.shared.made.store(books.ledger.made, Ordering::Relaxed);
                    let entry = Entry { place, garbage: false, packet_id: 0, confirmed: None };
                    if self.plan.has_garbage(place) {
                        books.ledger.garbage += 1;
                        self.again.push_back(Entry { garbage: true, ..entry });
                    }
                    entry
                }
                None => break,
            };
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            entry.packet_id = self.last_id;
            let reading = self.plan.reading(entry.place);
            let payload = if entry.garbage { "no reading".to_owned() } else { self.plan.payload(reading) };
            let mut packet = v4::Publish::new(Feed::topic(reading.series), QoS::AtLeastOnce, payload);
            packet.pkid = entry.packet_id;
            packet.write(&mut out).map_err(|e| anyhow!("{e}"))?;
            books.open.push_back(entry);
            books.ledger.written += 1;
            self.waiting += 1;
        }
        Ok(out)
    }
}

/// Packets from the broker.
struct Reader {
    socket: TcpStream,
    buffer: BytesMut,
}

impl Reader {
    /// What has come, perhaps nothing.
    fn packets(&mut self) -> Result<Vec<v4::Packet>> {
        let mut chunk = [0; 16 * 1024];
        match self.socket.read(&mut chunk) {
            Ok(0) => return Err(anyhow!("the broker closed the connection")),
            Ok(length) => self.buffer.extend_from_slice(&chunk[..length]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(e) => return Err(e.into()),
        }
        let mut packets = Vec::new();
        while mqttbytes::check(self.buffer.iter(), MAX_PACKET).is_ok() {
            packets.push(v4::Packet::read(&mut self.buffer, MAX_PACKET).map_err(|e| anyhow!("{e}"))?);
        }
        Ok(packets)
    }
}
