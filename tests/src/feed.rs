//! Sensors: `mosquitto_pub -l`, one process a topic, as a foreign client would feed the daemon.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::broker::Mosquitto;
use crate::process::find_program;

/// Readings of one test series: a cycle of 24 readings with a little noise, a function of the series
/// and the position alone.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// Series.
    pub series: usize,
    /// Position in the series.
    pub position: usize,
}

impl Reading {
    /// 2026-01-01T00:00:00Z, when every series begins.
    pub const BEGIN: u64 = 1_767_225_600;
    /// Seconds between readings.
    pub const INTERVAL: u64 = 60;

    /// The value.
    #[must_use]
    pub fn value(self) -> f64 {
        let phase = (self.position + 3 * self.series) as f64 / 24.0 * std::f64::consts::TAU;
        20.0 + self.series as f64 + 5.0 * phase.sin() + 0.4 * self.noise()
    }

    /// Another value: of a cycle of 23 readings that a network learns soon and autoregressions do not.
    #[must_use]
    pub fn jagged(self) -> f64 {
        let phase = (self.position + 7 * self.series) % 23;
        20.0 + self.series as f64 + (phase * phase % 11) as f64 + 6.0 * self.noise()
    }

    /// A number from -0.5 to 0.5, as good as drawn by chance.
    #[must_use]
    pub fn noise(self) -> f64 {
        let drawn = splitmix(((self.series as u64) << 32) | self.position as u64) >> 11;
        drawn as f64 / (1_u64 << 53) as f64 - 0.5
    }

    /// Seconds since the Unix epoch.
    #[must_use]
    pub fn time(self) -> u64 {
        Self::BEGIN + self.position as u64 * Self::INTERVAL
    }

    /// `{"value":…,"ts":…}`.
    #[must_use]
    pub fn payload(self) -> String {
        self.payload_of(self.value())
    }

    /// The same with another value.
    #[must_use]
    pub fn payload_of(self, value: f64) -> String {
        format!("{{\"value\":{value:.4},\"ts\":{}}}", self.time())
    }
}

fn splitmix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Running publishers, one for each topic.
#[derive(Debug)]
pub struct Feed {
    publishers: Vec<Child>,
}

impl Feed {
    /// The topic that a series is published on.
    #[must_use]
    pub fn topic(series: usize) -> String {
        format!("sensors/hall/dev{series}/climate")
    }

    /// Starts publishers for series 0 up to `series`.
    ///
    /// # Errors
    /// If `mosquitto_pub` cannot be started.
    pub fn new(broker: &Mosquitto, series: usize, qos: u8) -> Result<Feed> {
        let publishers = (0..series)
            .map(|s| publisher(broker, qos).args(["-l", "-t", &Feed::topic(s)]).stdin(Stdio::piped()).spawn())
            .collect::<std::io::Result<_>>()?;
        Ok(Feed { publishers })
    }

    /// Publishes a range of positions of every series, position by position.
    ///
    /// # Errors
    /// If a publisher has ended.
    pub fn publish(&mut self, positions: std::ops::Range<usize>) -> Result<()> {
        self.publish_with(positions, Reading::payload)
    }

    /// The same with other payloads.
    ///
    /// # Errors
    /// If a publisher has ended.
    pub fn publish_with(
        &mut self,
        positions: std::ops::Range<usize>,
        payload: impl Fn(Reading) -> String,
    ) -> Result<()> {
        for position in positions {
            for (series, publisher) in self.publishers.iter_mut().enumerate() {
                let stdin = publisher.stdin.as_mut().context("publisher without input")?;
                stdin.write_all(payload(Reading { series, position }).as_bytes())?;
                stdin.write_all(b"\n")?;
            }
        }
        Ok(())
    }

    /// Waits until every publisher has handed all its messages to the broker.
    ///
    /// # Errors
    /// If one failed.
    pub fn finish(self) -> Result<()> {
        for mut publisher in self.publishers {
            drop(publisher.stdin.take());
            let status = publisher.wait()?;
            ensure!(status.success(), "mosquitto_pub: {status}");
        }
        Ok(())
    }

    /// Publishes a range of positions of every series and waits until the broker has them.
    ///
    /// # Errors
    /// If a publisher fails.
    pub fn run(broker: &Mosquitto, series: usize, qos: u8, positions: std::ops::Range<usize>) -> Result<()> {
        let mut feed = Feed::new(broker, series, qos)?;
        feed.publish(positions)?;
        feed.finish()
    }

    /// Readings of [`Reading::jagged`] values as a CSV that `vidente backtest` and `vidente models inputs` read,
    /// under the keys that the series have in a daemon's store.
    ///
    /// # Errors
    /// If a time cannot be written.
    pub fn csv(series: usize, positions: impl Iterator<Item = usize> + Clone) -> Result<String> {
        let mut text = "series,timestamp,value\n".to_owned();
        for series in 0..series {
            for position in positions.clone() {
                let reading = Reading { series, position };
                let time = jiff::Timestamp::from_second(i64::try_from(reading.time())?)?;
                text += &format!("climate/hall/dev{series}/value,{time},{:.4}\n", reading.jagged());
            }
        }
        Ok(text)
    }

    /// Publishes one message at quality of service 1.
    ///
    /// # Errors
    /// If the broker does not take it.
    pub fn message(broker: &Mosquitto, topic: &str, payload: &[u8], retain: bool) -> Result<()> {
        let mut command = publisher(broker, 1);
        // An empty body is not taken from the input.
        command.args([if payload.is_empty() { "-n" } else { "-s" }, "-t", topic]).stdin(Stdio::piped());
        if retain {
            command.arg("-r");
        }
        let mut child = command.spawn()?;
        let mut input = child.stdin.take().context("publisher without input")?;
        if !payload.is_empty() {
            input.write_all(payload)?;
        }
        drop(input);
        let status = child.wait()?;
        ensure!(status.success(), "mosquitto_pub: {status}");
        Ok(())
    }
}

fn publisher(broker: &Mosquitto, qos: u8) -> Command {
    let program =
        find_program(&["mosquitto_pub"], "mosquitto-clients").unwrap_or_else(|_| "mosquitto_pub".into());
    let mut command = Command::new(program);
    command.args(["-h", "127.0.0.1", "-p", &broker.port().to_string(), "-q", &qos.to_string()]);
    command
}
