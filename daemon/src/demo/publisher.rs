//! Publishes the simulated sensors over MQTT, at a multiple of real time.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Outgoing, QoS};
use tokio::sync::watch;

use super::sensors::Simulation;

/// The demo's default speed: five minutes of sensors in a twelfth of a second.
pub const DEFAULT_SPEED: f64 = 3600.0;
/// For how long the demo runs fast before its time has caught up with ours.
const HOURS_UNTIL_NOW: f64 = 4.0;
/// The furthest that simulated time starts back.
const MAX_BACK: f64 = 730.0 * 86_400.0;
/// The least, so that a model has some days to learn from.
const MIN_BACK: f64 = 2.0 * 86_400.0;
/// How long a stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// Where simulated time begins (microseconds since the Unix epoch) so that at a speed it takes
/// hours to catch up with `now`.
#[must_use]
pub fn start_time(now: i64, speed: f64) -> i64 {
    let back = (HOURS_UNTIL_NOW * 3600.0 * speed.max(1.0)).clamp(MIN_BACK, MAX_BACK);
    now - (back * 1e6) as i64
}

/// Which moment of simulated time belongs to which real one.
#[derive(Debug, Clone, Copy)]
struct Pace {
    began: Instant,
    start: i64,
    speed: f64,
}

impl Pace {
    /// How long to wait before a reading of `time` may be published: until simulated time has come
    /// to it, and never before our own has.
    fn wait(&self, time: i64, at: Instant, now: i64) -> Duration {
        let due = self.began
            + Duration::try_from_secs_f64((time - self.start) as f64 / 1e6 / self.speed)
                .unwrap_or(Duration::ZERO);
        let until_now = Duration::from_micros(u64::try_from(time - now).unwrap_or(0));
        due.saturating_duration_since(at).max(until_now)
    }
}

/// Publishes a simulation that begins at `start` (microseconds since the Unix epoch) to a broker,
/// `speed` times as fast as real time until it has caught up, then in real time, until told to
/// stop. Returns the number of readings published.
///
/// # Errors
/// If the speed is no positive number, or the client gives up.
pub async fn publish(
    broker: SocketAddr,
    simulation: Simulation,
    start: i64,
    speed: f64,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<u64> {
    anyhow::ensure!(speed.is_finite() && speed > 0.0, "the speed must be above 0, not {speed}");
    let mut options = MqttOptions::new("vidente-demo-sensors", broker.ip().to_string(), broker.port());
    options.set_keep_alive(Duration::from_secs(30)).set_inflight(100);
    let (client, events) = AsyncClient::new(options, 100);
    let mut connection = tokio::spawn(drive(events, stop.clone()));
    let pace = Pace { began: Instant::now(), start, speed };
    let mut published = 0;
    for sample in simulation {
        let wait = pace.wait(sample.time, Instant::now(), jiff::Timestamp::now().as_microsecond());
        let publish = async {
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            client.publish(sample.topic, QoS::AtLeastOnce, false, sample.payload).await
        };
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            sent = publish => sent?,
        }
        published += 1;
    }
    // Behind everything queued, so it ends the connection cleanly.
    let ended = async {
        client.disconnect().await?;
        (&mut connection).await?;
        anyhow::Ok(())
    };
    if tokio::time::timeout(STOP_LIMIT, ended).await.is_err() {
        connection.abort();
        tracing::warn!("the sensors' connection did not end within {STOP_LIMIT:?}");
    }
    Ok(published)
}

/// Keeps the connection up until it has been ended from our side.
async fn drive(mut events: EventLoop, stop: watch::Receiver<bool>) {
    loop {
        match events.poll().await {
            Ok(Event::Outgoing(Outgoing::Disconnect)) => return,
            Ok(_) => {}
            Err(_) if *stop.borrow() => return,
            Err(error) => {
                tracing::warn!(%error, "the sensors lost the broker");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
}

#[cfg(test)]
#[path = "publisher_tests.rs"]
mod tests;
