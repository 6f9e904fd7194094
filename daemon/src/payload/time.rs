//! Times as sensors write them.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

/// What makes a time of a text that has no offset.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Local<'a> {
    /// The zone it is in; without one it is no time.
    pub(super) zone: Option<&'a TimeZone>,
    /// About when it was written, in microseconds since the Unix epoch: the hour that the clock shows
    /// twice in autumn is the one that is nearer.
    pub(super) now: i64,
}

/// Times of 100 billion seconds and more are beyond the year 5000, so such a number counts
/// something smaller; and likewise from thousand to thousand.
const LARGEST_SECONDS: f64 = 1e11;

/// Microseconds since the Unix epoch from RFC 3339, the same without an offset, or a number in a string.
pub(super) fn text(text: &str, local: Local) -> Option<i64> {
    let text = text.trim_ascii();
    // Hardly any RFC 3339 text gets past its fifth character as a number, so this costs little.
    if let Ok(whole) = text.parse::<i64>() {
        return integer(whole);
    }
    if let Ok(number) = text.parse::<f64>() {
        return fractional(number);
    }
    // Behind the date; without one of these there is no offset, and a failed try costs more than this.
    if text.bytes().skip("2026-11-23".len()).any(|byte| b"Zz+-[".contains(&byte)) {
        return text.parse().ok().map(Timestamp::as_microsecond);
    }
    // A date alone is no time of a reading.
    local.zone.filter(|_| text.contains(':')).and_then(|zone| civil(text.parse().ok()?, zone, local.now))
}

/// What the clocks of a zone showed, as microseconds since the Unix epoch.
fn civil(time: DateTime, zone: &TimeZone, now: i64) -> Option<i64> {
    let at = |offset: jiff::tz::Offset| offset.to_timestamp(time).ok().map(Timestamp::as_microsecond);
    match zone.to_ambiguous_timestamp(time).offset() {
        AmbiguousOffset::Unambiguous { offset } => at(offset),
        // A clock that was not yet put forward.
        AmbiguousOffset::Gap { before, .. } => at(before),
        AmbiguousOffset::Fold { before, after } => {
            let (first, second) = (at(before)?, at(after)?);
            Some(if now.abs_diff(second) < now.abs_diff(first) { second } else { first })
        }
    }
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
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use jiff::tz::TimeZone;

    use super::{Local, fractional, integer};

    fn text(text: &str) -> Option<i64> {
        super::text(text, Local::default())
    }

    #[test]
    fn without_an_offset_in_a_zone() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let at = |text: &str, now: &str| {
            let now = super::text(now, Local::default()).unwrap();
            super::text(text, Local { zone: Some(&berlin), now })
        };
        let utc = |t: &str| Some(text(t).unwrap());
        let now = "2026-11-23T10:00:00Z";
        assert_eq!(at("2026-11-23T11:00:00", now), Some(T));
        assert_eq!(at("2026-07-01 12:00:00.5", now), utc("2026-07-01T10:00:00.5Z"));
        assert_eq!(at("2026-11-23T10:00:00Z", now), Some(T), "an offset that is given counts");
        assert_eq!(at("2026-11-23T13:00+03", now), Some(T), "also in a short text");
        assert_eq!(at("1795428000", now), Some(T));
        // At 3:00 of summer time clocks go back to 2:00.
        for (now, expected) in [
            ("2026-10-25T00:30:05Z", "2026-10-25T00:30:00Z"),
            ("2026-10-25T01:30:05Z", "2026-10-25T01:30:00Z"),
        ] {
            assert_eq!(at("2026-10-25T02:30:00", now), utc(expected));
        }
        // There is no 2:30 on the day on which they go forward.
        assert_eq!(at("2026-03-29T02:30:00", now), utc("2026-03-29T01:30:00Z"));
        for wrong in
            ["2026-11-23", "11:00", "2026-11-31T11:00:00", "2026-11-23T11:00:00.5[Europe/Berlin]", "noon"]
        {
            assert_eq!(at(wrong, now), None, "{wrong}");
        }
    }

    const T: i64 = 1_795_428_000_000_000; // 2026-11-23T10:00:00Z

    #[test]
    fn rfc_3339_with_offset() {
        assert_eq!(text("2026-11-23T10:00:00Z"), Some(T));
        assert_eq!(text("2026-11-23T11:00:00+01:00"), Some(T));
        assert_eq!(text("2026-11-23T10:00Z"), Some(T));
        assert_eq!(text("2026-11-23T05:00:00-05"), Some(T));
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
