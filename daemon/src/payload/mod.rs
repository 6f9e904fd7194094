//! Payloads: bytes in, readings out.
//!
//! What counts as a received reading: each configured field of a message or, where none is
//! configured, each numeric leaf. A message that cannot be parsed, or that has no numeric leaf,
//! counts as one, rejected. So each decoded message has at least one reading or one rejection.

mod json;
mod path;
mod time;

pub(crate) use path::path;

use crate::config;
use crate::metrics::Rejection;
use crate::topic;

/// Field name of a bare number, in the `number` format and as a whole JSON document.
const VALUE: &str = "value";

/// How a stream's payloads are read.
#[derive(Debug)]
pub struct Decoder {
    format: Format,
    fields: Vec<String>,
}

#[derive(Debug)]
enum Format {
    Number,
    Json(json::Shape),
}

/// Which field of a message a reading comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field<'a> {
    /// Position in [`Decoder::fields`].
    Configured(usize),
    /// Field name of a numeric leaf, encoded as it stands in the series key.
    Leaf(&'a str),
}

/// What one message holds. Kept by the caller and reused, so that decoding does not allocate.
#[derive(Debug, Default)]
pub struct Decoded {
    values: Vec<(Place, f64)>,
    rejections: Vec<Rejection>,
    time: Option<i64>,
    /// The names of all leaves, one after the other.
    names: String,
    json: json::Scratch,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Configured(usize),
    /// Where the name stands in `names`.
    Leaf(usize, usize),
}

impl Decoded {
    /// The readings, in the order of the configuration or of the document.
    pub fn readings(&self) -> impl ExactSizeIterator<Item = (Field<'_>, f64)> {
        self.values.iter().map(|&(place, value)| {
            let field = match place {
                Place::Configured(position) => Field::Configured(position),
                Place::Leaf(start, end) => Field::Leaf(self.names.get(start..end).unwrap_or_default()),
            };
            (field, value)
        })
    }

    /// One entry for each reading that was received but cannot be used.
    #[must_use]
    pub fn rejections(&self) -> &[Rejection] {
        &self.rejections
    }

    /// The message's time in microseconds since the Unix epoch; none means the time of arrival.
    #[must_use]
    pub fn time(&self) -> Option<i64> {
        self.time
    }

    fn clear(&mut self) {
        self.values.clear();
        self.rejections.clear();
        self.time = None;
        self.names.clear();
    }

    /// The whole message counts as one reading, rejected.
    fn reject(&mut self, reason: Rejection) {
        self.values.clear();
        self.rejections.clear();
        self.rejections.push(reason);
    }

    /// Without a time no value of the message can be placed.
    fn reject_values(&mut self, reason: Rejection) {
        self.rejections.extend(self.values.iter().map(|_| reason));
        self.values.clear();
    }
}

impl Decoder {
    /// A decoder for a validated stream; fields that validation would refuse are never found.
    #[must_use]
    pub fn new(stream: &config::Stream) -> Decoder {
        match stream.payload {
            config::Payload::Number => Decoder { format: Format::Number, fields: vec![VALUE.to_owned()] },
            config::Payload::Json => {
                let paths: Vec<Vec<String>> =
                    stream.fields.iter().map(|f| path(f).unwrap_or_else(|_| vec![f.clone()])).collect();
                let time = stream.time.as_deref().map(|t| path(t).unwrap_or_else(|_| vec![t.to_owned()]));
                let fields = paths.iter().map(|p| topic::field_name(p)).collect();
                Decoder { format: Format::Json(json::Shape::new(&paths, time.as_deref())), fields }
            }
        }
    }

    /// Names of the configured fields, encoded as they stand in series keys; empty means every
    /// numeric leaf.
    #[must_use]
    pub fn fields(&self) -> &[String] {
        &self.fields
    }

    /// Reads one payload; `out` holds its readings, and nothing of what it held before.
    pub fn decode(&self, payload: &[u8], out: &mut Decoded) {
        out.clear();
        let Ok(text) = std::str::from_utf8(payload) else {
            out.reject(Rejection::Unparseable);
            return;
        };
        match &self.format {
            Format::Number => match number(text.trim_ascii()) {
                Ok(value) => out.values.push((Place::Configured(0), value)),
                Err(reason) => out.reject(reason),
            },
            Format::Json(shape) => shape.decode(text, out),
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
mod tests;
