//! One file of the spool.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::frame::{self, Found, HEADER};
use super::{Entry, Position};

const EXTENSION: &str = "spool";
/// Extension of a segment that was read as far as it could be and is kept for whoever wants to look.
const DAMAGED: &str = "damaged";

/// Bytes read at first for one write, some times what is enough for it.
const WINDOW: u64 = 2 << 20;

/// What is known of a file.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    /// Bytes of the header and whole frames.
    pub(super) bytes: u64,
    /// Readings in them.
    pub(super) readings: u64,
    damaged: bool,
}

/// Numbers of the segments in a folder, in order.
pub(super) fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for file in fs::read_dir(dir)? {
        let path = file?.path();
        if path.extension().is_some_and(|e| e == EXTENSION) {
            numbers.extend(path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok()));
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.{EXTENSION}"))
}

impl Segment {
    /// A new file with nothing but its header, on disk together with its name.
    pub(super) fn create(dir: &Path, number: u64) -> io::Result<(Segment, File)> {
        let mut file = File::options().create_new(true).write(true).open(path(dir, number))?;
        let segment = Segment { number, bytes: HEADER.len() as u64, readings: 0, damaged: false };
        let written =
            file.write_all(&HEADER).and_then(|()| file.sync_all()).and_then(|()| File::open(dir)?.sync_all());
        if let Err(error) = written {
            segment.remove(dir);
            return Err(error);
        }
        Ok((segment, file))
    }

    /// What an earlier process left; none if nothing was written after the file was made.
    pub(super) fn scan(dir: &Path, number: u64) -> io::Result<Option<Segment>> {
        let path = path(dir, number);
        let bytes = fs::read(&path)?;
        if bytes.len() < HEADER.len() {
            fs::remove_file(&path)?;
            return Ok(None);
        }
        if !bytes.starts_with(&HEADER) {
            return Err(io::Error::other(format!(
                "{}: not a spool of this version of Vidente; let the version that wrote it empty it, or move \
                 it away",
                path.display()
            )));
        }
        let mut segment = Segment { number, bytes: HEADER.len() as u64, readings: 0, damaged: false };
        let mut at = HEADER.len();
        loop {
            match frame::find(&bytes, at) {
                Found::End => break,
                Found::Frame(frame) => {
                    segment.readings += u64::from(frame.readings);
                    at = frame.end;
                    segment.bytes = at as u64;
                }
                Found::Torn => {
                    tracing::warn!(
                        "{}: the last {} bytes were not written to their end, and not acknowledged",
                        path.display(),
                        bytes.len() - at
                    );
                    break;
                }
                Found::Damaged { resume } => {
                    tracing::error!(
                        "{}: {} bytes at {at} are damaged, and what was in them is lost; the file is kept \
                         as .{DAMAGED}",
                        path.display(),
                        resume - at
                    );
                    segment.damaged = true;
                    at = resume;
                }
            }
        }
        if segment.is_bare() {
            segment.remove(dir);
            return Ok(None);
        }
        Ok(Some(segment))
    }

    /// Appends frames and syncs. After an error the file is as long as before, or ends in what will be
    /// taken for torn.
    pub(super) fn append(&mut self, file: &mut File, bytes: &[u8], readings: u64) -> io::Result<()> {
        if let Err(error) = file.write_all(bytes).and_then(|()| file.sync_data()) {
            // Whether this works or not, the file is not written again.
            let _ = file.set_len(self.bytes);
            return Err(error);
        }
        self.bytes += bytes.len() as u64;
        self.readings += readings;
        Ok(())
    }

    /// Entries from a place on until there are enough readings, and the place after them; none if there
    /// are no more.
    pub(super) fn read(
        &self,
        dir: &Path,
        from: Position,
        enough: u64,
    ) -> io::Result<Option<(Entry, Position)>> {
        let path = path(dir, self.number);
        let mut file = File::open(&path)?;
        file.seek(SeekFrom::Start(from.offset))?;
        let rest = self.bytes.saturating_sub(from.offset);
        let mut bytes = Vec::new();
        let mut window = WINDOW.min(rest);
        loop {
            let read = bytes.len() as u64;
            (&mut file).take(window - read).read_to_end(&mut bytes)?;
            let (entry, at, readings) = gather(&bytes, enough, &path);
            let to = Position {
                segment: self.number,
                offset: from.offset + at as u64,
                readings: from.readings + readings,
            };
            if entry.is_some() || window == rest {
                return Ok(entry.map(|entry| (entry, to)));
            }
            // One frame, or what is damaged, is longer than that.
            window = (window * 4).min(rest);
        }
    }

    /// Whether nothing but its header is in it.
    pub(super) fn is_bare(&self) -> bool {
        self.bytes == HEADER.len() as u64
    }

    /// The place after the last whole frame.
    pub(super) fn end(&self) -> Position {
        Position { segment: self.number, offset: self.bytes, readings: self.readings }
    }

    /// Deletes the file, or keeps it under another name if something in it could not be read.
    pub(super) fn remove(&self, dir: &Path) {
        let path = path(dir, self.number);
        let removed = if self.damaged {
            fs::rename(&path, path.with_extension(DAMAGED))
        } else {
            fs::remove_file(&path)
        };
        if let Err(error) = removed {
            // It comes out again at the next start, which is harmless.
            tracing::warn!("{}: {error}", path.display());
        }
    }
}

/// The entries of frames until there are enough readings, where the last ends, and the readings in them.
fn gather(bytes: &[u8], enough: u64, path: &Path) -> (Option<Entry>, usize, u64) {
    let (mut entry, mut at, mut readings) = (None::<Entry>, 0, 0);
    while entry.as_ref().is_none_or(|e| e.readings() < enough) {
        match frame::find(bytes, at) {
            Found::Frame(frame) => {
                at = frame.end;
                readings += u64::from(frame.readings);
                match (frame::decode(frame.payload), &mut entry) {
                    (Some(more), Some(entry)) => entry.append(more),
                    (Some(first), none) => *none = Some(first),
                    (None, _) => {
                        tracing::error!("{}: a sound frame holds no entry and is left out", path.display());
                    }
                }
            }
            Found::Damaged { resume } => at = resume,
            Found::End | Found::Torn => break,
        }
    }
    (entry, at, readings)
}
