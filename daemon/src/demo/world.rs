//! The house that the sensors stand in: weather, people, rooms, heating, hot water, electricity.
//!
//! Simple physics, one simulated minute a step. Nothing here measures: noise, dropouts and faults
//! belong to the sensors.

use std::f64::consts::{PI, TAU};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Seconds in one step.
pub(super) const STEP: i64 = 60;
const DAY: i64 = 86_400;
/// One step in hours, the unit of time of all rates below.
const DT: f64 = STEP as f64 / 3600.0;

/// A draw from the standard normal distribution (Box-Muller).
pub(super) fn normal(rng: &mut StdRng) -> f64 {
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (TAU * v).cos()
}

/// What a room is used for, and so when somebody is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Living,
    Kitchen,
    Bedroom,
    Office,
    Bathroom,
}

impl Use {
    /// Chance that somebody is there.
    fn presence(self, hour: f64, weekend: bool) -> f64 {
        let during = |from: f64, to: f64| (from..to).contains(&hour);
        match (self, weekend) {
            (Use::Living, _) if during(17.5, 22.8) => 0.9,
            (Use::Living, true) if during(9.5, 17.5) => 0.5,
            (Use::Kitchen, _) if during(6.6, 7.6) || during(18.0, 19.5) => 0.85,
            (Use::Kitchen, true) if during(11.5, 13.5) => 0.7,
            (Use::Bedroom, false) if during(22.6, 24.0) || during(0.0, 6.5) => 0.98,
            (Use::Bedroom, true) if during(23.2, 24.0) || during(0.0, 8.2) => 0.98,
            (Use::Office, false) if during(8.5, 12.2) || during(13.0, 17.2) => 0.92,
            (Use::Bathroom, false) if during(6.4, 7.3) || during(21.8, 22.5) => 0.6,
            (Use::Bathroom, true) if during(8.0, 9.5) || during(21.8, 23.0) => 0.5,
            _ => 0.03,
        }
    }

    /// The heating's set point, with its setback.
    fn set_point(self, hour: f64) -> f64 {
        let day = (6.0..22.0).contains(&hour);
        match self {
            Use::Living => {
                if day {
                    21.5
                } else {
                    19.0
                }
            }
            Use::Kitchen => {
                if day {
                    20.5
                } else {
                    18.5
                }
            }
            Use::Bedroom => {
                if (20.0..23.0).contains(&hour) {
                    19.5
                } else {
                    18.0
                }
            }
            Use::Office => {
                if (7.0..17.5).contains(&hour) {
                    21.0
                } else {
                    18.0
                }
            }
            Use::Bathroom => {
                if day {
                    22.5
                } else {
                    20.0
                }
            }
        }
    }
}

/// One room.
#[derive(Debug)]
pub(super) struct Room {
    used_as: Use,
    occupied: bool,
    valve_open: bool,
    /// Heat given off by the radiator, 0 to 1; it follows the valve slowly.
    radiator: f64,
    /// Minutes left of a shower or of cooking.
    steam: u32,
    /// Hours in which the temperature falls to 1/e of its difference to outside.
    inertia: f64,
    /// Share of the sun that comes in.
    window: f64,
    /// °C.
    pub(super) temperature: f64,
    /// Water in the air, g/m³.
    moisture: f64,
    /// ppm.
    pub(super) co2: f64,
}

impl Room {
    fn new(used_as: Use, inertia: f64, window: f64) -> Self {
        Room {
            used_as,
            occupied: false,
            valve_open: false,
            radiator: 0.0,
            steam: 0,
            inertia,
            window,
            temperature: 20.0,
            moisture: 7.5,
            co2: 480.0,
        }
    }

    /// Relative humidity, %.
    pub(super) fn humidity(&self) -> f64 {
        (100.0 * self.moisture / saturation(self.temperature)).clamp(5.0, 99.0)
    }

    fn step(&mut self, rng: &mut StdRng, clock: Clock, weather: &Weather) {
        // People stay some 25 minutes before they think again.
        if rng.random_bool(1.0 / 25.0) {
            self.occupied = rng.random_bool(self.used_as.presence(clock.hour, clock.weekend));
        }
        self.steam = self.steam.saturating_sub(1);
        if self.occupied && self.steam == 0 {
            let (chance, minutes) = match self.used_as {
                Use::Bathroom => (1.0 / 30.0, 11),
                Use::Kitchen => (1.0 / 40.0, 25),
                _ => (0.0, 0),
            };
            if rng.random_bool(chance) {
                self.steam = minutes;
            }
        }
        let people = f64::from(u8::from(self.occupied));
        let steam = f64::from(u8::from(self.steam > 0));

        let set = self.used_as.set_point(clock.hour);
        if self.temperature < set - 0.35 {
            self.valve_open = true;
        } else if self.temperature > set + 0.35 {
            self.valve_open = false;
        }
        let open = f64::from(u8::from(self.valve_open));
        self.radiator += (open - self.radiator) * DT / 0.3;
        self.temperature += DT
            * ((weather.temperature - self.temperature) / self.inertia
                + 2.1 * self.radiator
                + 0.25 * people
                + 0.4 * steam
                + self.window * weather.sun);

        let vapour = match self.used_as {
            Use::Bathroom => 24.0 * steam,
            _ => 7.0 * steam,
        };
        self.moisture += DT * ((weather.moisture() - self.moisture) / 2.6 + 0.8 * people + vapour);
        let breathing = if self.used_as == Use::Bedroom { 2.0 } else { 1.4 };
        self.co2 += DT * ((430.0 - self.co2) / 1.7 + 260.0 * breathing * people);
    }
}

/// Water that air can hold, g/m³.
fn saturation(celsius: f64) -> f64 {
    5.018 + celsius * (0.32321 + celsius * (0.008_184_7 + celsius * 0.000_312_43))
}

/// The time of day, and what people make of it.
#[derive(Debug, Clone, Copy)]
struct Clock {
    hour: f64,
    weekend: bool,
    /// 0 in midwinter, 1 in midsummer.
    season: f64,
}

impl Clock {
    fn at(time: i64) -> Self {
        let day = time.div_euclid(DAY);
        Clock {
            hour: time.rem_euclid(DAY) as f64 / 3600.0,
            // 1970-01-01 was a Thursday.
            weekend: (day + 3).rem_euclid(7) >= 5,
            season: 0.5 - 0.5 * (TAU * (day as f64 + 10.0) / 365.25).cos(),
        }
    }
}

/// Outside.
#[derive(Debug)]
pub(super) struct Weather {
    /// Where the present front is heading, and where it is.
    front_target: f64,
    front: f64,
    cloud_target: f64,
    cloud: f64,
    /// °C.
    pub(super) temperature: f64,
    /// 0 to 1.
    pub(super) sun: f64,
    /// Relative humidity, %.
    pub(super) humidity: f64,
}

impl Weather {
    fn moisture(&self) -> f64 {
        self.humidity / 100.0 * saturation(self.temperature)
    }

    fn step(&mut self, rng: &mut StdRng, clock: Clock) {
        // Two stages, so that it moves smoothly and has momentum.
        self.front_target += -self.front_target * DT / 36.0 + 4.0 * (2.0 * DT / 36.0).sqrt() * normal(rng);
        self.front += (self.front_target - self.front) * DT / 3.0;
        self.cloud_target += -self.cloud_target * DT / 7.0 + 1.6 * (2.0 * DT / 7.0).sqrt() * normal(rng);
        self.cloud += (1.0 / (1.0 + (-self.cloud_target).exp()) - self.cloud) * DT / 0.5;
        let half_day = 4.5 + 3.0 * clock.season;
        let from_noon = (clock.hour - 12.4) / half_day;
        let elevation = if from_noon.abs() < 1.0 { (0.5 * PI * from_noon).cos() } else { 0.0 };
        self.sun = elevation.powf(1.3) * (1.0 - 0.8 * self.cloud);
        let daily = (TAU * (clock.hour - 15.0) / 24.0).cos();
        let swing = (2.5 + 2.5 * clock.season) * (1.4 - 0.9 * self.cloud);
        self.temperature = 5.0 + 5.0 * clock.season + self.front + swing * daily;
        self.humidity = (76.0 - 2.4 * swing * daily + 14.0 * (self.cloud - 0.5)).clamp(25.0, 99.0);
    }
}

/// Heating, hot water and electricity.
#[derive(Debug)]
pub(super) struct Plant {
    running: bool,
    /// How far the compressor has come up, 0 to 1.
    ramp: f64,
    element_on: bool,
    /// Minutes left of hot water being drawn.
    draw: u32,
    /// Minutes left of an oven or a washing machine, and its power.
    appliance: (u32, f64),
    /// Position in the fridge's cycle, minutes.
    fridge: u32,
    /// °C, of the water that leaves the heat pump.
    pub(super) flow_temperature: f64,
    /// W, of the heat pump.
    pub(super) heat_pump_power: f64,
    /// °C, of the hot water.
    pub(super) boiler_temperature: f64,
    /// W, of the panels on the roof.
    pub(super) solar_power: f64,
    /// W, of the whole house, averaged over some minutes as meters do.
    pub(super) house_power: f64,
}

impl Plant {
    fn step(&mut self, rng: &mut StdRng, clock: Clock, weather: &Weather, rooms: &[Room]) {
        let demand = rooms.iter().map(|r| r.radiator).sum::<f64>() / rooms.len().max(1) as f64;
        let target = 37.0 - 0.5 * (weather.temperature - 5.0);
        if self.flow_temperature < target - 3.5 {
            self.running = true;
        } else if self.flow_temperature > target + 3.5 {
            self.running = false;
        }
        let on = f64::from(u8::from(self.running));
        self.ramp += (on - self.ramp) * DT / 0.1;
        self.flow_temperature += DT * (15.0 * self.ramp - 2.5 - 9.0 * demand);
        let lift = (self.flow_temperature - weather.temperature).max(5.0);
        self.heat_pump_power = 9.0 + self.ramp * (700.0 + 28.0 * lift);

        let showering = rooms.iter().any(|r| r.used_as == Use::Bathroom && r.steam > 0);
        let washing_up = rooms.iter().any(|r| r.used_as == Use::Kitchen && r.occupied);
        self.draw = if showering { 2 } else { self.draw.saturating_sub(1) };
        if washing_up && rng.random_bool(1.0 / 90.0) {
            self.draw = 4;
        }
        if self.boiler_temperature < 49.0 {
            self.element_on = true;
        } else if self.boiler_temperature > 57.5 {
            self.element_on = false;
        }
        let heating = f64::from(u8::from(self.element_on));
        let drawn = f64::from(u8::from(self.draw > 0));
        self.boiler_temperature +=
            DT * (9.0 * heating - 1.1 * (self.boiler_temperature - 20.0) / 35.0 - 26.0 * drawn);

        self.solar_power = 4100.0 * weather.sun;

        self.fridge = (self.fridge + 1) % 46;
        self.appliance.0 = self.appliance.0.saturating_sub(1);
        let chance = if (9.0..21.0).contains(&clock.hour) { 1.0 / 240.0 } else { 1.0 / 5000.0 };
        if self.appliance.0 == 0 && rng.random_bool(chance) {
            self.appliance = (rng.random_range(25..80), rng.random_range(400.0..1800.0));
        }
        let running_appliance = if self.appliance.0 > 0 { self.appliance.1 } else { 0.0 };
        let lights = rooms.iter().filter(|r| r.occupied).count() as f64 * 55.0;
        let fridge = if self.fridge < 17 { 110.0 } else { 4.0 };
        let now = 150.0 + fridge + lights + running_appliance + self.heat_pump_power + 1800.0 * heating;
        self.house_power += (now - self.house_power) * DT / 0.12;
    }
}

/// Everything, at one moment.
#[derive(Debug)]
pub(super) struct World {
    rng: StdRng,
    /// Seconds since the Unix epoch.
    time: i64,
    pub(super) weather: Weather,
    pub(super) rooms: [Room; 5],
    pub(super) plant: Plant,
}

impl World {
    /// The world at a time, having lived through the two days before so that it starts in the
    /// middle of things.
    pub(super) fn new(seed: u64, time: i64) -> Self {
        let mut world = World {
            rng: StdRng::seed_from_u64(seed),
            time: time - 2 * DAY,
            weather: Weather {
                front_target: 0.0,
                front: 0.0,
                cloud_target: 0.0,
                cloud: 0.5,
                temperature: 6.0,
                sun: 0.0,
                humidity: 75.0,
            },
            rooms: [
                Room::new(Use::Living, 30.0, 1.1),
                Room::new(Use::Kitchen, 24.0, 0.5),
                Room::new(Use::Bedroom, 34.0, 0.4),
                Room::new(Use::Office, 27.0, 0.8),
                Room::new(Use::Bathroom, 22.0, 0.1),
            ],
            plant: Plant {
                running: false,
                ramp: 0.0,
                element_on: false,
                draw: 0,
                appliance: (0, 0.0),
                fridge: 0,
                flow_temperature: 36.0,
                heat_pump_power: 9.0,
                boiler_temperature: 54.0,
                solar_power: 0.0,
                house_power: 400.0,
            },
        };
        world.advance_to(time);
        world
    }

    /// Lives on, minute by minute, until a time.
    pub(super) fn advance_to(&mut self, time: i64) {
        while self.time < time {
            self.time += STEP;
            let clock = Clock::at(self.time);
            self.weather.step(&mut self.rng, clock);
            for room in &mut self.rooms {
                room.step(&mut self.rng, clock, &self.weather);
            }
            self.plant.step(&mut self.rng, clock, &self.weather, &self.rooms);
        }
    }
}
