//! What of a document is wanted, and what is made of it.

use jiff::tz::TimeZone;
use serde::de::{DeserializeSeed, Deserializer};

use super::decoded::{Decoded, Place, Value};
use super::large::mark_too_large;
use super::walk::Walk;
use crate::metrics::Rejection;

/// What of a document is wanted.
#[derive(Debug)]
pub(super) struct Shape {
    root: Node,
    nodes: usize,
    fields: usize,
    has_time: bool,
    /// Whether each document must hold the time; else it may come at the time of arrival.
    needs_time: bool,
    /// Zone of times without an offset.
    pub(super) zone: Option<TimeZone>,
    /// Whether documents of different kinds are expected: of a field that is absent, or holds nothing, nothing
    /// is said, and `ON` is 1.
    pub(super) mixed: bool,
    texts: usize,
}

/// A place in documents, with the places under it that are wanted.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) id: usize,
    pub(super) target: Option<Target>,
    pub(super) children: Vec<Child>,
}

#[derive(Debug)]
pub(super) struct Child {
    pub(super) name: String,
    /// The name as an array index.
    pub(super) index: Option<usize>,
    pub(super) node: Node,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    Field(usize),
    Time,
    /// A text that is kept, such as a unit.
    Text(usize),
    /// Nothing here or below is a reading.
    Ignored,
}

/// What the pass over one document has found so far.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// One a configured field.
    pub(super) slots: Vec<Slot>,
    /// Whether a node was met; of members of the same name the first counts.
    pub(super) met: Vec<bool>,
    pub(super) time: Option<i64>,
    /// Whether something stood where the time was wanted.
    pub(super) time_seen: bool,
    /// Whether a leaf was something other than a number.
    pub(super) others: bool,
    /// One a text that is kept; empty if it is absent.
    pub(super) texts: Vec<String>,
    /// Time of arrival.
    pub(super) now: i64,
    /// Name of the place the pass is at, kept where every leaf is wanted.
    pub(super) at: String,
}

pub(super) type Slot = Result<f64, Rejection>;

impl Shape {
    /// Fields and time by path; no fields means every numeric leaf.
    pub(super) fn new(fields: &[Vec<String>], time: Option<&[String]>, zone: Option<TimeZone>) -> Shape {
        let mut shape = Shape {
            root: Node::default(),
            nodes: 1,
            fields: fields.len(),
            has_time: time.is_some(),
            needs_time: time.is_some(),
            zone,
            mixed: false,
            texts: 0,
        };
        for (position, path) in fields.iter().enumerate() {
            shape.add(path, Target::Field(position));
        }
        if let Some(path) = time {
            shape.add(path, Target::Time);
        }
        shape
    }

    /// How many fields are asked for; none means every numeric leaf.
    pub(super) fn fields(&self) -> usize {
        self.fields
    }

    /// For the documents of devices of different kinds.
    pub(super) fn mixed(mut self) -> Shape {
        self.mixed = true;
        self
    }

    /// Without a time a document counts from its arrival.
    pub(super) fn time_optional(mut self) -> Shape {
        self.needs_time = false;
        self
    }

    /// Members of these names hold no readings, unless one is asked for.
    pub(super) fn ignoring(mut self, names: &[&str]) -> Shape {
        if self.fields == 0 {
            names.iter().for_each(|name| self.add(&[(*name).to_owned()], Target::Ignored));
        }
        self
    }

    /// Members of these names are kept as texts.
    pub(super) fn keeping(mut self, names: &[&str]) -> Shape {
        for name in names {
            let position = self.texts;
            self.texts += 1;
            self.add(&[(*name).to_owned()], Target::Text(position));
        }
        self
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

    /// Reads a JSON document that arrived at `now`.
    pub(super) fn decode(&self, text: &str, now: i64, out: &mut Decoded) {
        match self.json(text, now, out) {
            Ok(()) => {}
            // Rare, and its own pass: the message names no other way to tell.
            Err(e) if e.to_string().starts_with("number out of range") => {
                out.clear();
                if self.json(&mark_too_large(text), now, out).is_err() {
                    out.reject(Rejection::Unparseable);
                    return;
                }
            }
            Err(_) => {
                out.reject(Rejection::Unparseable);
                return;
            }
        }
        self.conclude(out);
    }

    /// Makes readings of what a pass has found.
    pub(super) fn conclude(&self, out: &mut Decoded) {
        for position in 0..out.json.slots.len() {
            match out.json.slots[position] {
                Ok(value) => out.values.push(Value::new(Place::Configured(position), value)),
                Err(Rejection::MissingField) if self.mixed => {}
                Err(reason) => out.reject_field(position, reason),
            }
        }
        if out.values.is_empty() && out.rejections.is_empty() {
            if !self.mixed {
                let other = out.json.others;
                out.reject(if other { Rejection::NotANumber } else { Rejection::MissingField });
            }
            return;
        }
        out.time = out.json.time;
        let bad = self.has_time && out.time.is_none() && (self.needs_time || out.json.time_seen);
        if bad {
            out.reject_values(Rejection::BadTime);
        }
    }

    fn json(&self, text: &str, now: i64, out: &mut Decoded) -> serde_json::Result<()> {
        let mut json = serde_json::Deserializer::from_str(text);
        self.pass(&mut json, now, out)?;
        json.end()
    }

    /// Goes over a document that arrived at `now`.
    pub(super) fn pass<'de, D>(&self, document: D, now: i64, out: &mut Decoded) -> Result<(), D::Error>
    where
        D: Deserializer<'de>,
    {
        out.json.slots.clear();
        out.json.slots.resize(self.fields, Err(Rejection::MissingField));
        out.json.met.clear();
        out.json.met.resize(self.nodes, false);
        out.json.time = None;
        out.json.time_seen = false;
        out.json.others = false;
        out.json.now = now;
        out.json.texts.iter_mut().for_each(String::clear);
        out.json.texts.resize(self.texts, String::new());
        out.json.at.clear();
        Walk::new(self, &self.root, out).deserialize(document)
    }
}
