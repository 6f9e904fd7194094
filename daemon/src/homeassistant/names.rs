//! Ids and topics: valid for every name of a series, and never the same for two.

use sha2::{Digest, Sha256};

/// Characters of a series' key that an id shows; the hash after them tells ids apart.
const SHOWN: usize = 48;

/// The names of one daemon's devices.
#[derive(Debug)]
pub(super) struct Names {
    /// `<prefix>/device/`.
    prefix: String,
    daemon: String,
}

impl Names {
    pub(super) fn new(prefix: &str, client_id: &str) -> Names {
        Names { prefix: format!("{prefix}/device/"), daemon: format!("vidente_{}", hash(client_id, 4)) }
    }

    /// Id of the daemon's device, with which the ids of all its series begin.
    pub(super) fn daemon(&self) -> &str {
        &self.daemon
    }

    /// Id of a series' device.
    pub(super) fn series(&self, key: &str) -> String {
        let fit = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
        let shown: String = key.chars().map(fit).take(SHOWN).collect();
        format!("{}_{shown}_{}", self.daemon, hash(key, 8))
    }

    /// Where a device is announced.
    pub(super) fn topic(&self, id: &str) -> String {
        format!("{}{id}/config", self.prefix)
    }

    /// The id in the topic of one of this daemon's devices.
    pub(super) fn own<'t>(&self, topic: &'t str) -> Option<&'t str> {
        let id = topic.strip_prefix(&self.prefix)?.strip_suffix("/config")?;
        let rest = id.strip_prefix(&self.daemon)?;
        (rest.is_empty() || rest.starts_with('_')).then_some(id)
    }
}

/// So many bytes of a hash, in hexadecimal digits.
fn hash(text: &str, bytes: usize) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(bytes).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_are_valid_and_lead_back(client in ".*", key in ".*") {
            let names = Names::new("homeassistant", &client);
            let id = names.series(&key);
            prop_assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'), "{id}");
            prop_assert!(id.len() <= 100, "{id}");
            let topic = names.topic(&id);
            prop_assert_eq!(names.own(&topic), Some(id.as_str()));
        }
    }

    #[test]
    fn names_that_look_alike_have_ids_of_their_own() {
        let names = Names::new("ha", "vidente");
        let long = "x".repeat(200);
        let keys =
            ["s/a b/v", "s/a_b/v", "s/a/b/v", "s/ä b/v", "s/ö b/v", "S/a b/v", &long, &format!("{long}y")];
        let ids: HashSet<String> = keys.iter().map(|key| names.series(key)).collect();
        assert_eq!(ids.len(), keys.len(), "{ids:?}");
        // They stay the same, or Home Assistant would lose what its users made of them.
        assert_eq!(names.series("s/a b/v"), "vidente_0822e784_s_a_b_v_9415794c55e2b784");
    }

    #[test]
    fn the_devices_of_others_are_not_ours() {
        let (names, other) = (Names::new("ha", "vidente"), Names::new("ha", "vidente2"));
        assert_eq!(names.own(&other.topic(&other.series("a"))), None);
        for topic in ["ha/device/0x00158d/config", "ha/sensor/vidente/config", "other/device/x/config"] {
            assert_eq!(names.own(topic), None);
        }
        assert_eq!(names.own(&names.topic(names.daemon())), Some(names.daemon()));
    }
}
