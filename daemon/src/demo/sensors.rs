//! Simulated sensors: a house's devices, each publishing JSON as real ones do.
//!
//! Pure: the same seed and start give the same readings, in order of time, without end.

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Map, Value};

pub use super::fault::Fault;
use super::fault::Faults;
use super::world::{World, normal};

/// Seconds between two readings of a device.
pub const INTERVAL: i64 = 300;

/// The streams that cover every device: name and topic pattern. The time is in the field `ts`.
pub const STREAMS: [(&str, &str); 3] =
    [("climate", "home/{room}/climate"), ("air", "home/{room}/air"), ("plant", "plant/{device}/state")];

/// One reading of one device, as it is published.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// When it was measured, microseconds since the Unix epoch.
    pub time: i64,
    /// Where it is published.
    pub topic: &'static str,
    /// What is published.
    pub payload: String,
    /// What is wrong with it, for tests; nothing in the payload tells.
    pub fault: Option<Fault>,
}

struct Field {
    name: &'static str,
    decimals: i32,
    /// Standard deviation of the measurement's noise.
    noise: f64,
    /// How far it usually strays within a day; faults are as large.
    scale: f64,
    truth: fn(&World) -> f64,
}

struct Device {
    topic: &'static str,
    fields: Vec<Field>,
    faults: Faults,
    rng: StdRng,
}

/// The house and its sensors.
pub struct Simulation {
    world: World,
    devices: Vec<Device>,
    /// Start of the present round, seconds since the Unix epoch.
    round: i64,
    /// The device that is next.
    next: usize,
}

impl Simulation {
    /// Sensors whose first readings come within [`INTERVAL`] from the whole minute of `start`
    /// (microseconds since the Unix epoch).
    #[must_use]
    pub fn new(seed: u64, start: i64) -> Self {
        let round = start.div_euclid(60_000_000) * 60;
        let devices = house()
            .into_iter()
            .zip(1..)
            .map(|((topic, fields), n)| Device {
                topic,
                faults: Faults::new(fields.len()),
                fields,
                // A generator of its own, so that devices do not disturb each other.
                rng: StdRng::seed_from_u64(seed.wrapping_mul(1009).wrapping_add(n)),
            })
            .collect();
        Simulation { world: World::new(seed, round), devices, round, next: 0 }
    }
}

impl Iterator for Simulation {
    type Item = Sample;

    /// The next reading that is not lost; there is always one.
    fn next(&mut self) -> Option<Sample> {
        loop {
            if self.next == self.devices.len() {
                self.next = 0;
                self.round += INTERVAL;
            }
            let count = self.devices.len() as i64;
            // Devices report one after the other, as clocks of their own would have it.
            let time = self.round + self.next as i64 * INTERVAL / count;
            let device = self.devices.get_mut(self.next)?;
            self.next += 1;
            self.world.advance_to(time);
            if let Some(sample) = device.measure(&self.world, time) {
                return Some(sample);
            }
        }
    }
}

impl Device {
    fn measure(&mut self, world: &World, time: i64) -> Option<Sample> {
        let arrives = self.faults.step(&mut self.rng);
        let mut payload = Map::new();
        let mut fault = None;
        for (position, field) in self.fields.iter().enumerate() {
            let noise = field.noise * normal(&mut self.rng);
            let truth = (field.truth)(world);
            // What rests at zero (panels at night) is reported as zero.
            let measured = if truth == 0.0 { 0.0 } else { truth + noise };
            let (value, wrong) = self.faults.apply(position, measured, field.scale);
            fault = fault.or(wrong);
            let unit = 10_f64.powi(field.decimals);
            payload.insert(field.name.into(), Value::from((value * unit).round() / unit));
        }
        let ts = jiff::Timestamp::from_second(time).ok()?.to_string();
        payload.insert("ts".into(), Value::from(ts));
        let payload = Value::Object(payload).to_string();
        arrives.then_some(Sample { time: time * 1_000_000, topic: self.topic, payload, fault })
    }
}

fn house() -> Vec<(&'static str, Vec<Field>)> {
    vec![
        ("home/living-room/climate", climate(|w| w.rooms[0].temperature, |w| w.rooms[0].humidity())),
        ("home/living-room/air", vec![co2(|w| w.rooms[0].co2)]),
        ("home/kitchen/climate", climate(|w| w.rooms[1].temperature, |w| w.rooms[1].humidity())),
        ("home/bedroom/climate", climate(|w| w.rooms[2].temperature, |w| w.rooms[2].humidity())),
        ("home/bedroom/air", vec![co2(|w| w.rooms[2].co2)]),
        ("home/office/climate", climate(|w| w.rooms[3].temperature, |w| w.rooms[3].humidity())),
        ("home/office/air", vec![co2(|w| w.rooms[3].co2)]),
        ("home/bathroom/climate", climate(|w| w.rooms[4].temperature, |w| w.rooms[4].humidity())),
        ("home/outside/climate", climate(|w| w.weather.temperature, |w| w.weather.humidity)),
        (
            "plant/heat-pump/state",
            vec![
                power(15.0, 900.0, |w| w.plant.heat_pump_power),
                Field {
                    name: "flow_temperature",
                    decimals: 1,
                    noise: 0.08,
                    scale: 6.0,
                    truth: |w| w.plant.flow_temperature,
                },
            ],
        ),
        (
            "plant/boiler/state",
            vec![Field {
                name: "temperature",
                decimals: 2,
                noise: 0.06,
                scale: 6.0,
                truth: |w| w.plant.boiler_temperature,
            }],
        ),
        ("plant/solar/state", vec![power(8.0, 1500.0, |w| w.plant.solar_power)]),
        ("plant/meter/state", vec![power(12.0, 1500.0, |w| w.plant.house_power)]),
    ]
}

fn climate(temperature: fn(&World) -> f64, humidity: fn(&World) -> f64) -> Vec<Field> {
    vec![
        Field { name: "temperature", decimals: 2, noise: 0.02, scale: 2.5, truth: temperature },
        Field { name: "humidity", decimals: 1, noise: 0.1, scale: 12.0, truth: humidity },
    ]
}

fn co2(truth: fn(&World) -> f64) -> Field {
    Field { name: "co2", decimals: 0, noise: 5.0, scale: 350.0, truth }
}

fn power(noise: f64, scale: f64, truth: fn(&World) -> f64) -> Field {
    Field { name: "power", decimals: 0, noise, scale, truth }
}

#[cfg(test)]
#[path = "sensors_tests.rs"]
mod tests;
