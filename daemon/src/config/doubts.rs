//! What a daemon works with and is hardly meant.

use std::path::Path;

use super::{Config, Stream};

impl Config {
    /// What works, but lets others in or is hardly meant, each entry `key: what; fix`.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        [self.exposed(), self.doubts()].concat()
    }

    /// What is hardly meant, each entry `key: what; fix`.
    #[must_use]
    pub fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        let file = self.store.url.strip_prefix("sqlite://").and_then(|rest| rest.split('?').next());
        if let Some(file) = file.filter(|file| Path::new(file).is_relative()) {
            doubts.push(format!(
                "store.url: {file} is looked for in the folder where vidente is started; write three slashes \
                 and the path from the root, as in sqlite:///var/lib/vidente/vidente.db"
            ));
        }
        for (i, stream) in self.stream.iter().enumerate() {
            if let Some(other) = self.stream.iter().take(i).find(|other| reads_the_same(stream, other)) {
                doubts.push(format!(
                    "stream[{i}].topic: \"{}\" is read by stream \"{}\", too, fields in common, so that their \
                     readings are stored and forecast twice; remove one, or name other fields in each",
                    stream.topic.filter(),
                    other.name
                ));
            }
        }
        doubts
    }
}

/// Whether two streams make series of the same values. Another payload reads other messages, or is a mistake
/// that the rejected readings tell of.
fn reads_the_same(a: &Stream, b: &Stream) -> bool {
    a.topic.filter() == b.topic.filter()
        && a.payload == b.payload
        && (a.fields.is_empty()
            || b.fields.is_empty()
            || a.fields.iter().any(|field| b.fields.contains(field)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn doubts(text: &str) -> Vec<String> {
        let config = Config::parse(text).unwrap();
        assert_eq!(config.problems(), [""; 0], "{text}");
        assert_eq!(config.warnings(), config.doubts());
        config.doubts()
    }

    #[test]
    fn streams_that_read_the_same_are_told_and_others_are_not() {
        let streams = |first: &str, second: &str| {
            format!("[[stream]]\nname = 'a'\ntopic = 't/{{x}}'\n{first}\n[[stream]]\nname = 'b'\n{second}\n")
        };
        for (first, second) in [
            ("", "topic = 't/{x}'"),
            ("", "topic = 't/{y}'\nhorizon = 3"),
            ("fields = ['u', 'v']", "topic = 't/{x}'\nfields = ['v']"),
            ("fields = ['u']", "topic = 't/{x}'"),
        ] {
            let found = doubts(&streams(first, second));
            assert!(
                found.len() == 1 && found.concat().starts_with("stream[1].topic: \"t/+\" is read by"),
                "{found:?}"
            );
        }
        for (first, second) in [
            ("", "topic = 't/x'"),
            ("", "topic = 't/{x...}'"),
            ("", "topic = 't/{x}'\npayload = 'number'"),
            ("fields = ['u']", "topic = 't/{x}'\nfields = ['v']"),
        ] {
            assert_eq!(doubts(&streams(first, second)), [""; 0], "{first} {second}");
        }
    }

    #[test]
    fn a_file_that_is_elsewhere_from_elsewhere_is_told() {
        let store =
            |url: &str| doubts(&format!("[store]\nurl = '{url}'\n[[stream]]\nname = 'a'\ntopic = 't'\n"));
        assert!(
            store("sqlite://vidente.db?mode=rwc").concat().starts_with("store.url: vidente.db is looked for")
        );
        assert_eq!(store("sqlite:///tmp/vidente.db"), [""; 0]);
    }
}
