//! Documents, read in one pass: only what is asked for is looked at, nothing is built.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::decoded::{Decoded, Place, Value};
use super::large::TOO_LARGE;
use super::shape::{Node, Shape, Slot, Target};
use super::states;
use super::time::{self, Local};
use super::{VALUE, finite};
use crate::metrics::Rejection;
use crate::topic;

/// The pass at one place of the document.
pub(super) struct Walk<'a> {
    shape: &'a Shape,
    /// The place among the wanted ones, if it or something under it is wanted by name.
    node: Option<&'a Node>,
    every_leaf: bool,
    depth: usize,
    out: &'a mut Decoded,
}

impl<'a> Walk<'a> {
    /// At the root of a document.
    pub(super) fn new(shape: &'a Shape, root: &'a Node, out: &'a mut Decoded) -> Walk<'a> {
        Walk { shape, node: Some(root), every_leaf: shape.fields() == 0, depth: 0, out }
    }

    /// The pass goes on under a child, unless nothing is wanted there.
    fn below(&mut self, child: Option<&'a Node>) -> Option<Walk<'_>> {
        if let Some(node) = child {
            if matches!(node.target, Some(Target::Ignored)) {
                return None;
            }
            match self.out.json.met.get_mut(node.id) {
                Some(met) if !*met => *met = true,
                _ => return None,
            }
        } else if !self.every_leaf {
            return None;
        }
        let depth = self.depth + 1;
        Some(Walk { shape: self.shape, node: child, every_leaf: self.every_leaf, depth, out: self.out })
    }

    fn target(&self) -> Option<Target> {
        self.node.and_then(|n| n.target)
    }

    fn number(self, value: f64, time: Option<i64>) {
        self.value(finite(value), || time);
    }

    /// Takes what stands at this place.
    fn value(self, value: Slot, time: impl FnOnce() -> Option<i64>) {
        match self.target() {
            Some(Target::Time) => {
                self.out.json.time = time();
                self.out.json.time_seen = value != Err(Rejection::MissingField);
            }
            Some(Target::Text(_) | Target::Ignored) => {}
            Some(Target::Field(position)) => {
                if let Some(slot) = self.out.json.slots.get_mut(position) {
                    *slot = value;
                }
            }
            None if self.every_leaf => match value {
                Ok(value) => {
                    let start = self.out.names.len();
                    let name = if self.depth == 0 { VALUE } else { &self.out.json.at };
                    self.out.names.push_str(name);
                    let place = Place::Leaf(start, self.out.names.len());
                    self.out.values.push(Value::new(place, value));
                }
                // What is no number is no leaf; a number that no double holds is.
                Err(Rejection::NotFinite) => self.out.rejections.push(Rejection::NotFinite),
                Err(reason) => self.out.json.others |= reason == Rejection::NotANumber,
            },
            None => {}
        }
    }

    /// An object or array stands where a field or the time was wanted.
    fn not_a_number(&mut self) {
        if let Some(Target::Field(position)) = self.target()
            && let Some(slot) = self.out.json.slots.get_mut(position)
        {
            *slot = Err(Rejection::NotANumber);
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

#[allow(clippy::cast_precision_loss, reason = "a double is what is stored")]
impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON document")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.number(f64::from(u8::from(value)), None);
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.number(value as f64, time::integer(value));
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.number(value as f64, i64::try_from(value).ok().and_then(time::integer));
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.value(finite(value), || time::fractional(value));
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        if let Some(Target::Text(position)) = self.target() {
            if let Some(kept) = self.out.json.texts.get_mut(position) {
                kept.push_str(text);
            }
            return Ok(());
        }
        let value = match text {
            TOO_LARGE => Err(Rejection::NotFinite),
            _ if self.shape.mixed => states::member(text),
            _ => Err(Rejection::NotANumber),
        };
        let local = Local { zone: self.shape.zone.as_ref(), now: self.out.json.now };
        self.value(value, || time::text(text, local));
        Ok(())
    }

    /// No number, and no text.
    fn visit_bytes<E: Error>(self, _: &[u8]) -> Result<(), E> {
        self.value(Err(Rejection::NotANumber), || None);
        Ok(())
    }

    /// `null` is how documents say that a value is absent.
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.value(Err(Rejection::MissingField), || None);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        self.not_a_number();
        let node = self.node;
        let length = self.out.json.at.len();
        for index in 0.. {
            let child =
                node.and_then(|n| n.children.iter().find(|c| c.index == Some(index))).map(|c| &c.node);
            if self.every_leaf {
                push_index(&mut self.out.json.at, self.depth == 0, index);
            }
            let more = match self.below(child) {
                Some(walk) => seq.next_element_seed(walk)?.is_some(),
                None => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            self.out.json.at.truncate(length);
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.not_a_number();
        let length = self.out.json.at.len();
        loop {
            let at = self.every_leaf.then_some(&mut self.out.json.at);
            let Some(child) = map.next_key_seed(Key { node: self.node, at, first: self.depth == 0 })? else {
                return Ok(());
            };
            match self.below(child) {
                Some(walk) => map.next_value_seed(walk)?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            self.out.json.at.truncate(length);
        }
    }
}

fn push_index(name: &mut String, first: bool, index: usize) {
    use fmt::Write as _;
    // Writing to a String does not fail.
    let _ = if first { write!(name, "{index}") } else { write!(name, ".{index}") };
}

/// Reads a member's name without keeping it: what is wanted under it, and the name where the pass is.
struct Key<'n, 's> {
    node: Option<&'n Node>,
    at: Option<&'s mut String>,
    first: bool,
}

impl<'de, 'n> DeserializeSeed<'de> for Key<'n, '_> {
    type Value = Option<&'n Node>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'n> Visitor<'_> for Key<'n, '_> {
    type Value = Option<&'n Node>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        if let Some(at) = self.at {
            topic::push_member(at, self.first, name);
        }
        Ok(self.node.and_then(|n| n.children.iter().find(|c| c.name == name)).map(|c| &c.node))
    }

    /// CBOR's maps may have numbers for keys.
    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        self.visit_str(&number.to_string())
    }
}
