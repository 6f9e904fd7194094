//! Everything that reads what others wrote, as functions of any bytes: the fuzz targets call them, and
//! `daemon/tests/hostile.rs` with the inputs that fuzzing found. Each panics when a promise is broken.

mod packets;

pub use packets::packets;

use forecaster::Model;
use vidente::config::{Config, Stream};
use vidente::payload::{Arrival, Decoded, Decoder, Field};
use vidente::spool::{Found, decode, encode, find};
use vidente::table::Table;
use vidente::topic::{Outputs, Pattern};

/// A reader and the name of its corpus.
pub type Target = (&'static str, fn(&[u8]));

/// All readers.
pub const TARGETS: [Target; 7] = [
    ("payload", payload),
    ("topic", topic),
    ("config", config),
    ("csv", csv),
    ("spool", spool),
    ("model", model),
    ("packets", packets),
];

/// Streams that read payloads in every way.
fn streams() -> Vec<Stream> {
    const TEXT: &str = "[[stream]]\nname = 'number'\ntopic = 'n'\npayload = 'number'\n\
        [[stream]]\nname = 'leaves'\ntopic = 'l'\n\
        [[stream]]\nname = 'timed'\ntopic = 't'\ntime = '/a/0/t'\nzone = 'Europe/Berlin'\n\
        [[stream]]\nname = 'fields'\ntopic = 'f'\nfields = ['a.b', '/c/0', 'd']\ntime = 'ts'\n\
        [[stream]]\nname = 'cbor'\ntopic = 'c'\npayload = 'cbor'\ntime = 'ts'\n\
        [[stream]]\nname = 'cbor-fields'\ntopic = 'c'\npayload = 'cbor'\nfields = ['a.b', '0', 'd']\n\
        [[stream]]\nname = 'tasmota'\ntopic = 't'\npayload = 'tasmota'\nutc_offset = '+01:00'\n\
        [[stream]]\nname = 'zigbee'\ntopic = 'z'\npayload = 'zigbee2mqtt'\nfields = ['temperature']\n\
        [[stream]]\nname = 'states'\ntopic = 's'\npayload = 'homeassistant'\n\
        [[stream]]\nname = 'influx'\ntopic = 'i'\npayload = 'influx'\n\
        [[stream]]\nname = 'influx-fields'\ntopic = 'i'\npayload = 'influx'\nfields = ['a']\nprecision = 's'\n\
        [[stream]]\nname = 'sparkplug'\ntopic = 'spBv1.0/{group}/{rest...}'\npayload = 'sparkplug'\n\
        [[stream]]\nname = 'gzip'\ntopic = 'g'\ncompression = 'gzip'\n\
        [[stream]]\nname = 'zlib'\ntopic = 'g'\ncompression = 'zlib'\npayload = 'influx'\n";
    Config::parse(TEXT).map(|config| config.stream).unwrap_or_else(|error| panic!("{error}"))
}

/// What a compressed body may become.
const INFLATED: usize = 1 << 16;
/// Topics of messages, by which Sparkplug tells what they are.
const TOPICS: [&str; 6] = [
    "spBv1.0/g/NBIRTH/n",
    "spBv1.0/g/NDATA/n",
    "spBv1.0/g/DBIRTH/n/d",
    "spBv1.0/g/DDATA/n/d",
    "spBv1.0/g/DDEATH/n/d",
    "spBv1.0/g/NDEATH/n",
];

/// Payloads, in every format: readings have names and are no more than there are bytes.
pub fn payload(bytes: &[u8]) {
    for stream in streams() {
        let mut decoder = Decoder::new(&stream, INFLATED);
        let mut decoded = Decoded::default();
        for topic in TOPICS {
            // From the second time on in what the first has left behind.
            decoder.decode(Arrival { topic, payload: bytes, at: 1_795_428_000_000_000 }, &mut decoded);
            let fields = decoder.fields().len();
            let readings = decoded.readings().len();
            // Deflate makes a byte 1032 at most.
            let most = bytes.len().max(INFLATED.min(bytes.len() * 1032)).max(1);
            assert!(readings + decoded.rejections().len() <= most + fields);
            for reading in decoded.readings() {
                assert!(reading.value.is_finite());
                assert!(reading.labels().all(|(name, _)| !name.is_empty()));
                match reading.field {
                    Field::Configured(place) => assert!(place < fields),
                    Field::Leaf(name) => {
                        assert!(!name.contains(['+', '#', '\0']), "{name:?}");
                        assert!(
                            stream.name.contains("influx") || stream.name == "zlib" || !name.contains('/')
                        );
                    }
                }
            }
        }
    }
}

/// A pattern in the first line, topics in the others: what matches is delivered by the filter, too, and
/// makes keys that can be published on.
pub fn topic(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.split('\n');
    let Ok(pattern) = Pattern::parse(lines.next().unwrap_or_default()) else { return };
    let filter = pattern.filter();
    let outputs = Outputs::new("vidente/forecast/{series}");
    for topic in lines {
        let Some(captures) = pattern.matches(topic) else { continue };
        assert!(delivers(&filter, topic), "{filter} does not deliver {topic}");
        assert_eq!(captures.values().len(), pattern.labels(&captures).len());
        let key = vidente::topic::key_prefix("stream", &captures);
        assert!(!key.contains(['+', '#', '\0']), "{key:?}");
        let forecast = outputs.forecast(&key);
        assert!(outputs.is_own(&forecast) && outputs.is_own(&outputs.anomaly(&key)), "{forecast:?}");
    }
}

/// MQTT 5, section 4.7: whether a filter matches a topic.
fn delivers(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut filters, mut levels) = (filter.split('/'), topic.split('/'));
    loop {
        match (filters.next(), levels.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(expected), Some(level)) if expected == level => {}
            _ => return false,
        }
    }
}

/// Configurations: read or refused with a reason, and then judged.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Config::parse(text) {
        Ok(config) => assert!(config.problems().iter().all(|problem| problem.contains(": "))),
        Err(reason) => assert!(!reason.is_empty()),
    }
}

/// Files of readings: those that are taken are ordered within each series.
pub fn csv(bytes: &[u8]) {
    match Table::from_reader("file", bytes) {
        Ok(table) => {
            let mut last = vec![None; table.names.len()];
            for row in &table.rows {
                assert!(row.reading.value.is_finite());
                assert!(last[row.series] < Some(row.reading.time));
                last[row.series] = Some(row.reading.time);
            }
            assert_eq!(table.lengths.iter().sum::<usize>(), table.rows.len());
        }
        Err(error) => assert!(format!("{error:#}").starts_with("file: "), "{error:#}"),
    }
}

/// Segments of the spool: a scan goes forwards to its end, and what it finds is written the same way.
pub fn spool(bytes: &[u8]) {
    let mut at = 0;
    loop {
        match find(bytes, at) {
            Found::Frame(frame) => {
                assert!(frame.end > at && frame.end <= bytes.len());
                at = frame.end;
            }
            Found::Damaged { resume } => {
                assert!(resume > at);
                at = resume;
            }
            Found::End | Found::Torn => break,
        }
    }
    if let Some(entry) = decode(bytes) {
        let frame = encode(&entry).unwrap_or_else(|| panic!("an entry that was read is too long"));
        let Found::Frame(found) = find(&frame, 0) else { panic!("a frame is not found again") };
        let again = decode(found.payload).and_then(|entry| encode(&entry));
        // Not the entries: NaN differs from itself.
        assert_eq!(again.as_deref(), Some(&*frame));
    }
}

/// Files of models: what is taken is finite and written the same way.
pub fn model(bytes: &[u8]) {
    if let Ok(model) = Model::from_safetensors(bytes) {
        let file = model.to_safetensors().unwrap_or_else(|error| panic!("{error}"));
        assert!(Model::from_safetensors(&file).is_ok());
    }
}
