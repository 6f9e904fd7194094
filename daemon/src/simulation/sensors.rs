//! What is published, and what is to become of it.

use super::case::How;
use super::sim::BEGIN;

const SECOND: i64 = 1_000_000;
/// The store refuses values from here on.
pub(super) const POISON: f64 = 1e200;
/// The store refuses series of this device.
pub(super) const REFUSED: &str = "refused";

/// A message.
#[derive(Debug, Clone)]
pub(super) struct Publication {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) how: How,
    pub(super) readings: Vec<Sent>,
}

/// A reading in it that is to be stored.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sent {
    pub(super) key: String,
    /// None if it is the time of arrival.
    pub(super) time: Option<i64>,
    pub(super) value: f64,
    /// Whether the store need not take it.
    pub(super) refused: bool,
}

/// All sensors and meters.
#[derive(Debug)]
pub(super) struct Sensors {
    sent: u32,
    newest: [i64; 2],
    /// Times at which a value was refused: of others at that time the engine has taken the first.
    poisoned: Vec<i64>,
}

impl Sensors {
    pub(super) fn new() -> Sensors {
        Sensors { sent: 0, newest: [BEGIN - 6 * 3600 * SECOND; 2], poisoned: Vec::new() }
    }

    /// No value comes twice.
    fn value(&mut self) -> f64 {
        self.sent += 1;
        20.0 + f64::from(self.sent * 7919 % 101) / 10.0 + f64::from(self.sent) * 1e-6
    }

    pub(super) fn reading(&mut self, device: u8, step: u8, how: How) -> Publication {
        self.newest[usize::from(device)] += i64::from(step) * SECOND;
        let values = [self.value(), self.value()];
        self.climate(&device.to_string(), self.newest[usize::from(device)], values, how)
    }

    /// Far out, in a place of its own.
    pub(super) fn wild(&mut self, device: u8) -> Publication {
        let device_at = &mut self.newest[usize::from(device)];
        *device_at += 60 * SECOND;
        let time = *device_at;
        let values = [self.value(), self.value()].map(|value| value * f64::from(self.sent));
        self.climate(&device.to_string(), time, values, How::Surely)
    }

    /// Key and time of a sensor's newest temperature.
    pub(super) fn newest(&self, device: u8) -> (String, i64) {
        (format!("climate/{device}/t"), self.newest[usize::from(device)])
    }

    pub(super) fn late(&mut self, device: u8, seconds: u16) -> Publication {
        let time = self.newest[usize::from(device)] - i64::from(seconds) * SECOND;
        let values = [self.value(), self.value()];
        self.climate(&device.to_string(), time, values, How::Surely)
    }

    pub(super) fn meter(&mut self, how: How) -> Publication {
        let value = self.value();
        Publication {
            topic: "meters/0".to_owned(),
            payload: value.to_string().into_bytes(),
            how,
            readings: vec![Sent { key: "power/0/value".to_owned(), time: None, value, refused: false }],
        }
    }

    /// The same message at the same time with other values.
    pub(super) fn other(&mut self, of: &Publication) -> Publication {
        match of.readings.first().and_then(|r| r.time) {
            Some(time) => {
                let device = of.topic.split('/').nth(1).unwrap();
                let values = [self.value(), self.value()];
                self.climate(device, time, values, How::Surely)
            }
            None => self.meter(How::Surely),
        }
    }

    pub(super) fn poison(&mut self, series: bool) -> Publication {
        if series {
            self.newest[0] += SECOND;
            let values = [self.value(), self.value()];
            return self.climate(REFUSED, self.newest[0], values, How::Surely);
        }
        self.newest[0] += SECOND;
        self.poisoned.push(self.newest[0]);
        let values = [POISON * (1.0 + self.value()), self.value()];
        self.climate("0", self.newest[0], values, How::Surely)
    }

    fn climate(&self, device: &str, time: i64, [t, h]: [f64; 2], how: How) -> Publication {
        let sent = |field: &str, value: f64| Sent {
            key: format!("climate/{device}/{field}"),
            time: Some(time),
            value,
            refused: device == REFUSED || value >= POISON || field == "t" && self.poisoned.contains(&time),
        };
        Publication {
            topic: format!("sensors/{device}/climate"),
            payload: format!("{{\"t\":{t:?},\"h\":{h:?},\"ts\":{time}}}").into_bytes(),
            how,
            readings: vec![sent("t", t), sent("h", h)],
        }
    }
}

/// A message of which nothing is stored.
pub(super) fn garbage(kind: u8) -> Publication {
    let far = BEGIN + 1000 * 86_400 * SECOND;
    let (topic, payload) = match kind {
        0 => ("sensors/0/climate", "{".to_owned()),
        1 => ("sensors/1/climate", "{\"ts\":1}".to_owned()),
        2 => ("sensors/0/climate", "{\"t\":1,\"h\":2,\"ts\":\"noon\"}".to_owned()),
        3 => ("sensors/1/climate", "{\"t\":\"warm\",\"h\":1e999,\"ts\":5}".to_owned()),
        4 => ("sensors/0/climate", format!("{{\"t\":1,\"h\":2,\"ts\":{far}}}")),
        _ => ("meters/0", "\u{fffd}".to_owned()),
    };
    Publication {
        topic: topic.to_owned(),
        payload: payload.into_bytes(),
        how: How::Surely,
        readings: Vec::new(),
    }
}
