//! Compressed bodies, bounded in what becomes of them.

use std::io::Read;

use flate2::read::{MultiGzDecoder, ZlibDecoder};

use crate::config::Compression;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Gzip,
    Zlib,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// Not of this kind, damaged or cut off.
    Broken,
    /// More than the limit would become of it.
    TooLarge,
}

/// How a body is compressed, if it is or looks like it.
pub(super) fn kind(compression: Compression, payload: &[u8]) -> Option<Kind> {
    match (compression, payload) {
        (Compression::None, _) => None,
        (Compression::Gzip, _) | (Compression::Auto, [0x1f, 0x8b, 8, ..]) => Some(Kind::Gzip),
        (Compression::Zlib, _) => Some(Kind::Zlib),
        // Deflate with the window that all write, and the header's check (RFC 1950).
        (Compression::Auto, [0x78, flags, ..]) if (0x7800 + u16::from(*flags)) % 31 == 0 => Some(Kind::Zlib),
        (Compression::Auto, _) => None,
    }
}

/// Puts into `out` what a body is once it is not compressed, at most `limit` bytes.
pub(super) fn inflate(kind: Kind, payload: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Failure> {
    out.clear();
    let most = limit as u64 + 1;
    let read = match kind {
        Kind::Gzip => MultiGzDecoder::new(payload).take(most).read_to_end(out),
        Kind::Zlib => ZlibDecoder::new(payload).take(most).read_to_end(out),
    };
    match read {
        Ok(length) if length <= limit => Ok(()),
        Ok(_) => Err(Failure::TooLarge),
        Err(_) => Err(Failure::Broken),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::io::Write;

    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;

    fn gzip(body: &[u8], level: u32) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::new(level));
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(body: &[u8], level: u32) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), flate2::Compression::new(level));
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn both_kinds_at_every_level_are_told_by_their_first_bytes() {
        let body = br#"{"temperature":21.5,"humidity":40}"#;
        let mut out = vec![7; 3];
        for level in 0..10 {
            for (packed, expected) in [(gzip(body, level), Kind::Gzip), (zlib(body, level), Kind::Zlib)] {
                assert_eq!(kind(Compression::Auto, &packed), Some(expected));
                assert_eq!(kind(Compression::None, &packed), None);
                assert_eq!(inflate(expected, &packed, body.len(), &mut out), Ok(()));
                assert_eq!(out, body);
                assert_eq!(inflate(expected, &packed, body.len() - 1, &mut out), Err(Failure::TooLarge));
                let cut = packed.get(..packed.len() - 5).unwrap();
                assert_eq!(inflate(expected, cut, 1000, &mut out), Err(Failure::Broken));
            }
        }
        for plain in [&b"{}"[..], b"21.5", b"", b"x", b"x,host=a v=1", b"\x1f"] {
            assert_eq!(kind(Compression::Auto, plain), None, "{plain:?}");
        }
    }

    #[test]
    fn a_bomb_is_not_blown_up() {
        let bomb = gzip(&vec![b'0'; 64 << 20], 9);
        assert!(bomb.len() < 70_000);
        let mut out = Vec::new();
        assert_eq!(inflate(Kind::Gzip, &bomb, 1 << 20, &mut out), Err(Failure::TooLarge));
        assert!(out.capacity() <= 4 << 20, "{}", out.capacity());
    }
}
