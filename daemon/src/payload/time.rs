//! Times as sensors write them.

use jiff::Timestamp;

/// Times of 100 billion seconds and more are beyond the year 5000, so such a number counts
/// something smaller; and likewise from thousand to thousand.
const LARGEST_SECONDS: f64 = 1e11;

/// Microseconds since the Unix epoch from RFC 3339, or from a number in a string.
pub(super) fn text(text: &str) -> Option<i64> {
    let text = text.trim_ascii();
    // Hardly any RFC 3339 text gets past its fifth character as a number, so this costs little.
    if let Ok(whole) = text.parse::<i64>() {
        return integer(whole);
    }
    if let Ok(number) = text.parse::<f64>() {
        return fractional(number);
    }
    text.parse::<Timestamp>().ok().map(Timestamp::as_microsecond)
}

/// Microseconds since the Unix epoch from a whole Unix time.
pub(super) fn integer(number: i64) -> Option<i64> {
    // Magnitudes at which a unit begins, and what makes microseconds of it.
    match number.unsigned_abs() {
        0..100_000_000_000 => number.checked_mul(1_000_000),
        100_000_000_000..100_000_000_000_000 => number.checked_mul(1_000),
        100_000_000_000_000..100_000_000_000_000_000 => Some(number),
        _ => Some(number.div_euclid(1_000)),
    }
}

/// Microseconds since the Unix epoch from a Unix time with a fraction.
#[allow(clippy::cast_possible_truncation, reason = "the magnitude is checked")]
pub(super) fn fractional(number: f64) -> Option<i64> {
    let size = number.abs();
    let micros = if size < LARGEST_SECONDS {
        number * 1e6
    } else if size < LARGEST_SECONDS * 1e3 {
        number * 1e3
    } else if size < LARGEST_SECONDS * 1e6 {
        number
    } else if size < LARGEST_SECONDS * 1e9 {
        number / 1e3
    } else {
        return None;
    };
    Some(micros.round() as i64)
}

#[cfg(test)]
mod tests {
    use super::{fractional, integer, text};

    const T: i64 = 1_795_428_000_000_000; // 2026-11-23T10:00:00Z

    #[test]
    fn rfc_3339_with_offset() {
        assert_eq!(text("2026-11-23T10:00:00Z"), Some(T));
        assert_eq!(text("2026-11-23T11:00:00+01:00"), Some(T));
        assert_eq!(text("2026-11-23 10:00:00.123456789Z"), Some(T + 123_456));
        assert_eq!(text("1969-12-31T23:59:59Z"), Some(-1_000_000));
        for wrong in ["2026-11-23T10:00:00", "2026-11-23", "noon", "", "inf", "NaN", "2026-13-23T10:00:00Z"] {
            assert_eq!(text(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn unix_time_by_magnitude() {
        assert_eq!(integer(T / 1_000_000), Some(T));
        assert_eq!(integer(T / 1_000), Some(T));
        assert_eq!(integer(T), Some(T));
        assert_eq!(integer(T * 1_000 + 7), Some(T));
        assert_eq!(integer(-1), Some(-1_000_000));
        assert_eq!(fractional(1_795_428_000.25), Some(T + 250_000));
        assert_eq!(fractional(1_795_428_000_000.5), Some(T + 500));
        assert_eq!(fractional(1.795_428e18), Some(T));
        assert_eq!(fractional(1e300), None);
        assert_eq!(fractional(f64::NAN), None);
        assert_eq!(text(" 1795428000 "), Some(T));
        assert_eq!(text("1795428000.5"), Some(T + 500_000));
        assert_eq!(integer(i64::MIN), Some(i64::MIN.div_euclid(1_000)));
    }
}
