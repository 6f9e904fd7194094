//! zigbee2mqtt's messages: flat JSON of devices of all kinds, on a topic that ends with the friendly name.

use super::shape::Shape;

/// Whether a message is a device's, and not the bridge's, a command or whether a device is there; `name` is
/// what was captured of its topic.
pub(super) fn reads(name: &str) -> bool {
    let mut levels = name.split('/');
    let command = levels.clone().any(|level| matches!(level, "set" | "get"));
    let bridge = levels.next() == Some("bridge");
    !bridge && !command && levels.next_back() != Some("availability")
}

pub(super) fn shape(fields: &[Vec<String>]) -> Shape {
    Shape::new(fields, Some(&["last_seen".to_owned()]), None)
        .mixed()
        .time_optional()
        // What firmware there is, and how far a download is; what the device is.
        .ignoring(&["update", "update_available", "device"])
}

#[cfg(test)]
mod tests {
    use super::reads;

    #[test]
    fn topics_of_devices() {
        for name in
            ["lamp", "living room/lamp", "hall/get well", "set of lamps", "a/bridge", "availability", ""]
        {
            assert!(reads(name), "{name}");
        }
        for name in
            ["bridge/state", "bridge", "lamp/availability", "a/lamp/set", "a/lamp/set/brightness", "lamp/get"]
        {
            assert!(!reads(name), "{name}");
        }
    }
}
