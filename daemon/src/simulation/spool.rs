//! The machine's disk: a real folder, since what matters is what the spool's own code makes of it.

use std::path::Path;

use tempfile::TempDir;

use super::sensors::Sent;
use super::tables::Tables;
use crate::spool::{Entry, Found, HEADER, decode, find};

/// A folder in memory, where there is one: syncing to a disk takes long.
pub(super) fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap()
}

/// Whether a reading is on disk.
pub(super) fn holds(dir: &Path, tables: &Tables, sent: &Sent) -> bool {
    let Ok(files) = std::fs::read_dir(dir) else { return false };
    let paths = files.map(|file| file.unwrap().path());
    let segments = paths.filter(|path| path.extension().is_some_and(|e| e == "spool"));
    segments.flat_map(|path| entries(&std::fs::read(path).unwrap())).any(|entry| {
        let key = |handle| {
            let new = entry.new_series.iter().find(|s| s.handle == handle).map(|s| &s.key);
            let id = entry.ids.iter().find(|(of, _)| *of == handle).map(|(_, id)| *id);
            new.or_else(|| tables.series.iter().find(|s| Some(s.id) == id).map(|s| &s.key))
        };
        let rows = entry.readings.series.iter().zip(&entry.readings.time).zip(&entry.readings.value);
        rows.into_iter().any(|((&series, &time), &value)| {
            let same = sent.time.map_or(value == sent.value, |sent| sent == time);
            same && key(series) == Some(&sent.key)
        })
    })
}

fn entries(bytes: &[u8]) -> Vec<Entry> {
    let (mut entries, mut at) = (Vec::new(), HEADER.len());
    while let Found::Frame(frame) = find(bytes, at) {
        entries.push(decode(frame.payload).unwrap());
        at = frame.end;
    }
    entries
}
