//! What a message was found to hold.

use super::{influx, shape};
use crate::metrics::Rejection;

/// Which field of a message a reading comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field<'a> {
    /// Position in [`super::Decoder::fields`].
    Configured(usize),
    /// Field name of a numeric leaf, encoded as it stands in the series key; of line protocol with the
    /// measurement and the tags before it, `/` between.
    Leaf(&'a str),
}

/// A reading of a message.
#[derive(Debug, Clone, Copy)]
pub struct Decoding<'a> {
    /// Where it comes from.
    pub field: Field<'a>,
    /// Finite.
    pub value: f64,
    /// Microseconds since the Unix epoch; none means the time of arrival.
    pub time: Option<i64>,
    labels: &'a [(Span, Span)],
    names: &'a str,
}

impl<'a> Decoding<'a> {
    /// What the message says of the series besides: names and values, not encoded.
    pub fn labels(&self) -> impl ExactSizeIterator<Item = (&'a str, &'a str)> {
        let names = self.names;
        self.labels.iter().map(move |(name, value)| (name.of(names), value.of(names)))
    }
}

/// A message to be published in answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Topic.
    pub topic: String,
    /// Body.
    pub payload: Vec<u8>,
}

/// What one message holds. Kept by the caller and reused, so that decoding does not allocate.
#[derive(Debug, Default)]
pub struct Decoded {
    pub(super) values: Vec<Value>,
    pub(super) rejections: Vec<Rejection>,
    /// The configured fields of the first rejections.
    misfits: Vec<usize>,
    pub(super) time: Option<i64>,
    /// The names of all leaves, and names and values of labels, one after the other.
    pub(super) names: String,
    pub(super) labels: Vec<(Span, Span)>,
    pub(super) request: Option<Request>,
    pub(super) json: shape::Scratch,
    pub(super) influx: influx::Scratch,
    pub(super) inflated: Vec<u8>,
}

/// A value and where it comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value {
    pub(super) place: Place,
    pub(super) value: f64,
    /// Its own time, if it has one.
    pub(super) time: Option<i64>,
    /// Which of the labels are its own.
    pub(super) labels: (u32, u32),
}

impl Value {
    /// A value at the message's time, without labels.
    pub(super) fn new(place: Place, value: f64) -> Value {
        Value { place, value, time: None, labels: (0, 0) }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    Configured(usize),
    /// Where the name stands in `names`.
    Leaf(usize, usize),
}

/// A part of `names`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Span {
    pub(super) fn of(self, text: &str) -> &str {
        text.get(self.start..self.end).unwrap_or_default()
    }
}

impl Decoded {
    /// The readings, in the order of the configuration or of the document.
    pub fn readings(&self) -> impl ExactSizeIterator<Item = Decoding<'_>> {
        self.values.iter().map(|value| {
            let field = match value.place {
                Place::Configured(position) => Field::Configured(position),
                Place::Leaf(start, end) => Field::Leaf(Span { start, end }.of(&self.names)),
            };
            let (first, last) = value.labels;
            Decoding {
                field,
                value: value.value,
                time: value.time.or(self.time),
                labels: self.labels.get(first as usize..last as usize).unwrap_or_default(),
                names: &self.names,
            }
        })
    }

    /// One entry for each reading that was received but cannot be used.
    #[must_use]
    pub fn rejections(&self) -> &[Rejection] {
        &self.rejections
    }

    /// The configured field, as a position in [`super::Decoder::fields`], that was rejected for the reason at a
    /// position in [`Decoded::rejections`]; none if that was no configured field.
    #[must_use]
    pub fn misfit(&self, position: usize) -> Option<usize> {
        self.misfits.get(position).copied()
    }

    /// What is to be published in answer, once.
    pub fn take_request(&mut self) -> Option<Request> {
        self.request.take()
    }

    pub(super) fn clear(&mut self) {
        self.values.clear();
        self.rejections.clear();
        self.misfits.clear();
        self.time = None;
        self.names.clear();
        self.labels.clear();
        self.request = None;
    }

    /// A configured field cannot be used; nothing else was rejected before, save other fields.
    pub(super) fn reject_field(&mut self, position: usize, reason: Rejection) {
        self.rejections.push(reason);
        self.misfits.push(position);
    }

    /// The whole message counts as one reading, rejected.
    pub(super) fn reject(&mut self, reason: Rejection) {
        self.values.clear();
        self.rejections.clear();
        self.misfits.clear();
        self.rejections.push(reason);
    }

    /// Without a time no value of the message can be placed.
    pub(super) fn reject_values(&mut self, reason: Rejection) {
        self.rejections.extend(self.values.iter().map(|_| reason));
        self.values.clear();
    }

    /// Keeps a text as it is.
    pub(super) fn keep(&mut self, text: &str) -> Span {
        let start = self.names.len();
        self.names.push_str(text);
        Span { start, end: self.names.len() }
    }

    /// Where the labels that come next begin.
    pub(super) fn next_label(&self) -> u32 {
        u32::try_from(self.labels.len()).unwrap_or(u32::MAX)
    }

    /// Gives a value its one label.
    pub(super) fn label_value(&mut self, position: usize, name: &str, text: &str) {
        let first = self.next_label();
        let label = (self.keep(name), self.keep(text));
        self.labels.push(label);
        if let Some(value) = self.values.get_mut(position) {
            value.labels = (first, first + 1);
        }
    }
}
