//! What edge nodes have said of their metrics, and where in its messages each is.

use std::sync::Arc;

use hashbrown::HashMap;

/// Edge nodes that are remembered, and metrics of all together.
const NODES: usize = 10_000;
const METRICS: usize = 200_000;
/// A node is asked for its births at most this often, in microseconds.
const ASK_EVERY: u64 = 10_000_000;

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
}

impl Device {
    pub(super) fn by_alias(&self, alias: u64) -> Option<(&Arc<str>, &Described)> {
        self.aliases.get(&alias).and_then(|name| self.metrics.get_key_value(name))
    }

    pub(super) fn by_name(&self, name: &str) -> Option<&Described> {
        self.metrics.get(name)
    }

    pub(super) fn add(&mut self, name: &str, alias: Option<u64>, described: Described) {
        let name: Arc<str> = name.into();
        if let Some(alias) = alias {
            self.aliases.insert(alias, name.clone());
        }
        self.metrics.insert(name, described);
    }

    fn len(&self) -> usize {
        self.metrics.len().max(self.aliases.len())
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
}

/// All edge nodes, by group and name.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    nodes: HashMap<Box<str>, Node>,
    metrics: usize,
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
            Some(device) => known.devices.remove(device).map_or(0, |d| d.len()),
            None => known.devices.drain().map(|(_, d)| d.len()).sum(),
        };
        self.metrics -= gone;
    }

    /// A device, or the node itself, was born. What is too much is not remembered.
    pub(super) fn born(&mut self, node: &str, device: &str, born: Device) {
        self.forget(node, Some(device));
        let count = born.len();
        if self.metrics + count > METRICS {
            return;
        }
        if let Some(known) = self.node(node) {
            known.devices.insert(device.into(), born);
            self.metrics += count;
        }
    }

    pub(super) fn device(&self, node: &str, device: &str) -> Option<&Device> {
        self.nodes.get(node)?.devices.get(device)
    }

    /// Whether a node may be asked for its births now.
    pub(super) fn may_ask(&mut self, node: &str, now: i64) -> bool {
        let Some(known) = self.node(node) else { return false };
        let may = known.asked.is_none_or(|asked| now.abs_diff(asked) >= ASK_EVERY);
        if may {
            known.asked = Some(now);
        }
        may
    }

    fn node(&mut self, node: &str) -> Option<&mut Node> {
        if !self.nodes.contains_key(node) {
            if self.nodes.len() >= NODES {
                return None;
            }
            self.nodes.insert(node.into(), Node::default());
        }
        self.nodes.get_mut(node)
    }
}
