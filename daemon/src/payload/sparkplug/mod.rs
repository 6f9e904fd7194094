//! Sparkplug B: births name and describe metrics, data refer to them by alias, and who has missed a birth
//! asks for another.

mod message;
mod nodes;

use hashbrown::HashSet;
use prost::Message;

use super::decoded::{Decoded, Place, Request, Span, Value};
use super::inflate::{Kind as Compressed, inflate};
use super::{Arrival, finite, states};
use crate::metrics::Rejection;
use crate::topic::{self, MAX_KEY};
use message::{Metric, Payload, Properties, Value as Held, datatype};
use nodes::{Described, Device, Nodes};

const NAMESPACE: &str = "spBv1.0";
/// `uuid` of a payload whose body is another, compressed.
const COMPRESSED: &str = "SPBV1.0_COMPRESSED";
const REBIRTH: &str = "Node Control/Rebirth";
const SESSION: &str = "bdSeq";
/// Properties that hold a unit, in small letters: Ignition's, and what others write.
const UNITS: [&str; 5] = ["engunit", "unit", "units", "engineering units", "engineeringunits"];

/// Whether an MQTT filter delivers all messages of one group or all.
pub(crate) fn fits(filter: &str) -> bool {
    let Some(rest) = filter.strip_prefix(NAMESPACE).and_then(|rest| rest.strip_prefix('/')) else {
        return false;
    };
    rest == "#" || rest.split_once('/').is_some_and(|(_, rest)| rest == "#")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Birth,
    Data,
    Death,
}

/// Where a message comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Topic<'t> {
    kind: Kind,
    group: &'t str,
    node: &'t str,
    device: Option<&'t str>,
}

impl<'t> Topic<'t> {
    /// None of what holds no readings, such as commands.
    pub(super) fn parse(topic: &'t str) -> Option<Topic<'t>> {
        let mut levels = topic.split('/');
        let (NAMESPACE, group, kind, node) = (levels.next()?, levels.next()?, levels.next()?, levels.next()?)
        else {
            return None;
        };
        let device = levels.next();
        let kind = match (kind, device) {
            ("NBIRTH", None) | ("DBIRTH", Some(_)) => Kind::Birth,
            ("NDATA", None) | ("DDATA", Some(_)) => Kind::Data,
            ("NDEATH", None) | ("DDEATH", Some(_)) => Kind::Death,
            _ => return None,
        };
        levels.next().is_none().then_some(Topic { kind, group, node, device })
    }

    /// What names its series.
    pub(super) fn parts(self) -> Vec<(&'static str, &'t str)> {
        let device = self.device.map(|device| ("device", device));
        [("group", self.group), ("node", self.node)].into_iter().chain(device).collect()
    }
}

/// A host application: what it is told by nodes.
#[derive(Debug)]
pub(super) struct Host {
    /// Names of the metrics that are wanted; empty means all.
    fields: HashSet<String>,
    max_bytes: usize,
    nodes: Nodes,
    /// Group and name of the node of the message.
    node: String,
}

impl Host {
    pub(super) fn new(fields: &[String], max_bytes: usize) -> Host {
        Host {
            fields: fields.iter().cloned().collect(),
            max_bytes,
            nodes: Nodes::default(),
            node: String::new(),
        }
    }

    pub(super) fn decode(&mut self, message: Arrival, out: &mut Decoded) {
        let Some(topic) = Topic::parse(message.topic) else { return };
        let Some(payload) = read(message.payload, self.max_bytes) else {
            out.reject(Rejection::Unparseable);
            return;
        };
        let mut node = std::mem::take(&mut self.node);
        node.clear();
        node.extend([topic.group, "/", topic.node]);
        let follows = match (topic.kind, topic.device) {
            (Kind::Birth, None) => {
                self.nodes.begin(&node, payload.seq, session(&payload));
                true
            }
            (Kind::Death, None) => {
                self.nodes.end(&node, session(&payload));
                true
            }
            _ => self.nodes.follows(&node, payload.seq),
        };
        let device = topic.device.unwrap_or_default();
        let known = match topic.kind {
            Kind::Death => {
                if topic.device.is_some() {
                    self.nodes.forget(&node, topic.device);
                }
                true
            }
            Kind::Birth => {
                self.birth(&payload, &node, device, out);
                true
            }
            Kind::Data => self.data(&payload, self.nodes.device(&node, device), out),
        };
        if !(follows && known) && self.nodes.may_ask(&node, message.at) {
            out.request = Some(rebirth(topic, message.at));
        }
        self.node = node;
    }

    /// Takes a birth's metrics as they are described, and their values.
    fn birth(&mut self, payload: &Payload, node: &str, device: &str, out: &mut Decoded) {
        let mut born = Device::default();
        for bytes in &payload.metrics {
            let Ok(metric) = Metric::decode(bytes.as_slice()) else {
                out.rejections.push(Rejection::Unparseable);
                continue;
            };
            let Some(name) = metric.name.as_deref().filter(|name| !name.is_empty()) else {
                out.rejections.push(Rejection::NoBirth);
                continue;
            };
            if name.len() > MAX_KEY {
                out.rejections.push(Rejection::KeyTooLong);
                continue;
            }
            let described = Described {
                datatype: metric.datatype,
                unit: metric.properties.as_ref().and_then(unit).map(Into::into),
            };
            self.reading(&metric, name, &described, payload.timestamp, out);
            if is_reading(name) {
                born.add(name, metric.alias, described);
            }
        }
        self.nodes.born(node, device, born);
    }

    /// Takes the values of data; false if one refers to what is not known.
    fn data(&self, payload: &Payload, device: Option<&Device>, out: &mut Decoded) -> bool {
        let mut all = true;
        let unknown = Described::default();
        for bytes in &payload.metrics {
            let Ok(metric) = Metric::decode(bytes.as_slice()) else {
                out.rejections.push(Rejection::Unparseable);
                continue;
            };
            let named = metric.name.as_deref().filter(|name| !name.is_empty());
            let found = match (named, metric.alias) {
                (Some(name), _) => {
                    let described = device.and_then(|d| d.by_name(name)).unwrap_or(&unknown);
                    self.reading(&metric, name, described, payload.timestamp, out)
                }
                (None, Some(alias)) => match device.and_then(|d| d.by_alias(alias)) {
                    Some((name, described)) => self.reading(&metric, name, described, payload.timestamp, out),
                    None => false,
                },
                (None, None) => false,
            };
            if !found {
                out.rejections.push(Rejection::NoBirth);
                all = false;
            }
        }
        all
    }

    /// Takes a metric's value; false if it cannot be told what it means.
    fn reading(
        &self,
        metric: &Metric,
        name: &str,
        described: &Described,
        sent: Option<u64>,
        out: &mut Decoded,
    ) -> bool {
        if !is_reading(name) || !(self.fields.is_empty() || self.fields.contains(name)) {
            return true;
        }
        let value = match number(metric, metric.datatype.or(described.datatype)) {
            Number::Is(value) => value,
            Number::None => return true,
            Number::Untyped => return false,
        };
        let time = match metric.timestamp.or(sent).map(|ms| i64::try_from(ms).ok()?.checked_mul(1000)) {
            Some(Some(time)) => Some(time),
            None => None,
            Some(None) => {
                out.rejections.push(Rejection::BadTime);
                return true;
            }
        };
        match finite(value) {
            Ok(value) => {
                let span = field(name, out);
                out.values.push(Value { time, ..Value::new(Place::Leaf(span.start, span.end), value) });
                let own = metric.properties.as_ref().and_then(unit);
                if let Some(unit) = own.or(described.unit.as_deref()) {
                    out.label_value(out.values.len() - 1, states::UNIT, unit);
                }
            }
            Err(reason) => out.rejections.push(reason),
        }
        true
    }
}

/// A payload, compressed or not.
fn read(bytes: &[u8], limit: usize) -> Option<Payload> {
    let payload = Payload::decode(bytes).ok()?;
    if payload.uuid.as_deref() != Some(COMPRESSED) {
        return Some(payload);
    }
    let body = payload.body.as_deref()?;
    let kind = if body.starts_with(&[0x1f, 0x8b]) { Compressed::Gzip } else { Compressed::Zlib };
    let mut inflated = Vec::new();
    inflate(kind, body, limit, &mut inflated).ok()?;
    let inner = Payload::decode(inflated.as_slice()).ok()?;
    // The number may stand outside.
    Some(Payload {
        seq: inner.seq.or(payload.seq),
        timestamp: inner.timestamp.or(payload.timestamp),
        ..inner
    })
}

/// Whether a metric is none of those by which nodes are managed.
fn is_reading(name: &str) -> bool {
    name != SESSION && !name.starts_with("Node Control/") && !name.starts_with("Device Control/")
}

/// The session that a birth or death of a node is of.
fn session(payload: &Payload) -> Option<u64> {
    let metrics = payload.metrics.iter().filter_map(|bytes| Metric::decode(bytes.as_slice()).ok());
    metrics.filter(|metric| metric.name.as_deref() == Some(SESSION)).find_map(|metric| match metric.value {
        Some(Held::Long(number)) => Some(number),
        Some(Held::Int(number)) => Some(number.into()),
        _ => None,
    })
}

enum Number {
    Is(f64),
    /// A text, a time, something of several parts, or nothing at the moment.
    None,
    /// Without its type it cannot be told whether it is negative.
    Untyped,
}

/// What a metric's value is. Integers of either sign come as unsigned ones.
fn number(metric: &Metric, datatype: Option<u32>) -> Number {
    if metric.is_null == Some(true) {
        return Number::None;
    }
    let bits = match metric.value {
        None | Some(Held::Text(_)) => return Number::None,
        Some(Held::Float(value)) => return Number::Is(shortest(value)),
        Some(Held::Double(value)) => return Number::Is(value),
        Some(Held::Boolean(value)) => return Number::Is(f64::from(u8::from(value))),
        Some(Held::Int(bits)) => u64::from(bits),
        Some(Held::Long(bits)) => bits,
    };
    // Cut to their width.
    match datatype {
        Some(datatype::INT8) => Number::Is(f64::from(bits as i8)),
        Some(datatype::INT16) => Number::Is(f64::from(bits as i16)),
        Some(datatype::INT32) => Number::Is(f64::from(bits as i32)),
        Some(datatype::INT64) => Number::Is(bits as i64 as f64),
        Some(datatype::UINT8..=datatype::UINT64 | datatype::BOOLEAN) => Number::Is(bits as f64),
        // A time, mostly.
        Some(_) => Number::None,
        None => Number::Untyped,
    }
}

/// The double that is written like a float: 21.3, not 21.299999237.
fn shortest(value: f32) -> f64 {
    ryu::Buffer::new().format(value).parse().unwrap_or_else(|_| value.into())
}

/// The first property that is a unit.
fn unit(properties: &Properties) -> Option<&str> {
    let named = |name: &&str| UNITS.iter().any(|unit| name.eq_ignore_ascii_case(unit));
    let mut all = properties.keys.iter().map(String::as_str).zip(&properties.values);
    all.find(|(name, _)| named(name)).and_then(|(_, value)| states::unit(value.text.as_deref()?))
}

/// A metric's name as a field: its levels are members.
fn field(name: &str, out: &mut Decoded) -> Span {
    let start = out.names.len();
    for (position, member) in name.split('/').enumerate() {
        topic::push_member(&mut out.names, position == 0, member);
    }
    Span { start, end: out.names.len() }
}

/// The command by which a node sends its births again.
fn rebirth(topic: Topic, now: i64) -> Request {
    let metric = Metric {
        name: Some(REBIRTH.to_owned()),
        datatype: Some(datatype::BOOLEAN),
        value: Some(Held::Boolean(true)),
        ..Metric::default()
    };
    let payload = Payload {
        timestamp: u64::try_from(now / 1000).ok(),
        metrics: vec![metric.encode_to_vec()],
        ..Payload::default()
    };
    let Topic { group, node, .. } = topic;
    Request { topic: format!("{NAMESPACE}/{group}/NCMD/{node}"), payload: payload.encode_to_vec() }
}

#[cfg(test)]
mod tests;
