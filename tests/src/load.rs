//! A load that costs the machine little, so that what is measured is the system and not the harness:
//! packets are encoded beforehand by rumqttc's codec and written to a socket, and what comes back is
//! counted by its frames.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, BytesMut};
use rumqttc::mqttbytes::{self, v4};
use rumqttc::{PacketType, QoS};

use crate::broker::Mosquitto;

/// How long nothing may come back before a load gives up: something was lost.
const STALL: Duration = Duration::from_secs(20);
/// Largest packet that is read.
const MAX_PACKET: usize = 1 << 20;

/// Messages of QoS 0, encoded.
#[derive(Debug, Default)]
pub struct Load {
    packets: BytesMut,
    /// Where each packet ends.
    ends: Vec<usize>,
}

impl Load {
    /// Adds a message.
    ///
    /// # Errors
    /// If it is too large for MQTT.
    pub fn push(&mut self, topic: &str, payload: &str) -> Result<()> {
        self.add(v4::Publish::new(topic, QoS::AtMostOnce, payload))
    }

    /// Adds a message that the broker keeps.
    ///
    /// # Errors
    /// If it is too large for MQTT.
    pub fn push_retained(&mut self, topic: &str, payload: &str) -> Result<()> {
        let mut packet = v4::Publish::new(topic, QoS::AtMostOnce, payload);
        packet.retain = true;
        self.add(packet)
    }

    fn add(&mut self, packet: v4::Publish) -> Result<()> {
        packet.write(&mut self.packets).map_err(|e| anyhow::anyhow!("{e}"))?;
        self.ends.push(self.packets.len());
        Ok(())
    }

    /// How many messages it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Publishes everything at once, and returns when the broker has taken it.
    ///
    /// # Errors
    /// If the connection fails.
    pub fn hand_over(&self, broker: &Mosquitto) -> Result<()> {
        let mut socket = connect(broker, "load")?;
        socket.write_all(&self.packets)?;
        let mut ping = BytesMut::new();
        v4::PingReq.write(&mut ping).map_err(|e| anyhow::anyhow!("{e}"))?;
        socket.write_all(&ping)?;
        ensure!(matches!(read_packet(&mut socket)?, v4::Packet::PingResp), "no answer to a ping");
        Ok(())
    }

    /// Publishes everything, with at most `window` messages published and not yet counted, at most
    /// `rate` a second if given; waits until as many were counted as published, and returns the time
    /// that all of it took.
    ///
    /// # Errors
    /// If a message does not come back.
    pub fn run(
        &self,
        broker: &Mosquitto,
        counter: &Counter,
        window: u64,
        rate: Option<f64>,
    ) -> Result<Duration> {
        let mut socket = connect(broker, "load")?;
        let before = counter.count();
        let begin = Instant::now();
        let (mut published, mut written) = (0_u64, 0_usize);
        let mut moved = (Instant::now(), before);
        loop {
            let back = counter.count() - before;
            if back >= self.ends.len() as u64 {
                return Ok(begin.elapsed());
            }
            if counter.count() != moved.1 {
                moved = (Instant::now(), counter.count());
            } else if moved.0.elapsed() > STALL {
                bail!("{back} of {published} messages came back, then nothing for {STALL:?}");
            }
            let due = rate.map_or(u64::MAX, |r| (begin.elapsed().as_secs_f64() * r) as u64);
            // In pieces, so that the system under test sees a stream and not a burst.
            let until = (back + window).min(due).min(published + 100).min(self.ends.len() as u64);
            if until <= published {
                std::thread::sleep(Duration::from_micros(200));
                continue;
            }
            let end = self.ends.get(until as usize - 1).copied().context("end of a packet")?;
            socket.write_all(&self.packets[written..end])?;
            (published, written) = (until, end);
        }
    }
}

/// Counts the messages on a filter, on a thread of its own, until dropped.
#[derive(Debug)]
pub struct Counter {
    socket: TcpStream,
    count: Arc<AtomicU64>,
}

impl Counter {
    /// Subscribes at QoS 0; from its return on every message is counted.
    ///
    /// # Errors
    /// If the broker does not grant the subscription.
    pub fn new(broker: &Mosquitto, filter: &str) -> Result<Counter> {
        let mut socket = connect(broker, "counter")?;
        let mut request = BytesMut::new();
        let mut subscribe = v4::Subscribe::new(filter, QoS::AtMostOnce);
        subscribe.pkid = 1;
        subscribe.write(&mut request).map_err(|e| anyhow::anyhow!("{e}"))?;
        socket.write_all(&request)?;
        ensure!(matches!(read_packet(&mut socket)?, v4::Packet::SubAck(_)), "no grant for {filter}");
        let count = Arc::new(AtomicU64::new(0));
        let (mut reader, counted) = (socket.try_clone()?, Arc::clone(&count));
        std::thread::spawn(move || {
            let mut buffer = BytesMut::new();
            let mut chunk = vec![0; 1 << 16];
            while let Ok(n @ 1..) = reader.read(&mut chunk) {
                buffer.extend_from_slice(&chunk[..n]);
                let mut seen = 0;
                while let Ok(header) = mqttbytes::check(buffer.iter(), MAX_PACKET) {
                    // Retained copies are delivered before anything new; they are no answers.
                    let fresh = buffer.first().is_some_and(|flags| flags & 1 == 0);
                    seen += u64::from(matches!(header.packet_type(), Ok(PacketType::Publish)) && fresh);
                    buffer.advance(header.frame_length());
                }
                counted.fetch_add(seen, Ordering::Relaxed);
            }
        });
        Ok(Counter { socket, count })
    }

    /// Messages so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        // Ends the thread's read; a socket that is closed already is as well.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

fn connect(broker: &Mosquitto, name: &str) -> Result<TcpStream> {
    let mut socket = TcpStream::connect(("127.0.0.1", broker.port()))?;
    socket.set_nodelay(true)?;
    let mut connect = v4::Connect::new(format!("{name}-{}", crate::free_port()?));
    connect.keep_alive = 0;
    let mut request = BytesMut::new();
    connect.write(&mut request).map_err(|e| anyhow::anyhow!("{e}"))?;
    socket.write_all(&request)?;
    ensure!(matches!(read_packet(&mut socket)?, v4::Packet::ConnAck(_)), "{name}: no connection");
    Ok(socket)
}

/// Reads one packet and nothing after it.
fn read_packet(socket: &mut TcpStream) -> Result<v4::Packet> {
    let mut buffer = BytesMut::new();
    loop {
        let mut byte = [0];
        socket.read_exact(&mut byte)?;
        buffer.extend_from_slice(&byte);
        if mqttbytes::check(buffer.iter(), MAX_PACKET).is_ok() {
            return v4::Packet::read(&mut buffer, MAX_PACKET).map_err(|e| anyhow::anyhow!("{e}"));
        }
    }
}
