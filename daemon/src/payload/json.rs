//! JSON documents, read in one pass over the text: only what is asked for is looked at, nothing is
//! built.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Decoded, Place, VALUE, finite, time};
use crate::metrics::Rejection;
use crate::topic;

/// Stands, as a string, for a number beyond a double's range, at which `serde_json` gives up.
const TOO_LARGE: &str = "\u{0}too large";

/// What of a document is wanted.
#[derive(Debug)]
pub(super) struct Shape {
    root: Node,
    nodes: usize,
    fields: usize,
    has_time: bool,
}

/// A place in documents, with the places under it that are wanted.
#[derive(Debug, Default)]
struct Node {
    id: usize,
    target: Option<Target>,
    children: Vec<Child>,
}

#[derive(Debug)]
struct Child {
    name: String,
    /// The name as an array index.
    index: Option<usize>,
    node: Node,
}

#[derive(Debug, Clone, Copy)]
enum Target {
    Field(usize),
    Time,
}

/// What the pass over one document has found so far.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// One a configured field.
    slots: Vec<Slot>,
    /// Whether a node was met; of members of the same name the first counts.
    met: Vec<bool>,
    time: Option<i64>,
    /// Name of the place the pass is at, kept where every leaf is wanted.
    at: String,
}

type Slot = Result<f64, Rejection>;

impl Shape {
    /// Fields and time by path; no fields means every numeric leaf.
    pub(super) fn new(fields: &[Vec<String>], time: Option<&[String]>) -> Shape {
        let mut shape =
            Shape { root: Node::default(), nodes: 1, fields: fields.len(), has_time: time.is_some() };
        for (position, path) in fields.iter().enumerate() {
            shape.add(path, Target::Field(position));
        }
        if let Some(path) = time {
            shape.add(path, Target::Time);
        }
        shape
    }

    fn add(&mut self, path: &[String], target: Target) {
        let mut node = &mut self.root;
        for name in path {
            let position = node.children.iter().position(|c| c.name == *name).unwrap_or_else(|| {
                let child = Node { id: self.nodes, ..Node::default() };
                self.nodes += 1;
                // "01" names a member, never an index.
                let index = name.parse().ok().filter(|i: &usize| i.to_string() == *name);
                node.children.push(Child { name: name.clone(), index, node: child });
                node.children.len() - 1
            });
            match node.children.get_mut(position) {
                Some(child) => node = &mut child.node,
                None => return,
            }
        }
        node.target = Some(target);
    }

    pub(super) fn decode(&self, text: &str, out: &mut Decoded) {
        match self.pass(text, out) {
            Ok(()) => {}
            // Rare, and its own pass: the message names no other way to tell.
            Err(e) if e.to_string().starts_with("number out of range") => {
                out.clear();
                if self.pass(&mark_too_large(text), out).is_err() {
                    out.reject(Rejection::Unparseable);
                    return;
                }
            }
            Err(_) => {
                out.reject(Rejection::Unparseable);
                return;
            }
        }
        for (position, slot) in out.json.slots.iter().enumerate() {
            match slot {
                Ok(value) => out.values.push((Place::Configured(position), *value)),
                Err(reason) => out.rejections.push(*reason),
            }
        }
        if out.values.is_empty() && out.rejections.is_empty() {
            out.reject(Rejection::MissingField);
            return;
        }
        out.time = out.json.time;
        if self.has_time && out.time.is_none() {
            out.reject_values(Rejection::BadTime);
        }
    }

    fn pass(&self, text: &str, out: &mut Decoded) -> serde_json::Result<()> {
        out.json.slots.clear();
        out.json.slots.resize(self.fields, Err(Rejection::MissingField));
        out.json.met.clear();
        out.json.met.resize(self.nodes, false);
        out.json.time = None;
        out.json.at.clear();
        let mut json = serde_json::Deserializer::from_str(text);
        let every_leaf = self.fields == 0;
        Walk { node: Some(&self.root), every_leaf, depth: 0, out }.deserialize(&mut json)?;
        json.end()
    }
}

/// The pass at one place of the document.
struct Walk<'a> {
    /// The place among the wanted ones, if it or something under it is wanted by name.
    node: Option<&'a Node>,
    every_leaf: bool,
    depth: usize,
    out: &'a mut Decoded,
}

impl<'a> Walk<'a> {
    /// The pass goes on under a child, unless nothing is wanted there.
    fn below(&mut self, child: Option<&'a Node>) -> Option<Walk<'_>> {
        if let Some(node) = child {
            match self.out.json.met.get_mut(node.id) {
                Some(met) if !*met => *met = true,
                _ => return None,
            }
        } else if !self.every_leaf {
            return None;
        }
        Some(Walk { node: child, every_leaf: self.every_leaf, depth: self.depth + 1, out: self.out })
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
            Some(Target::Time) => self.out.json.time = time(),
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
                    self.out.values.push((Place::Leaf(start, self.out.names.len()), value));
                }
                // What is no number is no leaf; a number that no double holds is.
                Err(Rejection::NotFinite) => self.out.rejections.push(Rejection::NotFinite),
                Err(_) => {}
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
        let reason = if text == TOO_LARGE { Rejection::NotFinite } else { Rejection::NotANumber };
        self.value(Err(reason), || time::text(text));
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
        deserializer.deserialize_str(self)
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
}

/// The document with each number beyond a double's range replaced by [`TOO_LARGE`].
fn mark_too_large(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    let mut in_string = false;
    while let Some(c) = rest.chars().next() {
        let token = if in_string {
            in_string = c != '"';
            // Whatever is escaped, it does not end the string.
            if c == '\\' { rest.chars().take(2).map(char::len_utf8).sum() } else { c.len_utf8() }
        } else if c == '-' || c.is_ascii_digit() {
            rest.find(|c: char| !matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E')).unwrap_or(rest.len())
        } else {
            in_string = c == '"';
            c.len_utf8()
        };
        let (token, after) = rest.split_at(token);
        if !in_string && token.parse::<f64>().is_ok_and(f64::is_infinite) {
            out.push_str(r#""\u0000too large""#);
        } else {
            out.push_str(token);
        }
        rest = after;
    }
    out
}
