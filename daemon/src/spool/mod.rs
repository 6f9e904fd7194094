//! Readings and forecasts on disk while the store takes none, so that they can be acknowledged: an
//! append-only queue of [`Entry`]s in files that are synced before an append returns.
//!
//! Entries come out in the order in which they went in, and stay on disk until they are released. What
//! was read and not released when the process ended comes out again: writing it twice is harmless.

mod entry;
mod frame;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use entry::Entry;
pub use frame::{Found, Frame, HEADER, decode, encode, find};
use segment::Segment;
use thiserror::Error;

/// Size at which a segment is followed by another; a smaller spool has smaller ones.
const SEGMENT: u64 = 8 << 20;
/// Segments that the smallest spool consists of at least, so that room comes free before all is read.
const SEGMENTS: u64 = 8;
/// Readings from which on an entry that is read is long enough for one write.
const ENOUGH: u64 = 4000;
/// Held while a process uses the folder, and holds its number.
const LOCK: &str = "lock";

/// How often and how long to wait for a lock: a process that was killed, or a child on its way to run something
/// else, may still hold it.
const TRIES: (u32, Duration) = (50, Duration::from_millis(20));

/// Why nothing could be appended.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// `[spool] max_bytes` are reached.
    #[error("the spool is full")]
    Full,
    /// The disk is full or broken.
    #[error("the spool cannot be written: {0}")]
    Io(#[from] io::Error),
}

/// A place between two entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    segment: u64,
    offset: u64,
    /// Readings before it in its segment.
    readings: u64,
}

/// The queue.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    _lock: File,
    max_bytes: u64,
    /// Oldest first. The last is appended to if `tail` is open.
    segments: VecDeque<Segment>,
    tail: Option<File>,
    next: u64,
    /// Up to where the first segment is released.
    head: Position,
}

impl Spool {
    /// Opens the spool in a folder, which is made if it is missing. What an earlier process left there
    /// comes out first.
    ///
    /// # Errors
    /// If the folder cannot be used, another process uses it, or a file in it is of another version.
    pub fn open(dir: &Path, max_bytes: u64) -> io::Result<Spool> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", dir.display()));
        fs::create_dir_all(dir).map_err(named)?;
        let lock = File::options().create(true).append(true).open(dir.join(LOCK)).map_err(named)?;
        take(&lock).map_err(|error| match error {
            TryLockError::Error(error) => named(error),
            TryLockError::WouldBlock => {
                let who =
                    number(dir).map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
                io::Error::new(io::ErrorKind::WouldBlock, format!("{} is in use by {who}", dir.display()))
            }
        })?;
        // Only for those who look: a disk that is full keeps nobody from starting.
        let _ = lock.set_len(0).and_then(|()| writeln!(&lock, "{}", std::process::id()));
        let mut segments: Vec<Segment> = Vec::new();
        let mut next = 0;
        for number in segment::numbers(dir).map_err(named)? {
            next = number + 1;
            segments.extend(Segment::scan(dir, number)?);
        }
        let mut spool = Spool {
            dir: dir.to_owned(),
            _lock: lock,
            max_bytes,
            segments: segments.into(),
            tail: None,
            next,
            head: Position { segment: 0, offset: 0, readings: 0 },
        };
        spool.begin();
        Ok(spool)
    }

    /// Appends an entry and returns, once it is on disk, the place after it. After an error nothing is there.
    ///
    /// # Errors
    /// If there is no room, or the disk does not take it.
    pub fn append(&mut self, entry: &Entry) -> Result<Position, SpoolError> {
        let bytes = encode(entry).ok_or_else(|| io::Error::other("an entry is too long"))?;
        if self.bytes() + bytes.len() as u64 > self.max_bytes {
            return Err(SpoolError::Full);
        }
        let limit = SEGMENT.min(self.max_bytes / SEGMENTS);
        if self.segments.back().is_some_and(|last| last.bytes >= limit) {
            self.tail = None;
        }
        let tail = match &mut self.tail {
            Some(tail) => tail,
            None => {
                // Not used again, should something be left of it after an error.
                let number = self.next;
                self.next += 1;
                let (segment, file) = Segment::create(&self.dir, number)?;
                self.segments.push_back(segment);
                if self.segments.len() == 1 {
                    self.begin();
                }
                self.tail.insert(file)
            }
        };
        let last = self.segments.back_mut().ok_or_else(|| io::Error::other("no segment"))?;
        if let Err(error) = last.append(tail, &bytes, entry.readings()) {
            // What stands after the last whole frame is taken for torn, and nothing follows it.
            self.tail = None;
            if last.is_bare() {
                last.remove(&self.dir);
                self.segments.pop_back();
                if self.segments.is_empty() {
                    self.begin();
                }
            }
            return Err(error.into());
        }
        Ok(last.end())
    }

    /// What stands first, one entry or several of one process, and the place after it; none if the spool
    /// is empty.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub fn read(&mut self) -> io::Result<Option<(Entry, Position)>> {
        loop {
            let Some(first) = self.segments.front() else { return Ok(None) };
            let read = first.read(&self.dir, self.head, ENOUGH)?;
            match read {
                Some(read) => return Ok(Some(read)),
                // Nothing in the rest of it can be read.
                None => self.release(first.end()),
            }
        }
    }

    /// Lets go of everything before a place that `read` or `append` gave.
    pub fn release(&mut self, to: Position) {
        while let Some(first) = self.segments.front().filter(|first| first.number <= to.segment) {
            if first.number == to.segment && to.offset < first.bytes {
                self.head = to;
                return;
            }
            first.remove(&self.dir);
            self.segments.pop_front();
            if self.segments.is_empty() {
                self.tail = None;
            }
            self.begin();
        }
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Bytes on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.bytes).sum()
    }

    /// Readings in it that are not released.
    #[must_use]
    pub fn readings(&self) -> u64 {
        self.segments.iter().map(|s| s.readings).sum::<u64>() - self.head.readings
    }

    /// Nothing of the first segment is released.
    fn begin(&mut self) {
        let segment = self.segments.front().map_or(self.next, |first| first.number);
        self.head = Position { segment, offset: HEADER.len() as u64, readings: 0 };
    }
}

fn take(lock: &File) -> Result<(), TryLockError> {
    for _ in 0..TRIES.0 {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(TRIES.1),
            done => return done,
        }
    }
    Err(TryLockError::WouldBlock)
}

/// The process that last used a folder, if it has said so.
fn number(dir: &Path) -> Option<u32> {
    fs::read_to_string(dir.join(LOCK)).ok()?.trim().parse().ok()
}

/// Bytes that a folder's entries take on disk; 0 where it cannot be read.
#[must_use]
pub fn used(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).into_iter().flatten().flatten().filter(|file| file.file_name() != LOCK);
    files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

/// Who uses a spool's folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Nobody.
    Nobody,
    /// A process, by its number if that can be read.
    Process(Option<u32>),
}

/// Looks who uses a folder, without changing anything there.
///
/// # Errors
/// If this user may not look.
pub fn holder(dir: &Path) -> io::Result<Holder> {
    let lock = match File::open(dir.join(LOCK)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Holder::Nobody),
        opened => opened?,
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(Holder::Nobody),
        Err(TryLockError::WouldBlock) => Ok(Holder::Process(number(dir))),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
