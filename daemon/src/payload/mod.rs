//! Payloads: bytes in, readings out.
//!
//! What counts as a received reading: each configured field of a message or, where none is
//! configured, each numeric leaf. A message that cannot be parsed counts as one, rejected, and so does a
//! document of one kind (`json`, `cbor`) that has no numeric leaf: for not being a number if it has another.
//! In the formats of devices of all kinds a message may hold nothing to be read, of which nothing is said.

mod cbor;
mod decoded;
mod inflate;
mod influx;
mod large;
mod path;
mod shape;
mod sparkplug;
mod states;
mod tasmota;
mod time;
mod walk;
mod zigbee2mqtt;

pub use decoded::{Decoded, Decoding, Field, Request};
pub(crate) use path::path;
pub(crate) use sparkplug::fits as sparkplug_filter;

use crate::config::{self, Payload};
use crate::metrics::Rejection;
use crate::topic::{self, Captures};
use decoded::{Place, Value};
use shape::Shape;

/// Field name of a bare number, in the `number` format and as a whole JSON document.
const VALUE: &str = "value";

/// How a stream's payloads are read.
#[derive(Debug)]
pub struct Decoder {
    format: Format,
    fields: Vec<String>,
    compression: config::Compression,
    max_bytes: usize,
}

#[derive(Debug)]
enum Format {
    Number,
    State,
    Json(Shape),
    Cbor(Shape),
    Tasmota(Shape),
    Zigbee2mqtt(Shape),
    Influx(influx::Lines),
    Sparkplug(Box<sparkplug::Host>),
}

/// A message to be read.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its body.
    pub payload: &'a [u8],
    /// When it arrived, microseconds since the Unix epoch.
    pub at: i64,
}

/// What names the series of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Naming<'t> {
    /// The pattern's captures.
    Captures,
    /// Parts of the topic, each with the name of its label.
    Parts(Vec<(&'static str, &'t str)>),
    /// Nothing: there are no readings on it.
    Nothing,
}

impl Decoder {
    /// A decoder for a validated stream; fields that validation would refuse are never found. Compressed
    /// bodies may have `max_bytes` once they are not.
    #[must_use]
    pub fn new(stream: &config::Stream, max_bytes: usize) -> Decoder {
        let split = |text: &String| path(text).unwrap_or_else(|_| vec![text.clone()]);
        let paths: Vec<Vec<String>> = stream.fields.iter().map(split).collect();
        let time = stream.time.as_ref().map(split);
        let zone = stream.time_zone().ok().flatten();
        let format = match stream.payload {
            Payload::Number => Format::Number,
            Payload::HomeAssistant => Format::State,
            Payload::Json => Format::Json(Shape::new(&paths, time.as_deref(), zone)),
            Payload::Cbor => Format::Cbor(Shape::new(&paths, time.as_deref(), zone)),
            Payload::Tasmota => Format::Tasmota(tasmota::shape(&paths, zone)),
            Payload::Zigbee2mqtt => Format::Zigbee2mqtt(zigbee2mqtt::shape(&paths)),
            Payload::Influx => {
                Format::Influx(influx::Lines::new(&stream.fields, stream.precision.unwrap_or_default()))
            }
            Payload::Sparkplug => {
                Format::Sparkplug(Box::new(sparkplug::Host::new(&stream.fields, max_bytes)))
            }
        };
        let fields = match format {
            Format::Number | Format::State => vec![VALUE.to_owned()],
            Format::Influx(_) | Format::Sparkplug(_) => Vec::new(),
            _ => paths.iter().map(|p| topic::field_name(p)).collect(),
        };
        Decoder { format, fields, compression: stream.compression, max_bytes }
    }

    /// Names of the configured fields, encoded as they stand in series keys; empty means every
    /// numeric leaf, or that the format knows fields by name.
    #[must_use]
    pub fn fields(&self) -> &[String] {
        &self.fields
    }

    /// What names the series of a topic that the stream's pattern matches.
    #[must_use]
    pub fn naming<'t>(&self, topic: &'t str, captures: &Captures<'t>) -> Naming<'t> {
        let read = match &self.format {
            Format::Tasmota(_) => tasmota::reads(topic),
            Format::Zigbee2mqtt(_) => zigbee2mqtt::reads(&captures.values().join("/")),
            Format::Sparkplug(_) => {
                return sparkplug::Topic::parse(topic).map_or(Naming::Nothing, |t| Naming::Parts(t.parts()));
            }
            _ => true,
        };
        if read { Naming::Captures } else { Naming::Nothing }
    }

    /// Reads one message; `out` holds its readings, and nothing of what it held before.
    pub fn decode(&mut self, message: Arrival, out: &mut Decoded) {
        out.clear();
        let Some(kind) = inflate::kind(self.compression, message.payload) else {
            self.read(message, out);
            return;
        };
        let mut inflated = std::mem::take(&mut out.inflated);
        match inflate::inflate(kind, message.payload, self.max_bytes, &mut inflated) {
            Ok(()) => self.read(Arrival { payload: &inflated, ..message }, out),
            // It only looked like it.
            Err(inflate::Failure::Broken) if self.compression == config::Compression::Auto => {
                self.read(message, out);
            }
            Err(_) => out.reject(Rejection::Unparseable),
        }
        out.inflated = inflated;
    }

    fn read(&mut self, message: Arrival, out: &mut Decoded) {
        match (&mut self.format, std::str::from_utf8(message.payload)) {
            (Format::Cbor(shape), _) => cbor::decode(shape, message, out),
            (Format::Sparkplug(host), _) => host.decode(message, out),
            (_, Err(_)) => out.reject(Rejection::Unparseable),
            (Format::Json(shape) | Format::Zigbee2mqtt(shape), Ok(text)) => {
                shape.decode(text, message.at, out)
            }
            (Format::Number, Ok(text)) => match number(text.trim_ascii()) {
                Ok(value) => out.values.push(Value::new(Place::Configured(0), value)),
                Err(reason) => out.reject(reason),
            },
            (Format::State, Ok(text)) => match states::home_assistant(text) {
                Ok(value) => out.values.extend(value.map(|v| Value::new(Place::Configured(0), v))),
                Err(reason) => out.reject(reason),
            },
            (Format::Tasmota(shape), Ok(text)) => {
                shape.decode(text, message.at, out);
                tasmota::finish(&self.fields, out);
            }
            (Format::Influx(lines), Ok(text)) => lines.decode(text, out),
        }
    }
}

/// A bare number or boolean.
fn number(text: &str) -> Result<f64, Rejection> {
    match text {
        "true" => Ok(1.0),
        "false" => Ok(0.0),
        _ => text.parse().map_err(|_| Rejection::Unparseable).and_then(finite),
    }
}

fn finite(value: f64) -> Result<f64, Rejection> {
    if value.is_finite() { Ok(value) } else { Err(Rejection::NotFinite) }
}

#[cfg(test)]
mod presets_tests;
#[cfg(test)]
mod tests;
