//! Messages as they are published. Forecasts are on the hot path and written by hand; anomalies are
//! rare and go through serde.

use forecaster::{LEVEL_NAMES, Reading, SECOND, Step, Timestamp};
use serde_json::json;

/// What a forecast message says besides the series.
#[derive(Debug, Clone, Copy)]
pub struct ForecastMessage<'a> {
    /// Time of the reading it was made at.
    pub origin: Timestamp,
    /// Name of the model, or `naive`.
    pub model: &'a str,
    /// The reading's value.
    pub value: f64,
    /// The reading's score.
    pub score: f64,
    /// Whether the reading belongs to an anomaly.
    pub anomaly: bool,
    /// The forecast; empty while the interval is unknown.
    pub steps: &'a [Step],
}

/// The start of every forecast message of a series, up to the origin.
#[must_use]
pub fn forecast_head(key: &str) -> String {
    format!("{{\"series\":{},\"origin\":\"", serde_json::Value::from(key))
}

/// A forecast message; `head` is [`forecast_head`] of its series. Numbers are written with as many
/// digits as it takes to read the same double back.
#[must_use]
pub fn forecast(head: &str, message: &ForecastMessage<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(head.len() + 128 + 256 * message.steps.len());
    let mut floats = ryu::Buffer::new();
    let mut float = |out: &mut Vec<u8>, x: f64| out.extend_from_slice(floats.format(x).as_bytes());
    out.extend_from_slice(head.as_bytes());
    rfc3339(&mut out, message.origin);
    out.extend_from_slice(b"\",\"model\":\"");
    out.extend_from_slice(message.model.as_bytes());
    out.extend_from_slice(b"\",\"reading\":{\"value\":");
    float(&mut out, message.value);
    out.extend_from_slice(b",\"score\":");
    float(&mut out, message.score);
    out.extend_from_slice(if message.anomaly { b",\"anomaly\":true" } else { b",\"anomaly\":false" });
    out.extend_from_slice(b"},\"steps\":[");
    for (i, step) in message.steps.iter().enumerate() {
        out.extend_from_slice(if i == 0 { b"{\"time\":\"" } else { b",{\"time\":\"" });
        rfc3339(&mut out, step.time);
        out.extend_from_slice(b"\",\"mean\":");
        float(&mut out, step.mean);
        for (name, quantile) in LEVEL_NAMES.iter().zip(step.quantiles) {
            out.extend_from_slice(b",\"");
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\":");
            float(&mut out, quantile);
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    out
}

/// The message that an anomaly of values began or ended.
#[derive(Debug, Clone, Copy)]
pub struct AnomalyMessage<'a> {
    /// Series key.
    pub key: &'a str,
    /// When it began.
    pub since: Timestamp,
    /// When it ended; none while it lasts.
    pub ended_at: Option<Timestamp>,
    /// The newest reading.
    pub reading: Reading,
    /// Its score.
    pub score: f64,
    /// The 90 % interval that was forecast for it.
    pub interval: [f64; 2],
    /// The median that was forecast for it.
    pub expected: f64,
}

/// A message about values.
#[must_use]
pub fn anomaly(m: &AnomalyMessage<'_>) -> Vec<u8> {
    json!({
        "series": m.key,
        "kind": "value",
        "state": if m.ended_at.is_some() { "ended" } else { "began" },
        "since": text(m.since),
        "ended_at": m.ended_at.map(text),
        "lasted": m.ended_at.map(|end| seconds(end.0 - m.since.0)),
        "reading": {"time": text(m.reading.time), "value": m.reading.value},
        "expected": m.expected,
        "interval": {"q05": m.interval[0], "q95": m.interval[1]},
        "score": m.score,
    })
    .to_string()
    .into_bytes()
}

/// The message that a series fell silent, or reports again.
#[derive(Debug, Clone, Copy)]
pub struct SilenceMessage<'a> {
    /// Series key.
    pub key: &'a str,
    /// When a reading was due.
    pub since: Timestamp,
    /// When one came; none while it lasts.
    pub ended_at: Option<Timestamp>,
    /// The last reading before, or the one that ended it.
    pub reading: Reading,
    /// How long it has lasted, in microseconds.
    pub lasted: i64,
    /// Usual time between readings, in microseconds; known when it begins.
    pub interval: Option<i64>,
}

/// A message about silence.
#[must_use]
pub fn silence(m: &SilenceMessage<'_>) -> Vec<u8> {
    json!({
        "series": m.key,
        "kind": "silence",
        "state": if m.ended_at.is_some() { "ended" } else { "began" },
        "since": text(m.since),
        "ended_at": m.ended_at.map(text),
        "lasted": seconds(m.lasted),
        "reading": {"time": text(m.reading.time), "value": m.reading.value},
        "every": m.interval.map(seconds),
    })
    .to_string()
    .into_bytes()
}

fn seconds(micros: i64) -> f64 {
    micros as f64 / SECOND as f64
}

/// One step as the API shows it, with the same names as in the message.
#[must_use]
pub fn step_json(step: &Step) -> serde_json::Value {
    let mut object = json!({"time": text(step.time), "mean": step.mean});
    if let Some(object) = object.as_object_mut() {
        for (name, q) in LEVEL_NAMES.iter().zip(step.quantiles) {
            object.insert((*name).to_owned(), q.into());
        }
    }
    object
}

/// A time as RFC 3339 in UTC.
#[must_use]
pub fn text(time: Timestamp) -> String {
    let mut out = Vec::with_capacity(27);
    rfc3339(&mut out, time);
    String::from_utf8(out).unwrap_or_default()
}

/// Writes a time as RFC 3339 in UTC, with microseconds only where there are any. Held equal to
/// `jiff`'s over years 0 to 9999; civil date from day count as in Neri & Schneider,
/// "Euclidean affine functions and their application to calendar algorithms" (2022), the plain form.
fn rfc3339(out: &mut Vec<u8>, time: Timestamp) {
    let (seconds, micros) = (time.0.div_euclid(1_000_000), time.0.rem_euclid(1_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let mut digits = |n: i64, width: u32| {
        for place in (0..width).rev() {
            out.push(b'0' + ((n / 10_i64.pow(place)) % 10) as u8);
        }
    };
    digits(year, 4);
    for (separator, n) in
        [(b'-', month), (b'-', day), (b'T', second / 3600), (b':', second / 60 % 60), (b':', second % 60)]
    {
        out.push(separator);
        out.push(b'0' + (n / 10) as u8);
        out.push(b'0' + (n % 10) as u8);
    }
    if micros != 0 {
        out.push(b'.');
        let mut left = micros;
        let mut place = 100_000;
        while left > 0 {
            out.push(b'0' + (left / place) as u8);
            left %= place;
            place /= 10;
        }
    }
    out.push(b'Z');
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn times_equal_jiffs(micros in -62_135_596_800_000_000_i64..253_402_300_799_000_000) {
            let plain = jiff::Timestamp::from_microsecond(micros).unwrap().to_string();
            prop_assert_eq!(text(Timestamp(micros)), plain);
            let second = micros / 1_000_000 * 1_000_000;
            let plain = jiff::Timestamp::from_microsecond(second).unwrap().to_string();
            prop_assert_eq!(text(Timestamp(second)), plain);
        }

        #[test]
        fn a_message_reads_back(key in ".*", value in -1e300..1e300, score in 0.0..1.0, q in prop::array::uniform7(-1e9..1e9)) {
            let step = Step { time: Timestamp(1_000_000), mean: q[0], quantiles: q };
            let message = ForecastMessage {
                origin: Timestamp(0), model: "naive", value, score, anomaly: true, steps: &[step, step],
            };
            let read: serde_json::Value = serde_json::from_slice(&forecast(&forecast_head(&key), &message)).unwrap();
            let step = step_json(&step);
            prop_assert_eq!(read, json!({
                "series": key, "origin": "1970-01-01T00:00:00Z", "model": "naive",
                "reading": {"value": value, "score": score, "anomaly": true}, "steps": [step, step],
            }));
        }
    }
}
