//! How entries lie in a file.
//!
//! A segment begins with [`HEADER`]; then frame after frame:
//!
//! | bytes | |
//! |---|---|
//! | 4 | [`MARK`] |
//! | 4 | length of the payload, little endian |
//! | 4 | CRC-32 of all that follows in the frame |
//! | 4 | readings in the payload, so that a scan can count without decoding |
//! | length | the entry in postcard |

use super::Entry;

/// What every segment begins with; the last character but one is the version of the format.
pub const HEADER: [u8; 8] = *b"vidspl1\n";
/// What every frame begins with, so that those after a damaged one are found.
const MARK: [u8; 4] = *b"\xf5vf\n";
/// Mark, length, checksum and number of readings.
const PREFIX: usize = 16;
/// Where in a frame the part begins that the checksum is of.
const SUMMED: usize = 12;
/// Longest payload taken for one: several times what the recorder holds in memory.
const LONGEST: usize = 256 << 20;

/// A frame in a segment's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The encoded entry.
    pub payload: &'a [u8],
    /// Readings in it.
    pub readings: u32,
    /// Where the next frame begins.
    pub end: usize,
}

/// What stands at a place in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'a> {
    /// A sound frame.
    Frame(Frame<'a>),
    /// Nothing more.
    End,
    /// The rest was not written to its end: power or process ended before it was acknowledged.
    Torn,
    /// Bytes that are no sound frame, before some that are.
    Damaged {
        /// Where sound frames go on.
        resume: usize,
    },
}

/// An entry as a frame; none if it is too long for one.
#[must_use]
pub fn encode(entry: &Entry) -> Option<Vec<u8>> {
    let mut frame = postcard::to_extend(entry, vec![0; PREFIX]).ok()?;
    let length = frame.len() - PREFIX;
    if length > LONGEST {
        return None;
    }
    let length = u32::try_from(length).ok()?;
    let readings = u32::try_from(entry.readings()).ok()?;
    frame.get_mut(SUMMED..PREFIX)?.copy_from_slice(&readings.to_le_bytes());
    let sum = crc32fast::hash(frame.get(SUMMED..)?);
    frame.get_mut(..4)?.copy_from_slice(&MARK);
    frame.get_mut(4..8)?.copy_from_slice(&length.to_le_bytes());
    frame.get_mut(8..SUMMED)?.copy_from_slice(&sum.to_le_bytes());
    Some(frame)
}

/// The entry of a payload; none if it is none.
#[must_use]
pub fn decode(payload: &[u8]) -> Option<Entry> {
    let (entry, rest) = postcard::take_from_bytes::<Entry>(payload).ok()?;
    (rest.is_empty() && entry.is_consistent()).then_some(entry)
}

/// What stands at `at` in the bytes of a segment.
#[must_use]
pub fn find(segment: &[u8], at: usize) -> Found<'_> {
    if at >= segment.len() {
        return Found::End;
    }
    if let Some(frame) = sound(segment, at) {
        return Found::Frame(frame);
    }
    let rest = segment.get(at + 1..).unwrap_or_default();
    let marks = rest.windows(MARK.len()).enumerate().filter(|(_, bytes)| **bytes == MARK);
    match marks.map(|(place, _)| at + 1 + place).find(|&place| sound(segment, place).is_some()) {
        Some(resume) => Found::Damaged { resume },
        None => Found::Torn,
    }
}

fn sound(segment: &[u8], at: usize) -> Option<Frame<'_>> {
    if segment.get(at..at.checked_add(4)?)? != MARK {
        return None;
    }
    let length = number(segment, at + 4)? as usize;
    let end = at.checked_add(PREFIX)?.checked_add(length).filter(|_| length <= LONGEST)?;
    if crc32fast::hash(segment.get(at + SUMMED..end)?) != number(segment, at + 8)? {
        return None;
    }
    Some(Frame { payload: segment.get(at + PREFIX..end)?, readings: number(segment, at + SUMMED)?, end })
}

fn number(segment: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(segment.get(at..at.checked_add(4)?)?.try_into().ok()?))
}
