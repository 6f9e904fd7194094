//! What edge nodes have said of their metrics, and where in its messages each is.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::topic::MAX_KEY;

/// Edge nodes that are remembered, and bytes of what all have said together.
const NODES: usize = 10_000;
const BYTES: usize = 32 << 20;
/// Bytes that a metric takes beside its name and unit, in two tables, and a device beside its name.
const METRIC: usize = 128;
const DEVICE: usize = 256;
/// A node is asked for its births at most this often, in microseconds; each time in vain doubles it, up to
/// about an hour.
const ASK_EVERY: u64 = 10_000_000;
const DOUBLINGS: u32 = 9;

/// What a birth says of a metric.
#[derive(Debug, Default)]
pub(super) struct Described {
    pub(super) datatype: Option<u32>,
    pub(super) unit: Option<Box<str>>,
}

/// The metrics of a device, or of the node itself.
#[derive(Debug, Default)]
pub(super) struct Device {
    aliases: HashMap<u64, Arc<str>>,
    metrics: HashMap<Arc<str>, Described>,
    bytes: usize,
}

impl Device {
    pub(super) fn by_alias(&self, alias: u64) -> Option<(&Arc<str>, &Described)> {
        self.aliases.get(&alias).and_then(|name| self.metrics.get_key_value(name))
    }

    pub(super) fn by_name(&self, name: &str) -> Option<&Described> {
        self.metrics.get(name)
    }

    pub(super) fn add(&mut self, name: &str, alias: Option<u64>, described: Described) {
        self.bytes += name.len() + described.unit.as_ref().map_or(0, |unit| unit.len()) + METRIC;
        let name: Arc<str> = name.into();
        if let Some(alias) = alias {
            self.aliases.insert(alias, name.clone());
        }
        self.metrics.insert(name, described);
    }
}

#[derive(Debug, Default)]
struct Node {
    /// Number of the last message; none before the first.
    seq: Option<u8>,
    /// Number of the session, which its death names, too.
    session: Option<u64>,
    /// The node itself has the empty name.
    devices: HashMap<Box<str>, Device>,
    asked: Option<i64>,
    /// How often it was asked since its last birth that is remembered.
    in_vain: u32,
}

/// All edge nodes, by group and name.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    nodes: HashMap<Box<str>, Node>,
    bytes: usize,
    /// Whether it was said that there is too much.
    said: bool,
}

impl Nodes {
    /// Whether a message is the one that follows the last. If not, a birth may have been missed, so what is
    /// known of the node counts no more.
    pub(super) fn follows(&mut self, node: &str, seq: Option<u64>) -> bool {
        // Numbered or not: some leave it out.
        let Some(seq) = seq.and_then(|seq| u8::try_from(seq).ok()) else { return true };
        let Some(known) = self.node(node) else { return true };
        let follows = known.seq.is_none_or(|last| last.wrapping_add(1) == seq);
        known.seq = Some(seq);
        if !follows {
            self.forget(node, None);
        }
        follows
    }

    /// A node begins a session.
    pub(super) fn begin(&mut self, node: &str, seq: Option<u64>, session: Option<u64>) {
        self.forget(node, None);
        if let Some(known) = self.node(node) {
            known.seq = seq.and_then(|seq| u8::try_from(seq).ok());
            known.session = session;
        }
    }

    /// A node's session ends, unless that is one before the present.
    pub(super) fn end(&mut self, node: &str, session: Option<u64>) {
        if let Some(known) = self.nodes.get_mut(node) {
            if session.is_some() && known.session.is_some() && session != known.session {
                return;
            }
            known.seq = None;
            known.session = None;
            self.forget(node, None);
        }
    }

    /// Lets go of what is known of a device, or of all of a node.
    pub(super) fn forget(&mut self, node: &str, device: Option<&str>) {
        let Some(known) = self.nodes.get_mut(node) else { return };
        let gone: usize = match device {
            Some(device) => known.devices.remove(device).map_or(0, |d| d.bytes),
            None => known.devices.drain().map(|(_, d)| d.bytes).sum(),
        };
        self.bytes -= gone;
    }

    /// A device, or the node itself, was born. What is too much is not remembered.
    pub(super) fn born(&mut self, node: &str, device: &str, mut born: Device) {
        self.forget(node, Some(device));
        born.bytes += device.len() + DEVICE;
        let bytes = born.bytes;
        if device.len() > MAX_KEY || self.bytes + bytes > BYTES {
            return self.too_much(node);
        }
        if let Some(known) = self.node(node) {
            known.devices.insert(device.into(), born);
            known.in_vain = 0;
            self.bytes += bytes;
        }
    }

    pub(super) fn device(&self, node: &str, device: &str) -> Option<&Device> {
        self.nodes.get(node)?.devices.get(device)
    }

    /// Whether a node may be asked for its births now.
    pub(super) fn may_ask(&mut self, node: &str, now: i64) -> bool {
        let Some(known) = self.node(node) else { return false };
        let wait = ASK_EVERY << known.in_vain.saturating_sub(1).min(DOUBLINGS);
        let may = known.asked.is_none_or(|asked| now.abs_diff(asked) >= wait);
        if may {
            known.asked = Some(now);
            known.in_vain = known.in_vain.saturating_add(1);
        }
        may
    }

    fn node(&mut self, node: &str) -> Option<&mut Node> {
        if !self.nodes.contains_key(node) {
            if node.len() > MAX_KEY {
                return None;
            }
            if self.nodes.len() >= NODES {
                // One that has died, or never was.
                let gone = self.nodes.iter().find(|(_, known)| known.devices.is_empty());
                let Some(gone) = gone.map(|(name, _)| name.clone()) else {
                    self.too_much(node);
                    return None;
                };
                self.nodes.remove(&gone);
            }
            self.nodes.insert(node.into(), Node::default());
        }
        self.nodes.get_mut(node)
    }

    fn too_much(&mut self, node: &str) {
        if !std::mem::replace(&mut self.said, true) {
            tracing::warn!(
                node,
                "Sparkplug births say more than is remembered ({NODES} nodes, {} MiB): what refers to one of the \
                 rest by alias is rejected as no_birth",
                BYTES >> 20
            );
        }
    }
}
