//! Tasmota's telemetry: nested JSON with a local `Time`, and the units of all its temperatures, pressures
//! and speeds beside them.

use jiff::tz::TimeZone;

use super::decoded::{Decoded, Place, Span};
use super::shape::Shape;
use super::states;
use crate::metrics::Rejection;

/// Members that hold units, and how the names of the values begin that have them.
const UNITS: [(&str, &[&str]); 3] = [
    ("TempUnit", &["Temperature", "DewPoint", "FeelsLike", "HeatIndex"]),
    ("PressureUnit", &["Pressure", "SeaPressure"]),
    ("SpeedUnit", &["Speed", "WindSpeed"]),
];
/// A clock before 2016-01-01T00:00:00Z has not been set: Tasmota begins at 1970 and asks a server then.
const CLOCK_SET: i64 = 1_451_606_400_000_000;

/// Whether the last level of a topic names a message that holds no readings.
pub(super) fn reads(topic: &str) -> bool {
    let last = topic.rsplit('/').next().unwrap_or_default();
    last != "LWT" && !last.starts_with("INFO")
}

pub(super) fn shape(fields: &[Vec<String>], zone: Option<TimeZone>) -> Shape {
    Shape::new(fields, Some(&["Time".to_owned()]), zone)
        .mixed()
        .ignoring(&["Epoch"])
        .keeping(&UNITS.map(|(unit, _)| unit))
}

/// Judges the time, and puts the units to the values.
pub(super) fn finish(fields: &[String], out: &mut Decoded) {
    if out.time.is_some_and(|time| time < CLOCK_SET) {
        out.reject_values(Rejection::BadTime);
    }
    for position in 0..UNITS.len() {
        let Some(text) = out.json.texts.get_mut(position).map(std::mem::take) else { continue };
        if let Some(unit) = states::unit(&text) {
            for value in 0..out.values.len() {
                if has_unit(fields, out, value, position) {
                    out.label_value(value, states::UNIT, unit);
                }
            }
        }
        // Its room is used again.
        if let Some(place) = out.json.texts.get_mut(position) {
            *place = text;
        }
    }
}

fn has_unit(fields: &[String], out: &Decoded, value: usize, unit: usize) -> bool {
    let name = match out.values.get(value).map(|v| v.place) {
        Some(Place::Configured(position)) => fields.get(position).map_or("", String::as_str),
        Some(Place::Leaf(start, end)) => Span { start, end }.of(&out.names),
        None => "",
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    UNITS.get(unit).is_some_and(|(_, names)| names.iter().any(|n| last.starts_with(n)))
}
